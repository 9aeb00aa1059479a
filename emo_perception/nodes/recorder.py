"""Node ``recorder``: writes what the graph publishes into a rosbag2 folder, message bytes as they come."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String

from emo_msgs import msg
from emo_perception.bags import BagError, BagWriter
from emo_perception.config import ConfigError, RecorderConfig
from emo_perception.nodes import qos
from emo_perception.nodes.parameters import declare
from emo_perception.nodes.timers import every

LOOK_S = 0.2

#: Images are recorded as JPEG only: raw ones, at 27 MB/s, would fill a disk and starve the graph.
JPEG = "image_raw/compressed"
RESULTS: tuple[tuple[str, type[Any], QoSProfile], ...] = (
    ("audio", msg.AudioChunk, qos.AUDIO_PUB),
    ("source_state", msg.SourceState, qos.STATE),
    ("faces", msg.Faces, qos.RESULT),
    ("action_units", msg.ActionUnits, qos.RESULT),
    ("emotions", msg.Emotions, qos.RESULT),
    ("emotion_features", msg.EmotionFeatures, qos.RESULT),
    ("emotion_caption", msg.EmotionCaption, qos.CAPTION),
    ("emotion_caption/text", String, qos.CAPTION),
    ("overlay/compressed", CompressedImage, qos.OVERLAY),
    ("/diagnostics", DiagnosticArray, qos.RESULT),
)


class RecorderNode(Node):
    """Records until the process ends; with ``until_end`` until the source has ended and nothing more comes, with
    ``seconds`` at most so long after the source began to play."""

    def __init__(self) -> None:
        super().__init__(RecorderConfig.node)
        config = declare(self, RecorderConfig).current
        if not config.folder:
            raise ConfigError("recorder.folder: expected the folder to write the bag into, got nothing")
        try:
            self._bag: BagWriter | None = BagWriter(Path(config.folder).expanduser(), config.storage)
        except BagError as error:
            raise ConfigError(f"recorder: {error}") from None
        self._writing = threading.Lock()  # the bag is closed by the main thread, written to by the executor's
        self._quiet_s = config.quiet_s
        self._heard_s = time.monotonic()
        self._ended = False
        self._seconds = config.seconds or float("inf")
        self._playing_s: float | None = None
        for topic, kind, profile in RESULTS:
            self._listen(topic, kind, profile)
        self._waiting = every(self, LOOK_S, self._listen_to_images)
        if config.until_end or config.seconds:
            every(self, LOOK_S, self._finish)

    def close(self) -> None:
        """Finish the bag. Safe to call twice."""
        with self._writing:
            bag, self._bag = self._bag, None
            if bag is None:
                return
            bag.close()
        counts = ", ".join(f"{topic} {count}" for topic, count in sorted(bag.counts.items()))
        self.get_logger().info(f"recorded {counts or 'nothing'}")

    def _listen(self, topic: str, kind: type[Any], profile: QoSProfile) -> None:
        name = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
        record = partial(self._record, self.resolve_topic_name(topic), name)
        self.create_subscription(kind, topic, record, profile, raw=True)

    def _listen_to_images(self) -> None:
        """Only once somebody else reads the images: a file begins with its first reader, which must be perception."""
        if any(self.count_subscribers(self.resolve_topic_name(topic)) for topic in ("image_raw", JPEG)):
            self.destroy_timer(self._waiting)
            self._listen(JPEG, CompressedImage, qos.OVERLAY)

    def _record(self, topic: str, kind: str, data: bytes) -> None:
        with self._writing:
            if self._bag is None:
                return
            self._bag.write(topic, kind, self.get_clock().now().nanoseconds, data)
        if kind == "emo_msgs/msg/SourceState":
            state = deserialize_message(data, msg.SourceState)
            self._ended = state.state in (state.ENDED, state.FAILED)
            if state.state == state.PLAYING and self._playing_s is None:
                self._playing_s = time.monotonic()
        elif topic != "/diagnostics":
            self._heard_s = time.monotonic()

    def _finish(self) -> None:
        now_s = time.monotonic()
        over = self._playing_s is not None and now_s - self._playing_s > self._seconds
        if over or (self._ended and now_s - self._heard_s > self._quiet_s):
            self.context.try_shutdown()  # ends the process in order


def make_nodes() -> list[Node]:
    """The nodes of the recording process. Raises :class:`emo_perception.config.ConfigError`."""
    return [RecorderNode()]
