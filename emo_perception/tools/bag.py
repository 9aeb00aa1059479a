"""``emo bag``: record, replay, inspect and process rosbag2 files, without a ROS installation.

Other packages add actions as entry points of the group ``emo_perception.bag_commands``: functions ``main(argv) -> int``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Final, NoReturn

from emo_models.engines import EngineError
from emo_models.weights import WeightsError
from emo_perception.bags import STORAGES, SUFFIXES, Bag, BagError
from emo_perception.config import EXIT_CONFIG, ConfigError, SourceConfig, SpeechConfig, load_profile
from emo_perception.files import profile_file
from emo_perception.preflight import require_ros
from emo_perception.sources import SourceError
from emo_perception.tools import cli
from emo_perception.tools.supervisor import child_environment
from emo_perception.types import NS_PER_S

EXIT_CODES = """\
exit code: 0 all well, 1 a bag is damaged: what could be read was used, 2 wrong usage, 78 nothing could be done"""
GROUP: Final = "emo_perception.bag_commands"
#: Actions of other packages, for a checkout that is not installed; setup.py registers the same ones.
BUILT_IN: Final = {
    "eval": "training.evaluation.bags.command:main",
    "export": "training.recordings.command:main",
    "make": "training.recordings.make:main",
}
EXIT_DAMAGED = 1
CLOCK_HZ = 100.0


def main(argv: Sequence[str] | None = None) -> int:
    """``emo bag``; returns the exit code. Recording and replaying become the process of their node."""
    given = list(sys.argv[1:] if argv is None else argv)
    others = cli.commands(GROUP, BUILT_IN)
    if given and given[0] in others:
        return cli.run_command(others[given[0]], given[1:])
    arguments = _parser(others).parse_args(given)
    try:
        code: int = arguments.run(arguments)
    except (BagError, ConfigError, EngineError, SourceError, WeightsError) as error:
        print(f"emo bag {arguments.action}: {error}", file=sys.stderr)
        return EXIT_CONFIG
    except OSError as error:
        print(f"emo bag {arguments.action}: {error.filename or ''}: {error.strerror}", file=sys.stderr)
        return EXIT_CONFIG
    return code


def _parser(others: Mapping[str, EntryPoint]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="emo bag",
        description="Bags without a ROS installation: record, replay, inspect, process.",
        epilog=EXIT_CODES,
    )
    actions = parser.add_subparsers(required=True, dest="action", metavar="ACTION")
    _add_record(actions.add_parser("record", help="write topics into a bag until Ctrl-C"))
    _add_replay(actions.add_parser("replay", help="publish a bag again, in real time, scaled or paused"))
    _add_process(actions.add_parser("process", help="run the stages over a bag or video, as fast as possible"))
    info = actions.add_parser("info", help="topics, types, counts, duration, storage, size")
    info.add_argument("bag", type=Path, metavar="BAG", help="folder, or one .mcap or .db3 file")
    info.add_argument("--json", action="store_true", help="for programs")
    info.set_defaults(run=_info)
    for name, entry in others.items():
        actions.add_parser(name, help=cli.summary(entry), add_help=False)
    return parser


def _add_record(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("topics", nargs="*", metavar="TOPIC", help="default: what the nodes of this graph publish")
    parser.add_argument("--out", type=Path, metavar="DIR", help="new folder (default: emo_bag_ and the time)")
    parser.add_argument("--all", action="store_true", help="every topic")
    parser.add_argument("--regex", default="", metavar="R", help="topics in whose name this is found")
    parser.add_argument("--raw-images", action="store_true", help="raw images too, with --all and --regex")
    parser.add_argument("--storage", choices=tuple(STORAGES), default="mcap", help="format (default: %(default)s)")
    _add_remap(parser)
    parser.set_defaults(run=_record)


def _add_replay(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bag", type=Path, metavar="BAG", help="folder, or one .mcap or .db3 file")
    parser.add_argument("--topics", nargs="+", default=[], metavar="TOPIC", help="only these, as recorded")
    parser.add_argument("--regex", default="", metavar="R", help="only topics in whose name this is found")
    parser.add_argument("--rate", type=float, default=1.0, metavar="X", help="speed; 2 is twice as fast")
    parser.add_argument("--paused", action="store_true", help="begin paused; the space key goes on and pauses")
    parser.add_argument("--loop", action="store_true", help="again and again")
    parser.add_argument("--offset", type=float, default=0.0, metavar="S", help="leave out the first seconds")
    parser.add_argument(
        "--clock", type=float, nargs="?", const=CLOCK_HZ, default=0.0, metavar="HZ",
        help=f"publish /clock for nodes with use_sim_time ({CLOCK_HZ:g} Hz)",
    )  # fmt: skip
    parser.add_argument(
        "--wait", type=float, default=0.0, metavar="S", help="begin when all topics have a subscriber, S s at the most"
    )
    _add_remap(parser)
    parser.set_defaults(run=_replay)


def _add_process(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, metavar="INPUT", help="bag, video or picture")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the results go")
    parser.add_argument("--image-topic", default="", metavar="TOPIC", help="needed where a bag has several cameras")
    parser.add_argument("--audio-topic", default="", metavar="TOPIC", help="needed where a bag has several microphones")
    parser.add_argument(
        "--utterance-topic", default="", metavar="TOPIC", help="take these words of the bag instead of listening"
    )
    parser.add_argument("--profile", default="start", help="which networks run (default: %(default)s)")
    parser.add_argument("--params-file", type=Path, metavar="FILE", help="your values, on top of the profile")
    parser.set_defaults(run=_process)


def _add_remap(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--remap", action="append", default=[], metavar="A:=B", type=_rule, help="another name for a topic; repeatable"
    )


def _rule(text: str) -> str:
    here, sign, there = text.partition(":=")
    if not (here and sign and there):
        raise argparse.ArgumentTypeError(f"expected OLD:=NEW, as /image_raw:=/camera/image_raw; got {text!r}")
    return text


def _record(arguments: argparse.Namespace) -> NoReturn:
    out = arguments.out or Path(time.strftime("emo_bag_%Y_%m_%d-%H_%M_%S"))
    print(f"recording into {out}; Ctrl-C ends it", flush=True)
    values = {
        "folder": str(out.expanduser().absolute()), "storage": arguments.storage, "topics": " ".join(arguments.topics),
        "regex": arguments.regex, "all": arguments.all, "raw_images": arguments.raw_images,
    }  # fmt: skip
    _become("recorder", values, arguments.remap)


def _replay(arguments: argparse.Namespace) -> NoReturn:
    values = {
        "bag": str(arguments.bag.expanduser().absolute()), "rate": arguments.rate, "paused": arguments.paused,
        "loop": arguments.loop, "offset_s": arguments.offset, "topics": " ".join(arguments.topics),
        "regex": arguments.regex, "clock_hz": arguments.clock, "wait_s": arguments.wait,
    }  # fmt: skip
    _become("player", values, arguments.remap)


def _become(process: str, values: Mapping[str, object], remap: Sequence[str]) -> NoReturn:
    """Turn into the process of a node: its terminal, its Ctrl-C and its exit code are ours. Raises :class:`ConfigError`."""
    require_ros()
    command = node_command(process, values, remap)
    sys.stdout.flush()
    os.execve(sys.executable, command, child_environment(command, os.environ))


def node_command(process: str, values: Mapping[str, object], remap: Sequence[str] = ()) -> list[str]:
    """The command that runs recorder or player with these parameters and remappings (``A:=B``)."""
    command = [sys.executable, "-m", "emo_perception.nodes", process, "--ros-args"]
    for name, value in values.items():
        # A JSON text is a YAML text: a folder called 123 stays a text.
        command += ["-p", f"{name}:={json.dumps(value, ensure_ascii=False)}"]
    for rule in remap:
        command += ["-r", rule]
    return command


def _info(arguments: argparse.Namespace) -> int:
    with Bag(arguments.bag.expanduser()) as bag:
        print(json.dumps(_facts(bag), ensure_ascii=False) if arguments.json else _page(bag))
    return EXIT_DAMAGED if bag.troubles else 0


def _facts(bag: Bag) -> dict[str, object]:
    topics = [{"name": t.name, "type": t.kind, "messages": t.count, "latched": t.latched} for t in bag.topics]
    return {
        "path": str(bag.path), "storage": bag.storage, "size_bytes": bag.size_bytes, "start_ns": bag.start_ns,
        "end_ns": bag.end_ns, "messages": bag.count, "topics": topics, "damage": bag.troubles,
    }  # fmt: skip


def _page(bag: Bag) -> str:
    duration_s = (bag.end_ns - bag.start_ns) / NS_PER_S
    began = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(bag.start_ns // NS_PER_S)) if bag.count else "-"
    lines = [
        f"bag       {bag.path}",
        f"storage   {bag.storage}, {bag.size_bytes / 1e6:.1f} MB",
        f"began     {began}",
        f"duration  {duration_s:.3f} s",
        f"messages  {bag.count}",
        *(f"damaged   {trouble}" for trouble in bag.troubles),
        "",
    ]
    width = max((len(topic.name) for topic in bag.topics), default=0)
    lines += [f"{topic.count:>8}  {topic.name:<{width}}  {topic.kind}" for topic in bag.topics]
    return "\n".join(lines)


def _process(arguments: argparse.Namespace) -> int:
    from emo_perception import offline  # the networks' libraries: not for info, which should answer at once
    from emo_perception.bag_input import bag_items, find_inputs

    given: Path = arguments.input.expanduser()
    files = [profile_file(arguments.profile), *([arguments.params_file] if arguments.params_file else [])]
    configs, tally = load_profile(*files), offline.Tally()
    troubles: list[str] = []
    words = ""
    if given.is_dir() or given.suffix in SUFFIXES:
        with Bag(given) as bag:
            speech = configs[SpeechConfig.node]
            assert isinstance(speech, SpeechConfig)
            inputs = find_inputs(
                bag, images=arguments.image_topic, sound=arguments.audio_topic, words=arguments.utterance_topic,
                listen=speech.enabled,
            )  # fmt: skip
            configs[SpeechConfig.node] = speech.with_values({"enabled": bool(inputs.sound)})
            offline.process(bag_items(bag, inputs, tally.refuse), configs, arguments.out, tally)
            troubles = bag.troubles
            words = f"\n{inputs.told}"
    else:
        source = configs[SourceConfig.node]
        assert isinstance(source, SourceConfig)
        offline.process(offline.file_items(given, source), configs, arguments.out, tally)
    speed = tally.stream_s / tally.wall_s
    print(
        f"{tally.frames} images ({tally.stream_s:.1f} s) in {tally.wall_s:.1f} s, {speed:.1f} times real time: "
        f"{tally.captions} captions, {tally.abstentions} abstentions, {tally.utterances} utterances, {tally.causes} causes; {', '.join((*offline.RESULTS, offline.ENGINES))} in {arguments.out}"
        f"{words}"
    )
    told = (
        f"{stage} {facts['backend']} {facts['backend_version']} {facts['precision']}"
        for stage, facts in tally.engines.items()
    )
    print(f"engines: {', '.join(told)}")
    if tally.withheld:
        print(f"emo bag process: {tally.withheld} captions withheld: they claim what was not measured", file=sys.stderr)
    if tally.late:
        print(f"emo bag process: {tally.late} images out of order: a newer one was before them", file=sys.stderr)
    for reason, count in tally.refused.items():
        print(f"emo bag process: {count} messages refused: {reason}", file=sys.stderr)
    for trouble in troubles:
        print(f"emo bag process: {trouble}; what could be read was processed", file=sys.stderr)
    return EXIT_DAMAGED if troubles or tally.refused else 0


if __name__ == "__main__":
    sys.exit(main())
