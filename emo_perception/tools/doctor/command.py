"""``emo doctor``: finds what keeps the graph from running well, with the command that mends it."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

from emo_perception.files import profiles
from emo_perception.preflight import require_ros
from emo_perception.tools.doctor import devices, middleware, networks, parts, system
from emo_perception.tools.doctor.finding import Check, Context, Finding, Level, Told

EPILOG = """\
exit code: 0 nothing is wrong that keeps the graph from working (there may be warnings), 1 something is, 2 wrong usage;
with --strict warnings count too. Nothing is changed: every finding names the command that mends it."""


def _graph(context: Context) -> Iterator[Finding]:
    """The running graph; a middleware that does not load would end this process, so it was asked elsewhere before."""
    name, _ = middleware.implementation()
    if not name:
        yield Finding(Level.NOTE, "not looked at: the ROS middleware does not load")
        return
    require_ros()
    from emo_perception.tools.doctor.graph import graph

    yield from graph(context)


#: All checks, the fast ones first.
CHECKS = (
    Check("python", system.python),
    Check("ros", system.ros),
    Check("messages", system.messages),
    Check("profile", middleware.profile),
    Check("shared memory", middleware.shared_memory),
    Check("processor", system.processor),
    Check("disk", system.disk),
    Check("cameras", devices.cameras),
    Check("microphones", devices.microphones),
    Check("detector", parts.detector),
    Check("weights", parts.weight_files),
    Check("networks", networks.built),
    Check("opencv", parts.opencv),
    Check("decoders", parts.decoders),
    Check("openvino", parts.openvino),
    Check("middleware", middleware.rmw),
    Check("graph", _graph, graph=True),
)


def examine(context: Context, *, graph: bool = True) -> Iterator[Told]:
    """Findings of all checks, as they come; ``graph``: also of those that join the ROS graph."""
    for check in CHECKS:
        if graph or not check.graph:
            for finding in check.findings(context):
                yield Told(check.name, finding)


def main(argv: Sequence[str] | None = None) -> int:
    """``emo doctor``; returns the exit code."""
    arguments = _parser().parse_args(argv)
    context = Context(arguments.profile, arguments.image_topic, arguments.seconds)
    told = []
    for one in examine(context, graph=not arguments.no_graph):
        told.append(one)
        if not arguments.json:
            _print(one)
    worst = max((one.finding.level for one in told), default=Level.OK)
    failed = worst >= (Level.WARN if arguments.strict else Level.ERROR)
    if arguments.json:
        print(json.dumps({"ok": not failed, "findings": [one.as_json() for one in told]}, indent=2))
    else:
        counts = Counter(one.finding.level for one in told)
        print(f"\n{counts[Level.ERROR]} errors, {counts[Level.WARN]} warnings, {counts[Level.NOTE]} notes")
    return int(failed)


def _print(one: Told) -> None:
    print(f"{one.finding.level.name.lower():<5}  {one.check:<13}  {one.finding.what}")
    if one.finding.command:
        print(f"{'':<22}> {one.finding.command}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="emo doctor", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", choices=profiles(), default="start", help="whose weights and engines (start)")
    parser.add_argument("--no-graph", action="store_true", help="do not join the ROS graph: takes a second")
    parser.add_argument("--image-topic", default="", metavar="TOPIC", help="measure this one only, by its full name")
    parser.add_argument("--seconds", type=_seconds, default=3.0, help="how long images are measured (3)")
    parser.add_argument("--json", action="store_true", help="print all findings as one JSON object")
    parser.add_argument("--strict", action="store_true", help="warnings count as failures too")
    return parser


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.5 <= value <= 600:
        raise argparse.ArgumentTypeError(f"expected 0.5 to 600 seconds, got {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
