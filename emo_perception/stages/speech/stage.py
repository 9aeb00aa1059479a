"""Stage ``speech``: the window's sound in, utterances with words, times and speaker out."""

from __future__ import annotations

import numpy as np

from emo_perception.config import SpeechConfig
from emo_perception.stages.speech.recogniser import Recogniser, Spoken
from emo_perception.stages.speech.speaker import MouthWatch
from emo_perception.stages.speech.voice import FRAME, FRAME_NS, PAD_NS, Segment, Utterances, VoiceDetector
from emo_perception.streaming.resample import RATE_HZ
from emo_perception.streaming.window import SlidingWindow
from emo_perception.types import NS_PER_S, AudioChunk, Utterance, Word

FAR_NS = 2**62
WAITING = 4
"""Segments that may wait for the recogniser."""


def sound_s(config: SpeechConfig) -> float:
    """Seconds of sound that the window must hold: an utterance under way, one being understood, and those that wait."""
    return (WAITING + 2) * config.max_utterance_s


class SpeechStage:
    """Two steps, for two workers: :meth:`listen` finds who spoke when, ``__call__`` understands what.

    Both look into ``window``; only the voice detector keeps state. ``mouths`` is fed with every frame's faces.
    """

    name = "speech"

    def __init__(self, config: SpeechConfig, window: SlidingWindow) -> None:
        self._config = config
        self._window = window
        self.voice = VoiceDetector()
        self.engine = Recogniser(config.model, config.threads)
        self.mouths = MouthWatch(sound_s(config))
        self._utterances = Utterances(config)
        self._next_ns: int | None = None
        self.lost = self.noise = 0
        self.resting = False
        """Somebody else recognises the speech: the sound that comes meanwhile is not judged, also not later."""

    @property
    def config(self) -> SpeechConfig:
        """Thresholds; a change counts from the next frame of sound on."""
        return self._config

    @config.setter
    def config(self, config: SpeechConfig) -> None:
        self._config = self._utterances.config = config

    @property
    def speaking(self) -> bool:
        """Whether a voice is being heard."""
        return self._utterances.open

    @property
    def heard_ns(self) -> int:
        """Until when the sound has been judged; 0 before there is any."""
        return self._next_ns or 0

    def speaking_track(self) -> int | None:
        """Whose voice is being heard, as far as the lips tell by now; 0: unknown, None: nobody's. From any thread."""
        since_ns = self._utterances.since_ns
        return None if since_ns is None else self.mouths.speaker(since_ns, FAR_NS)

    def warmup(self) -> None:
        """Run both networks once."""
        self.voice(np.zeros(2 * FRAME, np.int16))
        self.voice.reset()
        self.engine(np.zeros(RATE_HZ, np.int16), self._config)

    def listen(self) -> list[Segment]:
        """Judge the sound that came into the window since the last call; returns the utterances that ended in it."""
        sound = self._window.audio(self._next_ns or 0, FAR_NS)
        if self.resting:
            self._next_ns = sound.end_ns if len(sound.samples) else self._next_ns
            self.voice.reset()
            return self.flush()  # what was said until then is still ours
        segments = []
        if self._next_ns is not None and sound.stamp_ns > self._next_ns and len(sound.samples):
            segments += self.flush()  # more came at once than the window holds: what is missing may have been a pause
            self.voice.reset()
        frames = len(sound.samples) // FRAME
        for i, probability in enumerate(self.voice(sound.samples[: frames * FRAME])):
            segment = self._utterances.add(sound.stamp_ns + i * FRAME_NS, float(probability))
            if segment is not None:
                segments.append(segment)
        if frames:
            self._next_ns = sound.stamp_ns + frames * FRAME_NS
        return segments

    def flush(self) -> list[Segment]:
        """End the utterance under way: the sound has ended or paused."""
        segment = self._utterances.flush()
        return [] if segment is None else [segment]

    def __call__(self, segment: Segment) -> Utterance | None:
        """Understand an utterance; None for noise, and for sound that the window no longer holds (``lost``)."""
        before, after = PAD_NS * segment.before, PAD_NS * segment.after
        sound = self._window.audio(segment.start_ns - before, segment.end_ns + after)
        if sound.end_ns < segment.end_ns or sound.stamp_ns > segment.start_ns:
            self.lost += 1
            return None
        spoken = self.engine(sound.samples, self._config)
        if spoken is None or spoken.confidence < self._config.min_confidence:
            self.noise += 1
            return None
        return self._utterance(segment, sound, spoken)

    def reset(self) -> None:
        """Time jumped back: forget the utterance under way and the mouths."""
        self._next_ns = None
        self._utterances.reset()
        self.voice.reset()
        self.mouths.clear()

    def close(self) -> None:
        """Free both networks."""
        self.voice.close()
        self.engine.close()

    def _utterance(self, segment: Segment, sound: AudioChunk, spoken: Spoken) -> Utterance:
        def at(seconds: float) -> int:
            return min(max(sound.stamp_ns + round(seconds * NS_PER_S), segment.start_ns), segment.end_ns)

        return Utterance(
            id=segment.utterance_id,
            start_ns=segment.start_ns,
            end_ns=segment.end_ns,
            text=spoken.text,
            track_id=self.mouths.speaker(segment.start_ns, segment.end_ns),
            language=spoken.language,
            confidence=spoken.confidence,
            words=tuple(Word(w.text, at(w.start_s), at(w.end_s), w.confidence) for w in spoken.words),
            frame_id=sound.frame_id,
        )
