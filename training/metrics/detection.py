"""How well faces are found: average precision, and the error of the five points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.metrics.base import MetricError

Float = NDArray[np.floating]


@dataclass(frozen=True)
class DetectionScores:
    """``ap``: area under precision over recall, at the overlap asked for; ``recall``: with all that was reported.

    ``points``: mean distance of the points from the true ones, as a share of the distance between the true eyes.
    """

    ap: float
    recall: float
    points: float

    def values(self) -> dict[str, float]:
        """``AP``, ``recall``, ``point error``."""
        return {"AP": self.ap, "recall": self.recall, "point error": self.points}


def score_detections(
    found: Sequence[tuple[Float, Float]], truth: Sequence[tuple[Float, Float]], *, overlap: float = 0.5
) -> DetectionScores:
    """Score images: of each ``(boxes [N, 5], points [N, 5, 2])`` found and ``(boxes [F, 4], points [F, 5, 2])`` true.

    Boxes are x, y, width, height, and the confidence of those found; points NaN where not annotated. In the order of
    their confidence each box takes the true face that it overlaps most, if by ``overlap`` and if it is still free; all
    others are false (PASCAL VOC). The area is exact, precision made monotone. Raises :class:`MetricError` without a face.
    """
    faces = sum(len(boxes) for boxes, _ in truth)
    if len(found) != len(truth) or not faces:
        raise MetricError(
            f"expected as many images found as true, and a face; got {len(found)}, {len(truth)} and {faces}"
        )
    hits: list[tuple[float, bool]] = []
    errors: list[float] = []
    for (boxes, points), (true_boxes, true_points) in zip(found, truth, strict=True):
        free = np.ones(len(true_boxes), bool)
        for row in np.argsort(-boxes[:, 4], kind="stable"):
            overlaps = _overlaps(boxes[row, :4], true_boxes) * free
            best = int(overlaps.argmax()) if len(overlaps) else -1
            hit = best >= 0 and overlaps[best] >= overlap
            hits.append((float(boxes[row, 4]), hit))
            if hit:
                free[best] = False
                errors.append(_point_error(points[row], true_points[best]))
    right = np.array([hit for _, hit in sorted(hits, key=lambda each: -each[0])], bool)
    known = [error for error in errors if np.isfinite(error)]
    return DetectionScores(_area(right, faces), float(right.sum() / faces), float(np.mean(known)) if known else np.nan)


def _area(right: NDArray[np.bool_], faces: int) -> float:
    if not len(right):
        return 0.0
    precision = right.cumsum() / np.arange(1, len(right) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((best * right).sum() / faces)


def _overlaps(box: Float, others: Float) -> Float:
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[:2] + box[2:], others[:, :2] + others[:, 2:4])
    common = np.clip(high - low, 0, None).prod(1)
    return np.asarray(common / np.maximum(box[2:].prod() + others[:, 2:4].prod(1) - common, 1e-9))


def _point_error(points: Float, true: Float) -> float:
    eyes = np.linalg.norm(true[0] - true[1])
    return float(np.linalg.norm(points - true, axis=1).mean() / eyes) if eyes > 0 else np.nan
