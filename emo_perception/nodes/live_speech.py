"""Words that others recognised: every topic of ``hri_msgs/LiveSpeech`` (REP-155) that is not our own."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.node import Node

from emo_perception import rep155
from emo_perception.nodes import qos
from emo_perception.nodes.message_types import message_class
from emo_perception.nodes.timers import every
from emo_perception.types import Utterance

KIND = "hri_msgs/msg/LiveSpeech"
LOOK_S = 0.25
"""How often the graph is looked at for publishers."""
AWAY_S = 10.0
"""So long after the last publisher left, others are still believed to listen: topics of voices come and go with them."""
DEPTH = 64


class LiveSpeechInput:
    """Follows the publishers. ``on_speech`` gets what was said, ``on_change`` whether others recognise speech now.

    Both are called in the node's executor. Raises :class:`UnknownTypeError` where ``hri_msgs`` is not installed.
    """

    def __init__(self, node: Node, on_speech: Callable[[Utterance], None], on_change: Callable[[bool], None]) -> None:
        self._message = message_class(KIND)
        self._node, self._on_speech, self._on_change = node, on_speech, on_change
        self._subscriptions: dict[str, Any] = {}
        self._last_s = 0.0
        self.present = False
        self.bad = 0
        every(node, LOOK_S, self._look)

    @property
    def topics(self) -> list[str]:
        """Names of the topics that are read."""
        return sorted(self._subscriptions)

    def _look(self) -> None:
        offered = {name: ends for name, kinds in self._node.get_topic_names_and_types() if KIND in kinds
                   if (ends := self._others(name))}  # fmt: skip
        for topic in self._subscriptions.keys() - offered.keys():
            self._node.destroy_subscription(self._subscriptions.pop(topic))
        for topic in offered.keys() - self._subscriptions.keys():
            profile = qos.fitting([end.qos_profile for end in offered[topic]], DEPTH)
            self._subscriptions[topic] = self._node.create_subscription(
                self._message, topic, partial(self._take, topic), profile
            )
            self._node.get_logger().info(f"speech from {topic} ({KIND})")
        now_s = time.monotonic()
        if offered:
            self._last_s = now_s
        present = bool(offered) or (self.present and now_s - self._last_s < AWAY_S)
        if present != self.present:
            self.present = present
            self._on_change(present)

    def _others(self, topic: str) -> list[Any]:
        """Publishers that are not our kind: two robots that each waited for the other would both be deaf."""
        ends = [end for end in self._node.get_publishers_info_by_topic(topic) if end.topic_type == KIND]
        if not topic.startswith(rep155.OWN_VOICES):
            return ends
        # A publisher has no name for the moment in which it is made.
        return [end for end in ends if end.node_name not in (self._node.get_name(), "_NODE_NAME_UNKNOWN_")]

    def _take(self, topic: str, message: Any) -> None:
        try:
            utterance = rep155.heard(message, topic)
        except ValueError as error:
            self.bad += 1
            self._node.get_logger().warning(str(error), throttle_duration_sec=5.0)
            return
        if utterance is not None:
            self._on_speech(utterance)
