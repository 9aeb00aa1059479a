"""Queues between threads. Every one names its drop policy and counts what it drops."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

T = TypeVar("T")


class DropPolicy(Enum):
    """What a full mailbox does with a new item."""

    KEEP_LATEST = "keep_latest"  #: the oldest waiting item makes room: live frames, the newest wins
    DROP_NEW = "drop_new"  #: the new item is refused: work already promised comes first
    BLOCK = "block"  #: the giver waits: nothing is ever lost


@dataclass(frozen=True, slots=True)
class MailboxCounts:
    """What went through a mailbox since it was made; ``offered = taken + dropped + waiting``."""

    offered: int
    taken: int
    dropped: int
    waiting: int


class Mailbox(Generic[T]):
    """A bounded queue for one taker and any number of givers."""

    def __init__(self, name: str, policy: DropPolicy, capacity: int = 1) -> None:
        if capacity < 1:
            raise ValueError(f"mailbox {name}: expected a capacity of at least 1, got {capacity}")
        self.name = name
        self.policy = policy
        self.capacity = capacity
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._offered = self._taken = self._dropped = 0

    def offer(self, item: T) -> bool:
        """Hand in an item; False when it was refused. Only a ``BLOCK`` mailbox waits, until there is room or it closes."""
        with self._changed:
            self._offered += 1
            if self.policy is DropPolicy.BLOCK:
                self._changed.wait_for(lambda: self._closed or len(self._items) < self.capacity)
            full = len(self._items) >= self.capacity
            if self._closed or (full and self.policy is not DropPolicy.KEEP_LATEST):
                self._dropped += 1
                return False
            if full:
                self._items.popleft()
                self._dropped += 1
            self._items.append(item)
            self._changed.notify_all()
            return True

    def take(self, timeout_s: float | None = None) -> T | None:
        """The oldest item; None when the mailbox is closed and empty, or nothing came within ``timeout_s``."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not self._items:
                left = None if deadline is None else deadline - time.monotonic()
                if self._closed or (left is not None and left <= 0):
                    return None
                self._changed.wait(left)
            self._taken += 1
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Refuse further items and wake everybody; what waits can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def counts(self) -> MailboxCounts:
        """Counters at this moment, consistent with each other."""
        with self._changed:
            return MailboxCounts(self._offered, self._taken, self._dropped, len(self._items))
