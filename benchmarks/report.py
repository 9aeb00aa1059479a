"""The figures of the start profile, the goals they are held to, and how both are shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.graph import GraphRun
from benchmarks.page import Goal, Part, table
from benchmarks.stages import StagesRun
from emo_models.engines.threads import cpu_threads

MOST_OVERHEAD = 0.15
MOST_LATENCY_P95_MS = 50.0
MOST_FACE_MS = 8.0


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


def part(figures: Figures, backend: str) -> Part:
    """The figures as a part of the report. ``backend``: what decoded the clips."""
    derived = {"overhead": figures.overhead, "inside_ms": figures.inside_ms, "face_ms": figures.face_ms}
    return Part("start", goals(figures), _text(figures, backend), {**dataclasses.asdict(figures), "derived": derived})


def _text(figures: Figures, backend: str) -> str:
    return "\n\n".join(
        (
            "## CPU time of one face, milliseconds per frame",
            table(("", "CPU-ms", "of the naive loop"), _cpu_rows(figures)),
            "The naive loop runs detector, mesh, blendshapes and expression on every frame. All are fed at 30 fps. The "
            "graph's figure is that of the perception process.",
            f"Start profile, {cpu_threads('face')} thread for detector and mesh each, 1 for each other network; decoded by "
            f"{backend}: H.264 640x480, 30 fps, no sound.",
            "## Where the overhead comes from, milliseconds per frame",
            table(("", "CPU-ms"), _overhead_rows(figures)),
            "## Graph",
            table(("", "frames", "faces", "latency p50", "p95", "p99 (ms)"), _graph_rows(figures)),
            "## More faces, stages alone",
            table(("faces seen", "CPU-ms"), [(f"{r.faces:.1f}", _ms(r.cpu_ms)) for r in figures.faces.values()]),
        )
    )  # fmt: skip


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


def _ms(value: float) -> str:
    return f"{value:.2f}"
