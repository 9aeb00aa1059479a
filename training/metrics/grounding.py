"""Do the words that name an action unit rest on that unit? Grounding precision and AU-word retrieval."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from training.metrics.au_phrases import PhraseReader, lexicon
from training.metrics.base import MetricError, pair


@dataclass(frozen=True)
class Evidence:
    """``text[start:end]`` rests on the action unit ``au`` with this similarity."""

    start: int
    end: int
    au: int
    similarity: float = 1.0


@dataclass(frozen=True)
class GroundedCaption:
    """A generated caption and the evidence of its words."""

    text: str
    evidence: tuple[Evidence, ...] = ()

    @classmethod
    def of(cls, result: Any) -> GroundedCaption:
        """From a ``CaptionResult`` of ECPA."""
        evidence = (Evidence(e.start, e.end, e.au, e.similarity) for e in result.evidence)
        return cls(result.text, tuple(evidence))


@dataclass(frozen=True)
class Grounding:
    """``right`` of ``phrases`` rest on one of the units they name; ``unsupported``: phrases without any evidence."""

    right: int
    phrases: int
    unsupported: int
    per_clip: dict[str, tuple[int, int]]
    """Clip -> right, phrases."""

    @property
    def precision(self) -> float:
        """Share of the phrases; 0 without any."""
        return self.right / self.phrases if self.phrases else 0.0


def grounding_precision(
    captions: Mapping[str, GroundedCaption],
    reader: PhraseReader | None = None,
    *,
    truth: Mapping[str, Collection[int]] | None = None,
) -> Grounding:
    """Of the phrases that name an action unit, the share whose evidence is that unit.

    The evidence of a phrase is that of its word with the highest similarity; a phrase whose words have none is not
    grounded. ``truth``: FACS numbers that were really active per clip; then the unit must also be one of them.
    Raises :class:`MetricError` without captions, or when ``truth`` lacks a clip.
    """
    reader = reader or lexicon()
    if truth is not None and (missing := pair(captions, truth).without_reference):
        raise MetricError(f"the truth lacks {len(missing)} clips, the first is {missing[0]}")
    if not captions:
        raise MetricError("there are no captions")
    right = phrases = unsupported = 0
    per_clip: dict[str, tuple[int, int]] = {}
    for clip, caption in captions.items():
        good = total = 0
        for phrase in reader.phrases(caption.text):
            total += 1
            inside = [e for e in caption.evidence if e.start < phrase.end and phrase.start < e.end]
            if not inside:
                unsupported += 1
                continue
            au = max(inside, key=lambda e: e.similarity).au
            good += au in phrase.aus and (truth is None or au in truth[clip])
        right, phrases = right + good, phrases + total
        per_clip[clip] = (good, total)
    return Grounding(right, phrases, unsupported, per_clip)


@dataclass(frozen=True)
class Retrieval:
    """AU-word retrieval over all rows that have a right word."""

    top1: float
    """Share of units whose most similar word belongs to a phrase of that unit."""
    mean_reciprocal_rank: float
    chance: float
    """Expected ``top1`` of a blind choice among the words."""
    rows: int


class RetrievalMeter:
    """Collects similarities of action unit prompts and caption words, clip by clip."""

    def __init__(self) -> None:
        self._ranks: list[float] = []
        self._chance: list[float] = []

    def add(self, similarity: ArrayLike, right: ArrayLike) -> None:
        """One clip: ``similarity [K, N]`` of K prompts and N words; ``right [K, N]``: the word names the prompt's unit.

        Rows without a right word ask nothing and are left out. Equal similarities count as the worse rank.
        Raises :class:`MetricError` for shapes that do not fit and values that are not finite.
        """
        values, truth = np.asarray(similarity, np.float64), np.asarray(right, bool)
        if values.ndim != 2 or values.shape != truth.shape:
            raise MetricError(f"expected similarity and right [K, N]; got {values.shape} and {truth.shape}")
        if not np.isfinite(values).all():
            raise MetricError("similarities are NaN or infinite; was a word vector zero?")
        for row, words in zip(values, truth, strict=True):
            if not words.any():
                continue
            best = row[words].max()
            self._ranks.append(1.0 + float((row[~words] >= best).sum()))
            self._chance.append(float(words.mean()))

    def result(self) -> Retrieval:
        """Figures over all clips so far. Raises :class:`MetricError` when none had a right word."""
        if not self._ranks:
            raise MetricError("no clip has a word that names the unit of a prompt, so nothing can be retrieved")
        ranks = np.asarray(self._ranks)
        return Retrieval(
            float((ranks == 1).mean()), float((1 / ranks).mean()), float(np.mean(self._chance)), len(ranks)
        )


def words_of(spans: Sequence[tuple[int, int]], phrases: Sequence[Any], aus: Sequence[int]) -> np.ndarray[Any, Any]:
    """``[K, N]`` for :meth:`RetrievalMeter.add`: word n at ``spans[n]`` lies in a phrase that names ``aus[k]``."""
    right = np.zeros((len(aus), len(spans)), bool)
    for phrase in phrases:
        inside = [start < phrase.end and phrase.start < end for start, end in spans]
        for row, au in enumerate(aus):
            if au in phrase.aus:
                right[row] |= inside
    return right
