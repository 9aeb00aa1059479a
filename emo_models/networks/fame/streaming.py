"""FAME-Net's video on the fly: Eq. 1-3 over a clip that grows, on a dyadic grid of frames.

The T middle frames of a growing clip change with every frame, so that nothing could be computed in advance. Here the
frames are counted from the start of the dialogue at a base rate, and level k holds those whose number is a multiple of
2^k. The level in use is the finest with at most T frames. Every arriving frame is encoded once and added to the sums of
the levels it belongs to; no old frame is ever touched. :func:`dyadic_frames` names the same set of a clip at rest, so
that stream and batch are one model.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from emo_models.networks.fame.pooling import join, temporal_rows


def dyadic_frames(numbers: Iterable[int], limit: int = 100) -> list[int]:
    """Of the frame ``numbers`` those on the finest level, 2^k apart, that holds at most ``limit`` of them."""
    kept = sorted(set(numbers))
    step = 1
    while len(kept) > limit:
        step *= 2
        kept = [number for number in kept if number % step == 0]
    return kept


class FrameClock:
    """Numbers frames at the base rate from the first stamp on, so that a camera's jitter does not move the grid."""

    def __init__(self, rate_hz: float) -> None:
        if rate_hz <= 0:
            raise ValueError(f"the base rate must be positive, got {rate_hz} Hz")
        self.rate_hz = rate_hz
        self._start_ns: int | None = None
        self._last = -1

    def __call__(self, stamp_ns: int) -> int | None:
        """Number of the frame, or None for one that falls on a number already taken (also when time runs back)."""
        if self._start_ns is None:
            self._start_ns = stamp_ns
        number = round((stamp_ns - self._start_ns) * self.rate_hz / 1e9)
        if number <= self._last:
            return None
        self._last = number
        return number


@dataclass(frozen=True)
class VideoSnapshot:
    """The clip up to a moment: ``rows`` R_t ``[n, D]``, ``patches`` R_s ``[N, D]``, ``frames``: their n numbers."""

    rows: Tensor
    patches: Tensor
    frames: tuple[int, ...]

    def features(self, pad_to: int = 0) -> Tensor:
        """R of Eq. 3, ``[n + N, D]``."""
        return join(self.rows, self.patches, pad_to)


@dataclass
class _Level:
    """Sum of the patch features of one level, and how many frames are in it."""

    total: Tensor
    count: int

    def add(self, x_ND: Tensor) -> None:
        self.total += x_ND
        self.count += 1


class DyadicVideo:
    """Running sums of Eq. 2 and rows of Eq. 1, in T rows and one ``[N, D]`` sum for each of about log2(n/T) levels.

    Speech reaches the network after it was spoken: :meth:`snapshot` keeps the state at the end of an utterance under
    its key. At most ``snapshots`` are kept; the oldest goes first and is counted in ``dropped_snapshots``.
    """

    def __init__(self, limit: int = 100, snapshots: int = 16) -> None:
        if limit < 1 or snapshots < 1:
            raise ValueError(f"limit and snapshots must be at least 1, got {limit} and {snapshots}")
        self.limit, self.max_snapshots = limit, snapshots
        self.dropped_snapshots = 0
        self.reset()

    def reset(self) -> None:
        """Forget the dialogue."""
        self._finest = 0
        self._last = -1
        self._numbers: list[int] = []
        self._rows: list[Tensor] = []
        self._levels: dict[int, _Level] = {}
        self._first: Tensor | None = None
        self._snapshots: OrderedDict[Hashable, VideoSnapshot] = OrderedDict()

    def __len__(self) -> int:
        """Frames in use."""
        return len(self._numbers)

    @property
    def level(self) -> int:
        """k of the level in use; its frames are 2^k numbers apart."""
        return self._finest

    def push(self, x_ND: Tensor, number: int) -> bool:
        """Add the patch features of one frame; false where it is on no level in use and thus needs not be encoded.

        Raises ``ValueError`` when ``number`` is not above the last one.
        """
        if number <= self._last:
            raise ValueError(f"frame {number} came after frame {self._last}; frames must arrive in order")
        self._last = number
        if not self.wants(number):
            return False
        x = x_ND.detach().to(torch.float32)
        if number == 0:
            self._first = x.clone()
        self._open_levels(number, x)
        for k, level in self._levels.items():
            if number % (1 << k) == 0:
                level.add(x)
        self._numbers.append(number)
        self._rows.append(temporal_rows(x))
        while self._levels[self._finest].count > self.limit:
            self._coarsen()
        return True

    def wants(self, number: int) -> bool:
        """Whether a frame of this number would be used: ask before it is encoded."""
        return number % (1 << self._finest) == 0

    def current(self) -> VideoSnapshot:
        """The clip so far. Raises ``ValueError`` before the first frame."""
        if not self._numbers:
            raise ValueError("no frame has arrived yet; push one before asking for the clip")
        level = self._levels[self._finest]
        return VideoSnapshot(torch.stack(self._rows), level.total / level.count, tuple(self._numbers))

    def snapshot(self, utterance: Hashable) -> VideoSnapshot:
        """Keep the clip so far as that of an utterance, at the moment the voice ends."""
        taken = self._snapshots[utterance] = self.current()
        self._snapshots.move_to_end(utterance)
        while len(self._snapshots) > self.max_snapshots:
            self._snapshots.popitem(last=False)
            self.dropped_snapshots += 1
        return taken

    def at(self, utterance: Hashable) -> VideoSnapshot:
        """The clip of an utterance. Raises ``KeyError`` naming the utterances that are still kept."""
        if utterance not in self._snapshots:
            raise KeyError(f"no snapshot of utterance {utterance!r}; kept: {list(self._snapshots)}")
        return self._snapshots[utterance]

    def _open_levels(self, number: int, like: Tensor) -> None:
        """Start the levels that this number is the first to tell from a level with frame 0 alone."""
        while (k := self._finest + len(self._levels)) <= max(number.bit_length(), self._finest):
            first = torch.zeros_like(like) if self._first is None or number == 0 else self._first
            self._levels[k] = _Level(first.clone(), int(self._first is not None and number != 0))

    def _coarsen(self) -> None:
        del self._levels[self._finest]
        self._finest += 1
        keep = [index for index, number in enumerate(self._numbers) if self.wants(number)]
        self._numbers = [self._numbers[index] for index in keep]
        self._rows = [self._rows[index] for index in keep]
