"""The sliding window: the last seconds of frames and sound, in memory that is allocated once."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emo_models.preprocess import uniform_frames
from emo_perception.streaming.timeline import Admission, Timeline
from emo_perception.types import NS_PER_S, AudioChunk, Frame


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """Frames cut from the window. ``stamps_ns`` int64 [T]; ``images`` uint8 [T, H, W, 3] RGB, a copy."""

    stamps_ns: NDArray[np.int64]
    images: NDArray[np.uint8]


class FrameRing:
    """The last ``capacity`` frames, on average at most ``fps`` of them a second, all of one size.

    A frame of another size restarts the ring (the camera was reconfigured). Not thread safe.
    """

    def __init__(self, capacity: int, fps: float) -> None:
        self.capacity = capacity
        self._period_ns = round(NS_PER_S / fps)
        # A third of a period of tolerance, so that a jittering 30 fps stream still gives every n-th frame.
        self._slack_ns = self._period_ns // 3
        self._next_ns = 0
        self._images: NDArray[np.uint8] = np.empty((0, 0, 0, 3), np.uint8)
        self._stamps_ns = np.zeros(capacity, np.int64)
        self._count = 0

    def __len__(self) -> int:
        return min(self._count, self.capacity)

    def add(self, frame: Frame) -> bool:
        """Copy the frame in; False when it came too soon after the one before to be kept."""
        if self._count and frame.stamp_ns < self._next_ns - self._slack_ns:
            return False
        # The next one is due a period after this one was, else early frames add up to more than the ring can hold.
        due_ns = self._next_ns if self._count else frame.stamp_ns
        self._next_ns = max(due_ns + self._period_ns, frame.stamp_ns + 2 * self._slack_ns)
        if self._images.shape[1:] != frame.image.shape:
            self._images = np.empty((self.capacity, *frame.image.shape), np.uint8)
            self._count = 0
        slot = self._count % self.capacity
        self._images[slot] = frame.image
        self._stamps_ns[slot] = frame.stamp_ns
        self._count += 1
        return True

    def clip(self, start_ns: int, end_ns: int) -> Clip:
        """Copy of the frames with ``start_ns <= stamp <= end_ns``, oldest first."""
        chosen = self._between(start_ns, end_ns)
        return Clip(self._stamps_ns[chosen], self._images[chosen])

    def sample(self, start_ns: int, end_ns: int, count: int) -> Clip:
        """As :meth:`clip`, but ``count`` of them, evenly, as :func:`emo_models.preprocess.uniform_frames` chooses."""
        chosen = self._between(start_ns, end_ns)
        if len(chosen):
            chosen = chosen[uniform_frames(len(chosen), count)]
        return Clip(self._stamps_ns[chosen], self._images[chosen])

    def last(self, end_ns: int) -> Clip:
        """Copy of the newest frame with ``stamp <= end_ns``; empty where there is none."""
        chosen = self._between(0, end_ns)[-1:]
        return Clip(self._stamps_ns[chosen], self._images[chosen])

    def _between(self, start_ns: int, end_ns: int) -> NDArray[np.int64]:
        """Slots of the frames of that time, oldest first."""
        slots = np.arange(self._count - len(self), self._count) % self.capacity
        stamps = self._stamps_ns[slots]
        return slots[(stamps >= start_ns) & (stamps <= end_ns)]

    def clear(self) -> None:
        """Forget all frames; the memory stays."""
        self._count = 0


class AudioRing:
    """The last seconds of mono PCM on one time axis: holes become silence, overlaps keep what came first.

    Not thread safe.
    """

    def __init__(self, seconds: float, sample_rate_hz: int) -> None:
        self.sample_rate_hz = sample_rate_hz
        self.gaps = 0
        self._frame_id = ""
        self._data = np.zeros(round(seconds * sample_rate_hz), np.int16)
        self._origin_ns: int | None = None
        self._end = 0  # samples since the origin

    def add(self, chunk: AudioChunk) -> None:
        """Append. Raises ``ValueError`` for another sample rate than the ring's."""
        if chunk.sample_rate_hz != self.sample_rate_hz:
            raise ValueError(
                f"audio: expected {self.sample_rate_hz} Hz, got {chunk.sample_rate_hz} Hz; resample it first"
            )
        if self._origin_ns is None:
            self._origin_ns, self._end = chunk.stamp_ns, 0
        self._frame_id = chunk.frame_id
        start = self._index(chunk.stamp_ns)
        slack = self.sample_rate_hz // 50  # stamps jitter: up to 20 ms is no hole
        if abs(start - self._end) <= slack:
            start = self._end
        elif start > self._end:
            self.gaps += 1
            self._write(np.zeros(min(start - self._end, self._data.size), np.int16), start)
        self._write(chunk.samples[max(self._end - start, 0) :], start + len(chunk.samples))

    def cut(self, start_ns: int, end_ns: int) -> AudioChunk:
        """Copy of the sound within the times, clipped to what the ring still holds."""
        if self._origin_ns is None:
            return AudioChunk(start_ns, np.zeros(0, np.int16), self.sample_rate_hz)
        oldest = max(self._end - self._data.size, 0)
        first = min(max(self._index(start_ns), oldest), self._end)
        last = min(max(self._index(end_ns), first), self._end)
        samples = self._data[np.arange(first, last) % self._data.size]
        stamp_ns = self._origin_ns + first * NS_PER_S // self.sample_rate_hz
        return AudioChunk(stamp_ns, samples, self.sample_rate_hz, self._frame_id)

    @property
    def seconds(self) -> float:
        """How much sound it holds."""
        return 0.0 if self._origin_ns is None else min(self._end, self._data.size) / self.sample_rate_hz

    def clear(self) -> None:
        """Forget all sound; the memory stays."""
        self._origin_ns = None

    def _index(self, stamp_ns: int) -> int:
        assert self._origin_ns is not None
        return round((stamp_ns - self._origin_ns) * self.sample_rate_hz / NS_PER_S)

    def _write(self, samples: NDArray[np.int16], new_end: int) -> None:
        kept = samples[-self._data.size :]
        self._data[np.arange(new_end - len(kept), new_end) % self._data.size] = kept
        self._end = max(self._end, new_end)


