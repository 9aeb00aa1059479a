"""Drawing with sub-pixel positions and smooth edges: thin wrappers about OpenCV for points as float [N, 2]."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Points = NDArray[np.float64]
Colour = tuple[int, int, int]

#: Bits of a pixel's fraction that OpenCV is given.
_SHIFT: Final = 4
_ONE: Final = 1 << _SHIFT
#: OpenCV wraps around beyond; nothing drawn is that far outside.
_FAR: Final = 4000.0


def _fixed(points: Points) -> NDArray[np.int32]:
    return np.rint(np.clip(points, -_FAR, _FAR) * _ONE).astype(np.int32)


def fill(image: Image, points: Points, colour: Colour) -> None:
    """A filled polygon."""
    cv2.fillPoly(image, [_fixed(points)], colour, cv2.LINE_AA, _SHIFT)


def line(image: Image, points: Points, colour: Colour, width: float = 1, *, closed: bool = False) -> None:
    """An open or closed line through the points, ``width`` in pixels, at least one."""
    cv2.polylines(image, [_fixed(points)], closed, colour, max(1, round(width)), cv2.LINE_AA, _SHIFT)


def disc(image: Image, x: float, y: float, radius: float, colour: Colour) -> None:
    """A filled circle."""
    oval(image, x, y, radius, radius, colour)


def oval(  # noqa: PLR0917 - in OpenCV's order
    image: Image, x: float, y: float, half_width: float, half_height: float, colour: Colour, turn: float = 0
) -> None:
    """A filled ellipse, turned clockwise by ``turn`` degrees."""
    centre, axes = _fixed(np.array([x, y])), _fixed(np.array([half_width, half_height]))
    cv2.ellipse(
        image, (int(centre[0]), int(centre[1])), (max(1, int(axes[0])), max(1, int(axes[1]))), turn, 0, 360, colour, -1,
        cv2.LINE_AA, _SHIFT,
    )  # fmt: skip


def box(image: Image, x: float, y: float, width: float, height: float, colour: Colour) -> None:  # noqa: PLR0917 - as oval
    """A filled rectangle from its top left corner."""
    fill(image, np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]]), colour)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """The colour ``share`` of the way from ``a`` to ``b``."""
    share = min(1.0, max(0.0, share))
    return (
        round(a[0] + (b[0] - a[0]) * share),
        round(a[1] + (b[1] - a[1]) * share),
        round(a[2] + (b[2] - a[2]) * share),
    )
