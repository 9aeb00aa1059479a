"""The running graph: who publishes what with which quality of service, and what of the images arrives.

Joins the graph, so ROS must be there; only :func:`graph` needs calling.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import rclpy
from rclpy.context import Context as RosContext
from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible

from emo_perception.config import NODE_CONFIGS
from emo_perception.nodes import qos
from emo_perception.tools.doctor.finding import Context, Finding, Level, set_parameter
from emo_perception.tools.doctor.measure import IMAGE_KINDS, measure
from emo_perception.transport import fastdds_environment

NAME = "emo_doctor"
LOOK_S = 0.1
DISCOVERY_S = 10.0
"""A graph that is never calm is looked at after so long."""

#: Message type -> who of us reads it, and with what quality of service (see ``nodes/qos.py``).
OURS: dict[str, tuple[str, QoSProfile]] = {
    **dict.fromkeys(IMAGE_KINDS, ("perception", qos.IMAGE_SUB)),
    "emo_msgs/msg/AudioChunk": ("perception", qos.AUDIO_SUB),
    "emo_msgs/msg/EmotionFeatures": ("caption", qos.RESULT),
    "emo_msgs/msg/EmotionCaption": ("overlay", qos.CAPTION),
    "emo_msgs/msg/SourceState": ("caption", qos.STATE),
    "emo_msgs/msg/Utterance": ("cause", qos.RESULT),
}
ADJUSTABLE = (*IMAGE_KINDS, "emo_msgs/msg/AudioChunk", "emo_msgs/msg/EmotionFeatures", "emo_msgs/msg/Utterance")
"""Types whose subscriptions in our nodes take ``qos_overrides``."""


def graph(context: Context) -> Iterator[Finding]:
    """Everything about the graph."""
    with joined() as node:
        topics = discover(node, context.calm_s)
        domain = os.environ.get("ROS_DOMAIN_ID", "0")
        others = len(node.get_node_names_and_namespaces()) - 1
        yield Finding(Level.OK, f"ROS domain {domain}: {others} nodes, {len(topics)} topics")
        for topic, kinds in topics.items():
            yield from fits(node, topic, kinds)
        yield from measure(node, topics, context)


@contextmanager
def joined() -> Iterator[Node]:
    """A node of the doctor, with the transport that our own nodes use."""
    os.environ.update(fastdds_environment(os.environ))
    ros = RosContext()
    rclpy.init(args=[], context=ros)
    node = rclpy.create_node(NAME, context=ros, enable_rosout=False, start_parameter_services=False)
    try:
        yield node
    finally:
        node.destroy_node()
        ros.try_shutdown()


def discover(node: Node, calm_s: float) -> dict[str, list[str]]:
    """Topic -> its types, once the graph has been calm for ``calm_s`` seconds."""
    began = calm_since = time.monotonic()
    seen: Any = None
    while (now := time.monotonic()) - calm_since < calm_s and now - began < DISCOVERY_S:
        topics = dict(node.get_topic_names_and_types())
        ends = {t: (node.count_publishers(t), node.count_subscribers(t)) for t in topics}
        if (topics, ends) != seen:
            seen, calm_since = (topics, ends), now
        time.sleep(LOOK_S)
    return {topic: sorted(kinds) for topic, kinds in sorted(dict(node.get_topic_names_and_types()).items())}


def fits(node: Node, topic: str, kinds: list[str]) -> Iterator[Finding]:
    """Whether those who publish a topic of ours and those who read it understand each other."""
    if not any(kind in OURS or kind.startswith("emo_msgs/") for kind in kinds):
        return
    if len(kinds) > 1:
        what = f"{topic} has several types ({', '.join(kinds)}): nobody hears both"
        yield Finding(Level.WARN, what, f"ros2 topic info --verbose {topic}")
    publishers = node.get_publishers_info_by_topic(topic)
    if len(publishers) > 1 and set(kinds) & set(IMAGE_KINDS):
        names = ", ".join(_name(p) for p in publishers)
        what = f"{topic} has {len(publishers)} publishers ({names}): images of several cameras get mixed"
        yield Finding(Level.WARN, what, "ROS_DOMAIN_ID=42 emo run --source ...  # or end all publishers but one")
    for publisher in publishers:
        for reader, wanted in _readers(node, topic, publisher.topic_type):
            verdict, why = qos_check_compatible(publisher.qos_profile, wanted)
            if verdict == QoSCompatibility.ERROR:
                what = f"{topic}: nothing reaches {reader} from {_name(publisher)}: {why.strip(' ;')}"
                mend = _mend(topic, publisher.topic_type, reader, publisher.qos_profile, wanted)
                yield Finding(Level.ERROR, what, mend)


def _readers(node: Node, topic: str, kind: str) -> Iterator[tuple[str, QoSProfile]]:
    """Who reads the topic and how: those that are there, else the node of ours that would."""
    there = [s for s in node.get_subscriptions_info_by_topic(topic) if s.topic_type == kind]
    for subscription in there:
        yield _name(subscription), subscription.qos_profile
    if not there and kind in OURS:
        yield OURS[kind]


def _mend(topic: str, kind: str, reader: str, offered: QoSProfile, wanted: QoSProfile) -> str:
    """Ours ask for less where they can; else the publisher has to offer more."""
    ours = reader.rpartition("/")[2]
    durable = offered.durability == wanted.durability or wanted.durability.name != "TRANSIENT_LOCAL"
    if ours in NODE_CONFIGS and kind in ADJUSTABLE and durable:
        overrides = f"{{qos_overrides: {{{topic}: {{subscription: {{reliability: best_effort}}}}}}}}"
        return set_parameter(ours, overrides)
    policy, value = ("reliability", "reliable") if durable else ("durability", "transient_local")
    return f"ros2 run PACKAGE PUBLISHER --ros-args -p qos_overrides.{topic}.publisher.{policy}:={value}"


def _name(end: Any) -> str:
    return f"{end.node_namespace.rstrip('/')}/{end.node_name}"
