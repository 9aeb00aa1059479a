"""Node ``caption``: emotion features, and clips for a network, in; sentences out. The callbacks hand over; one worker runs the stage."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import TypeAlias

from rclpy.node import Node

from emo_models.engines import EngineError
from emo_msgs.msg import EmotionFeatures, SourceState, VisualContext
from emo_perception import from_msg
from emo_perception.config import CaptionConfig, PerceptionConfig
from emo_perception.loading import Loading
from emo_perception.nodes import qos
from emo_perception.nodes.caption_voice import CaptionVoice
from emo_perception.nodes.diagnostics import Diagnostics, Level, Status, WorkStatus
from emo_perception.nodes.loading import loading_status
from emo_perception.nodes.parameters import declare
from emo_perception.stages.caption import CaptionWriter, make_writer
from emo_perception.streaming.gaps import StampGaps
from emo_perception.streaming.mailbox import DropPolicy, Mailbox
from emo_perception.streaming.stats import StageStats
from emo_perception.streaming.timeline import Admission, Timeline
from emo_perception.types import Caption

WAITING = 1024
"""Features that may wait: half a minute at 30 Hz. Should the stage ever fall that far behind, the oldest go, counted."""

IDLE_S = 0.5
"""The source has ended and nothing came for so long: what was under way in perception has arrived."""

STOP_S = 2.0

Input: TypeAlias = "EmotionFeatures | VisualContext"


class CaptionNode(Node):
    """Subscribes ``emotion_features``, ``source_state`` and, where a network writes, ``visual_context``; publishes
    ``emotion_caption``, ``emotion_caption/text`` and, while a network writes, ``emotion_caption/partial``.

    What goes out is :class:`.caption_voice.CaptionVoice`'s.
    """

    def __init__(self) -> None:
        super().__init__(CaptionConfig.node)
        self.parameters = declare(self, CaptionConfig)
        learned = self.parameters.current.writer != "evidence"
        self._loading = Loading(self._make_writer, self.get_logger().error)
        self._writer: CaptionWriter | None = None
        self._timeline = Timeline(PerceptionConfig().jump_back_s)
        self._box: Mailbox[tuple[Input, float]] = Mailbox("features", DropPolicy.KEEP_LATEST, WAITING)
        self._stats, self._gaps = StageStats(), StampGaps()
        self._counts = dict.fromkeys(("restarts", *(["overtaken"] if learned else [])), 0)
        self._newest_clip: VisualContext | None = None
        self._misfit = ""
        self._ended, self._closing = threading.Event(), threading.Event()
        self._voice = CaptionVoice(self, self.parameters, learned=learned)
        override = qos.overridable()
        self._worker = threading.Thread(target=self._work, name="emo-caption", daemon=True)
        self._worker.start()
        self.create_subscription(
            EmotionFeatures, "emotion_features", self._take, qos.RESULT, qos_overriding_options=override
        )
        if learned:
            self.create_subscription(
                VisualContext, "visual_context", self._take_clip, qos.VISUAL, qos_overriding_options=override
            )
        self.create_subscription(SourceState, "source_state", self._on_state, qos.STATE)
        self._work_status = WorkStatus("caption", self._stats.snapshot, self._box.counts, extra=self._extra)
        Diagnostics(self, self._status)

    def close(self) -> None:
        """End the worker; what waits is still said. Safe to call twice."""
        self._closing.set()
        self._box.close()
        self._worker.join(STOP_S)

    # What comes in

    def _take(self, message: Input) -> None:
        self._box.offer((message, time.monotonic()))

    def _take_clip(self, message: VisualContext) -> None:
        if not message.utterance_id:  # else it is of a dialogue, for causes
            self._newest_clip = message
            self._take(message)

    def _on_state(self, message: SourceState) -> None:
        if message.state == SourceState.ENDED:
            self._ended.set()
        else:
            self._ended.clear()

    # The worker

    def _make_writer(self) -> CaptionWriter:
        writer = make_writer(self.parameters.current, self._voice.partial)
        writer.warmup()
        return writer

    def _work(self) -> None:
        self._writer = writer = self._loading(self._closing)
        if writer is None:
            return
        ready_s = time.monotonic()
        said_all = True
        while True:
            taken = self._box.take(IDLE_S)
            if taken is None and self._box.closed:
                break
            try:
                if taken is not None:
                    said_all = False
                    message, arrived_s = taken
                    self._run(writer, message, max(arrived_s, ready_s))  # nobody could be late while engines loaded
                elif self._ended.is_set() and not said_all:
                    said_all = True
                    self._say(writer.flush())
                else:
                    self._say(writer.idle())
            except EngineError as error:
                if str(error) != self._misfit:
                    self.get_logger().error(str(error))
                self._misfit = str(error)
            except Exception as error:
                # One message must not end the node: it is counted as failed, shown in the diagnostics.
                self.get_logger().error(f"features could not be captioned: {type(error).__name__}: {error}")
        writer.close()

    def _run(self, writer: CaptionWriter, message: Input, arrived_s: float) -> None:
        if writer.config is not self.parameters.current:
            writer.config = self.parameters.current
            writer.reset()  # what was gathered under other values does not fit the new ones
        clip = isinstance(message, VisualContext)
        stamp_ns = from_msg.stamp_ns(message.header.stamp)
        if clip and self._overtaken(message, arrived_s):
            self._counts["overtaken"] += 1
            return
        if not clip and not self._admit(stamp_ns):
            return
        with self._stats.measured(stamp_ns):
            item = from_msg.visual_context(message) if clip else from_msg.features(message)
            captions = writer(item, arrived_s)
        self._say(captions)

    def _overtaken(self, clip: VisualContext, arrived_s: float) -> bool:
        """A newer clip waits, and half of this one's time is over: it would be late, and the next one later still."""
        spent_s, deadline_s = time.monotonic() - arrived_s, self.parameters.current.deadline_s
        return clip is not self._newest_clip and 0 < deadline_s < 2 * spent_s

    def _admit(self, stamp_ns: int) -> bool:
        admission = self._timeline.admit(stamp_ns)
        if admission is Admission.LATE:
            self._stats.count_late()
            return False
        if admission is Admission.RESTART:
            self.get_logger().info("stamps jumped back, starting anew")
            self._counts["restarts"] += 1  # the writer forgets by itself
            self._voice.forget()
        self._gaps.see(stamp_ns)
        return True

    def _say(self, captions: Iterable[Caption]) -> None:
        for caption in captions:
            self._misfit = ""
            self._voice.say(caption)

    # Diagnostics

    def _status(self) -> Status:
        if self._writer is None:
            return loading_status("caption", "the engines of the caption network", self._loading.trouble)
        status = self._work_status()
        return replace(status, level=Level.ERROR, message=self._misfit) if self._misfit else status

    def _extra(self) -> dict[str, object]:
        counts: dict[str, object] = {"stamp_gaps": self._gaps.gaps, "frames_missing": self._gaps.missing}
        if self._writer is not None:
            counts |= {**self._writer.facts(), **self._writer.counts()}
        return {**counts, **self._voice.counts, **self._counts}


def make_nodes() -> list[Node]:
    """The nodes of the caption process. Raises :class:`emo_perception.config.ConfigError`."""
    return [CaptionNode()]