@dataclass(frozen=True, slots=True)
class WindowCounts:
    """What the window holds and what it refused."""

    frames: int
    late_frames: int
    audio_s: float
    audio_gaps: int
    restarts: int


class SlidingWindow:
    """Frames of the last ``seconds`` and sound of the last ``sound_s`` (0 = as long), cut by header stamps; shared by
    all stages of the process.

    A stamp that jumps back by more than ``jump_back_s`` empties the window: what it held belongs to another time.
    """

    def __init__(
        self, seconds: float, fps: float, jump_back_s: float, sample_rate_hz: int = 16_000, *, sound_s: float = 0.0
    ) -> None:
        self._lock = threading.Lock()
        self.jump_back_s = jump_back_s
        # With the frames at both ends of the time.
        self._frames = FrameRing(round(seconds * fps) + 1, fps)
        self._audio = AudioRing(sound_s or seconds, sample_rate_hz)
        self._frame_time = Timeline(jump_back_s)
        self._audio_time = Timeline(jump_back_s)
        self._late = self._restarts = 0

    def add_frame(self, frame: Frame) -> None:
        """Take a frame in (copied, at most ``fps`` a second)."""
        with self._lock:
            admission = self._frame_time.admit(frame.stamp_ns)
            if admission is Admission.LATE:
                self._late += 1
                return
            if admission is Admission.RESTART:
                self._restarts += 1
                self._frames.clear()
            self._frames.add(frame)

    def add_audio(self, chunk: AudioChunk) -> Admission:
        """Take sound in and say how its stamp was judged. Raises ``ValueError`` for another rate than the window's."""
        with self._lock:
            admission = self._audio_time.admit(chunk.stamp_ns)
            if admission is Admission.RESTART:
                self._audio.clear()
            self._audio.add(chunk)
            return admission

    def clip(self, start_ns: int, end_ns: int) -> Clip:
        """Frames with ``start_ns <= stamp <= end_ns``, oldest first."""
        with self._lock:
            return self._frames.clip(start_ns, end_ns)

    def sample(self, start_ns: int, end_ns: int, count: int) -> Clip:
        """``count`` of the frames with ``start_ns <= stamp <= end_ns``, evenly, first and last among them.

        Fewer frames repeat some, none give an empty clip.
        """
        with self._lock:
            return self._frames.sample(start_ns, end_ns, count)

    def before(self, end_ns: int) -> Clip:
        """The newest frame that is not newer than ``end_ns``; empty where there is none."""
        with self._lock:
            return self._frames.last(end_ns)

    def audio(self, start_ns: int, end_ns: int) -> AudioChunk:
        """Sound between the two times, as far as the window holds it."""
        with self._lock:
            return self._audio.cut(start_ns, end_ns)

    def reset(self) -> None:
        """Forget everything: another stream begins, at whatever time. The memory stays."""
        with self._lock:
            self._frames.clear()
            self._audio.clear()
            self._frame_time, self._audio_time = Timeline(self.jump_back_s), Timeline(self.jump_back_s)

    def counts(self) -> WindowCounts:
        """What the window holds and refused so far."""
        with self._lock:
            return WindowCounts(len(self._frames), self._late, self._audio.seconds, self._audio.gaps, self._restarts)
