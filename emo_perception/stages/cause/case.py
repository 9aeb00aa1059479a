"""A question for a cause, and the case that it becomes: everything that an explainer may use, at rest."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from emo_perception.stages.cause.features import Target
from emo_perception.types import Cause, CauseEvidence, VisualContext

#: The beginning of the history moves in steps of this share of ``window_s``, so that a cache of prompts can follow.
HISTORY_STEP: Final = 0.25


class About(Enum):
    """What a question is about."""

    PERSON = 0
    UTTERANCE = 1
    MOMENT = 2


@dataclass(frozen=True, slots=True)
class Question:
    """Why? About a face (``track_id``), an utterance (its id) or a moment (ns).

    ``emotion``: one that the asker already knows, as from an annotation, in any vocabulary's word; else it is estimated.
    """

    about: About
    track_id: int = 0
    utterance_id: str = ""
    moment_ns: int = 0
    emotion: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the dialogue, by a name, ``person 1`` or ``somebody``; ``start_ns``: when it was said."""

    who: str
    text: str
    start_ns: int = 0


@dataclass(frozen=True, slots=True)
class ShownFace:
    """What a face showed during an utterance: the emotion (REP-155) of the highest mean probability, and that."""

    who: str
    emotion: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Case:
    """What is known of a target when it is explained. Nothing in it changes any more, so no lock is needed to read it.

    ``who``: how the explanation calls the one who is explained. ``ranked``: what the ranking says: a sentence, or an abstention. ``evidence``: the likeliest triggers and the faces,
    also where the ranking abstains. ``statement``: the words that are explained, None for a changed face; ``history``:
    those before, oldest first; ``shown``: the last utterances' faces; ``context``: the video up to the statement's end.
    """

    target: Target
    who: str
    ranked: Cause
    evidence: tuple[CauseEvidence, ...] = ()
    history: tuple[Line, ...] = ()
    statement: Line | None = None
    shown: tuple[ShownFace, ...] = ()
    context: VisualContext | None = None

    def words(self) -> str:
        """Everything that was said and measured, as one text."""
        lines = [*self.history, *([self.statement] if self.statement is not None else [])]
        return "\n".join(
            (
                *(f"{line.who}: {line.text}" for line in lines),
                *(f"{face.who}: {face.emotion}" for face in self.shown),
                *(one.text for one in self.evidence),
                self.ranked.text,
                self.ranked.emotion,
            )
        )
