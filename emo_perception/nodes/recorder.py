"""Node ``recorder``: writes what the graph publishes, or chosen topics, into a rosbag2 folder, bytes as they come."""

from __future__ import annotations

import re
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import deserialize_message
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String

from emo_msgs import msg
from emo_perception.bags import BagError, BagWriter
from emo_perception.config import ConfigError, RecorderConfig
from emo_perception.nodes import qos
from emo_perception.nodes.loading import LOADING
from emo_perception.nodes.message_types import UnknownTypeError, message_class
from emo_perception.nodes.parameters import declare
from emo_perception.nodes.timers import every

LOOK_S = 0.2
DRAIN_S = 0.3
"""At the end: what has arrived by then, but waits for the executor, is still recorded."""

#: Images are recorded as JPEG only: raw ones, at 27 MB/s, would fill a disk and starve the graph. Visual tokens are left
#: out: 1 MB/s, biometric, and whoever plays the images gets them again.
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
    ("utterances", msg.Utterance, qos.RESULT),
    ("emotion_cause", msg.EmotionCause, qos.CAPTION),
    ("emotion_cause/text", String, qos.CAPTION),
    ("overlay/compressed", CompressedImage, qos.OVERLAY),
    ("/diagnostics", DiagnosticArray, qos.RESULT),
)


RAW_IMAGE = "sensor_msgs/msg/Image"


class Choice:
    """The topics that a configuration names: singly, by regular expression, or all. Raises :class:`ConfigError`."""

    def __init__(self, node: Node, config: RecorderConfig) -> None:
        self.names = {node.resolve_topic_name(name) for name in config.topics.split()}
        self.patterned = bool(config.all or config.regex)
        try:
            self._pattern = re.compile("" if config.all else config.regex)
        except re.error as error:
            raise ConfigError(f"recorder.regex: {config.regex!r} is no regular expression: {error}") from None

    def __bool__(self) -> bool:
        return bool(self.names) or self.patterned

    def takes(self, topic: str) -> bool:
        """Whether the topic is to be recorded."""
        return topic in self.names or (self.patterned and self._pattern.search(topic) is not None)


class RecorderNode(Node):
    """Records until the process ends; with ``until_end`` until the source has ended, no node still loads what it will
    say something with, and nothing more comes, with
    ``seconds`` at most so long after the source began to play.

    Without a choice of topics: what the nodes of this graph publish, images as JPEG only. With one: each topic that
    has a publisher, from then on, whatever its type; a type that is not installed here is named and left out.
    """

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
        self._raw_images = config.raw_images
        self._seen: set[str] = set()
        self._choice = Choice(self, config)
        if self._choice:
            every(self, LOOK_S, self._look)
        else:
            for topic, kind, profile in RESULTS:
                self._listen(topic, kind, profile)
            self._waiting = every(self, LOOK_S, self._listen_to_images)
        if config.until_end or config.seconds:
            every(self, LOOK_S, self._finish)

    def close(self) -> None:
        """Finish the bag. Safe to call twice."""
        if self._bag is not None:
            time.sleep(DRAIN_S)
        with self._writing:
            bag, self._bag = self._bag, None
            if bag is None:
                return
            bag.close()
        counts = ", ".join(f"{topic} {count}" for topic, count in sorted(bag.counts.items()))
        self.get_logger().info(f"recorded {counts or 'nothing'}")
        for topic in sorted(self._choice.names - self._seen):
            self.get_logger().warning(f"{topic} never had a publisher: nothing of it was recorded")

    def _listen(self, topic: str, kind: type[Any], profile: QoSProfile) -> None:
        name = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
        record = partial(self._record, self.resolve_topic_name(topic), name)
        self.create_subscription(kind, topic, record, profile, raw=True)

    def _listen_to_images(self) -> None:
        """Only once somebody else reads the images: a file begins with its first reader, which must be perception."""
        if any(self.count_subscribers(self.resolve_topic_name(topic)) for topic in ("image_raw", JPEG)):
            self.destroy_timer(self._waiting)
            self._listen(JPEG, CompressedImage, qos.OVERLAY)

    def _look(self) -> None:
        """Record the chosen topics that have come since the last look."""
        for topic, kinds in self.get_topic_names_and_types():
            if topic in self._seen or not self._choice.takes(topic):
                continue
            publishers = self.get_publishers_info_by_topic(topic)
            if not publishers:
                continue
            self._seen.add(topic)
            if kinds[0] == RAW_IMAGE and not self._raw_images and topic not in self._choice.names:
                self.get_logger().info(f"{topic}: raw images are left out; --raw-images records them too")
                continue
            self._listen_to(topic, kinds[0], publishers)

    def _listen_to(self, topic: str, kind: str, publishers: list[TopicEndpointInfo]) -> None:
        """Record one topic with a QoS that all its publishers meet."""
        profile = qos.fitting([publisher.qos_profile for publisher in publishers], 8 if kind == RAW_IMAGE else 64)
        latched = profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
        try:
            message_type = message_class(kind)
            with self._writing:
                if self._bag is None:
                    return
                self._bag.add(topic, kind, latched=latched)
        except (UnknownTypeError, BagError) as error:
            self.get_logger().warning(f"{topic} is not recorded: {error}")
            return
        self._listen(topic, message_type, profile)
        self.get_logger().info(f"recording {topic}")

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
        elif topic != "/diagnostics" or (self._ended and _somebody_loads(data)):
            self._heard_s = time.monotonic()

    def _finish(self) -> None:
        now_s = time.monotonic()
        over = self._playing_s is not None and now_s - self._playing_s > self._seconds
        if over or (self._ended and now_s - self._heard_s > self._quiet_s):
            self.context.try_shutdown()  # ends the process in order


def _somebody_loads(diagnostics: bytes) -> bool:
    """Whether a node has engines yet to load, and will then speak of what it was sent meanwhile."""
    return any(
        status.message.startswith(LOADING) for status in deserialize_message(diagnostics, DiagnosticArray).status
    )


def make_nodes() -> list[Node]:
    """The nodes of the recording process. Raises :class:`emo_perception.config.ConfigError`."""
    return [RecorderNode()]
