"""Images and sound of the source on ROS topics."""

from __future__ import annotations

from array import array

import cv2
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from emo_msgs import msg
from emo_perception.config import SourceConfig
from emo_perception.nodes import convert, qos
from emo_perception.nodes.parameters import Parameters
from emo_perception.types import AudioChunk, Frame


class TopicOutput:
    """Publishers of images and sound. They are reliable: a reliable and a best-effort subscriber can both match them."""

    def __init__(self, node: Node, parameters: Parameters[SourceConfig]) -> None:
        self._parameters = parameters
        encoding = parameters.current.encoding
        options = qos.overridable()
        self._raw = self._jpeg = None
        if encoding in ("raw", "both"):
            self._raw = node.create_publisher(Image, "image_raw", qos.IMAGE_PUB, qos_overriding_options=options)
        if encoding in ("jpeg", "both"):
            self._jpeg = node.create_publisher(
                CompressedImage, "image_raw/compressed", qos.IMAGE_PUB, qos_overriding_options=options
            )
        self._audio = node.create_publisher(msg.AudioChunk, "audio", qos.AUDIO_PUB, qos_overriding_options=options)

    def heard(self) -> bool:
        """Whether the images have a subscriber."""
        return any(p is not None and p.get_subscription_count() > 0 for p in (self._raw, self._jpeg))

    def send_frame(self, frame: Frame) -> None:
        """Publish in the forms that somebody subscribes to."""
        if self._raw is not None and self._raw.get_subscription_count():
            self._raw.publish(image_msg(frame))
        if self._jpeg is not None and self._jpeg.get_subscription_count():
            self._jpeg.publish(jpeg_msg(frame, self._parameters.current.jpeg_quality))

    def send_audio(self, chunk: AudioChunk) -> None:
        self._audio.publish(convert.audio_msg(chunk))


def image_msg(frame: Frame) -> Image:
    """The frame as an ``rgb8`` image. The data go through ``array.array``: 6000 times faster than from an ndarray."""
    height, width, _ = frame.image.shape
    data = array("B")
    data.frombytes(frame.image.data)
    message = Image(
        header=convert.header(frame.stamp_ns, frame.frame_id),
        height=height,
        width=width,
        encoding="rgb8",
        step=3 * width,
    )
    message.data = data
    return message


def jpeg_msg(frame: Frame, quality: int) -> CompressedImage:
    """The frame as a JPEG of this quality."""
    bgr = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    message = CompressedImage(header=convert.header(frame.stamp_ns, frame.frame_id), format="jpeg")
    message.data = array("B", encoded.tobytes())
    return message
