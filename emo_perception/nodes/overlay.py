"""Node ``overlay``: the inferred frame with its boxes, bars and the last caption, as JPEG, for people to look at."""

from __future__ import annotations

import threading
from array import array

import cv2
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage

from emo_msgs.msg import EmotionCaption
from emo_perception import from_msg
from emo_perception.config import OverlayConfig
from emo_perception.nodes import convert, qos
from emo_perception.nodes.diagnostics import Diagnostics, Level, Status, WorkStatus
from emo_perception.nodes.parameters import declare
from emo_perception.overlay import beside, draw
from emo_perception.streaming.mailbox import DropPolicy, Mailbox, MailboxCounts
from emo_perception.streaming.stats import StageStats
from emo_perception.types import NS_PER_S, Caption, EmotionFeatures, Frame

STOP_S = 2.0


class OverlayNode(Node):
    """Draws in a worker of its own, keeps the newest frame only, and rests while nobody looks.

    Publishes ``overlay/compressed`` with stamp and frame_id of the very frame that was inferred; reads
    ``emotion_caption``. With the parameter ``enabled`` false there is no such topic.
    """

    def __init__(self) -> None:
        super().__init__(OverlayConfig.node)
        self.parameters = declare(self, OverlayConfig)
        self._box: Mailbox[tuple[Frame, EmotionFeatures]] = Mailbox("overlay", DropPolicy.KEEP_LATEST)
        self._stats = StageStats()
        self._caption: Caption | None = None
        self._enabled = self.parameters.current.enabled
        self._worker = threading.Thread(target=self._work, name="emo-overlay", daemon=True)
        if not self._enabled:
            Diagnostics(self, lambda: Status("overlay", Level.OK, "not enabled"))
            return
        self._publisher = self.create_publisher(
            CompressedImage, "overlay/compressed", qos.OVERLAY, qos_overriding_options=qos.overridable()
        )
        self.create_subscription(EmotionCaption, "emotion_caption", self._on_caption, qos.CAPTION)
        self._busy = WorkStatus("overlay", self._stats.snapshot, self.work)
        Diagnostics(self, self._status)
        self._worker.start()

    def offer(self, frame: Frame, features: EmotionFeatures) -> None:
        """Hand over a frame and what was found in it; from any thread, never blocks."""
        if self._enabled and self._wanted():
            self._box.offer((frame, features))

    def close(self) -> None:
        """End the worker. Safe to call twice."""
        self._box.close()
        if self._worker.is_alive():
            self._worker.join(STOP_S)

    def work(self) -> MailboxCounts:
        """How many frames were offered, drawn and dropped while somebody looked."""
        return self._box.counts()

    def _wanted(self) -> bool:
        return self.parameters.current.always or self._publisher.get_subscription_count() > 0

    def _on_caption(self, message: EmotionCaption) -> None:
        self._caption = beside(self._caption, from_msg.caption(message))

    def _work(self) -> None:
        while (item := self._box.take()) is not None:
            frame, features = item
            try:
                with self._stats.measured(frame.stamp_ns):
                    message = self._picture(frame, features)
            except Exception as error:
                # One frame must not end the picture: it is counted as failed, shown in the diagnostics.
                self.get_logger().error(f"overlay not drawn: {type(error).__name__}: {error}")
                continue
            self._publisher.publish(message)

    def _picture(self, frame: Frame, features: EmotionFeatures) -> CompressedImage:
        config, caption = self.parameters.current, self._caption
        if caption is not None and caption.stamp_ns > frame.stamp_ns + NS_PER_S:
            caption = None  # of a run before the stamps jumped back
        drawn = cv2.cvtColor(draw(frame, features, caption, min_width=config.width), cv2.COLOR_RGB2BGR)
        _, jpeg = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, config.jpeg_quality])
        message = CompressedImage(header=convert.header(frame.stamp_ns, frame.frame_id), format="jpeg")
        message.data = array("B", jpeg.tobytes())
        return message

    def _status(self) -> Status:
        if self.work().waiting == 0 and not self._wanted():
            return Status("overlay", Level.OK, "resting: nobody subscribes to overlay/compressed")
        return self._busy()
