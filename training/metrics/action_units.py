"""Action units against labels: F1, ICC(3,1) and AUC, per unit and on average.

Sources: ICC after Shrout and Fleiss (1979), "Intraclass correlations"; AUC as the rank statistic of Mann and Whitney.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.metrics.base import MetricError


@dataclass(frozen=True)
class AuScores:
    """Figures per unit, NaN where they are not defined; means are over the defined ones."""

    aus: tuple[int, ...]
    f1: NDArray[np.float64]
    """``[A]``; NaN for a unit that is neither labelled nor predicted."""
    auc: NDArray[np.float64]
    """``[A]``; NaN unless both active and inactive frames occur."""
    icc: NDArray[np.float64]
    """``[A]`` ICC(3,1) of intensities; NaN for binary labels."""
    active: NDArray[np.int64]
    """``[A]`` labelled frames in which the unit is active."""
    labelled: NDArray[np.int64]
    """``[A]`` frames with a label."""

    def means(self) -> dict[str, float]:
        """``AU F1``, ``AU AUC``, ``AU ICC``: those that any unit has."""
        figures = {"AU F1": self.f1, "AU AUC": self.auc, "AU ICC": self.icc}
        return {name: float(np.nanmean(values)) for name, values in figures.items() if not np.isnan(values).all()}


def score_action_units(
    predicted: ArrayLike,
    labels: ArrayLike,
    aus: Sequence[int],
    *,
    threshold: ArrayLike = 0.5,
    intensity: float | None = None,
) -> AuScores:
    """Scores ``[N, A]`` against labels ``[N, A]``; a negative or NaN label is no label (BP4D and DISFA mark them so).

    ``threshold``: one, or one per unit; a unit is predicted active from there on. ``intensity``: None for labels 0 and
    1; else the labels are intensities in the unit of the scores, active from this value on, and ICC is given too.
    Raises :class:`MetricError` for shapes that do not fit and labels other than 0 and 1 where binary ones are expected.
    """
    scores_na, labels_na = np.asarray(predicted, np.float64), np.asarray(labels, np.float64)
    if scores_na.shape != labels_na.shape or scores_na.ndim != 2 or scores_na.shape[1] != len(aus):
        raise MetricError(
            f"expected scores and labels [N, {len(aus)}] for {len(aus)} units; got {scores_na.shape} and {labels_na.shape}"
        )
    if not np.isfinite(scores_na).all():
        raise MetricError(
            f"{int((~np.isfinite(scores_na)).sum())} scores are NaN or infinite; leave out frames without a face"
        )
    valid = np.nan_to_num(labels_na, nan=-1.0) >= 0
    if not valid.any():
        raise MetricError("no frame has a label")
    if intensity is None and not np.isin(labels_na[valid], (0, 1)).all():
        raise MetricError(
            "labels other than 0 and 1; for intensities say from which one a unit is active: intensity=1.0"
        )
    active = np.where(valid, labels_na >= (1 if intensity is None else intensity), False)
    said = scores_na >= np.broadcast_to(np.asarray(threshold, np.float64), (len(aus),))
    f1, auc, icc = (np.full(len(aus), np.nan) for _ in range(3))
    for unit in range(len(aus)):
        there = valid[:, unit]
        truth, scores = active[there, unit], scores_na[there, unit]
        f1[unit] = binary_f1(said[there, unit], truth)
        auc[unit] = area_under_curve(scores, truth)
        if intensity is not None:
            icc[unit] = icc31(np.stack((scores, labels_na[there, unit]), 1))
    return AuScores(tuple(aus), f1, auc, icc, active.sum(0), valid.sum(0))


def binary_f1(predicted: ArrayLike, truth: ArrayLike) -> float:
    """F1 of the positive class; NaN when it neither occurs nor was predicted."""
    said, true = np.asarray(predicted, bool), np.asarray(truth, bool)
    both = int(said.sum()) + int(true.sum())
    return 2 * int((said & true).sum()) / both if both else float("nan")


def area_under_curve(scores: ArrayLike, truth: ArrayLike) -> float:
    """Probability that an active frame scores above an inactive one, ties counting half; NaN without one of the two."""
    values, true = np.asarray(scores, np.float64), np.asarray(truth, bool)
    active, rest = int(true.sum()), int((~true).sum())
    if not active or not rest:
        return float("nan")
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((ranks[true].sum() - active * (active + 1) / 2) / (active * rest))


def icc31(ratings: ArrayLike) -> float:
    """ICC(3,1) of ``[N, K]`` ratings by the same K judges: (BMS - EMS) / (BMS + (K - 1) EMS); NaN when nothing varies."""
    values = np.asarray(ratings, np.float64)
    if values.ndim != 2 or values.shape[1] < 2:
        raise MetricError(f"expected ratings [N, K] of two or more judges; got {values.shape}")
    items, judges = values.shape
    if items < 2:
        return float("nan")
    mean = values.mean()
    between = judges * ((values.mean(1) - mean) ** 2).sum()
    total = ((values - mean) ** 2).sum()
    error = total - between - items * ((values.mean(0) - mean) ** 2).sum()
    bms, ems = between / (items - 1), error / ((items - 1) * (judges - 1))
    below = bms + (judges - 1) * ems
    return float((bms - ems) / below) if below > 1e-12 else float("nan")
