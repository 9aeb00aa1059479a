"""Frame rate, image size and chunk length: the same for every backend."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emo_perception.types import NS_PER_S, AudioChunk

SAMPLE_RATE_HZ = 16_000
# A wider hole between two runs of sound is a real gap, not jitter of the stamps.
AUDIO_GAP_NS = 40_000_000


class RateLimiter:
    """Thins frames out to at most ``fps`` (0 = keeps all), evenly, whatever the rate of the source."""

    def __init__(self, fps: float) -> None:
        self._period_ns = round(NS_PER_S / fps) if fps else 0
        self._due_ns: int | None = None

    def keep(self, stamp_ns: int) -> bool:
        """Whether the frame of this stamp goes on. A quarter period of jitter is forgiven."""
        if not self._period_ns:
            return True
        if self._due_ns is None or not -2 * self._period_ns < stamp_ns - self._due_ns < self._period_ns:
            self._due_ns = stamp_ns  # the first frame, a slower source, or time has jumped
        if stamp_ns < self._due_ns - self._period_ns // 4:
            return False
        self._due_ns += self._period_ns
        return True


def scaled_size(size_wh: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    """Size in pixels of an image scaled to ``width`` x ``height``; a zero follows from the aspect ratio."""
    source_width, source_height = size_wh
    if width and not height:
        height = max(1, round(source_height * width / source_width))
    elif height and not width:
        width = max(1, round(source_width * height / source_height))
    return (width, height) if width else size_wh


class AudioChunker:
    """Cuts 16 kHz mono sound into chunks of equal length, counting samples so that stamps carry no jitter.

    At a gap the samples held so far leave as a short chunk and the count starts again at the new stamp.
    """

    def __init__(self, chunk_ms: int, frame_id: str) -> None:
        self._chunk = SAMPLE_RATE_HZ * chunk_ms // 1000
        self._frame_id = frame_id
        self._start_ns = 0  # stamp of sample number zero of this run
        self._sent = 0  # samples of this run already given out
        self._held: NDArray[np.int16] = np.empty(0, np.int16)

    def push(self, stamp_ns: int, samples: NDArray[np.int16]) -> list[AudioChunk]:
        """Take a run of samples, int16 [n]; returns the chunks that are full now."""
        out: list[AudioChunk] = []
        if abs(stamp_ns - self._time_ns(self._sent + len(self._held))) > AUDIO_GAP_NS or not self._sent + len(
            self._held
        ):
            out = self.flush()
            self._start_ns, self._sent = stamp_ns, 0
        self._held = np.concatenate([self._held, samples])
        while len(self._held) >= self._chunk:
            out.append(self._cut(self._chunk))
        return out

    def flush(self) -> list[AudioChunk]:
        """The samples that do not fill a chunk, as one short chunk."""
        return [self._cut(len(self._held))] if len(self._held) else []

    def _cut(self, count: int) -> AudioChunk:
        chunk = AudioChunk(self._time_ns(self._sent), self._held[:count].copy(), SAMPLE_RATE_HZ, self._frame_id)
        self._held = self._held[count:]
        self._sent += count
        return chunk

    def _time_ns(self, samples: int) -> int:
        return self._start_ns + samples * NS_PER_S // SAMPLE_RATE_HZ
