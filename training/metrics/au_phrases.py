"""Phrases of captions that name action units, against a reference's, against the truth, and against scores of a network.

A phrase stands for one or more units ("open mouth": 25, 26 or 27), so phrases are counted, not units: a phrase is right
when it shares a unit with a phrase of the other side. A clip counts each distinct set of units once, however often the
caption repeats it. The sums over all clips make the figures (micro average): a clip without phrases adds nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from emo_models.labels import AU_NAMES
from training.metrics.base import Coverage, MetricError, pair

Units = tuple[int, ...]
"""FACS numbers that one phrase stands for."""


class PhraseReader(Protocol):
    """Finds phrases that name action units: ``emo_models.networks.ecpa.captions.AuLexicon`` is one."""

    def phrases(self, text: str) -> Sequence[Any]:
        """Phrases with ``start``, ``end`` and ``aus``."""
        ...


@dataclass(frozen=True)
class Counts:
    """``right`` of ``predicted`` phrases are in the reference; ``found`` of ``wanted`` are in the prediction."""

    right: int = 0
    predicted: int = 0
    found: int = 0
    wanted: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.right + other.right,
            self.predicted + other.predicted,
            self.found + other.found,
            self.wanted + other.wanted,
        )

    @property
    def precision(self) -> float:
        """Share of predicted phrases that are right; 0 without any."""
        return self.right / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Share of the reference's phrases that were found; 0 without any."""
        return self.found / self.wanted if self.wanted else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of both; 0 where both are 0."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


@dataclass(frozen=True)
class PhraseScores:
    """Agreement of phrases. ``per_au``: units that occur on either side; a phrase of three counts for each of them."""

    total: Counts
    per_au: dict[int, Counts]
    per_clip: dict[str, Counts]
    coverage: Coverage

    @property
    def precision(self) -> float:
        """Of the sums over all clips."""
        return self.total.precision

    @property
    def recall(self) -> float:
        """Of the sums over all clips."""
        return self.total.recall

    @property
    def f1(self) -> float:
        """Of the sums over all clips."""
        return self.total.f1


def au_phrase_f1(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    reader: PhraseReader | None = None,
    *,
    reference_reader: PhraseReader | None = None,
) -> PhraseScores:
    """AU-phrase F1 of captions against reference captions; several references of a clip are taken together.

    ``reader`` (default: the English AU lexicon) reads both sides, or only the predictions beside a
    ``reference_reader``. Raises :class:`MetricError` when there is nothing to compare or no reference names a unit.
    """
    reader = reader or lexicon()
    other = reference_reader or reader
    wanted = {clip: {u for text in texts for u in units(text, other)} for clip, texts in references.items()}
    return phrase_f1({clip: units(text, reader) for clip, text in predictions.items()}, wanted)


def au_truth_f1(
    predictions: Mapping[str, str], truth: Mapping[str, Collection[int]], reader: PhraseReader | None = None
) -> PhraseScores:
    """AU-phrase F1 of captions against the units that were really active, FACS numbers per clip."""
    reader = reader or lexicon()
    return phrase_f1(
        {clip: units(text, reader) for clip, text in predictions.items()},
        {clip: {(int(au),) for au in active} for clip, active in truth.items()},
    )


def phrase_f1(predicted: Mapping[str, Iterable[Units]], wanted: Mapping[str, Iterable[Units]]) -> PhraseScores:
    """The same for phrases that are already read. Raises :class:`MetricError` when no reference has a phrase."""
    coverage = pair(predicted, wanted)
    per_clip: dict[str, Counts] = {}
    per_au: dict[int, Counts] = {}
    for clip in coverage.scored:
        ours, theirs = set(predicted[clip]), set(wanted[clip])
        per_clip[clip] = _compare(ours, theirs)
        for au in {au for phrase in ours | theirs for au in phrase}:
            mine, yours = {p for p in ours if au in p}, {p for p in theirs if au in p}
            counts = Counts(len(_sharing(mine, theirs)), len(mine), len(_sharing(yours, ours)), len(yours))
            per_au[au] = per_au.get(au, Counts()) + counts
    total = sum(per_clip.values(), Counts())
    if not total.wanted:
        raise MetricError(
            f"none of {len(per_clip)} references names an action unit, so there is no AU-phrase F1; "
            "are they captions of faces, in the language of the lexicon?"
        )
    return PhraseScores(total, dict(sorted(per_au.items())), per_clip, coverage)


@dataclass(frozen=True)
class Hallucination:
    """Phrases of captions whose unit the network did not see."""

    rate: float
    """Share of the phrases, 0 without any."""
    phrases: int
    unseen: int
    unscored: int
    """Phrases of units that the network does not score, as closed eyes: left out of the rate."""
    per_clip: dict[str, tuple[str, ...]]
    """Clip -> the words of its unseen phrases."""


def hallucination_rate(
    predictions: Mapping[str, str],
    scores: Mapping[str, Mapping[int, float]],
    reader: PhraseReader | None = None,
    *,
    threshold: float = 0.5,
) -> Hallucination:
    """How often a caption names a unit that scores below ``threshold`` in its clip.

    ``scores``: per clip FACS number -> score in 0..1, as the mean over the clip's valid frames (``threshold`` 0.5 is
    OpenGraphAU's). A phrase that stands for several units is seen when any of them is.
    """
    reader = reader or lexicon()
    coverage = pair(predictions, scores)
    phrases = unseen = unscored = 0
    per_clip: dict[str, tuple[str, ...]] = {}
    for clip in coverage.scored:
        missing = []
        for phrase in reader.phrases(predictions[clip]):
            known = [scores[clip][au] for au in phrase.aus if au in scores[clip]]
            if not known:
                unscored += 1
                continue
            phrases += 1
            if max(known) < threshold:
                missing.append(predictions[clip][phrase.start : phrase.end])
        unseen += len(missing)
        if missing:
            per_clip[clip] = tuple(missing)
    return Hallucination(unseen / phrases if phrases else 0.0, phrases, unseen, unscored, per_clip)


def units(text: str, reader: PhraseReader) -> set[Units]:
    """The distinct sets of units that a text names."""
    return {tuple(sorted(phrase.aus)) for phrase in reader.phrases(text)}


def lexicon(language: str = "en") -> PhraseReader:
    """The package's AU lexicon. Raises :class:`MetricError` without torch, beside which it lives."""
    try:
        from emo_models.networks.ecpa.captions import AuLexicon
    except ImportError as error:
        raise MetricError(
            f"the AU lexicon comes with the networks, which need torch ({error}); type: make torch"
        ) from None
    return AuLexicon.load(language)


def name(au: int) -> str:
    """``AU12 lip corner puller``."""
    return f"AU{au} {AU_NAMES.get(au, '')}".strip()


def _compare(ours: set[Units], theirs: set[Units]) -> Counts:
    return Counts(len(_sharing(ours, theirs)), len(ours), len(_sharing(theirs, ours)), len(theirs))


def _sharing(some: set[Units], others: set[Units]) -> list[Units]:
    """Those that share a unit with one of the others."""
    there = {au for phrase in others for au in phrase}
    return [phrase for phrase in some if there.intersection(phrase)]
