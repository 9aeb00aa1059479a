"""Two annotators of the same clips: how far they agree, and what is to be voted on or discussed.

The rule of the FAME-Net paper: two people annotate everything; where the BERTScore of their texts exceeds 0.75 three
others vote for one of the two, elsewhere the two discuss until they agree.
"""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from training.datasets.files import read_table
from training.datasets.quarantine import Findings
from training.datasets.record import DatasetError, has_words

THRESHOLD: Final = 0.75
#: Columns of a sheet; the first is the key, the last two are filled in.
COLUMNS: Final = ("clip", "speaker", "utterance", "emotion", "text")
RESULT: Final = ("clip", "score", "next", "emotion_1", "emotion_2", "text_1", "text_2", "emotion", "text")
VOTE, DISCUSS, MISSING = "vote", "discuss", "annotate"
EXAMPLES = 5


class AgreementError(DatasetError):
    """Sheets that cannot be compared; the message says what was expected, what came and what to do."""


@dataclass(frozen=True)
class Pair:
    """One clip: what both wrote, and F1 of BERTScore between the texts (None where one is missing)."""

    clip: str
    texts: tuple[str, str]
    emotions: tuple[str, str]
    score: float | None

    def next_step(self, threshold: float) -> str:
        """``vote``, ``discuss`` or ``annotate``."""
        if self.score is None:
            return MISSING
        return VOTE if self.score > threshold else DISCUSS


@dataclass(frozen=True)
class Agreement:
    """All clips of both sheets, in the order of the first; ``model``: what the scores were made with."""

    pairs: tuple[Pair, ...]
    threshold: float
    model: str

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa of the emotions, where both gave one; None without any, or when both always say the same one."""
        given = [pair.emotions for pair in self.pairs if all(pair.emotions)]
        if not given:
            return None
        first, second = Counter(a for a, _ in given), Counter(b for _, b in given)
        chance = sum(first[name] * second[name] for name in first) / len(given) ** 2
        observed = sum(a == b for a, b in given) / len(given)
        return None if chance == 1 else (observed - chance) / (1 - chance)

    def write(self, file: Path) -> None:
        """A CSV with both texts, the score and the next step; equal answers are filled in. Raises :class:`AgreementError`."""
        try:
            with file.open("w", encoding="utf-8", newline="") as stream:
                writer = csv.writer(stream)
                writer.writerow(RESULT)
                writer.writerows(self._row(pair) for pair in self.pairs)
        except OSError as error:
            raise AgreementError(f"{file}: cannot be written: {error.strerror}") from None

    def _row(self, pair: Pair) -> list[str]:
        (emotion_1, emotion_2), (text_1, text_2) = pair.emotions, pair.texts
        score = "" if pair.score is None else f"{pair.score:.4f}"
        agreed = [emotion_1 if emotion_1 == emotion_2 else "", text_1 if text_1 == text_2 else ""]
        return [pair.clip, score, pair.next_step(self.threshold), emotion_1, emotion_2, text_1, text_2, *agreed]


def agree(
    first: Path, second: Path, *, threshold: float = THRESHOLD, model: str = "", layer: int | None = None
) -> Agreement:
    """Compare two filled-in sheets; ``model``: folder of the language model of BERTScore, ``layer``: which one to compare
    (None: the usual one of that model).

    Raises :class:`AgreementError` for sheets of different clips and without a model, :class:`DatasetError` for bad files.
    """
    sheets = [_sheet(file) for file in (first, second)]
    lone = sorted(sheets[0].keys() ^ sheets[1].keys())
    if lone:
        raise AgreementError(
            f"expected the same clips in {first} and {second}; only one has {', '.join(lone[:EXAMPLES])} ({len(lone)} clips)"
        )
    rows = [(clip, sheets[0][clip], sheets[1][clip]) for clip in sheets[0]]
    both = [(a[1], b[1]) for _, a, b in rows if has_words(a[1]) and has_words(b[1])]
    if not both:
        raise AgreementError(
            f"expected texts in the last column of both sheets, {first} and {second} share no filled-in row"
        )
    scores, version = _scores(both, model, layer)
    found = iter(scores)
    pairs = tuple(
        Pair(clip, (a[1], b[1]), (a[0], b[0]), next(found) if has_words(a[1]) and has_words(b[1]) else None)
        for clip, a, b in rows
    )
    return Agreement(pairs, threshold, version)


def _scores(texts: list[tuple[str, str]], model: str, layer: int | None) -> tuple[tuple[float, ...], str]:
    if not model:
        raise AgreementError(
            "BERTScore needs a language model: give its folder (configuration, tokenizer, weights) with --model; the paper "
            "does not name its own, most people take microsoft/deberta-xlarge-mnli or roberta-large"
        )
    try:
        from training.metrics.base import MetricError
        from training.metrics.bertscore import BertScorer
    except ImportError as error:
        raise AgreementError(f"BERTScore needs torch and transformers ({error}); type: make torch") from None
    try:
        scorer = BertScorer(Path(model).expanduser(), layer)
        scored = scorer.score([a for a, _ in texts], [b for _, b in texts])
    except MetricError as error:
        raise AgreementError(str(error)) from None
    return scored.f1, scorer.version


def _sheet(file: Path) -> dict[str, tuple[str, str]]:
    """Clip -> (emotion, text). Raises :class:`AgreementError` for rows that are none."""
    findings = Findings("sheet", file.parent)
    found: dict[str, tuple[str, str]] = {}
    for row, cells in read_table(file, ("clip", "emotion", "text"), findings, text="text"):
        if cells["clip"] in found:
            raise AgreementError(f"{file}, line {row}: expected each clip once, {cells['clip']} occurred before")
        found[cells["clip"]] = (cells["emotion"].lower(), cells["text"])
    broken = findings.dataset().quarantined
    if broken:
        raise AgreementError(f"{file}, line {broken[0].row}: {broken[0].detail}")
    return found


def agreement_page(agreement: Agreement) -> str:
    """What ``emo data agree`` prints."""
    scores = [pair.score for pair in agreement.pairs if pair.score is not None]
    steps = Counter(pair.next_step(agreement.threshold) for pair in agreement.pairs)
    lines = [
        f"clips        {len(agreement.pairs)}, {len(scores)} described by both",
        f"BERTScore    mean {sum(scores) / len(scores):.4f}, least {min(scores):.4f} ({agreement.model})",
        f"above {agreement.threshold:g}   {steps[VOTE]}: three others vote for one of the two texts",
        f"other        {steps[DISCUSS]}: the two annotators discuss and revise",
        f"unfinished   {steps[MISSING]}",
    ]
    named = [pair.emotions for pair in agreement.pairs if all(pair.emotions)]
    if named:
        same = sum(a == b for a, b in named)
        kappa = agreement.kappa
        lines.append(f"emotions     {same} of {len(named)} equal" + ("" if kappa is None else f", kappa {kappa:.3f}"))
    worst = sorted((pair for pair in agreement.pairs if pair.score is not None), key=lambda pair: pair.score or 0.0)
    to_discuss = [pair for pair in worst if pair.next_step(agreement.threshold) == DISCUSS][:EXAMPLES]
    lines += [f"  {pair.score:.3f}  {pair.clip}: {pair.texts[0]!r} / {pair.texts[1]!r}" for pair in to_discuss]
    return "\n".join(lines)
