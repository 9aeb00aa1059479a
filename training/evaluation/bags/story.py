"""What happened in a recording, as the page shows it and the measures need it; kept small, whatever the length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from emo_models.labels import OPENGRAPHAU_MAIN
from emo_perception.offline import Answer
from emo_perception.overlay import draw
from emo_perception.types import Caption, Cause, EmotionFeatures, FaceFeatures, Frame, Utterance

SHOWN: Final = 4
"""Pictures of a recording."""
WIDTH: Final = 400


@dataclass(frozen=True, slots=True)
class Mood:
    """The expression of a face in one image: the likeliest label and its probability."""

    stamp_ns: int
    track_id: int
    label: str
    probability: float


@dataclass
class Story:
    """Takes in results in their order (:data:`emo_perception.offline.Watch`).

    ``start_ns``, ``end_ns``: of the recording, to choose the pictures.
    """

    start_ns: int
    end_ns: int
    moods: list[Mood] = field(default_factory=list)
    units: list[tuple[int, int, NDArray[np.float32]]] = field(default_factory=list)
    """Stamp, track, and the scores of its action units, ordered as ``aus``."""
    aus: tuple[int, ...] = ()
    averaged: bool = False
    """Scores are probabilities of a network, of which a clip has the mean; else intensities, of which it has the peak."""
    captions: list[Caption] = field(default_factory=list)
    utterances: list[Utterance] = field(default_factory=list)
    causes: list[Cause] = field(default_factory=list)
    answers: dict[str, Cause] = field(default_factory=dict)
    """Utterance -> the answer to its question."""
    pictures: list[tuple[int, NDArray[np.uint8]]] = field(default_factory=list)
    """Stamp and RGB image with its overlay."""
    _frame: Frame | None = None

    def __call__(self, item: object) -> None:
        if isinstance(item, Frame):
            self._frame = item
        elif isinstance(item, EmotionFeatures):
            self._see(item)
        elif isinstance(item, Caption):
            self.captions.append(item)
        elif isinstance(item, Utterance):
            self.utterances.append(item)
        elif isinstance(item, Answer):
            self.answers[item.utterance.id] = item.cause
        elif isinstance(item, Cause):
            self.causes.append(item)

    def au_scores(self, caption: Caption) -> dict[int, float]:
        """FACS number -> score in the caption's window of those it is about; empty where they were not measured."""
        rows = [
            row
            for stamp_ns, track_id, row in self.units
            if caption.window_start_ns <= stamp_ns <= caption.window_end_ns and track_id in caption.track_ids
        ]
        if not rows:
            return {}
        values = np.mean(rows, 0) if self.averaged else np.max(rows, 0)
        return dict(zip(self.aus, values.tolist(), strict=True))

    def _see(self, features: EmotionFeatures) -> None:
        for face in features.faces:
            best = int(face.emotion.probabilities.argmax())
            self.moods.append(
                Mood(
                    features.stamp_ns, face.track.track_id, face.emotion.labels[best],
                    float(face.emotion.probabilities[best]),
                )
            )  # fmt: skip
            self._measure(features.stamp_ns, face)
        due_ns = self.start_ns + (self.end_ns - self.start_ns) * (2 * len(self.pictures) + 1) // (2 * SHOWN)
        if (
            self._frame is not None
            and self._frame.stamp_ns == features.stamp_ns >= due_ns
            and len(self.pictures) < SHOWN
        ):
            said = next((c for c in reversed(self.captions) if not c.abstained), None)
            self.pictures.append((features.stamp_ns, _small(draw(self._frame, features, said, min_width=2 * WIDTH))))

    def _measure(self, stamp_ns: int, face: FaceFeatures) -> None:
        scores = face.embeddings.get("au_scores")
        aus: tuple[int, ...] = OPENGRAPHAU_MAIN
        if scores is not None:
            self.averaged = True
        else:
            strongest: dict[int, float] = {}
            for au, value in zip(face.action_units.au, face.action_units.intensity.tolist(), strict=True):
                strongest[au] = max(strongest.get(au, 0.0), value)
            aus, scores = tuple(strongest), np.array(list(strongest.values()), np.float32)
        if self.aus in ((), aus):
            self.aus = aus
            self.units.append((stamp_ns, face.track.track_id, np.asarray(scores, np.float32)))


def _small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height = round(image.shape[0] * WIDTH / image.shape[1])
    return np.asarray(cv2.resize(image, (WIDTH, height), interpolation=cv2.INTER_AREA))


def side_by_side(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Images of one width, two in a row, as one PNG-ready BGR image."""
    height = max(image.shape[0] for image in images)
    padded = [cv2.copyMakeBorder(i, 0, height - i.shape[0], 0, 0, cv2.BORDER_CONSTANT) for i in images]
    if len(padded) % 2:
        padded.append(np.zeros_like(padded[0]))
    rows = [np.hstack(padded[i : i + 2]) for i in range(0, len(padded), 2)]
    return np.asarray(np.vstack(rows), np.uint8)
