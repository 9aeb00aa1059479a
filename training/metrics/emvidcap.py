"""Emotion words of captions, as EmVidCap's papers count them: Acc_sw, Acc_c, BFS and CFS.

Definitions after the evaluation that the authors of EPAN publish with their code. The word lists are EmVidCap's and are
not part of this package: one text file per emotion, a word a line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.metrics.base import Coverage, MetricError, pair
from training.metrics.captions import CaptionScores
from training.metrics.ptb import caption_tokens

_TINY = 1e-4


@dataclass(frozen=True)
class EmotionWordScores:
    """Accuracy of emotion words.

    ``acc_sw`` = N_r / (N_r + N_w + phi): emotions named that the references name too, emotions named that they do not,
    and captions without an emotion word. ``acc_c`` = exp(N_h / (N_h - N_c + 1e-4)) N_c / N: N_c captions name a right
    emotion, N_h of them a wrong one as well.
    """

    acc_sw: float
    acc_c: float
    coverage: Coverage


def read_emotion_words(folder: Path) -> dict[str, str]:
    """Word -> emotion, from a folder of ``<emotion>.txt``. A word of several emotions belongs to the first by name."""
    files = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    words: dict[str, str] = {}
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.split():
                words.setdefault(line.split()[0].lower(), file.stem)
    if not words:
        raise MetricError(
            f"no emotion words in {folder}: expected one <emotion>.txt per emotion, a word a line, as the folder "
            "sentiment-words-E of EmVidCap's evaluation"
        )
    return words


def emotion_word_accuracy(
    predictions: Mapping[str, str], references: Mapping[str, Sequence[str]], words: Mapping[str, str]
) -> EmotionWordScores:
    """Acc_sw and Acc_c. Where every right caption names a wrong emotion too, the formula has no value; 0 is given."""
    coverage = pair(predictions, references)
    right = wrong = silent = good = mixed = 0
    for clip in coverage.scored:
        said = _emotions(predictions[clip], words)
        true = {emotion for text in references[clip] for emotion in _emotions(text, words)}
        right, wrong = right + len(said & true), wrong + len(said - true)
        silent += not said
        good += bool(said & true)
        mixed += bool(said & true) and bool(said - true)
    acc_c = 0.0
    if good > mixed:
        acc_c = math.exp(mixed / (mixed - good + _TINY)) * good / len(coverage.scored)
    return EmotionWordScores(right / (right + wrong + silent), acc_c, coverage)


def hybrid_scores(captions: CaptionScores, words: EmotionWordScores) -> dict[str, float]:
    """``Acc_sw``, ``Acc_c``, ``BFS`` = 0.8 (0.1 B1 + 0.2 B2 + 0.3 B3 + 0.4 B4) + 0.1 (Acc_sw + Acc_c), ``CFS`` = the same of CIDEr."""
    bleu = sum(0.1 * n * captions.values[f"BLEU-{n}"] for n in (1, 2, 3, 4))
    emotion = 0.1 * (words.acc_sw + words.acc_c)
    return {
        "Acc_sw": words.acc_sw,
        "Acc_c": words.acc_c,
        "BFS": 0.8 * bleu + emotion,
        "CFS": 0.8 * captions.values["CIDEr"] + emotion,
    }


def _emotions(text: str, words: Mapping[str, str]) -> set[str]:
    return {words[token] for token in caption_tokens(text).split() if token in words}
