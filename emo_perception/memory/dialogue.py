"""The memory of a dialogue: utterances and visible events in order of time, bounded by minutes and tokens."""

from __future__ import annotations

import re
from bisect import insort
from collections.abc import Iterable
from dataclasses import replace
from typing import Final, TypeAlias

from emo_perception.memory.events import VisibleEvent
from emo_perception.types import NS_PER_S, Utterance

Item: TypeAlias = "Utterance | VisibleEvent"

#: What one visible event counts.
EVENT_TOKENS: Final = 6
#: Longer utterances are cut; nobody says this in one breath.
MAX_CHARACTERS: Final = 2000
_TOKEN: Final = re.compile(r"\w+|[^\w\s]")


def tokens_of(item: Item) -> int:
    """Words and punctuation marks of an utterance with its speaker; a constant for an event."""
    if isinstance(item, VisibleEvent):
        return EVENT_TOKENS
    return len(_TOKEN.findall(item.text)) + len(_TOKEN.findall(item.speaker)) + 2


class DialogueMemory:
    """Items sorted by their start. The oldest are forgotten, and counted, when ``minutes`` or ``tokens`` are exceeded.

    ``changes`` counts what was added, replaced or forgotten.
    """

    def __init__(self, minutes: float, tokens: int) -> None:
        self.minutes, self.max_tokens = minutes, tokens
        self.forgotten = 0
        self.changes = 0
        self._items: list[Item] = []
        self._tokens = 0
        self._newest_ns = 0

    @property
    def items(self) -> tuple[Item, ...]:
        """Everything remembered, by start."""
        return tuple(self._items)

    @property
    def tokens(self) -> int:
        """Tokens of everything remembered."""
        return self._tokens

    @property
    def newest_ns(self) -> int:
        """The latest end of an item, or the latest moment told to :meth:`expire`; 0 while nothing is known."""
        return self._newest_ns

    def add(self, item: Item) -> None:
        """Remember an item; an utterance or event that is already known is replaced by the newer telling."""
        if isinstance(item, Utterance):
            item = replace(item, text=item.text[:MAX_CHARACTERS], words=())  # word times are of no use here
        for index, known in enumerate(self._items):
            if _identity(known) == _identity(item):
                self._tokens -= tokens_of(self._items.pop(index))
                break
        self.changes += 1
        insort(self._items, item, key=lambda i: (i.start_ns, i.end_ns))
        self._tokens += tokens_of(item)
        self.expire(item.end_ns)

    def expire(self, now_ns: int) -> None:
        """Forget what is too old at this moment, or too much."""
        self._newest_ns = max(self._newest_ns, now_ns)
        oldest_ns = self._newest_ns - round(self.minutes * 60 * NS_PER_S)
        while self._items and (self._items[0].end_ns < oldest_ns or self._tokens > self.max_tokens):
            self._tokens -= tokens_of(self._items.pop(0))
            self.forgotten += 1
            self.changes += 1

    def extend(self, items: Iterable[Item]) -> None:
        """Remember several."""
        for item in items:
            self.add(item)

    def clear(self) -> None:
        """Forget everything, as when time jumps back."""
        self._items.clear()
        self.changes += 1
        self._tokens = self._newest_ns = 0

    def utterance(self, utterance_id: str) -> Utterance | None:
        """The newest utterance of that id."""
        found = (i for i in reversed(self._items) if isinstance(i, Utterance) and i.id == utterance_id)
        return next(found, None)

    def names(self) -> dict[int, str]:
        """Face -> name, as far as utterances of a known speaker tell; the newest wins."""
        return {i.track_id: i.speaker for i in self._items if isinstance(i, Utterance) and i.track_id and i.speaker}


def _identity(item: Item) -> object:
    return item.key if isinstance(item, VisibleEvent) else (item.id, item.start_ns)  # a speech node may count anew
