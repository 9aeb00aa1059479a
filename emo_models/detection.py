"""From SCRFD's maps to faces, in plain numpy: the part of the detector that stays outside of its engine.

An image of ``height`` x ``width`` pixels, both multiples of 32, has two square anchors at each cell of the strides 8, 16
and 32, in the order row, column, anchor. For each stride s the network gives ``score_s [N, A]`` before the sigmoid,
``box_s [N, A, 4]``, the distances from the anchor's centre to the left, top, right and bottom side, and ``points_s
[N, A, 10]``, the offsets x, y from the centre to five points; distances and offsets are in strides. So do the public
SCRFD files of InsightFace, with the sigmoid applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]

STRIDES: Final = (8, 16, 32)
#: Sides of the two anchors of each stride, in pixels. They matter to training alone.
ANCHOR_SIDES: Final = ((16, 32), (64, 128), (256, 512))
#: Names of the maps, in the order in which the network returns them.
OUTPUTS: Final = tuple(f"{kind}_{stride}" for kind in ("score", "box", "points") for stride in STRIDES)


@dataclass(frozen=True)
class FacesFound:
    """Faces of one image, best first."""

    #: float32 [N, 5]: x, y, width, height in pixels, confidence in [0, 1].
    boxes: Float
    #: float32 [N, 5, 2]: left eye, right eye, nose, left and right mouth corner as seen in the image, in pixels.
    points: Float


@lru_cache(maxsize=16)
def anchor_centres(height: int, width: int, stride: int) -> Float:
    """Centres x, y of all anchors of a stride in pixels: float32 [2 · height/stride · width/stride, 2]."""
    y, x = np.mgrid[: height // stride, : width // stride] * stride
    centres = np.stack([x, y], -1).reshape(-1, 1, 2)
    return np.repeat(centres, len(ANCHOR_SIDES[0]), axis=1).reshape(-1, 2).astype(np.float32)


def decode(
    maps: Mapping[str, NDArray[np.floating]],
    size_hw: tuple[int, int],
    *,
    scale: float = 1.0,
    least_score: float = 0.5,
    overlap: float = 0.45,
    image: int = 0,
) -> FacesFound:
    """The faces of one image of a batch.

    Args:
        maps: the network's outputs by name, :data:`OUTPUTS`.
        size_hw: height and width of the network's input.
        scale: factor from its pixels to those of the image, as :func:`emo_models.preprocess.fit_into` tells.
        least_score: confidence below which nothing is reported, in (0, 1).
        overlap: of two boxes with a larger intersection over union only the better stays.
        image: which of the batch.

    Raises:
        ValueError: a map is missing or has another number of anchors than the size gives.

    """
    scores, boxes, points = [], [], []
    logit = float(np.log(least_score / (1 - least_score)))
    for stride in STRIDES:
        score, box, offsets = _maps_of(maps, stride, size_hw, image)
        chosen = np.flatnonzero(score > logit)
        centres = anchor_centres(*size_hw, stride)[chosen]
        scores.append(1 / (1 + np.exp(-score[chosen])))
        sides = box[chosen] * stride
        boxes.append(np.hstack([centres - sides[:, :2], sides[:, :2] + sides[:, 2:]]))
        points.append(centres[:, None] + offsets[chosen] * stride)
    all_scores, all_boxes, all_points = np.concatenate(scores), np.concatenate(boxes), np.concatenate(points)
    kept = suppress(all_boxes, all_scores, overlap)
    rows = np.column_stack([all_boxes[kept] * scale, all_scores[kept]])
    return FacesFound(rows.astype(np.float32), (all_points[kept] * scale).astype(np.float32))


def suppress(boxes: NDArray[np.floating], scores: NDArray[np.floating], overlap: float) -> NDArray[np.int64]:
    """Non-maximum suppression of boxes [N, 4] (x, y, width, height): the indices that stay, best first."""
    if not len(boxes):
        return np.zeros(0, np.int64)
    kept = cv2.dnn.NMSBoxes(boxes.astype(float).tolist(), scores.astype(float).tolist(), 0.0, overlap)
    return np.array(kept, np.int64).reshape(-1)


def _maps_of(
    maps: Mapping[str, NDArray[np.floating]], stride: int, size_hw: tuple[int, int], image: int
) -> tuple[Float, Float, Float]:
    anchors = len(anchor_centres(*size_hw, stride))
    found = []
    for kind, tail in (("score", ()), ("box", (4,)), ("points", (10,))):
        name = f"{kind}_{stride}"
        if name not in maps:
            raise ValueError(f"expected the maps {', '.join(OUTPUTS)}; got {', '.join(maps)}")
        if maps[name].shape[1:] != (anchors, *tail):
            raise ValueError(
                f"{name}: expected [N, {', '.join(map(str, (anchors, *tail)))}] for an input of {size_hw[0]}x{size_hw[1]} "
                f"pixels (height x width), got {list(maps[name].shape)}"
            )
        found.append(np.asarray(maps[name][image], np.float32))
    return found[0], found[1], found[2].reshape(-1, 5, 2)
