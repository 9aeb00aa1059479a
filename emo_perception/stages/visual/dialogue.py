"""What the cause network has seen of a dialogue so far, and had seen at the end of each utterance. Needs torch."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from emo_models.engines import EngineError
from emo_perception.types import NS_PER_S

Float = NDArray[np.float32]

SNAPSHOTS = 16
"""Utterances whose state is kept until their words are understood; beyond that the oldest goes, counted."""


@dataclass(frozen=True, eq=False)
class Seen:
    """R_t ``rows`` float32 [n, D] and R_s ``patches`` float32 [N, D] of FAME-Net, and the n ``frames``' numbers."""

    rows: Float
    patches: Float
    frames: NDArray[np.int64]
    start_ns: int
    end_ns: int


class Dialogue:
    """Frames on FAME-Net's dyadic grid from the first one on.

    That an utterance has ended is known after the pause that ends it, and its words later still. Frames therefore wait
    ``hold_s`` before they are pooled, so that the state at an utterance's end does not contain what came after it. For
    one that is told of even later (``late``), it does. Not thread safe.

    Raises :class:`EngineError` where torch is not installed.
    """

    def __init__(self, limit: int, rate_hz: float, hold_s: float) -> None:
        try:
            import torch

            from emo_models.networks.fame.streaming import DyadicVideo, FrameClock
        except ModuleNotFoundError as error:
            raise EngineError(
                f"visual.frames pools what it sees with torch, and {error.name} is not installed; type: make torch"
            ) from None
        self._rate_hz = rate_hz
        self._hold_ns = round(hold_s * NS_PER_S)
        self.video = DyadicVideo(limit, SNAPSHOTS)
        self._new_clock = partial(FrameClock, rate_hz)
        self._tensor = torch.from_numpy
        self.late = 0
        self.reset()

    def reset(self) -> None:
        """Another dialogue begins with the next frame."""
        self.video.reset()
        self._clock = self._new_clock()
        self._waiting: deque[tuple[int, int, Float]] = deque()
        self._start_ns: int | None = None
        self._pooled_ns = 0

    @property
    def frames(self) -> int:
        """Frames in use, those that wait included."""
        return len(self.video) + len(self._waiting)

    def number(self, stamp_ns: int) -> int | None:
        """The number of a frame on the grid, None for one that needs not be encoded; ask once for each, in order."""
        if self._start_ns is None:
            self._start_ns = stamp_ns
        number = self._clock(stamp_ns)
        return number if number is not None and self.video.wants(number) else None

    def add(self, stamp_ns: int, number: int, patches: Float) -> None:
        """Take in a frame's patches [N, D]."""
        self._waiting.append((stamp_ns, number, patches))
        self._pool(stamp_ns - self._hold_ns)

    def end(self, utterance: str, end_ns: int) -> Seen | None:
        """The state at the end of an utterance, kept under its id; all frames until then must have been added.

        None where there was no frame yet.
        """
        try:
            kept = self.video.at(utterance)
        except KeyError:
            self._pool(end_ns)
            if not len(self.video):
                return None
            self.late += self._pooled_ns > end_ns
            kept = self.video.snapshot(utterance)
        assert self._start_ns is not None
        last_ns = self._start_ns + round(kept.frames[-1] / self._rate_hz * NS_PER_S)
        numbers = np.array(kept.frames, np.int64)
        return Seen(kept.rows.numpy(), kept.patches.numpy(), numbers, self._start_ns, min(last_ns, end_ns))

    def _pool(self, until_ns: int) -> None:
        while self._waiting and self._waiting[0][0] <= until_ns:
            stamp_ns, number, patches = self._waiting.popleft()
            if self.video.push(self._tensor(patches), number):
                self._pooled_ns = stamp_ns
