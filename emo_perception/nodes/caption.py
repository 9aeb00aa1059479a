"""Node ``caption``: emotion features in, sentences out. The callbacks hand over; one worker runs the stage."""

from __future__ import annotations

import statistics
import threading
from collections import deque

from rclpy.node import Node
from std_msgs.msg import String

from emo_msgs.msg import EmotionCaption, EmotionFeatures, SourceState
from emo_perception import from_msg
from emo_perception.config import CaptionConfig, PerceptionConfig
from emo_perception.nodes import convert, qos
from emo_perception.nodes.diagnostics import Diagnostics, WorkStatus
from emo_perception.nodes.parameters import declare
from emo_perception.stages.caption import CaptionStage
from emo_perception.streaming.mailbox import DropPolicy, Mailbox
from emo_perception.streaming.stats import StageStats
from emo_perception.streaming.timeline import Admission, Timeline
from emo_perception.types import Caption

WAITING = 1024
"""Features that may wait: half a minute at 30 Hz. Should the stage ever fall that far behind, the oldest go, counted."""

IDLE_S = 0.5
"""The source has ended and nothing came for so long: what was under way in perception has arrived."""

STOP_S = 2.0


class StampGaps:
    """Counts what is missing in a stream of regular stamps: intervals well over the usual one (the median of the last)."""

    def __init__(self) -> None:
        self.gaps = 0
        self.missing = 0
        self._last_ns: int | None = None
        self._intervals_ns: deque[int] = deque(maxlen=31)

    def see(self, stamp_ns: int) -> None:
        """Take the next stamp into account; one that is older starts anew."""
        interval_ns = stamp_ns - self._last_ns if self._last_ns is not None else 0
        self._last_ns = stamp_ns
        if interval_ns <= 0:
            self._intervals_ns.clear()
            return
        if len(self._intervals_ns) >= 5:
            usual_ns = statistics.median(self._intervals_ns)
            if interval_ns > 1.75 * usual_ns:
                self.gaps += 1
                self.missing += round(interval_ns / usual_ns) - 1
        self._intervals_ns.append(interval_ns)


class CaptionNode(Node):
    """Subscribes ``emotion_features`` and ``source_state``; publishes ``emotion_caption`` and ``emotion_caption/text``.

    An abstention goes out on ``emotion_caption`` only, and only where the parameter allows; a text that claims what
    was not measured (``grounded`` false) is withheld and counted.
    """

    def __init__(self) -> None:
        super().__init__(CaptionConfig.node)
        self.parameters = declare(self, CaptionConfig)
        self._stage = CaptionStage(self.parameters.current)
        self._stage.warmup()
        self._timeline = Timeline(PerceptionConfig().jump_back_s)
        self._box: Mailbox[EmotionFeatures] = Mailbox("features", DropPolicy.KEEP_LATEST, WAITING)
        self._stats, self._gaps = StageStats(), StampGaps()
        self._counts = dict.fromkeys(("captions", "abstentions", "withheld", "restarts"), 0)
        self._ended = threading.Event()
        self._captions = self.create_publisher(
            EmotionCaption, "emotion_caption", qos.CAPTION, qos_overriding_options=qos.overridable()
        )
        self._text = self.create_publisher(
            String, "emotion_caption/text", qos.CAPTION, qos_overriding_options=qos.overridable()
        )
        self._worker = threading.Thread(target=self._work, name="emo-caption", daemon=True)
        self._worker.start()
        self.create_subscription(
            EmotionFeatures, "emotion_features", self._box.offer, qos.RESULT, qos_overriding_options=qos.overridable()
        )
        self.create_subscription(SourceState, "source_state", self._on_state, qos.STATE)
        Diagnostics(self, WorkStatus("caption", self._stats.snapshot, self._box.counts, extra=self._extra))

    def close(self) -> None:
        """End the worker; what waits is still said. Safe to call twice."""
        self._box.close()
        self._worker.join(STOP_S)
        self._stage.close()

    def _on_state(self, message: SourceState) -> None:
        if message.state == SourceState.ENDED:
            self._ended.set()
        else:
            self._ended.clear()

    def _work(self) -> None:
        said_all = True
        while True:
            message = self._box.take(IDLE_S)
            if message is None and self._box.closed:
                return
            try:
                if message is not None:
                    said_all = False
                    self._run(message)
                elif self._ended.is_set() and not said_all:
                    said_all = True
                    self._publish(self._stage.flush())
            except Exception as error:
                # One message must not end the node: it is counted as failed, shown in the diagnostics.
                self.get_logger().error(f"features could not be captioned: {type(error).__name__}: {error}")

    def _run(self, message: EmotionFeatures) -> None:
        stamp_ns = from_msg.stamp_ns(message.header.stamp)
        admission = self._timeline.admit(stamp_ns)
        if admission is Admission.LATE:
            self._stats.count_late()
            return
        if admission is Admission.RESTART:
            self.get_logger().info("stamps jumped back, starting anew")
            self._counts["restarts"] += 1  # the stage forgets by itself
        self._gaps.see(stamp_ns)
        if self._stage.config is not self.parameters.current:
            self._stage.config = self.parameters.current
            self._stage.reset()  # what was gathered under other values does not fit the new ones
        with self._stats.measured(stamp_ns):
            caption = self._stage(from_msg.features(message))
        self._publish(caption)

    def _publish(self, caption: Caption | None) -> None:
        if caption is None:
            return
        if caption.abstained:
            self._counts["abstentions"] += 1
            self.get_logger().info(f"says nothing: {caption.abstain_reason}")
            if self.parameters.current.publish_abstentions:
                self._captions.publish(convert.caption_msg(caption))
        elif not caption.grounded:
            self._counts["withheld"] += 1
            self.get_logger().warning(f"withheld, it claims what was not measured: {caption.text}")
        else:
            self._counts["captions"] += 1
            self.get_logger().info(caption.text)
            self._captions.publish(convert.caption_msg(caption))
            self._text.publish(String(data=caption.text))

    def _extra(self) -> dict[str, object]:
        return {**self._counts, "stamp_gaps": self._gaps.gaps, "frames_missing": self._gaps.missing}


def make_nodes() -> list[Node]:
    """The nodes of the caption process. Raises :class:`emo_perception.config.ConfigError`."""
    return [CaptionNode()]
