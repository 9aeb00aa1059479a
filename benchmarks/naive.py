"""The loop that a script would be: every network on every frame, nothing remembered from the frame before."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.pace import paced
from emo_models import blendshapes
from emo_models.engines.select import open_card
from emo_models.preprocess import Square, cut_square, gray, symmetric_range, unit_range
from emo_perception.config import FaceConfig
from emo_perception.stages.detectors import make_detector
from emo_perception.stages.emotion import SIZE as EXPRESSION_SIZE
from emo_perception.stages.face import CROP, MESH_POINTS, MESH_SIZE
from emo_perception.types import Frame

Float = NDArray[np.float32]


class NaiveLoop:
    """Image uint8 [H, W, 3] -> of each face the action units [A] and expression [7], with the start profile's networks."""

    def __init__(self) -> None:
        config = FaceConfig()
        self._width, self._confidence = config.detect_width, config.detect_confidence
        self._detect = make_detector(config.detector, config.threads)
        self._mesh, self._shapes, self._expression = (
            open_card(name, threads=1).engine for name in ("face_mesh", "face_blendshapes", "fer7")
        )

    def __call__(self, image: NDArray[np.uint8]) -> list[tuple[Float, Float]]:
        found = self._detect(image, self._width)
        return [self._face(image, *box) for *box, score in found.tolist() if score >= self._confidence]

    def _face(self, image: NDArray[np.uint8], x: float, y: float, width: float, height: float) -> tuple[Float, Float]:
        centre, side = (x + width / 2, y + height / 2), max(width, height)
        crop = unit_range(cut_square(image, Square(*centre, side * CROP), MESH_SIZE))[None]
        mesh = self._mesh({"crops": crop})["points"].reshape(MESH_POINTS, 3)
        points = np.ascontiguousarray(mesh[blendshapes.MESH_POINTS, :2])[None]
        units = blendshapes.raw_action_units(self._shapes({"points": points})["coefficients"].reshape(-1))
        small = gray(cut_square(image, Square(*centre, side * 1.2), EXPRESSION_SIZE))
        return units, self._expression({"face": symmetric_range(small)[None, :, :, None]})["probabilities"][0].copy()


def measure(frames: Sequence[Frame]) -> float:
    """CPU milliseconds per frame."""
    loop = NaiveLoop()
    loop(frames[0].image)
    began_s = time.process_time()
    for frame in paced(frames):
        loop(frame.image)
    return (time.process_time() - began_s) / len(frames) * 1e3
