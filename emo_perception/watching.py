"""The worker of seeing: visual tokens are computed beside the faces, which never wait for them.

Frames wait in a mailbox of their own; the newest ones win, and what a network missed while it was busy is counted.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

from emo_perception.stages.visual import VisualStage
from emo_perception.streaming.mailbox import DropPolicy, Mailbox, MailboxCounts
from emo_perception.streaming.stats import StageStats
from emo_perception.types import Frame, Utterance, VisualContext

log = logging.getLogger(__name__)

FRAMES = 4
"""Frames that may wait while one, or a clip, is encoded; few, so that a clip that is overdue ends with a new frame."""
IDLE_S = 0.5
"""The source has ended and nothing came for so long: what was under way has arrived."""
STOP_S = 2.0


class Watching:
    """Frames and utterances in, contexts out: ``say`` is called with each, in the worker or by who told of an utterance.

    ``frames`` and ``clips``: how long encoding a frame and a clip takes, and how often it failed.
    """

    def __init__(self, stage: VisualStage, say: Callable[[VisualContext], None]) -> None:
        self._stage, self._say = stage, say
        self._box: Mailbox[Frame] = Mailbox("visual", DropPolicy.KEEP_LATEST, FRAMES)
        self._ended = threading.Event()
        self.frames, self.clips = StageStats(), StageStats()
        self._worker = threading.Thread(target=self._work, name="emo-visual", daemon=True)

    def start(self) -> None:
        """Start the worker."""
        self._worker.start()

    def offer(self, frame: Frame) -> None:
        """Hand in a frame that the window has; never blocks. The oldest that waits makes room."""
        self._box.offer(frame)

    def utterance_ended(self, utterance: Utterance) -> None:
        """Somebody said something; from any thread."""
        self._tell([self._stage.utterance_ended(utterance)])

    def source_ended(self, ended: bool) -> None:
        """Whether the source has ended: then the last clip follows, and the next frame begins another stream."""
        if ended:
            self._ended.set()
        else:
            self._ended.clear()

    def counts(self) -> MailboxCounts:
        """Frames at this moment: offered, taken, dropped, waiting."""
        return self._box.counts()

    def stop(self) -> None:
        """End the worker once it has finished the frame under way. Safe to call twice."""
        self._box.close()
        if self._worker.is_alive():
            self._worker.join(STOP_S)
            if self._worker.is_alive():
                log.error("%s did not end within %.0f s", self._worker.name, STOP_S)

    def _work(self) -> None:
        anew, said_all = False, True
        while True:
            frame = self._box.take(IDLE_S)
            if frame is None and self._box.closed:
                return
            try:
                if frame is not None:
                    if anew:
                        self._stage.reset()
                    anew = said_all = False
                    self._see(frame)
                elif self._ended.is_set() and not said_all:
                    anew = said_all = True
                    self._tell(self._stage.flush())
            except Exception:
                # One bad frame must not end the worker: it is counted as failed and shown.
                log.exception("a frame could not be encoded")

    def _see(self, frame: Frame) -> None:
        due = self._stage.due(frame)
        try:
            if due.number is not None:
                with self.frames.measured(frame.stamp_ns):
                    self._stage.encode_frame(frame, due.number)
            if due.clip:
                with self.clips.measured(frame.stamp_ns):
                    clip = self._stage.encode_clip(frame.stamp_ns)
                self._tell([clip])
        finally:
            self._tell(self._stage.settle())

    def _tell(self, contexts: Iterable[VisualContext | None]) -> None:
        for context in contexts:
            if context is not None:
                self._say(context)
