"""From a record to FAME-Net's question: which of the three kinds of evidence are asked with, and how.

FAME-Net's Table 4 leaves out kinds of evidence: V the video, T the words of the dialogue, E the faces' emotions. What
the question then holds is not printed there. Here the request stays, with the emotion and who feels it: without T the
history and the words of the target are left out, without E the sentence of the faces, without V the video tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from emo_models.networks.fame.prompt import INSTRUCTIONS, CauseQuery, FaceExpression, Utterance
from training.datasets.record import Dialogue, Record

KINDS: Final = ("V", "T", "E")


@dataclass(frozen=True)
class Inputs:
    """Which kinds of evidence a question is asked with."""

    video: bool
    text: bool
    faces: bool

    @classmethod
    def parse(cls, text: str) -> Inputs:
        """``V+T+E``, any part of it, or ``none``. Raises ``ValueError`` for anything else."""
        parts = [] if text == "none" else text.split("+")
        if len(set(parts)) != len(parts) or not set(parts) <= set(KINDS):
            raise ValueError(
                f"inputs: expected kinds of evidence out of {', '.join(KINDS)} as V+T+E, or none; got {text!r}"
            )
        return cls("V" in parts, "T" in parts, "E" in parts)

    def __str__(self) -> str:
        return "+".join(k for k, there in zip(KINDS, dataclasses.astuple(self), strict=True) if there) or "none"


ALL: Final = Inputs(True, True, True)


def dialogue_of(record: Record) -> Dialogue:
    """The dialogue of a record. Raises ``ValueError`` for one without, or without an emotion to explain."""
    if record.dialogue is None:
        raise ValueError(
            f"{record.dataset}, {record.clip_id}: no dialogue; FAME-Net explains utterances, read ECEM or ECGF"
        )
    if not emotion_of(record):
        raise ValueError(f"{record.dataset}, {record.clip_id}: the target has no emotion to explain")
    return record.dialogue


def emotion_of(record: Record) -> str:
    """The emotion to explain: the target's, else the first of the record's; empty where there is none."""
    target = record.dialogue.target.emotion if record.dialogue is not None else ""
    return target or (record.emotions[0] if record.emotions else "")


def question(
    record: Record, faces: Sequence[FaceExpression], inputs: Inputs = ALL, instruction: str = "ecem"
) -> CauseQuery:
    """What FAME-Net is asked about a record; ``instruction``: a key of ``INSTRUCTIONS``. Raises as :func:`dialogue_of`."""
    dialogue = dialogue_of(record)
    whole = CauseQuery(
        tuple(Utterance(line.speaker, line.text) for line in dialogue.history),
        Utterance(dialogue.target.speaker, dialogue.target.text),
        emotion_of(record),
        tuple(faces),
        INSTRUCTIONS[instruction],
    )
    return reduced(whole, inputs)


def reduced(query: CauseQuery, inputs: Inputs) -> CauseQuery:
    """A question without the words or faces that ``inputs`` leaves out; the video is left out by asking for no tokens."""
    if not inputs.text:
        query = dataclasses.replace(query, history=(), target=Utterance(query.target.speaker, ""))
    return query if inputs.faces else dataclasses.replace(query, faces=())


def pack_faces(faces: Sequence[FaceExpression], labels: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Faces as the feature store keeps them: bytes of the names, labels as numbers, confidences."""
    names = "\n".join(" ".join(face.name.split()) for face in faces)
    return {
        "face_names": np.frombuffer(names.encode(), np.uint8),
        "face_labels": np.array([labels.index(face.label) for face in faces], np.int64),
        "face_confidence": np.array([face.confidence for face in faces], np.float32),
    }


def unpack_faces(arrays: Mapping[str, NDArray[Any]], labels: Sequence[str]) -> tuple[FaceExpression, ...]:
    """The inverse of :func:`pack_faces`."""
    count = len(arrays["face_labels"])
    names = arrays["face_names"].tobytes().decode().split("\n") if count else []
    values = zip(names, arrays["face_labels"], arrays["face_confidence"], strict=True)
    return tuple(FaceExpression(name, labels[int(label)], float(confidence)) for name, label, confidence in values)
