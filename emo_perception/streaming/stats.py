"""Counters of a stage at work: how many, how fast, how often it failed. An observer's view; stages do not measure themselves."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

RECENT = 512
"""Latencies that percentiles are taken over."""


@dataclass(frozen=True, slots=True)
class StatsSnapshot:
    """Counters of one stage. Latencies in milliseconds over the last runs, NaN before the first."""

    processed: int
    failed: int
    late: int
    last_stamp_ns: int
    p50_ms: float
    p95_ms: float


class StageStats:
    """Thread-safe counters; written by the worker, read by diagnostics."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent_ms: deque[float] = deque(maxlen=RECENT)
        self._processed = self._failed = self._late = 0
        self._last_stamp_ns = 0

    @property
    def last_ms(self) -> float:
        """How long the last run took, NaN before the first."""
        with self._lock:
            return self._recent_ms[-1] if self._recent_ms else float("nan")

    @contextmanager
    def measured(self, stamp_ns: int) -> Iterator[None]:
        """Count the block as one run on data of that stamp: processed, or failed when it raises."""
        start = time.perf_counter()
        try:
            yield
        except BaseException:
            with self._lock:
                self._failed += 1
            raise
        with self._lock:
            self._processed += 1
            self._last_stamp_ns = stamp_ns
            self._recent_ms.append((time.perf_counter() - start) * 1e3)

    def count_late(self) -> None:
        """Count an item refused because it was older than one already processed."""
        with self._lock:
            self._late += 1

    def snapshot(self) -> StatsSnapshot:
        """Counters at this moment."""
        with self._lock:
            recent = np.fromiter(self._recent_ms, np.float64)
            p50, p95 = np.percentile(recent, (50, 95)) if recent.size else (np.nan, np.nan)
            return StatsSnapshot(self._processed, self._failed, self._late, self._last_stamp_ns, float(p50), float(p95))
