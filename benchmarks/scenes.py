"""A dialogue without a camera or a microphone: what people said, and what their faces showed meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from emo_models.labels import NEUTRAL
from emo_perception.memory.events import UNITS_OF
from emo_perception.types import (
    NS_PER_S,
    EmotionFeatures,
    FaceActionUnits,
    FaceEmotion,
    FaceFeatures,
    FaceTrack,
    Side,
    Utterance,
)
from training.dialogues import read_part

LABELS = (NEUTRAL, *UNITS_OF)
BEGIN_NS = 1_700_000_000 * NS_PER_S
SURE = 0.9


def utterances(part: str, gap_s: float) -> list[Utterance]:
    """Every utterance of the labelled dialogues of ``part``, one dialogue ``gap_s`` seconds after the other."""
    said: list[Utterance] = []
    begin_ns = BEGIN_NS
    for dialogue in read_part(part):
        first_ns = dialogue.emotions[0][0].start_ns
        for utterance, _ in dialogue.emotions:
            shift_ns = begin_ns - first_ns
            said.append(replace(utterance, start_ns=utterance.start_ns + shift_ns, end_ns=utterance.end_ns + shift_ns))
        begin_ns = said[-1].end_ns + round(gap_s * NS_PER_S)
    return said


def face(track_id: int, stamp_ns: int, emotion: str = NEUTRAL) -> FaceFeatures:
    """The features of one face that shows an emotion and the action unit that goes with it."""
    box = np.array([40 + 100 * (track_id % 5), 100, 90, 120], np.float32)
    track = FaceTrack(track_id, 0.99, stamp_ns, box, np.zeros((5, 2), np.float32), np.zeros(3, np.float32))
    units = UNITS_OF.get(emotion, ())[:1]
    intensity = np.full(len(units), SURE, np.float32)
    measured = FaceActionUnits(track_id, "blendshape", units, (Side.BOTH,) * len(units), intensity)
    chances = [SURE if label == emotion else (1 - SURE) / (len(LABELS) - 1) for label in LABELS]
    return FaceFeatures(track, measured, FaceEmotion(track_id, "fer7", LABELS, np.array(chances, np.float32)))


def features(stamp_ns: int, **shown: str) -> EmotionFeatures:
    """One frame; ``shown``: ``f1="happy"`` for the face of track 1."""
    faces = tuple(face(int(key[1:]), stamp_ns, emotion) for key, emotion in shown.items())
    return EmotionFeatures(stamp_ns, "camera_optical_frame", (640, 480), faces)


def between(start_ns: int, end_ns: int, count: int) -> Iterator[EmotionFeatures]:
    """``count`` frames of two calm faces, spread evenly over the time after ``start_ns`` until ``end_ns``."""
    for index in range(1, count + 1):
        yield features(start_ns + (end_ns - start_ns) * index // count, f1=NEUTRAL, f2=NEUTRAL)
