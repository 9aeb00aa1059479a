"""The two workers of hearing: one takes sound in and notices who speaks when, the other understands it.

Neither is on the way of a frame: sound waits in a mailbox of its own, and an utterance that is being understood keeps
only other utterances waiting.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from emo_perception.perception import Chain
from emo_perception.stages.speech import Segment
from emo_perception.stages.speech.stage import WAITING
from emo_perception.streaming.mailbox import DropPolicy, Mailbox, MailboxCounts
from emo_perception.streaming.stats import StageStats
from emo_perception.types import AudioChunk, Utterance

log = logging.getLogger(__name__)

Raw = TypeVar("Raw")

CHUNKS = 256
"""Pieces of sound that may wait: 16 s of 64 ms. Beyond that the oldest go, counted, and become silence."""
IDLE_S = 1.0
"""No sound for so long ends an utterance: the file has ended, or the microphone went away."""
STOP_S = 2.0


@dataclass(frozen=True, slots=True)
class HearingCounts:
    """What was heard: pieces of sound and utterances on their way, seconds spoken, and what became of nothing."""

    sound: MailboxCounts
    utterances: MailboxCounts
    bad: int
    lost: int
    noise: int
    speaking: bool


class Hearing(Generic[Raw]):
    """Sound in, utterances out, in two threads.

    ``read`` turns a raw item (a message, say) into PCM in the first worker; None refuses it. ``say`` is called with
    each utterance in the second one. Sound always reaches the chain's window, also where speech is switched off.
    """

    def __init__(
        self, chain: Chain, read: Callable[[Raw], AudioChunk | None], say: Callable[[Utterance], None]
    ) -> None:
        self._chain, self._read, self._say = chain, read, say
        self._sound: Mailbox[Raw] = Mailbox("sound", DropPolicy.KEEP_LATEST, CHUNKS)
        self._segments: Mailbox[Segment] = Mailbox("utterances", DropPolicy.KEEP_LATEST, WAITING)
        self._stopping = threading.Event()
        self._bad = 0
        self.stats = StageStats()
        self._threads = [
            threading.Thread(target=self._listen, name="emo-voice", daemon=True),
            threading.Thread(target=self._understand, name="emo-speech", daemon=True),
        ]

    def start(self) -> None:
        """Start the workers."""
        for thread in self._threads:
            thread.start()

    def offer(self, raw: Raw) -> None:
        """Hand in sound; never blocks. The oldest that waits makes room."""
        self._sound.offer(raw)

    def counts(self) -> HearingCounts:
        """Counters at this moment."""
        speech = self._chain.speech
        lost, noise, speaking = (speech.lost, speech.noise, speech.speaking) if speech else (0, 0, False)
        return HearingCounts(self._sound.counts(), self._segments.counts(), self._bad, lost, noise, speaking)

    def stop(self) -> None:
        """End the workers; an utterance under way is finished if it does not take long, what waits is not begun."""
        self._stopping.set()
        self._sound.close()
        self._segments.close()
        for thread in self._threads:
            thread.join(STOP_S)
            if thread.is_alive():
                log.error("%s did not end within %.0f s", thread.name, STOP_S)

    def _listen(self) -> None:
        while True:
            raw = self._sound.take(IDLE_S)
            if raw is None and self._sound.closed:
                return
            try:
                self._hear(raw)
            except ValueError as error:
                self._bad += 1
                log.warning("sound refused: %s", error)
            except Exception:
                # One bad piece must not end hearing.
                self._bad += 1
                log.exception("a piece of sound could not be heard")

    def _hear(self, raw: Raw | None) -> None:
        segments: list[Segment] = []
        if raw is not None:
            chunk = self._read(raw)
            segments = self._chain.hear(chunk) if chunk is not None else []
        else:
            segments = self._chain.hush()
        for segment in segments:
            self._segments.offer(segment)

    def _understand(self) -> None:
        while (segment := self._segments.take()) is not None:
            speech = self._chain.speech
            if speech is None or self._stopping.is_set():
                return
            try:
                with self.stats.measured(segment.stamp_ns):
                    utterance = speech(segment)
            except Exception:
                log.exception("speech failed on the utterance that ended at %d ns", segment.end_ns)
                continue
            if utterance is not None:
                self._say(utterance)
