"""Vocabularies of emotions and action units, once, with their REP-155 names.

Sources: FACS (Ekman, Friesen & Hager, 2002) for action units; REP-155 and ``hri_msgs/Expression`` for the names of
expressions; the label order of each network from its own card.
"""

from __future__ import annotations

from typing import Final

NEUTRAL: Final = "neutral"

#: Expressions of ``hri_msgs/Expression`` that the networks of this project can report.
REP155_EXPRESSIONS: Final = (
    "neutral", "angry", "sad", "happy", "surprised", "disgusted", "scared", "pleading", "vulnerable", "despaired",
    "guilty", "disappointed", "embarrassed", "horrified", "skeptical", "annoyed", "furious", "suspicious", "rejected",
    "bored", "tired", "asleep", "confused", "amazed", "excited",
)  # fmt: skip

#: Any name of an emotion that occurs in a data set or a network -> REP-155.
TO_REP155: Final = {
    "neutral": "neutral",
    "anger": "angry", "angry": "angry",
    "disgust": "disgusted", "disgusted": "disgusted",
    "fear": "scared", "scared": "scared",
    "happy": "happy", "happiness": "happy", "joy": "happy",
    "sad": "sad", "sadness": "sad",
    "surprise": "surprised", "surprised": "surprised",
}  # fmt: skip

#: Output order of each expression network, in its own words.
VOCABULARIES: Final[dict[str, tuple[str, ...]]] = {
    "fer7": ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"),
}

#: FACS number -> name of the action unit.
AU_NAMES: Final[dict[int, str]] = {
    1: "inner brow raiser", 2: "outer brow raiser", 4: "brow lowerer", 5: "upper lid raiser", 6: "cheek raiser",
    7: "lid tightener", 9: "nose wrinkler", 10: "upper lip raiser", 11: "nasolabial deepener",
    12: "lip corner puller", 13: "sharp lip puller", 14: "dimpler", 15: "lip corner depressor",
    16: "lower lip depressor", 17: "chin raiser", 18: "lip pucker", 19: "tongue show", 20: "lip stretcher",
    22: "lip funneler", 23: "lip tightener", 24: "lip pressor", 25: "lips part", 26: "jaw drop", 27: "mouth stretch",
    32: "lip bite", 38: "nostril dilator", 39: "nostril compressor", 43: "eyes closed", 45: "blink",
}  # fmt: skip


def rep155(name: str) -> str:
    """REP-155 name of an emotion. Raises ``KeyError`` with the known names when there is none."""
    try:
        return TO_REP155[name.lower()]
    except KeyError:
        raise KeyError(f"no REP-155 name for emotion {name!r}; known: {', '.join(sorted(TO_REP155))}") from None


def rep155_labels(vocabulary: str) -> tuple[str, ...]:
    """A network's classes, in its output order, under their REP-155 names."""
    if vocabulary not in VOCABULARIES:
        raise KeyError(f"unknown vocabulary {vocabulary!r}; known: {', '.join(sorted(VOCABULARIES))}")
    return tuple(rep155(name) for name in VOCABULARIES[vocabulary])
