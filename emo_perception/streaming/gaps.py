"""Holes in a stream of stamps."""

from __future__ import annotations

import statistics
from collections import deque


class StampGaps:
    """Counts what is missing in a stream of regular stamps: intervals well over the usual one (the median of the last)."""

    def __init__(self) -> None:
        self.gaps = 0
        self.missing = 0
        self._last_ns: int | None = None
        self._intervals_ns: deque[int] = deque(maxlen=31)

    def see(self, stamp_ns: int) -> None:
        """Take the next stamp into account; one that is older starts anew."""
        interval_ns = stamp_ns - self._last_ns if self._last_ns is not None else 0
        self._last_ns = stamp_ns
        if interval_ns <= 0:
            self._intervals_ns.clear()
            return
        if len(self._intervals_ns) >= 5:
            usual_ns = statistics.median(self._intervals_ns)
            if interval_ns > 1.75 * usual_ns:
                self.gaps += 1
                self.missing += round(interval_ns / usual_ns) - 1
        self._intervals_ns.append(interval_ns)
