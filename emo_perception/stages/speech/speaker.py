"""Who speaks: the face whose lips open and close while the voice is heard."""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass

import numpy as np

from emo_perception.types import NS_PER_S, Faces, FaceTrack

log = logging.getLogger(__name__)

UPPER_LIP, LOWER_LIP, FOREHEAD, CHIN = 13, 14, 10, 152
"""Mesh points: the inner edges of the lips, the top and the bottom of the face."""
MOVES = 0.015
"""Least standard deviation of the lips' distance, in face heights: in the RAVDESS samples 0.019 to 0.040 while talking,
up to 0.012 while breathing in before, 0.001 after."""
CLEARLY = 1.6
"""The speaker's lips move this many times as much as anybody else's; else nobody is named."""
LEAST_FRAMES = 4
LEAST_SHARE = 0.5
"""A face that was seen in less than half of the frames of the utterance cannot be judged."""


def lips_apart(face: FaceTrack) -> float | None:
    """Distance of the lips in face heights; None where the face has no mesh."""
    mesh = face.landmarks
    if mesh is None or len(mesh) <= CHIN:
        return None
    height = float(np.linalg.norm(mesh[FOREHEAD] - mesh[CHIN]))
    return float(np.linalg.norm(mesh[UPPER_LIP] - mesh[LOWER_LIP])) / max(height, 1e-6)


@dataclass(frozen=True, slots=True)
class Mouths:
    """How far apart the lips of each track were in one frame."""

    stamp_ns: int
    apart: dict[int, float]


class MouthWatch:
    """Remembers the lips of everybody for the last ``seconds``. Frames come from one thread, questions from another."""

    def __init__(self, seconds: float) -> None:
        self._keep_ns = round(seconds * NS_PER_S)
        self._frames: deque[Mouths] = deque()
        self._lock = threading.Lock()
        self._told = False

    def add(self, faces: Faces) -> None:
        """Take the faces of a frame; a frame older than the newest starts anew."""
        if not self._told and any(face.landmarks is None for face in faces.faces):
            self._told = True
            log.warning("faces come without a mesh (face.detector: scrfd): nobody's lips are seen, no speaker is named")
        apart = {face.track_id: lips for face in faces.faces if (lips := lips_apart(face)) is not None}
        with self._lock:
            if self._frames and faces.stamp_ns <= self._frames[-1].stamp_ns:
                self._frames.clear()
            self._frames.append(Mouths(faces.stamp_ns, apart))
            while self._frames[0].stamp_ns < faces.stamp_ns - self._keep_ns:
                self._frames.popleft()

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._frames.clear()

    def speaker(self, start_ns: int, end_ns: int) -> int:
        """The track whose lips moved clearly the most in that time; 0 where no face, or more than one, may be it."""
        with self._lock:
            frames = [frame for frame in self._frames if start_ns <= frame.stamp_ns <= end_ns]
        least = max(LEAST_FRAMES, LEAST_SHARE * len(frames))
        moved = []
        for track_id in {track_id for frame in frames for track_id in frame.apart}:
            apart = [frame.apart[track_id] for frame in frames if track_id in frame.apart]
            if len(apart) >= least:
                moved.append((float(np.std(apart)), track_id))
        moved.sort(reverse=True)
        if not moved or moved[0][0] < MOVES or (len(moved) > 1 and moved[0][0] < CLEARLY * moved[1][0]):
            return 0
        return moved[0][1]
