"""Whole pictures with the faces in them: what a detector is trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from emo_models.preprocess import Square, cut_square, fit_into
from training.datasets.record import DatasetError
from training.tasks.pictures import Image, Variation, read_image

Float = NDArray[np.float32]

#: Left and right eye and mouth corner change places in a mirror.
MIRRORED = (1, 0, 2, 4, 3)


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture and its faces: boxes float32 [F, 4] x, y, width, height, points [F, 5, 2], NaN where not annotated."""

    image: Image | Path
    boxes: Float
    points: Float

    def load(self) -> Image:
        """uint8 [H, W, 3], RGB. Raises :class:`DatasetError` naming a file that is no picture."""
        return read_image(self.image) if isinstance(self.image, Path) else self.image


@dataclass(frozen=True)
class SceneVariation:
    """How scenes are varied in training: ``crop``, sides of random squares as shares of the short edge, beyond 1 with
    black around; ``flip``; ``light`` as :class:`~training.tasks.pictures.Variation`. Without crops: the whole scene."""

    crop: tuple[float, ...] = ()
    flip: bool = False
    light: float = 0.0

    def __call__(self, scene: Scene, rng: np.random.Generator) -> tuple[Image, Float, Float]:
        image, boxes, points = scene.load(), scene.boxes.copy(), scene.points.copy()
        if self.crop:
            image, boxes, points = _crop(image, boxes, points, rng.choice(self.crop), rng)
        if self.flip and rng.random() < 0.5:
            width = image.shape[1]
            image = np.ascontiguousarray(image[:, ::-1])
            boxes[:, 0] = width - boxes[:, 0] - boxes[:, 2]
            points = points[:, MIRRORED]
            points[..., 0] = width - 1 - points[..., 0]
        if self.light:
            image = Variation(light=self.light).relight(image, rng)
        return image, boxes, points


def _crop(
    image: Image, boxes: Float, points: Float, share: float, rng: np.random.Generator
) -> tuple[Image, Float, Float]:
    """A random square; the faces whose middle it holds stay."""
    height, width = image.shape[:2]
    side = max(8, round(share * min(height, width)))
    left, top = (rng.integers(min(0, size - side), max(0, size - side) + 1) for size in (width, height))
    cut = cut_square(image, Square(left + side / 2, top + side / 2, side), side)
    boxes[:, :2] -= (left, top)
    points -= (left, top)
    middle = boxes[:, :2] + boxes[:, 2:] / 2
    kept = ((middle >= 0) & (middle < side)).all(1)
    return cut, boxes[kept], points[kept]


class SceneSet(Dataset[dict[str, Tensor]]):
    """Scenes as tensors: ``image`` float32 [3, h, w], ``boxes`` [F, 4] and ``points`` in its pixels, ``factor`` back."""

    def __init__(
        self, scenes: Sequence[Scene], size_hw: tuple[int, int],
        variation: SceneVariation | None = None, rng: Callable[[int], np.random.Generator] | None = None,
    ) -> None:  # fmt: skip
        self.scenes, self.size_hw, self.variation, self.rng = scenes, size_hw, variation, rng

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        scene = self.scenes[index]
        image, boxes, points = scene.load(), scene.boxes, scene.points
        if self.variation is not None and self.rng is not None:
            image, boxes, points = self.variation(scene, self.rng(index))
        tensor, factor = fit_into(image, self.size_hw)
        return {
            "image": torch.from_numpy(tensor),
            "boxes": torch.from_numpy((boxes / factor).astype(np.float32)),
            "points": torch.from_numpy((points / factor).astype(np.float32)),
            "factor": torch.tensor(factor),
        }


def retinaface(root: Path, split: str) -> list[Scene]:
    """WIDER FACE with the points of RetinaFace: ``root/SPLIT/labelv2.txt`` and ``root/SPLIT/images``.

    A picture is ``# path width height``, then a line per face: x1 y1 x2 y2 and, where annotated, x y flag of the five
    points, of which those with flag -1 are unknown. Raises :class:`DatasetError` naming the line that is none.
    """
    file = root / split / "labelv2.txt"
    if not file.is_file():
        raise DatasetError(f"{file} is missing: expected {root}/{{train,val}}/labelv2.txt beside images/")
    scenes: list[Scene] = []
    rows: list[tuple[Float, Float]] = []
    name = ""

    def close() -> None:
        if name:
            boxes = np.array([box for box, _ in rows], np.float32).reshape(-1, 4)
            points = np.array([point for _, point in rows], np.float32).reshape(-1, 5, 2)
            scenes.append(Scene(file.parent / "images" / name, boxes, points))
            rows.clear()

    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("#"):
            close()
            name = line[1:].split()[0]
        elif line.strip():
            rows.append(_face(line, f"{file}, line {number}", known=bool(name)))
    close()
    if not scenes:
        raise DatasetError(f"{file}: no picture; expected lines '# path width height'")
    return scenes


def _face(line: str, place: str, *, known: bool) -> tuple[Float, Float]:
    try:
        values = np.array([float(word) for word in line.split()], np.float32)
    except ValueError:
        values = np.zeros(0, np.float32)
    if not known or len(values) not in (4, 5, 19, 20) or not (values[2:4] > values[:2]).all():
        raise DatasetError(f"{place}: expected x1 y1 x2 y2, and x y flag of five points or nothing; got {line!r}")
    points = np.full((5, 3), np.nan, np.float32)
    if len(values) >= 19:
        points = values[4:19].reshape(5, 3)
        points[points[:, 2] < 0] = np.nan
    return np.concatenate([values[:2], values[2:4] - values[:2]]), points[:, :2]
