"""``python -m benchmarks``: what the stages cost; one run, one report, the start profile's parts or those that are named.

start: alone, through ROS, and beside a naive loop. speech: recognition, and its effect on frames. dialogue: the delay of
a cause. hour: memory over an hour of a simulated stream. Only where they are named, for they build engines that are missing
(make engines): engines: compiled networks of the papers against eager torch, at paper size half an hour; captions: ECPA's
cache, its writer, and the delay of its captions; causes: FAME-Net's delay after short and long dialogues (any weights do);
streaming: visual tokens, what is left to do at an utterance's end, and memory after thousands of windows. Exit code 1 when a
goal is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import (
    captions,
    causes,
    clips,
    dialogue,
    engines,
    graph,
    hour,
    naive,
    page,
    report,
    speech,
    stages,
    streaming,
)  # fmt: skip
from emo_models.engines import EngineError, catalogue
from emo_models.fetch import Puller, PullError
from emo_models.weights import card, profiles
from emo_perception.config import EXIT_CONFIG, ConfigError, SourceConfig, load_profile
from emo_perception.files import profile_file
from emo_perception.sources import open_source

PROFILE = "start"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write the report; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: those of profile start"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S", help="length of the clips (%(default)s)")
    parser.add_argument(
        "--preset",
        choices=catalogue.BUILT_PROFILES,
        help="of engines (default: paper) and captions, causes, streaming (default: toy)",
    )
    parser.add_argument("--network", action="append", metavar="NAME", help="of engines: only this one; repeatable")
    arguments = parser.parse_args(argv)
    arguments.parts = arguments.parts or [name for name in PARTS if name not in BUILT]
    unknown = [name for name in arguments.parts if name not in PARTS]
    if unknown:
        parser.error(f"expected parts of {', '.join(PARTS)}, got {', '.join(unknown)}")
    load = os.getloadavg()[0]
    try:
        graph.prepare_ros()
        if set(arguments.parts) - BUILT:
            with Puller() as puller:
                for name in (*speech.PEOPLE, *profiles()[PROFILE]):
                    puller.pull(card(name))
        parts = [PARTS[name](arguments) for name in arguments.parts]
    except (ConfigError, PullError, EngineError, graph.BenchError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return EXIT_CONFIG
    facts = page.conditions(load)
    page.write(arguments.out, parts, facts)
    print(f"\n{page.markdown(parts, facts)}\nWritten to {arguments.out}: report.md, report.json")
    return 0 if all(goal.met for part in parts for goal in part.goals) else 1


def _start(arguments: argparse.Namespace) -> page.Part:
    with tempfile.TemporaryDirectory(prefix="emo_bench_") as folder:
        return report.part(*measure(Path(folder), arguments.seconds))


def _speech(_: argparse.Namespace) -> page.Part:
    _say("speech, alone and beside frames")
    return speech.part(speech.measure())


def _dialogue(_: argparse.Namespace) -> page.Part:
    _say("causes, alone and over DDS")
    return dialogue.part(dialogue.measure())


def _hour(_: argparse.Namespace) -> page.Part:
    _say("an hour of a simulated stream")
    return hour.part(hour.measure())


def _engines(arguments: argparse.Namespace) -> page.Part:
    preset = arguments.preset or "paper"
    return engines.part(engines.measure(preset, arguments.network or catalogue.names(preset), _say))


def _captions(arguments: argparse.Namespace) -> page.Part:
    return captions.part(captions.measure(arguments.preset or "toy", _say))


def _causes(arguments: argparse.Namespace) -> page.Part:
    with Puller() as puller:
        for name in ("minilm", "minilm_tokenizer"):
            puller.pull(card(name))
    return causes.part(causes.measure(arguments.preset or "toy", _say))


def _streaming(arguments: argparse.Namespace) -> page.Part:
    return streaming.part(streaming.measure(arguments.preset or "toy", _say))


PARTS: dict[str, Callable[[argparse.Namespace], page.Part]] = {
    "start": _start,
    "speech": _speech,
    "dialogue": _dialogue,
    "hour": _hour,
    "engines": _engines,
    "captions": _captions,
    "causes": _causes,
    "streaming": _streaming,
}
#: Parts of the networks that are built or trained, which need torch and none of the profile's files.
BUILT = {"engines", "captions", "causes", "streaming"}


def measure(folder: Path, seconds: float) -> tuple[report.Figures, str]:
    """All measurements, one after the other, and which backend decodes; the clips are written into ``folder``."""
    _say("writing the clips")
    one = clips.write_one_face(folder / "one.mp4", seconds)
    six = clips.write_six_faces(folder / "six.mp4", seconds)
    backend = open_source(SourceConfig(uri=str(one))).backend
    configs = load_profile(profile_file(PROFILE))
    frames = clips.read(six)[: round(seconds * clips.FPS / 4)]
    faces = {}
    for count in range(1, clips.MOST_FACES + 1):
        _say(f"bare stages, {count} of {clips.MOST_FACES} people")
        faces[count] = stages.measure(clips.with_faces(frames, count), configs)
    _say("source alone")
    source_ms = stages.measure_source(one)
    frames = clips.read(one)
    offered = len(frames)
    frames = frames[: offered // 2]
    _say("naive loop")
    naive_ms = naive.measure(frames)
    _say("bare stages")
    bare = stages.measure(frames, configs)
    figures = report.Figures(
        naive_ms,
        bare,
        faces,
        source_ms,
        graph=_graph("images over DDS", one, offered),
        graph_inside=_graph("source inside", one, offered, inside=True),
        graph_six=_graph("six people", six, offered),
        torch="torch" in sys.modules,
    )
    return figures, backend


def _graph(text: str, clip: Path, frames: int, *, inside: bool = False) -> graph.GraphRun:
    _say(f"graph, {text}")
    return graph.measure(clip, frames, inside=inside)


def _say(what: str) -> None:
    print(f"benchmarks: {what} ...", flush=True)


if __name__ == "__main__":
    sys.exit(main())
