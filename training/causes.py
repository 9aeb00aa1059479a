"""``emo cause``: learn the ranker of causes from the labelled dialogues, and measure it on those that are held out."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Final

import numpy as np
import yaml
from numpy.typing import NDArray

import emo_perception.stages.cause
from emo_models.engines.protocol import EngineError
from emo_models.labels import NEUTRAL
from emo_models.weights import WeightsError
from emo_perception.config import CauseConfig
from emo_perception.memory import Item
from emo_perception.stages.cause.encoder import SentenceEncoder
from emo_perception.stages.cause.features import FEATURES, Target, candidates, describe
from emo_perception.stages.cause.ranker import NONE, Ranker, probabilities
from emo_perception.stages.cause.targets import target_of_event, target_of_utterance
from emo_perception.stages.cause.words import CUES, WordReader, learned
from emo_perception.types import NS_PER_S, Utterance
from training.dialogues import PARTS, Dialogue, Question, read_part

WEIGHTS_FILE: Final = Path(emo_perception.stages.cause.__path__[0]) / "weights.yaml"
#: Pulls every weight towards 0: the dialogues are few.
RIDGE: Final = 0.02
STEPS, RATE = 4000, 0.2
HEAD: Final = """\
# Learned from training/data/dialogues_train.yaml by `emo cause fit`; the names are explained in words.py and features.py.
"""

Ranked = tuple[tuple[Item, ...], bool]  # candidates, the likeliest first, and whether none of them is the answer
Answer = Callable[[Question], Ranked]


def target_of(question: Question, reader: WordReader) -> Target:
    """The line as the running system sees it: the labelled emotion is not used."""
    names = question.memory.names()
    if isinstance(question.item, Utterance):
        return target_of_utterance(question.item, question.memory.items, names, reader)
    target = target_of_event(question.item, names)
    assert target is not None, f"{question.dialogue}: only utterances and changes of a face are explained"
    return target


def _window_ns() -> int:
    return round(CauseConfig().window_s * NS_PER_S)


def options_of(question: Question, target: Target) -> list[Item]:
    """The candidates. Raises ``ValueError`` for a label that no system could give, as a cause after its effect."""
    options = candidates(target, question.memory.items, question.memory.names(), _window_ns())
    for cause in question.causes:
        if cause not in options:
            raise ValueError(f"{question.dialogue}: the cause of {question.item} is no candidate: {cause}")
    return options


# Learning


def fit() -> None:
    """Learn both sets of weights from the part for training and write them."""
    dialogues = read_part("train")
    emotional = fit_emotional(dialogues, WordReader(SentenceEncoder()))
    _write(emotional, dict.fromkeys((*FEATURES, NONE), 0.0))
    _write(emotional, fit_cause(dialogues, WordReader(SentenceEncoder())))  # it reads the words by the first set


def fit_emotional(dialogues: Sequence[Dialogue], reader: WordReader) -> dict[str, float]:
    """The weights of the estimate whether words are emotional: logistic regression."""
    texts = [pair for dialogue in dialogues for pair in dialogue.emotions]
    cues = np.stack([reader(utterance.text).cues for utterance, _ in texts])
    labels = np.array([emotion != NEUTRAL for _, emotion in texts], np.float64)
    weights = np.zeros(len(CUES))
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-cues @ weights))
        weights += RATE * (cues.T @ (labels - chance) / len(labels) - RIDGE / 4 * np.append(0.0, weights[1:]))
    return dict(zip(CUES, weights.tolist(), strict=True))


def _examples(dialogues: Sequence[Dialogue], reader: WordReader) -> list[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """Of each question the numbers [candidates, features] and which choice is right [candidates + 1], "none" last."""
    examples = []
    for question in (q for dialogue in dialogues for q in dialogue.questions):
        target = target_of(question, reader)
        options = options_of(question, target)
        numbers = describe(target, options, question.memory.items, question.memory.names(), reader)
        right = np.array([*(option in question.causes for option in options), not question.causes])
        examples.append((numbers, right))
    return examples


def fit_cause(dialogues: Sequence[Dialogue], reader: WordReader) -> dict[str, float]:
    """The weights of the ranker: the likelihood that the choice is one of the labelled causes, less a ridge."""
    examples = _examples(dialogues, reader)
    weights = np.zeros(len(FEATURES) + 1)
    for _ in range(STEPS):
        slope = -RIDGE * np.append(weights[:-1], 0.0)
        for numbers, right in examples:
            chance = probabilities(numbers, dict(zip((*FEATURES, NONE), weights.tolist(), strict=True)))
            wanted = chance * right / (chance @ right)
            slope[:-1] += numbers.T @ (wanted - chance)[:-1] / len(examples)
            slope[-1] += (wanted - chance)[-1] / len(examples)
        weights += RATE * slope
    return dict(zip((*FEATURES, NONE), weights.tolist(), strict=True))


def _write(emotional: dict[str, float], cause: dict[str, float]) -> None:
    groups = {"emotional": emotional, "cause": cause}
    rounded = {group: {name: round(value, 3) for name, value in of.items()} for group, of in groups.items()}
    WEIGHTS_FILE.write_text(HEAD + yaml.safe_dump(rounded, sort_keys=False), encoding="utf-8")
    learned.cache_clear()


# Measuring


@dataclass(frozen=True)
class Score:
    """Shares in [0, 1]. ``top1``, ``top3``: of the questions with a cause, how often one is among the first answers (an
    abstention has none); ``abstain_precision``, ``abstain_recall``: of the abstentions, and of the questions without a
    cause."""

    top1: float
    top3: float
    abstain_precision: float
    abstain_recall: float
    with_cause: int
    without: int


def evaluate(questions: Sequence[Question], answer: Answer) -> Score:
    """Measure a way to answer."""
    given = [(question, *answer(question)) for question in questions]
    caused = [(q.causes, () if abstains else ranked) for q, ranked, abstains in given if q.causes]
    hit = [[any(item in right for item in ranked[:k]) for right, ranked in caused] for k in (1, 3)]
    abstained = [not q.causes for q, _, abstains in given if abstains]
    baseless = [abstains for q, _, abstains in given if not q.causes]
    return Score(
        float(np.mean(hit[0])),
        float(np.mean(hit[1])),
        float(np.mean(abstained)) if abstained else float("nan"),
        float(np.mean(baseless)) if baseless else float("nan"),
        len(caused),
        len(baseless),
    )


def by_ranker(reader: WordReader) -> Answer:
    """What the running system answers."""
    ranker = Ranker(reader)

    def answer(question: Question) -> Ranked:
        ranking = ranker(target_of(question, reader), question.memory.items, question.memory.names(), _window_ns())
        return ranking.items, ranking.abstains

    return answer


def by_last_of_others(reader: WordReader) -> Answer:
    """The latest utterances of somebody else, the last first; never abstains."""

    def answer(question: Question) -> Ranked:
        target, names = target_of(question, reader), question.memory.names()
        options = options_of(question, target)
        others = [o for o in options if isinstance(o, Utterance) and not target.is_by(o, names)]
        return tuple(reversed(others)), False

    return answer


def by_chance(questions: Sequence[Question], reader: WordReader) -> Score:
    """What drawing candidates blindly gives on average, exactly; never abstains."""
    top1, top3 = [], []
    for question in questions:
        if question.causes:
            options = options_of(question, target_of(question, reader))
            right = [option in question.causes for option in options]
            draws = list(combinations(right, min(3, len(right))))
            top1.append(float(np.mean(right)))
            top3.append(float(np.mean([any(draw) for draw in draws])))
    without = len(questions) - len(top1)
    return Score(float(np.mean(top1)), float(np.mean(top3)), float("nan"), 0.0, len(top1), without)


def scores(part: str, reader: WordReader) -> dict[str, Score]:
    """The ranker and both baselines on one part."""
    questions = [question for dialogue in read_part(part) for question in dialogue.questions]
    return {
        "ranker": evaluate(questions, by_ranker(reader)),
        "last utterance of somebody else": evaluate(questions, by_last_of_others(reader)),
        "random": by_chance(questions, reader),
    }


def _eval(reader: WordReader) -> None:
    for part in PARTS:
        dialogues = read_part(part)
        first, *_ = found = scores(part, reader).items()
        print(
            f"{part}: {len(dialogues)} dialogues, {first[1].with_cause} lines with a cause, {first[1].without} without"
        )
        print(f"  {'':32}  top-1  top-3  abstentions: precision  recall")
        for name, score in found:
            numbers = (score.top1, score.top3, score.abstain_precision, score.abstain_recall)
            top1, top3, precision, recall = ("-" if math.isnan(number) else f"{number:.2f}" for number in numbers)
            print(f"  {name:32}  {top1:>5}  {top3:>5}  {precision:>22}  {recall:>6}")


def main(argv: Sequence[str] | None = None) -> int:
    """``emo cause``; returns the exit code."""
    parser = argparse.ArgumentParser(prog="emo cause", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("eval", help="measure the ranker against the last utterance of somebody else, and chance")
    actions.add_parser("fit", help=f"learn {WEIGHTS_FILE.name} from the dialogues for training, then measure")
    arguments = parser.parse_args(argv)
    try:
        if arguments.action == "fit":
            fit()
        _eval(WordReader(SentenceEncoder()))
    except (EngineError, WeightsError) as error:
        print(f"emo cause: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
