"""Pixels out of ROS image messages: any usual encoding -> RGB uint8 [H, W, 3], or a :class:`BadImage` that says why.

ROS-free: only fields are read, so that a message of rclpy and one that rosbags read from a file are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from emo_perception.from_msg import stamp_ns
from emo_perception.types import Frame

RGB = NDArray[np.uint8]


class BadImage(ValueError):  # noqa: N818 - it is the image that is bad
    """An image message that cannot be pixels; the message names what was expected, what came and what to do."""


@dataclass(frozen=True)
class _Layout:
    """``row_bytes_px``: bytes of a pixel in a row; ``rows``: rows in memory per image row (1.5: planar 4:2:0)."""

    row_bytes_px: int
    code: int | None  # OpenCV conversion to RGB; None = it is RGB
    rows: float = 1.0


def _bayer(depth: int) -> dict[str, _Layout]:
    # OpenCV names a pattern by the second row's second and third pixel, ROS by the first row's first two.
    codes = {"rggb": cv2.COLOR_BayerBG2RGB, "bggr": cv2.COLOR_BayerRG2RGB,
             "gbrg": cv2.COLOR_BayerGR2RGB, "grbg": cv2.COLOR_BayerGB2RGB}  # fmt: skip
    return {f"bayer_{name}{depth}": _Layout(depth // 8, code) for name, code in codes.items()}


_UYVY, _YUYV = _Layout(2, cv2.COLOR_YUV2RGB_UYVY), _Layout(2, cv2.COLOR_YUV2RGB_YUY2)
_GRAY8, _GRAY16 = _Layout(1, cv2.COLOR_GRAY2RGB), _Layout(2, cv2.COLOR_GRAY2RGB)
_BGR, _BGRA = _Layout(3, cv2.COLOR_BGR2RGB), _Layout(4, cv2.COLOR_BGRA2RGB)

#: Encodings of ``sensor_msgs/image_encodings.hpp`` that are understood.
_LAYOUTS: dict[str, _Layout] = {
    "rgb8": _Layout(3, None), "bgr8": _BGR, "8UC3": _BGR,
    "rgba8": _Layout(4, cv2.COLOR_RGBA2RGB), "bgra8": _BGRA, "8UC4": _BGRA,
    "mono8": _GRAY8, "8UC1": _GRAY8, "mono16": _GRAY16, "16UC1": _GRAY16,
    "uyvy": _UYVY, "yuv422": _UYVY, "yuyv": _YUYV, "yuv422_yuy2": _YUYV,
    "nv12": _Layout(1, cv2.COLOR_YUV2RGB_NV12, 1.5), "nv21": _Layout(1, cv2.COLOR_YUV2RGB_NV21, 1.5),
    **_bayer(8), **_bayer(16),
}  # fmt: skip
_SIXTEEN_BIT = frozenset(name for name in _LAYOUTS if "16" in name)
ENCODINGS = tuple(sorted(_LAYOUTS))


def frame_from_msg(message: Any) -> Frame:
    """A frame out of a message, Image or CompressedImage. Raises :class:`BadImage`, also for a stamp of zero."""
    stamp = stamp_ns(message.header.stamp)
    if stamp == 0:
        raise BadImage("header.stamp is zero: expected the acquisition time; set it in the camera's driver")
    return Frame(stamp, image_from_msg(message), message.header.frame_id)


def image_from_msg(message: Any) -> RGB:
    """RGB uint8 [H, W, 3] of a message. May be a view onto the message's data: do not write into it.

    16-bit images keep their upper eight bits. Raises :class:`BadImage` for an unknown encoding, a size or step that
    does not fit the data, an empty image, and a JPEG or PNG that is truncated or cannot be decoded.
    """
    return _decoded(message) if hasattr(message, "format") else _raw(message)


def _raw(message: Any) -> RGB:
    layout = _LAYOUTS.get(message.encoding)
    if layout is None:
        raise BadImage(f"encoding {message.encoding!r} is not supported; supported: {', '.join(ENCODINGS)}")
    height, width, step = message.height, message.width, message.step
    if not (height and width):
        raise BadImage(f"empty image: {width}x{height} pixels; check the driver's resolution")
    if (layout.rows > 1 and (height % 2 or width % 2)) or (layout in (_UYVY, _YUYV) and width % 2):
        raise BadImage(f"{message.encoding}: expected an even size, got {width}x{height}")
    row = width * layout.row_bytes_px
    if step < row:
        raise BadImage(
            f"step does not fit: {message.encoding}, {width} pixels need at least {row} bytes a row, got step {step}"
        )
    rows = int(height * layout.rows)
    if len(message.data) != rows * step:
        raise BadImage(
            f"{message.encoding} {width}x{height} with step {step}: expected {rows * step} bytes, got {len(message.data)}"
        )
    data = np.frombuffer(message.data, np.uint8).reshape(rows, step)[:, :row]
    if message.encoding in _SIXTEEN_BIT:
        data = data[:, 0::2] if message.is_bigendian else data[:, 1::2]
    return _to_rgb(data, layout, width)


def _to_rgb(data: NDArray[np.uint8], layout: _Layout, width: int) -> RGB:
    """``data`` uint8 [rows, bytes of a row] -> RGB."""
    channels = data.shape[1] // width
    pixels = data.reshape(data.shape[0], width, channels) if channels > 1 else data
    if layout.code is None:
        return pixels
    return np.asarray(cv2.cvtColor(pixels, layout.code), np.uint8)


_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
_COLOR_RGB: int | None = getattr(cv2, "IMREAD_COLOR_RGB", None)  # not in the OpenCV of Humble


def _decoded(message: Any) -> RGB:
    data = np.frombuffer(message.data, np.uint8)
    head, tail = data[:8].tobytes(), data[-4096:].tobytes().rstrip(b"\0")
    if not data.size:
        raise BadImage(f"empty compressed image (format {message.format!r})")
    # OpenCV fills the missing part of a truncated picture with grey and says nothing, so its end is looked for.
    if head.startswith(_JPEG):
        if not tail.endswith(b"\xff\xd9"):
            raise BadImage(f"truncated JPEG: {data.size} bytes without an end marker; check the link to the camera")
    elif head.startswith(_PNG):
        if b"IEND" not in tail:
            raise BadImage(f"truncated PNG: {data.size} bytes without its end chunk; check the link to the camera")
    else:
        raise BadImage(
            f"format {message.format!r} beginning with bytes {head[:4].hex(' ')}: expected JPEG or PNG data; "
            "set the camera's transport to 'compressed' or subscribe to the raw image"
        )
    return _decode(data, message.format)


def _decode(data: NDArray[np.uint8], name: str) -> RGB:
    image: Any
    try:
        if _COLOR_RGB is not None:
            image = cv2.imdecode(data, _COLOR_RGB)
        else:
            image = cv2.imdecode(data, cv2.IMREAD_COLOR)
            image = None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    except cv2.error as error:
        raise BadImage(f"format {name!r}: {data.size} bytes cannot be decoded: {error.err}") from None
    if image is None:
        raise BadImage(f"format {name!r}: {data.size} bytes cannot be decoded: damaged picture")
    return np.asarray(image, np.uint8)
