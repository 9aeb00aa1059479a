"""Who is who from frame to frame: ids that survive short occlusions and expire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from emo_perception.types import NS_PER_S

Box = NDArray[np.float32]
"""float32 [4]: x, y, width, height in pixels."""


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, in [0, 1]."""
    left, top = np.maximum(a[:2], b[:2])
    right, bottom = np.minimum(a[:2] + a[2:], b[:2] + b[2:])
    inside = max(right - left, 0.0) * max(bottom - top, 0.0)
    union = a[2] * a[3] + b[2] * b[3] - inside
    return float(inside / union) if union > 0 else 0.0


def distance(a: Box, b: Box) -> float:
    """Distance of the centres in mean face sizes; 0 = same place, 1 = one face further."""
    centres = a[:2] + a[2:] / 2 - (b[:2] + b[2:] / 2)
    size = (a[2:].mean() + b[2:].mean()) / 2
    return float(np.hypot(*centres) / max(size, 1e-6))


NEAR: Final = 1.5
"""A face comes back within this many face sizes of where it was lost."""
LIKE_SIZE: Final = 2.0
"""... and is at most this many times larger or smaller."""


def may_be(old: Box, new: Box) -> bool:
    """Whether two boxes may show the same person, by place and size."""
    ratio = new[2:].mean() / max(old[2:].mean(), 1e-6)
    return distance(old, new) <= NEAR and 1 / LIKE_SIZE <= ratio <= LIKE_SIZE


@dataclass(slots=True)
class Track:
    """One person in view. ``box_xywh``: where last seen."""

    track_id: int
    first_seen_ns: int
    last_seen_ns: int
    box_xywh: Box


class TrackBook:
    """Gives ids. A face that vanishes keeps its id for ``keep_lost_s``; if one appears near by in that time and of a
    like size, it is the same person."""

    def __init__(self, keep_lost_s: float) -> None:
        self.keep_lost_ns = round(keep_lost_s * NS_PER_S)
        self.active: dict[int, Track] = {}
        self.lost: dict[int, Track] = {}
        self._next_id = 1

    def update(self, track_id: int, stamp_ns: int, box: Box) -> Track:
        """An active track was seen again."""
        track = self.active[track_id]
        track.box_xywh, track.last_seen_ns = box, stamp_ns
        return track

    def lose(self, track_id: int) -> None:
        """An active track was not found in this frame."""
        self.lost[track_id] = self.active.pop(track_id)

    def back(self, track_id: int, stamp_ns: int, box: Box) -> Track:
        """A lost track was found again."""
        self.active[track_id] = self.lost.pop(track_id)
        return self.update(track_id, stamp_ns, box)

    def enter(self, stamp_ns: int, boxes: Sequence[Box]) -> list[Track]:
        """New faces: those near a lost track take its id, nearest pairs first; the others get new ids."""
        pairs = sorted(
            (distance(track.box_xywh, box), track.track_id, i)
            for i, box in enumerate(boxes)
            for track in self.lost.values()
            if may_be(track.box_xywh, box)
        )
        back: dict[int, int] = {}
        for _, track_id, i in pairs:
            if i not in back and track_id not in back.values():
                back[i] = track_id
        return [self._enter(stamp_ns, box, back.get(i)) for i, box in enumerate(boxes)]

    def expire(self, stamp_ns: int) -> tuple[int, ...]:
        """End the tracks that have been lost for too long; their ids are never given again."""
        gone = tuple(i for i, t in self.lost.items() if stamp_ns - t.last_seen_ns > self.keep_lost_ns)
        for track_id in gone:
            del self.lost[track_id]
        return gone

    def drop(self, track_id: int) -> None:
        """End an active track at once, as when two tracks turn out to follow the same face."""
        del self.active[track_id]

    def clear(self) -> tuple[int, ...]:
        """End all tracks; returns their ids. Ids go on counting, for listeners may still hold the old ones."""
        gone = (*self.active, *self.lost)
        self.active.clear()
        self.lost.clear()
        return gone

    def _enter(self, stamp_ns: int, box: Box, lost_id: int | None) -> Track:
        if lost_id is not None:
            return self.back(lost_id, stamp_ns, box)
        track = self.active[self._next_id] = Track(self._next_id, stamp_ns, stamp_ns, box)
        self._next_id += 1
        return track
