"""Following faces that a detector finds anew in every frame: which box is whose."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from emo_perception.streaming.tracks import Box, TrackBook, distance, iou, may_be
from emo_perception.types import NS_PER_S

SETTLE_S: Final = 0.2
"""Time constant of a face's velocity."""
COAST_S: Final = 0.5
"""A face that is not seen is thought to go on as it went for this long."""
CROWDED: Final = 0.1
"""A box that overlaps more than this with where another face is expected may be either's: nobody's velocity learns."""


@dataclass(slots=True)
class Motion:
    """How the centre of a face moves: ``velocity`` in px/s."""

    velocity: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))

    def learn(self, old: Box, new: Box, passed_s: float) -> None:
        """The face went from one box to the other."""
        seen = (new[:2] + new[2:] / 2 - old[:2] - old[2:] / 2) / max(passed_s, 1e-3)
        self.velocity += (1 - math.exp(-passed_s / SETTLE_S)) * (seen - self.velocity)

    def expected(self, box: Box, passed_s: float) -> Box:
        """Where the face is thought to be, that time after it was seen in ``box``."""
        moved = box.copy()
        moved[:2] += self.velocity * min(passed_s, COAST_S)
        return moved


class Follower:
    """Gives each box of a frame the id of its track.

    Each track goes on where its motion leads it, also while it is hidden, so that two people who pass each other keep
    their ids. ``book`` keeps the ids, with its rules for those who were lost: see :class:`TrackBook`.
    """

    def __init__(self, keep_lost_s: float) -> None:
        self.book = TrackBook(keep_lost_s)
        self._motion: dict[int, Motion] = {}

    def __call__(self, stamp_ns: int, boxes: Sequence[Box], may_begin: Sequence[bool], most: int) -> dict[int, int]:
        """Index of a box -> id, for the boxes that a track was found or begun for.

        ``may_begin``: whether a box is enough to begin a track; ``most``: tracks at once; those that are followed come
        before others, and the first boxes before the later ones.
        """
        places = self._places(stamp_ns)
        match = self._matched(places, boxes)
        found = {i: track_id for i, track_id in match.items() if track_id in self.book.active}
        for track_id in set(self.book.active) - set(found.values()):
            self.book.lose(track_id)
        for i, track_id in found.items():
            self._learn(track_id, stamp_ns, boxes[i], places)
            self.book.update(track_id, stamp_ns, boxes[i])
        fresh: list[int] = []
        for i in range(len(boxes)):
            if i in found or len(found) + len(fresh) >= most:
                continue
            if i in match:
                self.book.back(match[i], stamp_ns, boxes[i])
                found[i] = match[i]
            elif may_begin[i]:
                fresh.append(i)
        tracks = self.book.enter(stamp_ns, [boxes[i] for i in fresh])
        return found | {i: track.track_id for i, track in zip(fresh, tracks, strict=True)}

    def expire(self, stamp_ns: int) -> tuple[int, ...]:
        """The tracks that end now; see :meth:`TrackBook.expire`."""
        return self._forget(self.book.expire(stamp_ns))

    def clear(self) -> tuple[int, ...]:
        """End all tracks; returns their ids."""
        return self._forget(self.book.clear())

    def _forget(self, gone: tuple[int, ...]) -> tuple[int, ...]:
        for track_id in gone:
            self._motion.pop(track_id, None)
        return gone

    def _places(self, stamp_ns: int) -> dict[int, Box]:
        """Where each known face is expected."""
        tracks = (*self.book.active.values(), *self.book.lost.values())
        return {
            track.track_id: self._motion.setdefault(track.track_id, Motion()).expected(
                track.box_xywh, (stamp_ns - track.last_seen_ns) / NS_PER_S
            )
            for track in tracks
        }

    def _matched(self, places: Mapping[int, Box], boxes: Sequence[Box]) -> dict[int, int]:
        """Index of a box -> track, nearest pairs first, then exchanged where two pairs are nearer the other way round."""
        known = {**self.book.active, **self.book.lost}
        costs = {
            (track_id, i): _cost(places[track_id], box)
            for track_id, track in known.items()
            for i, box in enumerate(boxes)
            if may_be(places[track_id], box) or may_be(track.box_xywh, box)
        }
        match: dict[int, int] = {}
        for _, track_id, i in sorted((cost, track_id, i) for (track_id, i), cost in costs.items()):
            if i not in match and track_id not in match.values():
                match[i] = track_id
        for a, b in itertools.combinations(tuple(match), 2):
            crossed = costs.get((match[a], b), math.inf) + costs.get((match[b], a), math.inf)
            if crossed < costs[match[a], a] + costs[match[b], b]:
                match[a], match[b] = match[b], match[a]
        return match

    def _learn(self, track_id: int, stamp_ns: int, box: Box, places: Mapping[int, Box]) -> None:
        if not any(iou(box, place) > CROWDED for other, place in places.items() if other != track_id):
            track = self.book.active[track_id]
            self._motion[track_id].learn(track.box_xywh, box, (stamp_ns - track.last_seen_ns) / NS_PER_S)


def _cost(expected: Box, box: Box) -> float:
    """Distance in face sizes, and how unlike the sizes are."""
    return distance(expected, box) + abs(
        math.log(max(float(box[2:].mean()), 1.0) / max(float(expected[2:].mean()), 1.0))
    )
