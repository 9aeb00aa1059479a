"""Keeps the memory's file up to date: not too often, and without trouble where it cannot be written."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Final

from emo_perception.memory.dialogue import DialogueMemory, Item
from emo_perception.memory.store import MemoryFile

log = logging.getLogger(__name__)

#: The file is written this often at the most, and at the end.
SAVE_S: Final = 1.0


class MemoryKeeper:
    """Writes a memory that changed; a disk that is full or read-only is told once, and counted. ``path``: None keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.not_saved = 0
        self._file = MemoryFile(path) if path is not None else None
        self._saved = (0, 0.0)

    def load(self) -> list[Item]:
        """What was kept."""
        return self._file.load() if self._file else []

    def save(self, memory: DialogueMemory, *, now: bool = False) -> None:
        """Write the memory if it changed, and ``now`` or long enough after the last time."""
        changes, saved_s = self._saved
        if self._file is None or memory.changes == changes or (time.monotonic() - saved_s < SAVE_S and not now):
            return
        self._saved = (memory.changes, time.monotonic())
        try:
            self._file.save(memory.items)
        except OSError as error:
            self.not_saved += 1
            if self.not_saved == 1:
                log.error("the memory cannot be kept in %s: %s; it goes on without", self.path, error.strerror)
