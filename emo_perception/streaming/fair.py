"""A queue of several lanes that one worker serves in turn, so that no lane keeps another waiting."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Generic, TypeVar

from emo_perception.streaming.mailbox import MailboxCounts

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Bounded lanes for any number of givers and one taker, who gets from the lane that was served longest ago.

    A full lane refuses (drop policy ``DROP_NEW`` of :mod:`.mailbox`) and counts it.
    """

    def __init__(self, lanes: Mapping[str, int]) -> None:
        """``lanes``: name -> how many items may wait in it."""
        if not lanes or min(lanes.values()) < 1:
            raise ValueError(f"expected lanes with a capacity of at least 1 each, got {dict(lanes)}")
        self._capacity = dict(lanes)
        self._lanes: dict[str, deque[T]] = {name: deque() for name in lanes}
        self._turns = list(lanes)  # the one to be served next first
        self._offered, self._dropped = dict.fromkeys(lanes, 0), dict.fromkeys(lanes, 0)
        self._changed = threading.Condition()
        self._closed = False

    def offer(self, lane: str, item: T) -> bool:
        """Hand in an item; False when its lane was full or the queue closed."""
        with self._changed:
            self._offered[lane] += 1
            if self._closed or len(self._lanes[lane]) >= self._capacity[lane]:
                self._dropped[lane] += 1
                return False
            self._lanes[lane].append(item)
            self._changed.notify_all()
            return True

    def take(self, timeout_s: float | None = None) -> T | None:
        """The next item; None when the queue is closed and empty, or nothing came within ``timeout_s``."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not any(self._lanes.values()):
                left = None if deadline is None else deadline - time.monotonic()
                if self._closed or (left is not None and left <= 0):
                    return None
                self._changed.wait(left)
            lane = next(name for name in self._turns if self._lanes[name])
            self._turns.remove(lane)
            self._turns.append(lane)
            return self._lanes[lane].popleft()

    def close(self) -> None:
        """Refuse further items and wake everybody; what waits can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def counts(self) -> dict[str, MailboxCounts]:
        """Counters of each lane at this moment."""
        with self._changed:
            return {
                name: MailboxCounts(
                    self._offered[name], self._offered[name] - self._dropped[name] - len(lane), self._dropped[name], len(lane)
                )
                for name, lane in self._lanes.items()
            }  # fmt: skip
