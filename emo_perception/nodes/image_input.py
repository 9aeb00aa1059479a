"""Where the perception process gets its images: whichever topic has a publisher."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from emo_perception import images
from emo_perception.nodes import qos
from emo_perception.nodes.timers import every
from emo_perception.types import Frame

LOOK_S = 0.25
"""How often the graph is looked at for a publisher of images."""
REPEAT_S = 5.0
"""The same complaint about bad input is logged this often at most; all are counted."""

TRANSPORTS: dict[str, tuple[str, type[Any]]] = {
    "raw": ("image_raw", Image),
    "compressed": ("image_raw/compressed", CompressedImage),
}


class ImageInput:
    """The subscription of images. ``on_image`` gets the message as it is; it is converted by the worker."""

    def __init__(self, node: Node, transport: str, on_image: Callable[[Any], None]) -> None:
        self._node, self._on_image = node, on_image
        self._chosen = ""
        self._subscription: Any = None
        self._complaints: dict[str, float] = {}
        self.bad_images = 0
        self._timer = None
        if transport == "auto":
            self._timer = every(node, LOOK_S, self._look)
        else:
            self._subscribe(transport)

    @property
    def topic(self) -> str:
        """Resolved name of the image topic that is read; empty while none has a publisher."""
        return str(self._subscription.topic_name) if self._subscription is not None else ""

    def frame(self, message: Any) -> Frame | None:
        """Pixels of a message; None when it is bad, which is counted and logged."""
        try:
            return images.frame_from_msg(message)
        except images.BadImage as error:
            self.bad_images += 1
            self._complain(f"{self.topic}: {error}")
            return None

    def close(self) -> None:
        """End the subscription."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        if self._timer is not None:
            self._node.destroy_timer(self._timer)

    def _look(self) -> None:
        """Follow the publisher: subscribe to the topic that has one, raw first, and stay while it lasts."""
        # By the resolved name: rclpy counts a topic as it is given, without remapping it.
        names = {name: self._node.resolve_topic_name(topic) for name, (topic, _) in TRANSPORTS.items()}
        heard = {name: self._node.count_publishers(topic) > 0 for name, topic in names.items()}
        if not heard.get(self._chosen) and any(heard.values()):
            self._subscribe(next(name for name, has in heard.items() if has))

    def _subscribe(self, transport: str) -> None:
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        topic, message = TRANSPORTS[transport]
        self._subscription = self._node.create_subscription(
            message, topic, self._on_image, qos.IMAGE_SUB, qos_overriding_options=qos.overridable()
        )
        self._chosen = transport
        self._node.get_logger().info(f"images from {self.topic}")

    def _complain(self, text: str) -> None:
        now = time.monotonic()
        if now - self._complaints.get(text, -REPEAT_S) >= REPEAT_S:
            self._complaints = {text: now}
            self._node.get_logger().warning(text)
