"""Is this stamp new, late, or has time started again?"""

from __future__ import annotations

from enum import Enum

from emo_perception.types import NS_PER_S


class Admission(Enum):
    """What a stamp means after those before it."""

    NEW = "new"
    LATE = "late"  #: not newer than the newest, but close to it: out of order or a duplicate
    RESTART = "restart"  #: far older: a looped bag or a restarted clock; all state of the past is void


class Timeline:
    """Follows the stamps of one stream. ``jump_back_s``: older than the newest by more than this is a restart."""

    def __init__(self, jump_back_s: float) -> None:
        self._jump_back_ns = round(jump_back_s * NS_PER_S)
        self.newest_ns: int | None = None

    def admit(self, stamp_ns: int) -> Admission:
        """Judge a stamp; NEW and RESTART make it the newest, LATE leaves no trace."""
        if self.newest_ns is not None and stamp_ns <= self.newest_ns:
            if self.newest_ns - stamp_ns <= self._jump_back_ns:
                return Admission.LATE
            self.newest_ns = stamp_ns
            return Admission.RESTART
        self.newest_ns = stamp_ns
        return Admission.NEW
