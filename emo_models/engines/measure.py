"""What is measured of an engine: how far it is from eager fp32, and how long a call takes."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from emo_models.engines.manifest import Latency, Parity, Tolerance
from emo_models.engines.protocol import Arrays, Engine

Outputs = Mapping[str, NDArray[Any]]

MOST_RUNS: Final = 50
LEAST_RUNS: Final = 5
#: Seconds for one engine and batch size.
BUDGET_S: Final = 1.0


def parity(pairs: Sequence[tuple[Outputs, Outputs]], classes: str = "") -> Parity:
    """Engine and eager outputs of the same inputs, pair by pair. ``classes``: output whose largest value is the answer.

    Whole numbers and truth values must be equal; where they are not, or a number is not finite, ``relative`` is infinite.
    """
    max_abs = relative = 0.0
    cosine = 1.0
    for got, expected in pairs:
        for name, want in expected.items():
            absolute, share, angle = _distance(np.asarray(got[name]), want)
            max_abs, relative, cosine = max(max_abs, absolute), max(relative, share), min(cosine, angle)
    agreement = None
    if classes:
        same = [(g[classes].argmax(-1) == e[classes].argmax(-1)).reshape(-1) for g, e in pairs]
        agreement = float(np.concatenate(same).mean())
    return Parity(max_abs, relative, cosine, agreement, len(pairs))


def _distance(got: NDArray[Any], want: NDArray[Any]) -> tuple[float, float, float]:
    if got.shape != want.shape or got.dtype != want.dtype:
        return math.inf, math.inf, -1.0
    if want.dtype.kind != "f":
        return (0.0, 0.0, 1.0) if np.array_equal(got, want) else (math.inf, math.inf, -1.0)
    if not np.isfinite(got).all():
        return math.inf, math.inf, -1.0
    a, b = got.astype(np.float64).reshape(-1), want.astype(np.float64).reshape(-1)
    absolute, largest = float(np.abs(a - b).max(initial=0.0)), float(np.abs(b).max(initial=0.0))
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return absolute, absolute / max(largest, 1e-12), float(a @ b) / norms if norms else 1.0


def beyond(found: Parity, tolerance: Tolerance, *, labels: bool) -> list[str]:
    """What is out of tolerance, with figures; empty where nothing is. ``labels``: whether classes mean anything."""
    faults = []
    if not found.relative <= tolerance.relative:
        faults.append(
            f"relative error {found.relative:.3g} (at most {tolerance.relative:g}), absolute {found.max_abs:.3g}"
        )
    if not found.cosine >= tolerance.cosine:
        faults.append(f"cosine {found.cosine:.6f} (at least {tolerance.cosine:g})")
    if labels and found.label_agreement is not None and found.label_agreement < tolerance.label_agreement:
        faults.append(f"label agreement {found.label_agreement:.3f} (at least {tolerance.label_agreement:g})")
    return faults


def times_ms(engine: Engine, inputs: Arrays, budget_s: float = BUDGET_S) -> NDArray[np.float64]:
    """Wall-clock milliseconds of single calls, after one that does not count."""
    engine(inputs)
    taken: list[float] = []
    end = time.perf_counter() + budget_s
    while len(taken) < LEAST_RUNS or (len(taken) < MOST_RUNS and time.perf_counter() < end):
        start = time.perf_counter()
        engine(inputs)
        taken.append((time.perf_counter() - start) * 1e3)
    return np.array(taken)


def latency(engine: Engine, inputs: Arrays, batch: int, budget_s: float = BUDGET_S) -> Latency:
    """p50 and p95 at one batch size."""
    taken = times_ms(engine, inputs, budget_s)
    p50, p95 = np.percentile(taken, (50, 95))
    return Latency(batch, float(p50), float(p95), len(taken))
