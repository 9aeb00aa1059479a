"""Scenes for tests of memory and cause: utterances, and faces that feel something for a while."""

from __future__ import annotations

import numpy as np

from emo_perception import types as t

START_NS = 1_700_000_000 * t.NS_PER_S
FPS = 10
LABELS = ("neutral", "happy", "sad", "angry", "scared", "surprised", "disgusted")
UNIT_OF = {"happy": 12, "sad": 1, "angry": 4, "scared": 5, "surprised": 26, "disgusted": 10}


def at(seconds):
    return START_NS + round(seconds * t.NS_PER_S)


def says(start_s, end_s, who, text, track_id=0, **fields):
    return t.Utterance(f"{who}@{start_s}", at(start_s), at(end_s), text, who, track_id, "en", 0.9, **fields)


def face(track_id, stamp_ns, emotion="neutral", probability=0.9, intensity=0.8):
    """The features of one face, which shows an emotion and its action unit."""
    track = t.FaceTrack(
        track_id, 0.99, START_NS, np.array([100, 100, 90, 120], np.float32), np.zeros((5, 2), np.float32), np.zeros(3, np.float32)
    )  # fmt: skip
    units = [UNIT_OF[emotion]] if emotion in UNIT_OF else []
    measured = t.FaceActionUnits(
        track_id, "blendshape", tuple(units), (t.Side.BOTH,) * len(units), np.full(len(units), intensity, np.float32)
    )
    rest = (1 - probability) / (len(LABELS) - 1)
    chances = np.array([probability if label == emotion else rest for label in LABELS], np.float32)
    return t.FaceFeatures(track, measured, t.FaceEmotion(track_id, "fer7", LABELS, chances))


def frames(start_s, end_s, **shown):
    """Frames of ``[start_s, end_s)``; ``shown``: ``f1="happy"`` for the face of track 1; ``fps`` of them a second."""
    found = []
    for index in range(round(start_s * FPS), round(end_s * FPS)):
        stamp_ns = START_NS + index * t.NS_PER_S // FPS
        faces = tuple(face(int(key[1:]), stamp_ns, emotion) for key, emotion in shown.items())
        found.append(t.EmotionFeatures(stamp_ns, "camera_optical_frame", (640, 480), faces))
    return found
