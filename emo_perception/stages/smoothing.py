"""Smoothing of per-track values over time, by stamps."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from emo_perception.types import NS_PER_S

Float = NDArray[np.float32]


class TrackSmoother:
    """First-order low-pass, one state per track: after ``time_constant_s`` a step has come through to 63 %."""

    def __init__(self) -> None:
        self._state: dict[int, tuple[int, Float]] = {}

    def __call__(self, track_id: int, stamp_ns: int, value: Float, time_constant_s: float) -> Float:
        """The smoothed value, float32 of the value's shape; the first value of a track passes unchanged."""
        before = self._state.get(track_id)
        if before is None or time_constant_s <= 0:
            smooth = value.copy()
        else:
            passed_s = (stamp_ns - before[0]) / NS_PER_S
            smooth = before[1] + np.float32(1 - math.exp(-passed_s / time_constant_s)) * (value - before[1])
        self._state[track_id] = (stamp_ns, smooth)
        return smooth

    def forget(self, track_ids: tuple[int, ...]) -> None:
        """Drop the state of ended tracks."""
        for track_id in track_ids:
            self._state.pop(track_id, None)

    def clear(self) -> None:
        """Drop all states."""
        self._state.clear()
