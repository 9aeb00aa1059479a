"""One class per clip: accuracy, UAR, macro-F1, confusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.metrics.base import Coverage, MetricError, pair, some


@dataclass(frozen=True)
class ClassScores:
    """All figures follow from the confusion matrix."""

    labels: tuple[str, ...]
    confusion: NDArray[np.int64]
    """``[C, C]``: row = truth, column = prediction."""
    coverage: Coverage | None = None

    @property
    def support(self) -> NDArray[np.int64]:
        """``[C]`` clips of each class."""
        return np.asarray(self.confusion.sum(1))

    @property
    def recall(self) -> NDArray[np.float64]:
        """``[C]``; NaN for a class that does not occur."""
        return _share(np.diag(self.confusion), self.support)

    @property
    def precision(self) -> NDArray[np.float64]:
        """``[C]``; NaN for a class that was never predicted."""
        return _share(np.diag(self.confusion), self.confusion.sum(0))

    @property
    def f1(self) -> NDArray[np.float64]:
        """``[C]``; NaN for a class that neither occurs nor was predicted."""
        return _share(2 * np.diag(self.confusion), self.support + self.confusion.sum(0))

    @property
    def accuracy(self) -> float:
        """Share of right clips; also called WAR."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def uar(self) -> float:
        """Unweighted average recall, over the classes that occur."""
        return float(np.nanmean(self.recall))

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that occur or were predicted."""
        return float(np.nanmean(self.f1))

    def values(self) -> dict[str, float]:
        """``accuracy``, ``UAR``, ``macro-F1``."""
        return {"accuracy": self.accuracy, "UAR": self.uar, "macro-F1": self.macro_f1}


def score_classes(
    predictions: Mapping[str, str], truth: Mapping[str, str], labels: Sequence[str] | None = None
) -> ClassScores:
    """Score one class per clip; ``labels`` (default: all that occur, sorted) orders the confusion matrix.

    Raises :class:`MetricError` when there is nothing to compare or a class is not among ``labels``.
    """
    coverage = pair(predictions, truth)
    pairs = [(truth[clip], predictions[clip]) for clip in coverage.scored]
    order = tuple(labels) if labels is not None else tuple(sorted({name for both in pairs for name in both}))
    index = {name: place for place, name in enumerate(order)}
    if len(index) != len(order):
        raise MetricError(f"a label stands twice among: {', '.join(order)}")
    unknown = {name for both in pairs for name in both} - set(order)
    if unknown:
        raise MetricError(f"classes {some(sorted(unknown))}: expected one of {', '.join(order)}")
    rows, columns = ([index[both[side]] for both in pairs] for side in (0, 1))
    return ClassScores(order, confusion_matrix(rows, columns, len(order)), coverage)


def confusion_matrix(truth: Sequence[int], predicted: Sequence[int], classes: int) -> NDArray[np.int64]:
    """Counts ``[C, C]`` of truth (row) and prediction (column). Raises :class:`MetricError` for an index out of range."""
    rows, columns = np.asarray(truth, np.int64), np.asarray(predicted, np.int64)
    if rows.shape != columns.shape or rows.ndim != 1 or not rows.size:
        raise MetricError(
            f"expected as many classes predicted as true, and at least one; got {columns.shape} and {rows.shape}"
        )
    for name, values in (("true", rows), ("predicted", columns)):
        if values.min() < 0 or values.max() >= classes:
            raise MetricError(
                f"{name} classes reach from {values.min()} to {values.max()}, expected 0 to {classes - 1}"
            )
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (rows, columns), 1)
    return matrix


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    shares = np.full(len(part), np.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares
