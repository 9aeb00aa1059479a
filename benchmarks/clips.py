"""What is measured on: real people at 640x480 and 30 fps, without sound, played to and fro so that nobody ever jumps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from emo_models.fetch import Puller
from emo_models.weights import card
from emo_perception.config import SourceConfig
from emo_perception.sources import open_source
from emo_perception.types import Frame

Image = NDArray[np.uint8]

WIDTH, HEIGHT, FPS = 640, 480, 30
PEOPLE = ("ravdess_angry", "ravdess_surprised", "ravdess_neutral_man", "ravdess_neutral_woman")
COLUMNS, ROWS = 3, 2
MOST_FACES = COLUMNS * ROWS
CELL_WH = WIDTH // COLUMNS, HEIGHT // ROWS
NOBODY = 128


def write_one_face(path: Path, seconds: float) -> Path:
    """An H.264 file with one person who fills the picture. Raises :class:`emo_models.fetch.PullError`."""
    (file,) = _pull(PEOPLE[:1])
    return _write(path, _to_and_fro(_people(file, (WIDTH, HEIGHT))), seconds)


def write_six_faces(path: Path, seconds: float) -> Path:
    """An H.264 file with six people in a grid. Raises :class:`emo_models.fetch.PullError`."""
    people = [_people(file, CELL_WH) for file in _pull(PEOPLE)]
    # Two out of one clip must not move alike.
    playing = [_to_and_fro(people[i % len(people)], start=40 * i) for i in range(MOST_FACES)]
    return _write(path, (_tiled(images) for images in zip(*playing, strict=True)), seconds)


def read(path: Path) -> list[Frame]:
    """All frames, decoded as the source of the graph does it."""
    source = open_source(SourceConfig(uri=str(path), realtime=False, audio=False))
    return [item for item in source if isinstance(item, Frame)]


def with_faces(frames: Sequence[Frame], faces: int) -> list[Frame]:
    """Of the clip with six faces the first so many; the other cells are grey."""
    kept = []
    for frame in frames:
        image = frame.image.copy()
        for cell in range(faces, MOST_FACES):
            _cell(image, cell)[:] = NOBODY
        kept.append(replace(frame, image=image))
    return kept


def _pull(names: Sequence[str]) -> list[Path]:
    with Puller() as puller:
        return [puller.pull(card(name)) for name in names]


def _people(file: Path, size_wh: tuple[int, int]) -> list[Image]:
    """The middle of each picture, cut to the proportions of ``size_wh`` and scaled to it."""
    cut = []
    for frame in read(file):
        height, width = frame.image.shape[:2]
        wide = min(width, height * size_wh[0] // size_wh[1])
        left = (width - wide) // 2
        middle = np.ascontiguousarray(frame.image[:, left : left + wide])
        cut.append(np.asarray(cv2.resize(middle, size_wh, interpolation=cv2.INTER_AREA), np.uint8))
    return cut


def _to_and_fro(images: Sequence[Image], start: int = 0) -> Iterator[Image]:
    return itertools.islice(itertools.cycle([*images, *images[-2:0:-1]]), start, None)


def _cell(image: Image, index: int) -> Image:
    width, height = CELL_WH
    top, left = index // COLUMNS * height, index % COLUMNS * width
    return image[top : top + height, left : left + width]


def _tiled(images: Sequence[Image]) -> Image:
    canvas = np.full((HEIGHT, WIDTH, 3), NOBODY, np.uint8)
    for index, image in enumerate(images):
        _cell(canvas, index)[:] = image
    return canvas


def _write(path: Path, images: Iterator[Image], seconds: float) -> Path:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "20"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index, image in enumerate(itertools.islice(images, round(seconds * FPS))):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path
