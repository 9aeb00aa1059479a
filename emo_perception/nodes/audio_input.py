"""Where the perception process hears its sound: whatever kind of message the publisher of ``audio`` sends."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile

from emo_perception import pcm
from emo_perception.nodes import qos
from emo_perception.nodes.timers import every
from emo_perception.types import AudioChunk

LOOK_S = 0.25
"""How often the graph is looked at for a publisher of sound."""
REPEAT_S = 5.0
"""The same complaint is logged this often at most; all are counted."""
KINDS = (
    "emo_msgs/msg/AudioChunk",
    "audio_common_msgs/msg/AudioStamped",
    "audio_common_msgs/msg/AudioDataStamped",
    "audio_common_msgs/msg/AudioData",
)
"""Messages that are understood, the best first; AudioData only to say what is wrong with it."""
INFO_KIND = "audio_common_msgs/msg/AudioInfo"


class AudioInput:
    """The subscription of sound. ``on_sound`` gets the message as it is; :meth:`read` makes PCM of it, in the worker."""

    def __init__(self, node: Node, on_sound: Callable[[Any], None]) -> None:
        self._node, self._on_sound = node, on_sound
        self._topic = node.resolve_topic_name("audio")
        self._info_topic = self._topic.rpartition("/")[0] + "/audio_info"
        self._kind = ""
        self._subscription: Any = None
        self._info_subscription: Any = None
        self._info: Any = None
        self._complaints: dict[str, float] = {}
        self.bad_audio = 0
        self._timer = every(node, LOOK_S, self._look)

    @property
    def topic(self) -> str:
        """Resolved name and type of the sound that is read; empty while it has no publisher."""
        return f"{self._topic} ({self._kind})" if self._subscription is not None else ""

    def read(self, message: Any) -> AudioChunk | None:
        """PCM of a message; None when it is bad, which is counted and logged."""
        try:
            return pcm.sound(message, self._info)
        except pcm.BadSound as error:
            self.bad_audio += 1
            self._complain(f"{self._topic}: {error}")
            return None

    def close(self) -> None:
        """End the subscriptions."""
        self._node.destroy_timer(self._timer)
        for subscription in (self._subscription, self._info_subscription):
            if subscription is not None:
                self._node.destroy_subscription(subscription)

    def _look(self) -> None:
        """Follow the publisher: subscribe to what it sends, and to what describes it."""
        offered = [end.topic_type for end in self._node.get_publishers_info_by_topic(self._topic)]
        if offered and self._kind not in offered:
            self._choose(offered)
        if self._kind.endswith("AudioDataStamped") and self._info_subscription is None:
            self._describe()

    def _choose(self, offered: list[str]) -> None:
        known = [kind for kind in KINDS if kind in offered]
        if not known:
            self._complain(
                f"{self._topic} carries {', '.join(sorted(set(offered)))}: expected {' or '.join(KINDS[:3])}"
            )
            return
        message = self._message(known[0])
        if message is None:
            return
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        self._kind = known[0]
        self._subscription = self._node.create_subscription(
            message, self._topic, self._on_sound, qos.AUDIO_SUB, qos_overriding_options=qos.overridable()
        )
        self._node.get_logger().info(f"sound from {self.topic}")

    def _describe(self) -> None:
        publishers = self._node.get_publishers_info_by_topic(self._info_topic)
        described = [end for end in publishers if end.topic_type == INFO_KIND]
        message = self._message(INFO_KIND) if described else None
        if message is not None:
            # As durable as its publisher: it may have been sent once, long ago.
            profile = QoSProfile(depth=1, durability=described[0].qos_profile.durability)
            self._info_subscription = self._node.create_subscription(message, self._info_topic, self._set_info, profile)

    def _set_info(self, message: Any) -> None:
        self._info = message

    def _message(self, kind: str) -> type[Any] | None:
        """The class of a message; None, with a complaint, when it is not installed."""
        package, _, name = kind.split("/")
        try:
            found: type[Any] = getattr(importlib.import_module(f"{package}.msg"), name)
        except (ImportError, AttributeError):
            self._complain(
                f"{self._topic} carries {kind}, which is not installed here: install the package {package} that its "
                "publisher uses and source its setup file, or publish emo_msgs/msg/AudioChunk"
            )
            return None
        return found

    def _complain(self, text: str) -> None:
        now = time.monotonic()
        if now - self._complaints.get(text, -REPEAT_S) >= REPEAT_S:
            self._complaints = {text: now}
            self._node.get_logger().warning(text)
