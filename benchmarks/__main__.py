"""``python -m benchmarks``: what the start profile costs, alone, through ROS, and beside a naive loop.

One run, one kind of material; the figures are meant to be compared with each other. Exit code 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import clips, graph, naive, report, stages
from emo_models.fetch import Puller, PullError
from emo_models.weights import card, profiles
from emo_perception.config import EXIT_CONFIG, ConfigError, SourceConfig, load_profile
from emo_perception.files import profile_file
from emo_perception.sources import open_source

PROFILE = "start"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write the report; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S", help="length of the clips (%(default)s)")
    arguments = parser.parse_args(argv)
    graph.prepare_ros()
    load = os.getloadavg()[0]
    try:
        with Puller() as puller:
            for name in profiles()[PROFILE]:
                puller.pull(card(name))
        with tempfile.TemporaryDirectory(prefix="emo_bench_") as folder:
            figures, backend = measure(Path(folder), arguments.seconds)
    except (ConfigError, PullError, graph.BenchError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return EXIT_CONFIG
    facts = report.conditions(backend, load, PROFILE)
    report.write(arguments.out, figures, facts)
    print(f"\n{report.markdown(figures, facts)}\nWritten to {arguments.out}: report.md, report.json")
    return 0 if all(goal.met for goal in report.goals(figures)) else 1


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
