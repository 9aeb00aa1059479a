"""A camera driver as many are: raw images, best effort, 30 a second. ``plain_camera.py WIDTH HEIGHT STAMP...``

Each kind of stamp has a topic of its own, ``/STAMP/image_raw``; see ``AGES_S``. Runs until it is ended.
"""

from __future__ import annotations

import signal
import sys
import threading
from array import array

import rclpy
from rclpy.qos import qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

AGES_S: dict[str, float | None] = {"fresh": 0, "late": 5, "ahead": -5, "yesterday": 86_400, "unstamped": None}
RATE_HZ = 30


def topic(stamp: str) -> str:
    """Where images with this kind of stamp go."""
    return f"/{stamp}/image_raw"


def main(width: int, height: int, stamps: list[str]) -> None:
    """Publish until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("plain_camera")
    publishers = {s: node.create_publisher(Image, topic(s), qos_profile_sensor_data) for s in stamps}
    image = Image(
        width=width, height=height, step=3 * width, encoding="rgb8", data=array("B", bytes(3 * width * height))
    )
    while not stop.wait(1 / RATE_HZ):
        for stamp, publisher in publishers.items():
            age_s = AGES_S[stamp]
            stamp_ns = 0 if age_s is None else node.get_clock().now().nanoseconds - round(age_s * 1e9)
            image.header.stamp.sec, image.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
            publisher.publish(image)
    node.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
