"""Any sampling rate to the window's, chunk by chunk, as if the stream had been converted in one piece."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from emo_perception.types import NS_PER_S, AudioChunk

Float = NDArray[np.float32]

RATE_HZ = 16_000
"""What the window holds and the networks want."""
LOWEST_HZ, HIGHEST_HZ = 4_000, 192_000
ZERO_CROSSINGS = 12
"""Half width of the filter; with the Kaiser window aliases and images are 70 dB down."""
KAISER_BETA = 8.0
PASS = 0.94
"""Edge of the pass band, of half the lower rate."""
SLACK_NS = 20_000_000
"""Stamps jitter: a chunk this near to the end of the one before continues it."""


@lru_cache(maxsize=4)
def _filters(rate_hz: int) -> tuple[int, int, Float]:
    """Up and down factors to :data:`RATE_HZ` and the low-pass of each phase, float32 [up, taps]."""
    common = math.gcd(rate_hz, RATE_HZ)
    up, down = RATE_HZ // common, rate_hz // common
    cutoff = PASS * min(1.0, up / down)  # of half the input rate
    half = math.ceil(ZERO_CROSSINGS / min(1.0, up / down))
    offsets = np.arange(-half + 1, half + 1)[None] - np.arange(up)[:, None] / up
    window = np.i0(KAISER_BETA * np.sqrt(np.maximum(1 - (offsets / half) ** 2, 0))) / np.i0(KAISER_BETA)
    taps = cutoff * np.sinc(cutoff * offsets) * window
    return up, down, (taps / taps.sum(axis=1, keepdims=True)).astype(np.float32)


class Resampler:
    """Converts the chunks of one stream to 16 kHz; a hole, a jump or another rate starts anew.

    The output lags by the filter's half width (0.75 ms): that much of a chunk comes out with the next one.
    Raises ``ValueError`` for rates that no microphone has.
    """

    def __init__(self) -> None:
        self._rate_hz = 0
        self._end_ns = 0
        self._held: Float = np.zeros(0, np.float32)  # input not used up; begins half - 1 samples before the next output
        self._phase = 0  # of the next output, in 1/up samples after the first whole sample it needs

    def __call__(self, chunk: AudioChunk) -> AudioChunk:
        """The sound at 16 kHz, as far as its filter has what it needs; a chunk that is at 16 kHz comes back itself."""
        rate_hz = chunk.sample_rate_hz
        if rate_hz == RATE_HZ:
            return chunk
        if not LOWEST_HZ <= rate_hz <= HIGHEST_HZ:
            raise ValueError(f"audio: expected a sample rate of {LOWEST_HZ} to {HIGHEST_HZ} Hz, got {rate_hz} Hz")
        up, down, filters = _filters(rate_hz)
        taps = filters.shape[1]
        before = taps // 2 - 1
        if rate_hz != self._rate_hz or abs(chunk.stamp_ns - self._end_ns) > SLACK_NS:
            self._rate_hz, self._phase = rate_hz, 0
            self._held = np.zeros(before, np.float32)
        # Where the next output lies, in input samples from this chunk's first.
        start = before - len(self._held) + self._phase / up
        held = np.concatenate((self._held, chunk.samples.astype(np.float32)))
        ready = max((len(held) - taps) * up - self._phase, -1) // down + 1 if len(held) >= taps else 0
        steps = self._phase + down * np.arange(ready)
        whole, phases = steps // up, steps % up
        windows = np.lib.stride_tricks.sliding_window_view(held, taps)[whole] if ready else np.zeros((0, taps))
        samples = np.einsum("nt,nt->n", windows, filters[phases])
        used, self._phase = divmod(self._phase + down * ready, up)
        self._held = held[used:]
        if used > len(held):
            self._phase += (used - len(held)) * up
        self._end_ns = chunk.end_ns
        stamp_ns = chunk.stamp_ns + round(start * NS_PER_S / rate_hz)
        return AudioChunk(stamp_ns, np.clip(np.rint(samples), -32768, 32767).astype(np.int16), RATE_HZ, chunk.frame_id)
