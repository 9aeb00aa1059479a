"""Figures with their uncertainty: every figure as a function of sums over clips, so that clips can be drawn again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.metrics.base import MetricError

Array = NDArray[np.float64]
DRAWS = 2000
_AT_ONCE = 250


@dataclass(frozen=True)
class Statistic:
    """A figure of a set of clips: ``value_of`` turns sums ``[..., K]`` over clips into the figure ``[...]``."""

    clips: tuple[str, ...]
    counts: Array
    """``[N, K]``: what each clip adds to the sums."""
    value_of: Callable[[Array], Array]
    higher_is_better: bool = True

    @property
    def value(self) -> float:
        """The figure of all clips."""
        return float(self.value_of(self.counts.sum(0)))

    @classmethod
    def mean(cls, per_clip: Mapping[str, float], *, higher_is_better: bool = True) -> Statistic:
        """The mean over clips."""
        counts = np.array([[value, 1.0] for value in per_clip.values()])
        return cls(tuple(per_clip), counts, ratio, higher_is_better)


@dataclass(frozen=True)
class Difference:
    """``first - second`` over the clips that both have, with its 95 % interval; ``p``: two-sided, of no difference."""

    first: float
    second: float
    low: float
    high: float
    p: float
    clips: int
    only_one: int
    """Clips that one of the two lacks."""

    @property
    def value(self) -> float:
        """The difference itself."""
        return self.first - self.second

    @property
    def sure(self) -> bool:
        """The interval does not hold 0."""
        return self.low > 0 or self.high < 0


def difference(first: Statistic, second: Statistic, *, draws: int = DRAWS, seed: int = 0) -> Difference:
    """Paired bootstrap: both figures of the same clips, drawn ``draws`` times with replacement.

    Raises :class:`MetricError` when they share no clip.
    """
    theirs = {clip: row for row, clip in enumerate(second.clips)}
    shared = [(row, theirs[clip]) for row, clip in enumerate(first.clips) if clip in theirs]
    if not shared:
        raise MetricError("the two share no clip, so they cannot be compared")
    a = first.counts[[row for row, _ in shared]]
    b = second.counts[[row for _, row in shared]]
    generator = np.random.default_rng(seed)
    found = []
    for start in range(0, draws, _AT_ONCE):
        size = min(_AT_ONCE, draws - start)
        weights = generator.multinomial(len(shared), np.full(len(shared), 1 / len(shared)), size).astype(np.float64)
        found.append(first.value_of(weights @ a) - second.value_of(weights @ b))
    drawn = np.concatenate(found)
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.quantile(drawn, (0.025, 0.975)) if drawn.size else (np.nan, np.nan)
    p = min(1.0, 2 * min((drawn <= 0).mean(), (drawn >= 0).mean())) if drawn.size else float("nan")
    all_clips = len({*first.clips, *second.clips})
    values = float(first.value_of(a.sum(0))), float(second.value_of(b.sum(0)))
    return Difference(*values, float(low), float(high), float(p), len(shared), all_clips - len(shared))


def ratio(sums: Array) -> Array:
    """Sums ``[..., 2]``: first over second; 0 over 0 is 0."""
    part, whole = sums[..., 0], sums[..., 1]
    return np.asarray(np.divide(part, whole, out=np.zeros_like(part), where=whole != 0))


def f1(sums: Array) -> Array:
    """Sums ``[..., 4]`` of right, predicted, found, wanted: harmonic mean of precision and recall."""
    precision, recall = ratio(sums[..., :2]), ratio(sums[..., 2:])
    return ratio(np.stack((2 * precision * recall, precision + recall), -1))


def bleu(order: int) -> Callable[[Array], Array]:
    """Sums ``[..., 10]`` of the caption's length, the reference's, 4 guesses and 4 hits: BLEU as the COCO scorer has it."""

    def value(sums: Array) -> Array:
        length, reference, guess, right = sums[..., 0], sums[..., 1], sums[..., 2:6], sums[..., 6:]
        precisions = (right[..., :order] + 1e-15) / (guess[..., :order] + 1e-9)
        size = (length + 1e-15) / (reference + 1e-9)
        penalty = np.exp(np.minimum(0.0, 1 - 1 / size))
        return np.asarray(precisions.prod(-1) ** (1 / order) * penalty)

    return value


def class_figure(name: str, classes: int) -> Callable[[Array], Array]:
    """Sums ``[..., C * C]`` of a confusion matrix: ``accuracy``, ``UAR`` or ``macro-F1``."""

    def value(sums: Array) -> Array:
        matrix = sums.reshape(*sums.shape[:-1], classes, classes)
        right = np.diagonal(matrix, axis1=-2, axis2=-1)
        true, said = matrix.sum(-1), matrix.sum(-2)
        if name == "accuracy":
            return ratio(np.stack((right.sum(-1), true.sum(-1)), -1))
        whole, part = (true, right) if name == "UAR" else (true + said, 2 * right)
        shares = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
        return ratio(np.stack((shares.sum(-1), (whole > 0).sum(-1).astype(np.float64)), -1))

    return value
