"""Recorded time on the steady clock: at any speed, paused or not, changed while it runs."""

from __future__ import annotations

import threading
import time


class Pace:
    """Where a playback is. Thread-safe; ``rate`` is recorded seconds per second."""

    def __init__(self, start_ns: int, rate: float, *, paused: bool) -> None:
        self._changed = threading.Condition()
        self._closed = False
        self._from_ns, self._since_ns = start_ns, time.monotonic_ns()
        self._rate, self._paused = rate, paused

    def now_ns(self) -> int:
        """The recorded time that is due at this moment."""
        with self._changed:
            return self._now_ns()

    def change(self, rate: float, *, paused: bool) -> None:
        """Go on from where it is, in another way."""
        with self._changed:
            self._from_ns, self._since_ns = self._now_ns(), time.monotonic_ns()
            self._rate, self._paused = rate, paused
            self._changed.notify_all()

    def jump(self, to_ns: int) -> None:
        """Go on from ``to_ns``."""
        with self._changed:
            self._from_ns, self._since_ns = to_ns, time.monotonic_ns()
            self._changed.notify_all()

    def wait(self, until_ns: int) -> float | None:
        """Return when ``until_ns`` is due, with the seconds by which that is late; None once closed."""
        with self._changed:
            while not self._closed:
                left_s = (until_ns - self._now_ns()) / self._rate / 1e9
                if left_s <= 0 and not self._paused:
                    return -left_s
                self._changed.wait(None if self._paused else left_s)
            return None

    def close(self) -> None:
        """End all waiting, now and later."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _now_ns(self) -> int:
        if self._paused:
            return self._from_ns
        return self._from_ns + round((time.monotonic_ns() - self._since_ns) * self._rate)
