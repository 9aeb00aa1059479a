"""The one image preprocessing, for training and run time alike. Plain numpy and OpenCV.

Images are RGB uint8 [H, W, 3]. A *square* is a rotated square region of an image: centre and side in pixels, angle in
radians, positive clockwise as seen in the image (y points down).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Float = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Square:
    """A rotated square region of an image."""

    centre_x: float
    centre_y: float
    side: float
    angle: float = 0.0

    def to_image(self, size: int) -> Float:
        """Affine float32 [2, 3] from pixels of a ``size`` x ``size`` crop to pixels of the image."""
        scale = self.side / size
        cos, sin = math.cos(self.angle) * scale, math.sin(self.angle) * scale
        half = size / 2
        return np.array(
            [
                [cos, -sin, self.centre_x - (cos - sin) * half],
                [sin, cos, self.centre_y - (sin + cos) * half],
            ],
            np.float32,
        )


def cut_square(image: NDArray[np.uint8], square: Square, size: int) -> Image:
    """The region, upright, as uint8 [size, size, C]; bilinear, black outside the image."""
    return np.asarray(
        cv2.warpAffine(image, square.to_image(size), (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP),
        np.uint8,
    )


def unit_range(image: Image, out: Float | None = None) -> Float:
    """uint8 -> float32 in [0, 1]; ``out`` is filled and returned when given."""
    return np.multiply(image, np.float32(1 / 255), out=out, dtype=np.float32)


def symmetric_range(image: Image, out: Float | None = None) -> Float:
    """uint8 -> float32 in [-1, 1]; ``out`` is filled and returned when given."""
    result = np.multiply(image, np.float32(1 / 127.5), out=out, dtype=np.float32)
    result -= 1
    return result


def gray(image: Image) -> Image:
    """RGB [H, W, 3] -> luma [H, W] (ITU-R BT.601, as OpenCV)."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def limit_width(image: Image, width: int) -> tuple[Image, float]:
    """Scale down to at most ``width`` pixels; returns the image and the factor from its pixels to the original's."""
    height_now, width_now = image.shape[:2]
    if width_now <= width:
        return image, 1.0
    factor = width_now / width
    size = (width, max(1, round(height_now / factor)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8), factor
