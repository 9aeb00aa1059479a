"""A target, what may have caused it, and the numbers by which the ranker compares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from emo_models.labels import NEUTRAL
from emo_perception.memory import EventKind, Item, VisibleEvent
from emo_perception.stages.cause.words import WordReader, addresses, is_question
from emo_perception.types import NS_PER_S, Utterance

#: Candidates that are compared, the latest.
MOST_CANDIDATES: Final = 12
#: Expressions that words of good or bad content go with.
_GLAD: Final = frozenset({"happy", "surprised"})

#: Names of the numbers, in their order; their weights are in weights.yaml, ``cause``.
FEATURES: Final = (
    "soon",  # 1 at the end of the candidate, falling with the time until the target
    "long_ago",  # more than 15 s before
    "own_words",  # the words that are explained, or that the changing face was saying
    "said_before",  # earlier words of the same person
    "others_words",
    "last_of_others",  # the last utterance of somebody else
    "words_between",  # utterances of others after the candidate
    "same_face",  # another face showed the same emotion: contagion
    "other_face",  # another face showed another one
    "comes",
    "leaves",
    "similar",  # meaning of the candidate and of the words that are explained
    "shared_words",
    "affinity",  # words that rather cause this emotion than others
    "own_affinity",  # the same of one's own words
    "stirring",  # more than small talk
    "own_stirring",
    "question",
    "emotional",
    "addressed",  # speaks about who hears it
    "brief",  # three words or fewer
    "mismatch",  # its speaker's face contradicts the words
)


@dataclass(frozen=True)
class Target:
    """What is explained: the emotion of one person from ``onset_ns`` on, in words (``utterance``) or in the face (``event``)."""

    emotion: str
    strength: float
    onset_ns: int
    end_ns: int
    track_id: int
    speaker: str
    utterance: Utterance | None = None
    event: VisibleEvent | None = None

    def is_by(self, item: Item, names: dict[int, str]) -> bool:
        """Whether the item is by the person of the target."""
        if self.track_id and item.track_id:
            return self.track_id == item.track_id
        name = item.speaker if isinstance(item, Utterance) else names.get(item.track_id, "")
        return bool(self.speaker) and self.speaker == name


def candidates(target: Target, items: Sequence[Item], names: dict[int, str], window_ns: int) -> list[Item]:
    """What may have caused the target, oldest first: what began before it, within the window, of those who are near.

    A person's own face is no cause of what the person shows, but the own words are: "I lost my job".
    """
    found = []
    for item in items:
        own = target.is_by(item, names)
        itself = target.utterance is not None and item == target.utterance
        too_late = item.start_ns >= target.onset_ns and not itself
        if too_late or target.onset_ns - item.end_ns > window_ns:
            continue
        if isinstance(item, VisibleEvent) and ((own and item.kind is not EventKind.COMES) or not _is_cause(item)):
            continue
        found.append(item)
    return found[-MOST_CANDIDATES:]


def _is_cause(event: VisibleEvent) -> bool:
    return event.kind is not EventKind.MOVEMENT  # a raised brow alone moves nobody


def mismatch_of(utterance: Utterance, items: Sequence[Item], reader: WordReader) -> VisibleEvent | None:
    """The expression of the speaker's face that contradicts the words: gloomy over pleasant or plain ones, or glad over bad."""
    if not utterance.track_id:
        return None
    reading = reader(utterance.text)
    felt = max(reading.says, key=lambda name: reading.says[name]) if reading.emotional >= 0.5 else NEUTRAL
    for item in items:
        if (
            isinstance(item, VisibleEvent)
            and item.kind is EventKind.EXPRESSION
            and item.track_id == utterance.track_id
            and item.start_ns <= utterance.end_ns
            and item.end_ns >= utterance.start_ns
        ):
            gloomy = item.emotion not in _GLAD
            if (gloomy and felt in (NEUTRAL, "happy") and reading.says["happy"] > 0.3) or (
                item.emotion == "happy" and felt not in (NEUTRAL, *_GLAD)
            ):
                return item
    return None


def describe(
    target: Target, options: Sequence[Item], items: Sequence[Item], names: dict[int, str], reader: WordReader
) -> NDArray[np.float64]:
    """The numbers [candidates, features] of the candidates ``options`` of a target; ``items``: everything remembered."""
    others = [o for o in options if isinstance(o, Utterance) and not target.is_by(o, names)]
    rows = []
    for option in options:
        gap_s = max(0, target.onset_ns - option.end_ns) / NS_PER_S
        row = dict.fromkeys(FEATURES, 0.0)
        row["soon"], row["long_ago"] = math.exp(-gap_s / 4), float(gap_s > 15)
        if isinstance(option, Utterance):
            row |= _of_words(target, option, others, names, reader)
            row["mismatch"] = float(mismatch_of(option, items, reader) is not None)
        elif option.kind is EventKind.EXPRESSION:
            row["same_face" if option.emotion == target.emotion else "other_face"] = 1.0
        else:
            row["comes" if option.kind is EventKind.COMES else "leaves"] = 1.0
        rows.append([row[name] for name in FEATURES])
    return np.array(rows, np.float64).reshape(len(rows), len(FEATURES))


def _of_words(
    target: Target, option: Utterance, others: Sequence[Utterance], names: dict[int, str], reader: WordReader
) -> dict[str, float]:
    reading = reader(option.text)
    affinity, stirring = 3 * reading.affinity(target.emotion), 2 * reading.stirring
    overlaps = option.end_ns > target.onset_ns
    if target.is_by(option, names):
        now = option == target.utterance or (overlaps and target.utterance is None)
        row = {"own_words" if now else "said_before": 1.0, "own_affinity": affinity, "own_stirring": stirring}
    else:
        later = sum(o.start_ns > option.start_ns for o in others)
        row = {
            "others_words": 1.0,
            "last_of_others": float(later == 0),
            "words_between": min(1.0, later / 3),
            "affinity": affinity,
            "stirring": stirring,
            "question": float(is_question(option.text)),
            "addressed": float(addresses(option.text)),
            "emotional": reading.emotional,
            "brief": float(len(option.text.split()) <= 3),
        }
    if target.utterance is not None and option != target.utterance:
        row["similar"] = float(reading.vector @ reader(target.utterance.text).vector)
        row["shared_words"] = min(1.0, len(_content(option.text) & _content(target.utterance.text)) / 2)
    return row


def _content(text: str) -> set[str]:
    return {word for word in "".join(c if c.isalnum() else " " for c in text.lower()).split() if len(word) > 4}
