"""The queue between the thread that reads a source and the thread that hands its items to their user."""

from __future__ import annotations

import threading
from collections import deque

from emo_perception.sources.base import Item, SourceStatus
from emo_perception.types import Frame

Entry = Item | SourceStatus


class Outbox:
    """Keeps the order of images, sound and states. Policy: of images the newest wins, and the replaced are counted;
    sound and states are never dropped. With ``lossless`` the giver waits until the image before is taken instead.
    """

    def __init__(self, *, lossless: bool) -> None:
        self._lossless = lossless
        self._entries: deque[Entry | None] = deque()  # None: a frame that was replaced by a newer one
        self._frame_at: int | None = None  # place of the waiting frame, counted from the first entry ever
        self._taken = 0
        self._dropped = 0
        self._closed = False
        self._changed = threading.Condition()

    @property
    def dropped(self) -> int:
        """Frames that were replaced before they were taken."""
        return self._dropped

    def put(self, entry: Entry) -> None:
        """Hand in; waits only for a frame of a lossless outbox."""
        with self._changed:
            if isinstance(entry, Frame):
                if self._lossless:
                    self._changed.wait_for(lambda: self._frame_at is None or self._closed)
                if self._frame_at is not None:
                    self._entries[self._frame_at - self._taken] = None
                    self._dropped += 1
                self._frame_at = self._taken + len(self._entries)
            if not self._closed:
                self._entries.append(entry)
            self._changed.notify_all()

    def take(self) -> Entry | None:
        """The oldest entry, waited for; None once closed and empty."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._entries or self._closed)
                if not self._entries:
                    return None
                entry = self._entries.popleft()
                if self._frame_at == self._taken:
                    self._frame_at = None
                    self._changed.notify_all()
                self._taken += 1
                if entry is not None:
                    return entry

    def close(self, *, discard: bool = False) -> None:
        """Refuse further entries; what waits can still be taken unless ``discard``."""
        with self._changed:
            self._closed = True
            if discard:
                self._entries.clear()
            self._changed.notify_all()
