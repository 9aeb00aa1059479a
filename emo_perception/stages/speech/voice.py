"""When somebody speaks: a voice detector and the rule that makes utterances of its probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emo_models.engines.select import open_card
from emo_perception.config import SpeechConfig
from emo_perception.streaming.resample import RATE_HZ
from emo_perception.types import NS_PER_S

Float = NDArray[np.float32]

FRAME = 512
"""Samples that the network judges at once: 32 ms at 16 kHz."""
CONTEXT = 64
"""Samples before them that it looks at too."""
FRAME_NS = FRAME * NS_PER_S // RATE_HZ
PAD_NS = 200_000_000
"""Given to the recogniser before and after the voice: quiet consonants begin and end words."""
HYSTERESIS = 0.15
"""A voice that has begun lasts until its probability is this much below the threshold."""
SPLIT_SHARE = 3
"""A voice that does not pause is cut at its quietest frame in the last third of the longest utterance."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Somebody spoke from ``start_ns`` to ``end_ns``; ``before`` and ``after``: with a pause there."""

    start_ns: int
    end_ns: int
    before: bool = True
    after: bool = True

    @property
    def stamp_ns(self) -> int:
        """The end."""
        return self.end_ns

    @property
    def utterance_id(self) -> str:
        """The id of the utterance that it becomes, where it is understood."""
        return f"u{self.start_ns}"


class VoiceDetector:
    """Silero's network over a stream: remembers what it heard. Raises as :func:`~emo_models.engines.select.open_card`."""

    def __init__(self) -> None:
        self.engine = open_card("voice_activity").engine
        self.reset()

    def reset(self) -> None:
        """Forget the sound so far."""
        self._state: dict[str, Float] = {"h": np.zeros((1, 1, 128), np.float32), "c": np.zeros((1, 1, 128), np.float32)}
        self._context: Float = np.zeros(CONTEXT, np.float32)

    def __call__(self, samples: NDArray[np.int16]) -> Float:
        """Probability of a voice in each frame, float32 [N], of int16 [N * 512] at 16 kHz."""
        if not len(samples):
            return np.zeros(0, np.float32)
        sound = np.concatenate((self._context, samples.astype(np.float32) / 32768))
        frames = np.lib.stride_tricks.sliding_window_view(sound, CONTEXT + FRAME)[::FRAME]
        found = self.engine({"samples": np.ascontiguousarray(frames), **self._state})
        self._state = {name: found[name].copy() for name in ("h", "c")}
        self._context = sound[-CONTEXT:].astype(np.float32)
        return found["voice"].reshape(-1).copy()

    def close(self) -> None:
        """Free the engine."""
        self.engine.close()


class Utterances:
    """Cuts a stream of probabilities into segments: from the first voiced frame to the last one before a pause."""

    def __init__(self, config: SpeechConfig) -> None:
        self.config = config
        self.reset()

    def reset(self) -> None:
        """Forget the utterance under way."""
        self._start_ns: int | None = None
        self._voiced_end_ns = 0
        self._voiced = 0
        self._begun = True  # else it goes on after a cut
        self._probabilities: list[float] = []

    @property
    def open(self) -> bool:
        """Whether somebody is speaking."""
        return self._start_ns is not None

    @property
    def since_ns(self) -> int | None:
        """When the utterance under way began; None between two."""
        return self._start_ns

    def add(self, stamp_ns: int, probability: float) -> Segment | None:
        """Take the frame that begins at ``stamp_ns``; returns the utterance that it ended, if any."""
        end_ns = stamp_ns + FRAME_NS
        if self._start_ns is None:
            if probability < self.config.voice:
                return None
            self._start_ns = stamp_ns
        self._probabilities.append(probability)
        if probability >= self.config.voice - HYSTERESIS:
            self._voiced_end_ns = end_ns
            self._voiced += 1
        if end_ns - self._voiced_end_ns >= self.config.pause_s * NS_PER_S:
            return self.flush()
        if end_ns - self._start_ns >= self.config.max_utterance_s * NS_PER_S:
            return self._split()
        return None

    def flush(self) -> Segment | None:
        """End the utterance under way, as at the end of the sound; None where it is too short to be one."""
        start_ns, end_ns, voiced, begun = self._start_ns, self._voiced_end_ns, self._voiced, self._begun
        self.reset()
        if start_ns is None or voiced * FRAME_NS < self.config.min_voice_s * NS_PER_S:
            return None
        return Segment(start_ns, end_ns, before=begun)

    def _split(self) -> Segment:
        assert self._start_ns is not None
        count = len(self._probabilities)
        first = count - count // SPLIT_SHARE
        at = first + int(np.argmin(self._probabilities[first:]))
        segment = Segment(self._start_ns, self._start_ns + at * FRAME_NS, before=self._begun, after=False)
        self._begun = False
        self._start_ns, self._probabilities = segment.end_ns, self._probabilities[at:]
        self._voiced = sum(p >= self.config.voice - HYSTERESIS for p in self._probabilities)
        return segment
