"""Causes of emotions: were the right utterances named, and does the explanation mention what happened?"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from training.metrics.base import Coverage, MetricError, pair, some


@dataclass(frozen=True)
class CauseScores:
    """Share of right answers over all targets and per kind of cause."""

    accuracy: float
    per_kind: dict[str, float]
    counts: dict[str, int]
    """Kind -> targets."""
    right: dict[str, bool]
    """Target -> whether its answer is right."""
    coverage: Coverage


def cause_accuracy(
    predicted: Mapping[str, Sequence[str]], truth: Mapping[str, Collection[str]], kinds: Mapping[str, str] | None = None
) -> CauseScores:
    """Cause-evidence accuracy of answers that name utterances: the first predicted id is one of the true causes.

    ``predicted``: target -> ids of cause utterances, the likeliest first; none counts as wrong. ``kinds``: target ->
    kind of its cause (``visible``, ``face``, ``words``), for figures per kind.
    """
    coverage = pair(predicted, truth)
    right = {clip: bool(predicted[clip]) and predicted[clip][0] in truth[clip] for clip in coverage.scored}
    return _scores(right, coverage, kinds)


def cause_mentioned(
    explanations: Mapping[str, str],
    evidence: Mapping[str, Sequence[str]],
    kinds: Mapping[str, str] | None = None,
    *,
    others: Mapping[str, Sequence[str]] | None = None,
) -> CauseScores:
    """Cause-evidence accuracy of free text: the explanation names what caused the emotion.

    ``evidence``: target -> phrases any of which names the true cause; ``others``: target -> phrases that name what did
    not cause it: an explanation that mentions one of these as well is wrong, for it names everything. Whole words, any
    case, and an ending as -s, -ed or -ing may follow each word.
    """
    coverage = pair(explanations, evidence)
    without = [clip for clip in coverage.scored if not any(phrase.strip() for phrase in evidence[clip])]
    if without:
        raise MetricError(
            f"{len(without)} targets have no phrase for their cause ({some(without)}); leave them out of the evidence"
        )
    right = {
        clip: mentions(explanations[clip], evidence[clip])
        and not mentions(explanations[clip], (others or {}).get(clip, ()))
        for clip in coverage.scored
    }
    return _scores(right, coverage, kinds)


@dataclass(frozen=True)
class PairScores:
    """Emotion-cause pairs as sets, micro average."""

    precision: float
    recall: float
    f1: float


def pair_f1(predicted: Mapping[str, Collection[str]], truth: Mapping[str, Collection[str]]) -> PairScores:
    """F1 of emotion-cause pairs (target, cause utterance), as ECF counts them; targets that one side lacks count as empty."""
    ours = {(clip, cause) for clip, causes in predicted.items() for cause in causes}
    theirs = {(clip, cause) for clip, causes in truth.items() for cause in causes}
    if not theirs:
        raise MetricError("the truth has no emotion-cause pair")
    both = len(ours & theirs)
    precision, recall = both / len(ours) if ours else 0.0, both / len(theirs)
    return PairScores(precision, recall, 2 * both / (len(ours) + len(theirs)))


def mentions(text: str, phrases: Sequence[str]) -> bool:
    """Whether a text contains one of the phrases, word by word."""
    return any(_pattern(phrase).search(text) for phrase in phrases if phrase.strip())


def _pattern(phrase: str) -> re.Pattern[str]:
    words = (rf"{re.escape(word)}(?:e?s|e?d|ing|'s)?" for word in phrase.split())
    return re.compile(r"\b" + r"\W+".join(words) + r"\b", re.IGNORECASE)


def _scores(right: dict[str, bool], coverage: Coverage, kinds: Mapping[str, str] | None) -> CauseScores:
    by_kind: dict[str, list[bool]] = {}
    for clip, good in right.items():
        if kinds is not None:
            by_kind.setdefault(kinds.get(clip, "unknown"), []).append(good)
    return CauseScores(
        sum(right.values()) / len(right),
        {kind: sum(values) / len(values) for kind, values in sorted(by_kind.items())},
        {kind: len(values) for kind, values in sorted(by_kind.items())},
        right,
        coverage,
    )
