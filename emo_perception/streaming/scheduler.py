"""The same steps, two schedulers: live (the newest frame wins) and offline (nothing is dropped).

A step maps an item to an item. Live, every step has a worker thread of its own; only the door drops, between the
steps the giver waits, so a slow step shows as drops at one counted place. Offline, the steps run one after the other.
Listeners are called after their step, in the thread of that step.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from emo_perception.streaming.mailbox import DropPolicy, Mailbox, MailboxCounts
from emo_perception.streaming.stats import StageStats
from emo_perception.streaming.timeline import Admission, Timeline

log = logging.getLogger(__name__)


class Stamped(Protocol):
    """Anything with an acquisition time in nanoseconds."""

    @property
    def stamp_ns(self) -> int: ...


T = TypeVar("T", bound=Stamped)
Raw = TypeVar("Raw")
Listener = Callable[[T], None]

STOP_S = 5.0
"""How long a worker may take to finish its current item when the scheduler stops."""


class Step(Generic[T]):
    """One stage in its place: runs it, resets it when time jumps back, refuses late items, counts."""

    def __init__(self, name: str, run: Callable[[T], T], reset: Callable[[], None], *, jump_back_s: float) -> None:
        self.name = name
        self.stats = StageStats()
        self.listeners: list[Listener[T]] = []
        self._run = run
        self._reset = reset
        self._jump_back_s = jump_back_s
        self._timeline = Timeline(jump_back_s)

    def restart(self) -> None:
        """Forget what was seen: another stream begins, at whatever time."""
        self._reset()
        self._timeline = Timeline(self._jump_back_s)

    def __call__(self, item: T) -> T | None:
        """Run on one item; None when it was late. Whatever the stage raises goes through, counted as failed."""
        admission = self._timeline.admit(item.stamp_ns)
        if admission is Admission.LATE:
            self.stats.count_late()
            return None
        if admission is Admission.RESTART:
            log.info("%s: stamps jumped back, starting anew", self.name)
            self._reset()
        with self.stats.measured(item.stamp_ns):
            result = self._run(item)
        for listener in self.listeners:
            listener(result)
        return result


class OfflineScheduler(Generic[T]):
    """Runs every step on every item, in order, in the caller's thread: the same input gives the same output."""

    def __init__(self, steps: Sequence[Step[T]]) -> None:
        self.steps = tuple(steps)

    def run(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the finished items. An exception of a stage is the caller's."""
        for item in items:
            current: T | None = item
            for step in self.steps:
                if current is None:
                    break
                current = step(current)
            if current is not None:
                yield current


class LiveScheduler(Generic[Raw, T]):
    """One worker thread per step; the door keeps the latest raw item and drops the rest.

    ``admit`` turns a raw item (a message, say) into the first step's input, in the first worker, so that nothing is
    converted which is dropped afterwards; it may return None to refuse it. A stage that fails costs that item only.
    """

    def __init__(self, admit: Callable[[Raw], T | None], steps: Sequence[Step[T]]) -> None:
        self.steps = tuple(steps)
        self._admit = admit
        self._door: Mailbox[Raw] = Mailbox("door", DropPolicy.KEEP_LATEST)
        self._between: list[Mailbox[T]] = [Mailbox(step.name, DropPolicy.BLOCK, 2) for step in self.steps[1:]]
        self._threads = [
            threading.Thread(target=self._work, args=(i,), name=f"emo-{step.name}", daemon=True)
            for i, step in enumerate(self.steps)
        ]

    def start(self) -> None:
        """Start the workers."""
        for thread in self._threads:
            thread.start()

    def offer(self, raw: Raw) -> None:
        """Hand in a raw item; never blocks. What waits at the door is replaced."""
        self._door.offer(raw)

    def door(self) -> MailboxCounts:
        """Counters of the door: what was offered, taken and dropped."""
        return self._door.counts()

    def stop(self) -> None:
        """Finish what is under way and end the workers; safe to call twice."""
        self._door.close()
        for box, thread in zip([*self._between, None], self._threads, strict=True):
            if thread.is_alive():
                thread.join(STOP_S)
                if thread.is_alive():
                    log.error("%s did not end within %.0f s", thread.name, STOP_S)
            if box is not None:
                box.close()

    def _work(self, index: int) -> None:
        step = self.steps[index]
        onward = self._between[index] if index < len(self._between) else None
        while True:
            item = self._next(index)
            if item is None:
                return
            try:
                result = step(item)
            except Exception:
                # One bad frame must not end perception: it is counted as failed and shown.
                log.exception("%s failed on the frame of %d ns", step.name, item.stamp_ns)
                continue
            if result is not None and onward is not None:
                onward.offer(result)

    def _next(self, index: int) -> T | None:
        """The worker's next item, None at the end."""
        if index > 0:
            return self._between[index - 1].take()
        while (raw := self._door.take()) is not None:
            try:
                item = self._admit(raw)
            except Exception:
                log.exception("an item could not be taken in")
                continue
            if item is not None:
                return item
        return None
