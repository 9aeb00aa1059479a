"""How many images of a camera arrive, and how old they are: measured for some seconds, as our own nodes would hear them."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # before Jazzy
    from rclpy.qos_event import SubscriptionEventCallbacks

from emo_perception.tools.doctor.finding import Context, Finding, Level
from emo_perception.tools.doctor.middleware import export_profile
from emo_perception.types import NS_PER_S

IMAGE_KINDS = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
MOST_TOPICS = 4
BAD_LOSS, TERRIBLE_LOSS = 0.02, 0.5
OLD_S, BAG_S, AHEAD_S = 1.0, 60.0, 0.05
DEFAULT_SEGMENT = 512 << 10
"""Shared memory of a process of Fast DDS without a profile, bytes."""
#: The newest alone, as our nodes have it, would count what this process is slow to take as lost on the way.
AS_OURS = QoSProfile(depth=50, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)


@dataclass
class Arrivals:
    """What came of one topic. ``lost``: counted by the middleware out of the gaps between the numbers of messages."""

    kind: str
    lost: int = 0
    size: int = 0
    unstamped: int = 0
    began_s: float = 0.0
    ended_s: float = 0.0
    ages_s: list[float] = field(default_factory=list)
    count: int = 0

    def take(self, data: bytes) -> None:
        """One message as it came from the wire: CDR, whose first field is the stamp of the header."""
        now_ns, self.ended_s = time.time_ns(), time.monotonic()
        self.began_s = self.began_s or self.ended_s
        seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
        stamp_ns = seconds * NS_PER_S + nanoseconds
        self.count += 1
        self.size = max(self.size, len(data))
        self.unstamped += stamp_ns == 0
        self.ages_s.append((now_ns - stamp_ns) / NS_PER_S)

    @property
    def loss(self) -> float:
        """Part of the messages that was lost, in [0, 1]."""
        return self.lost / max(1, self.lost + self.count)

    @property
    def rate_hz(self) -> float:
        """Messages that arrived per second."""
        return (self.count - 1) / (self.ended_s - self.began_s) if self.count > 1 else 0.0


def measure(node: Node, topics: dict[str, list[str]], context: Context) -> Iterator[Finding]:
    """Listen to every topic of images that somebody publishes; tell of each what arrives."""
    images = {t: k for t, kinds in topics.items() for k in kinds if k in IMAGE_KINDS and node.count_publishers(t)}
    if context.image_topic:
        images = {t: k for t, k in images.items() if t == context.image_topic}
    if not images:
        wanted = context.image_topic or "any topic"
        yield Finding(Level.NOTE, f"nobody publishes images on {wanted}", "emo run --source /dev/video0")
    for topic in list(images)[MOST_TOPICS:]:
        del images[topic]
        yield Finding(Level.NOTE, f"{topic}: not measured, there are many", f"emo doctor --image-topic {topic}")
    for topic, arrivals in _listen(node, images, context.measure_s).items():
        yield from judge(topic, arrivals, context.measure_s)


def _listen(node: Node, images: dict[str, str], seconds: float) -> dict[str, Arrivals]:
    found = {topic: Arrivals(kind) for topic, kind in images.items()}
    for topic, arrivals in found.items():
        _subscribe(node, topic, arrivals)
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    until_s = time.monotonic() + (seconds if found else 0.0)
    while (left_s := until_s - time.monotonic()) > 0:
        executor.spin_once(timeout_sec=left_s)
    executor.shutdown()
    return found


def _subscribe(node: Node, topic: str, arrivals: Arrivals) -> None:
    from sensor_msgs import msg

    def lost(event: Any) -> None:
        arrivals.lost = event.total_count

    kind = getattr(msg, arrivals.kind.rpartition("/")[2])
    events = SubscriptionEventCallbacks(message_lost=lost)
    node.create_subscription(kind, topic, arrivals.take, AS_OURS, raw=True, event_callbacks=events)


def judge(topic: str, arrivals: Arrivals, seconds: float) -> Iterator[Finding]:
    """What the arrivals of a topic mean."""
    if not arrivals.count:
        what = f"{topic}: somebody publishes it, but nothing arrived in {seconds:g} s: paused, or all of it is lost"
        yield Finding(Level.WARN, what, export_profile() + "  # then start the camera driver from this shell")
        return
    middle, late = (1000 * float(np.percentile(arrivals.ages_s, q)) for q in (50, 95))
    what = (
        f"{topic}: {arrivals.rate_hz:.1f} images/s arrive, {arrivals.lost} of {arrivals.lost + arrivals.count} are lost "
        f"({100 * arrivals.loss:.0f} %); age {middle:.0f} ms (95 %: {late:.0f} ms)"
    )
    if arrivals.loss > BAD_LOSS:
        yield _loss(topic, what, arrivals)
    else:
        yield Finding(Level.OK, what)
    yield from _stamps(topic, arrivals, middle / 1000)


def _loss(topic: str, what: str, arrivals: Arrivals) -> Finding:
    level = Level.ERROR if arrivals.loss > TERRIBLE_LOSS else Level.WARN
    if arrivals.size > DEFAULT_SEGMENT:
        why = (
            f"raw images of {arrivals.size / 1e6:.1f} MB do not fit into the {DEFAULT_SEGMENT >> 10} kB of shared memory "
            "that Fast DDS has by itself, and best effort sends nothing twice: the camera driver needs our profile"
        )
        return Finding(level, f"{what}: {why}", export_profile() + "  # then start the camera driver from this shell")
    why = "the machine or the network does not keep up: let the camera send fewer or smaller images"
    command = (
        "emo run --image-topic " + topic
        if topic.endswith("/compressed")
        else f"emo run --image-topic {topic}/compressed"
    )
    return Finding(level, f"{what}: {why}", command)


def _stamps(topic: str, arrivals: Arrivals, age_s: float) -> Iterator[Finding]:
    if arrivals.unstamped:
        what = f"{topic}: {arrivals.unstamped} images have no stamp and are refused: the driver must set header.stamp"
        yield Finding(Level.ERROR, what)
    elif age_s > BAG_S:
        what = f"{topic}: stamps are {age_s:.0f} s old: a bag is played, or the camera's clock is wrong"
        yield Finding(Level.WARN, what, f"emo run --use-sim-time --image-topic {topic}")
    elif age_s > OLD_S or age_s < -AHEAD_S:
        what = f"{topic}: stamps are {abs(age_s):.1f} s {'old' if age_s > 0 else 'in the future'}: the clocks differ"
        yield Finding(Level.WARN, what, "sudo apt install chrony  # on both machines")
