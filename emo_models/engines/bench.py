"""How fast engines are against eager fp32: both in one run, turn by turn, so that other load counts for both."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from emo_models.engines import catalogue
from emo_models.engines.backends import in_order
from emo_models.engines.backends.eager import EagerEngine
from emo_models.engines.export import DTYPES, ExportedNetwork, InPrecision
from emo_models.engines.measure import LEAST_RUNS
from emo_models.engines.protocol import Arrays, Engine, EngineError
from emo_models.engines.select import select
from emo_models.engines.source import network

BUDGET_S: Final = 3.0


@dataclass(frozen=True)
class Row:
    """Milliseconds of one engine and of eager fp32, wall clock and CPU; medians over ``runs`` turns."""

    network: str
    backend: str
    precision: str
    batch: int
    threads: int
    ms: float
    cpu_ms: float
    eager_ms: float
    eager_cpu_ms: float
    runs: int

    @property
    def ratio(self) -> float:
        """CPU time of the engine over that of eager fp32."""
        return self.cpu_ms / self.eager_cpu_ms


def bench(
    name: str, preset: str, work: Path, *, precisions: Sequence[str], batches: Sequence[int], threads: int,
    budget_s: float = BUDGET_S,
) -> Iterator[Row]:  # fmt: skip
    """Rows of every artefact of an engine that can be used here; none where there is none."""
    source = network(name, preset, work)
    eager = EagerEngine(
        name, InPrecision(source.part.module, DTYPES["fp32"]), source.inputs, source.outputs,
        precision="fp32", threads=threads,
    )  # fmt: skip
    entry = catalogue.part(name)
    for precision in dict.fromkeys(entry.precision(asked) for asked in precisions):
        for backend in in_order():
            try:
                engine = select(
                    name, preset, precision=precision, backend=backend.name, threads=threads, random=True
                ).engine
            except EngineError:
                continue
            for batch in (n for n in batches if n in entry.batches):
                yield _row(source, engine, eager, batch, budget_s)
            engine.close()


def _row(source: ExportedNetwork, engine: Engine, eager: Engine, batch: int, budget_s: float) -> Row:
    inputs = source.part.sample(np.random.default_rng(0), batch)
    taken: tuple[list[tuple[float, float]], list[tuple[float, float]]] = ([], [])
    both = (engine, eager)
    for one in both:
        one(inputs)
    end = time.perf_counter() + budget_s
    while len(taken[0]) < LEAST_RUNS or time.perf_counter() < end:
        for one, times in zip(both, taken, strict=True):
            times.append(_once(one, inputs))
    (ms, cpu_ms), (eager_ms, eager_cpu_ms) = (np.median(times, axis=0) for times in taken)
    return Row(
        engine.name, engine.backend, engine.precision, batch, engine.threads, float(ms), float(cpu_ms),
        float(eager_ms), float(eager_cpu_ms), len(taken[0]),
    )  # fmt: skip


def _once(engine: Engine, inputs: Arrays) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    engine(inputs)
    return (time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3
