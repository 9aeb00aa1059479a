"""Vocabularies of emotions and action units, once, with their REP-155 names.

Sources: FACS (Ekman, Friesen & Hager, 2002) for action units; REP-155 and ``hri_msgs/Expression`` for the names of
expressions; the label order of each network from its own card, of each data set from its release.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    # The nearest of REP-155's names: anxiety and worry are mild fear, grief is sadness without hope.
    "anxiety": "scared", "worry": "scared", "terrible": "horrified",
    "helplessness": "vulnerable", "shy": "embarrassed", "guilt": "guilty",
    "disappointment": "disappointed", "disappoint": "disappointed", "grief": "despaired", "pessimism": "despaired",
    "amaze": "amazed", "annoyance": "annoyed", "bore": "bored", "rage": "furious", "ecstatic": "excited",
}  # fmt: skip

#: Names that occur and have no counterpart in REP-155: contempt and hate are neither disgust nor anger, and the rest
#: are attitudes or qualities of things that EmVidCap counts as emotions. They are reported under their own name only.
WITHOUT_REP155: Final = frozenset({
    "contempt", "hate", "jealous", "love", "trust", "respect", "proud", "hope", "optimistic", "interest",
    "anticipation", "acceptable", "calm", "pensiveness", "beauty", "ugliness", "cleverness",
})  # fmt: skip

#: Output order of each expression network, in its own words.
VOCABULARIES: Final[dict[str, tuple[str, ...]]] = {
    "fer7": ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"),
    # FER+ adds contempt and has its own order.
    "ferplus8": ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"),
    # AffectNet and RAF-DB as DDAMFN orders them; the data sets' own indices differ.
    "affectnet7": ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry"),
    "affectnet8": ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt"),
    "rafdb7": ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry"),
    # MAFW's label n is index n - 1. Its caption split has no neutral clip, so ten of the eleven are active there.
    "mafw11": (
        "anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise", "contempt", "anxiety",
        "helplessness", "disappointment",
    ),
    # MELD's reference order; ECEM takes its emotions from MELD and states no order.
    "meld7": ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"),
    "ecem7": ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"),
    # Categories of EmVidCap's word lists, alphabetical; its clips carry no category of their own.
    "emvidcap34": (
        "acceptable", "amaze", "anger", "annoyance", "anticipation", "beauty", "bore", "calm", "cleverness",
        "disappoint", "disgust", "ecstatic", "fear", "grief", "guilt", "hate", "hope", "interest", "jealous", "joy",
        "love", "optimistic", "pensiveness", "pessimism", "proud", "rage", "respect", "sadness", "shy", "surprise",
        "terrible", "trust", "ugliness", "worry",
    ),
}  # fmt: skip

#: Different words of the vocabularies for the same emotion -> one of them. What is not listed stands for itself.
SYNONYMS: Final[dict[str, str]] = {
    "angry": "anger", "happy": "happiness", "joy": "happiness", "sad": "sadness", "surprised": "surprise",
    "disappoint": "disappointment", "worry": "anxiety",
}  # fmt: skip

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


def rep155_or_none(name: str) -> str | None:
    """REP-155 name of an emotion, or ``None`` for one of :data:`WITHOUT_REP155`. Raises ``KeyError`` as :func:`rep155`."""
    return None if name.lower() in WITHOUT_REP155 else rep155(name)


def reported_names(classes: Sequence[str]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The names under which a network's classes are reported, each once, and for each class the index of its name.

    That is the REP-155 name, or the class's own for one of :data:`WITHOUT_REP155`. Classes that share a name (fear and
    anxiety: ``scared``) are reported as one, to which the probabilities of both belong. Raises ``KeyError`` as
    :func:`rep155`.
    """
    own = [rep155_or_none(name) or name.lower() for name in classes]
    names = tuple(dict.fromkeys(own))
    return names, tuple(names.index(name) for name in own)


def class_map(source: str, target: str) -> tuple[int | None, ...]:
    """For each class of vocabulary ``source`` the index of the same emotion in ``target``, or ``None``.

    Only different words for one emotion are joined (:data:`SYNONYMS`); anxiety, say, is not counted as fear, which
    would make figures of two data sets look comparable that are not. Raises ``KeyError`` naming the vocabularies.
    """
    for vocabulary in (source, target):
        if vocabulary not in VOCABULARIES:
            raise KeyError(f"unknown vocabulary {vocabulary!r}; known: {', '.join(sorted(VOCABULARIES))}")
    known = {SYNONYMS.get(name, name): index for index, name in enumerate(VOCABULARIES[target])}
    return tuple(known.get(SYNONYMS.get(name, name)) for name in VOCABULARIES[source])


@dataclass(frozen=True)
class AUOutput:
    """One score of an AU network."""

    #: FACS number.
    number: int
    #: ``""`` for both sides of the face, ``"L"`` or ``"R"`` for one, as the public labels call it.
    side: str
    #: Index of the graph node whose feature the score is computed from.
    node: int
    #: False where the public weights are known to be wrong about it.
    reliable: bool = True

    @property
    def name(self) -> str:
        """Short name: ``AU12``, ``L10``."""
        return f"{self.side or 'AU'}{self.number}"


#: The 27 AUs of OpenGraphAU, in the order of its nodes, and those it also scores for the left and right side.
OPENGRAPHAU_MAIN: Final = (
    1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, 23, 24, 25, 26, 27, 32, 38, 39,
)  # fmt: skip
OPENGRAPHAU_SIDES: Final = (1, 2, 4, 6, 10, 12, 14)

#: Node behind each pair of sides in the public weights. The sixth is AU11's node, where AU12's (index 9) is meant, and
#: the labels it was trained with put left and right AU12 into AU11's column: AU11, L12 and R12 of these weights cannot
#: be trusted. Kept, for the weights fit no other wiring.
OPENGRAPHAU_UPSTREAM_PARENTS: Final = (0, 1, 2, 4, 7, 8, 11)

#: AUs that may not be chosen as prompts from the public weights; see :data:`OPENGRAPHAU_UPSTREAM_PARENTS`.
OPENGRAPHAU_EXCLUDED: Final = (11,)

#: AUs of the models trained on one data set only, in the order of their outputs.
BP4D_AUS: Final = (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)
DISFA_AUS: Final = (1, 2, 4, 6, 9, 12, 25, 26)


def opengraphau_outputs(*, upstream: bool = True) -> tuple[AUOutput, ...]:
    """The 41 outputs of ANFL: 27 AUs, then left and right of 7.

    ``upstream`` describes the public weights; without it the sides of AU12 hang on AU12's node and all is reliable.
    """
    parents = OPENGRAPHAU_UPSTREAM_PARENTS if upstream else tuple(map(OPENGRAPHAU_MAIN.index, OPENGRAPHAU_SIDES))
    main = [AUOutput(n, "", i, not (upstream and n == 11)) for i, n in enumerate(OPENGRAPHAU_MAIN)]
    sides = [
        AUOutput(n, side, parent, not (upstream and n == 12))
        for n, parent in zip(OPENGRAPHAU_SIDES, parents, strict=True)
        for side in ("L", "R")
    ]
    return (*main, *sides)


def anfl_outputs(aus: str, side_parents: str) -> tuple[AUOutput, ...]:
    """The outputs of an ANFL by two fields of its config; see :class:`emo_models.networks.anfl.ANFLConfig`."""
    if aus == "opengraphau":
        return opengraphau_outputs(upstream=side_parents == "upstream")
    numbers = BP4D_AUS if aus == "bp4d" else DISFA_AUS
    return tuple(AUOutput(number, "", node) for node, number in enumerate(numbers))
