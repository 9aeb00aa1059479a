"""Labelled pictures of faces: where they come from, and how they are varied in training."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from emo_models.labels import SYNONYMS
from emo_models.preprocess import TRANSFORMS, ImageTransform, short_edge_crop
from training.datasets.record import SPLITS, DatasetError

Image = NDArray[np.uint8]

SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
TABLE: Final = "labels.csv"


@dataclass(frozen=True, eq=False)
class Picture:
    """A face, cut out upright, with its label: a class, or one number per action unit."""

    image: Image | Path
    label: Any

    def load(self) -> Image:
        """uint8 [H, W, 3], RGB. Raises :class:`DatasetError` naming a file that is no picture."""
        return read_image(self.image) if isinstance(self.image, Path) else self.image


def read_image(file: Path) -> Image:
    """A picture as RGB uint8 [H, W, 3]. Raises :class:`DatasetError`."""
    image = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if image is None:
        why = "cannot be read as a picture" if file.is_file() else "is missing"
        raise DatasetError(f"{file} {why}; take its row out of the list or fetch it again")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


@dataclass(frozen=True)
class Variation:
    """How pictures are varied in training; the defaults leave them alone.

    ``flip``: mirror half of them. ``turn_deg``, ``shift``, ``zoom``: largest rotation, shift (share of the side) and
    change of size. ``light``: largest change of brightness, contrast and saturation. ``erase``: chance that a rectangle
    of 2 to 25 % of the picture is blotted out. ``random_crop``: anywhere, instead of in the middle.
    """

    flip: bool = False
    turn_deg: float = 0.0
    shift: float = 0.0
    zoom: float = 0.0
    light: float = 0.0
    erase: float = 0.0
    random_crop: bool = False

    def __call__(self, image: Image, form: ImageTransform, rng: np.random.Generator) -> Image:
        """A picture of the size that ``form`` wants."""
        if image.shape[:2] != (form.crop, form.crop):
            image = self._cut(image, form, rng)
        if self.flip and rng.random() < 0.5:
            image = image[:, ::-1]
        if self.turn_deg or self.shift or self.zoom:
            image = self._move(image, rng)
        if self.light:
            image = self.relight(image, rng)
        if self.erase and rng.random() < self.erase:
            image = _blot(image, rng)
        return np.ascontiguousarray(image)

    def _cut(self, image: Image, form: ImageTransform, rng: np.random.Generator) -> Image:
        if not self.random_crop:
            return short_edge_crop(image, form.resize, form.crop, form.kernel)
        scaled = short_edge_crop(image, form.resize, form.resize, form.kernel)
        top, left = rng.integers(form.resize - form.crop + 1, size=2)
        return np.asarray(scaled[top : top + form.crop, left : left + form.crop])

    def _move(self, image: Image, rng: np.random.Generator) -> Image:
        height, width = image.shape[:2]
        angle, (x, y) = rng.uniform(-self.turn_deg, self.turn_deg), rng.uniform(-self.shift, self.shift, 2)
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1 + rng.uniform(-self.zoom, self.zoom))
        matrix[:, 2] += (x * width, y * height)
        return np.asarray(cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR), np.uint8)

    def relight(self, image: Image, rng: np.random.Generator) -> Image:
        """Another brightness, contrast and saturation."""
        brightness, contrast, saturation = 1 + rng.uniform(-self.light, self.light, 3)
        values = image.astype(np.float32)
        values = values.mean() + contrast * (values - values.mean())
        grey = values.mean(2, keepdims=True)
        return np.asarray(np.clip((grey + saturation * (values - grey)) * brightness, 0, 255), np.uint8)


def _blot(image: Image, rng: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    area, ratio = rng.uniform(0.02, 0.25) * height * width, np.exp(rng.uniform(np.log(0.3), np.log(3.3)))
    h, w = min(height, round(np.sqrt(area * ratio))), min(width, round(np.sqrt(area / ratio)))
    top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
    image = image.copy()
    image[top : top + h, left : left + w] = image.mean((0, 1)).astype(np.uint8)
    return image


def form_of(name: str, size: int) -> ImageTransform:
    """A transform of :data:`emo_models.preprocess.TRANSFORMS`, for faces of ``size`` pixels instead of its own."""
    form = TRANSFORMS[name]
    return form if size == form.crop else replace(form, resize=size, crop=size)


class PictureSet(Dataset[dict[str, Tensor]]):
    """Pictures as tensors: ``image`` float32 [3, s, s], ``label``. With ``rng`` they are varied, anew in each epoch."""

    def __init__(
        self, pictures: Sequence[Picture], form: ImageTransform,
        variation: Variation | None = None, rng: Callable[[int], np.random.Generator] | None = None,
    ) -> None:  # fmt: skip
        self.pictures, self.form, self.variation, self.rng = pictures, form, variation, rng

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        picture = self.pictures[index]
        image = picture.load()
        if self.variation is not None and self.rng is not None:
            image = self.variation(image, self.form, self.rng(index))
        return {"image": torch.from_numpy(self.form(image)), "label": torch.as_tensor(picture.label)}


# Where pictures come from


def in_folders(root: Path, split: str, classes: Sequence[str], names: Mapping[str, str]) -> list[Picture]:
    """``root/SPLIT/CLASS/*.jpg``. ``names``: folder -> class, where the folders have other names, as RAF-DB's numbers.

    Raises :class:`DatasetError` for a folder that is no class, and when there is no picture.
    """
    top = root / split
    if not top.is_dir():
        raise DatasetError(f"{top} is missing: expected {root}/{{train,val,test}}/CLASS/*.jpg")
    pictures = []
    for folder in sorted(p for p in top.iterdir() if p.is_dir()):
        label = class_index(names.get(folder.name, folder.name), classes, str(folder))
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
        pictures += [Picture(file, label) for file in files]
    if not pictures:
        raise DatasetError(f"{top} holds no pictures: expected CLASS/*.jpg, CLASS out of {', '.join(classes)}")
    return pictures


def in_table(
    root: Path, split: str, label: Callable[[Mapping[str, str], str], Any], columns: Sequence[str]
) -> list[Picture]:
    """Rows of ``root/labels.csv`` with the columns ``image`` (relative to root), ``split``, and ``columns``.

    Raises :class:`DatasetError` for a missing file or column, and what ``label(row, place)`` raises.
    """
    file = root / TABLE
    if not file.is_file():
        raise DatasetError(f"{file} is missing: expected a table with the columns image, split, {', '.join(columns)}")
    with file.open(encoding="utf-8-sig", newline="") as opened:
        rows = csv.DictReader(opened)
        there = rows.fieldnames or []
        if missing := [name for name in ("image", "split", *columns) if name not in there]:
            raise DatasetError(f"{file}: column {missing[0]!r} is missing; found {', '.join(there)}")
        pictures = []
        for number, row in enumerate(rows, 2):
            place = f"{file}, line {number}"
            if row["split"] not in SPLITS:
                raise DatasetError(f"{place}: split: expected one of {', '.join(SPLITS)}; got {row['split']!r}")
            if row["split"] == split:
                pictures.append(Picture(root / row["image"], label(row, place)))
    if not pictures:
        raise DatasetError(f"{file}: no row of the split {split!r}")
    return pictures


def class_index(name: str, classes: Sequence[str], place: str) -> int:
    """Number of a class, by any of its words. Raises :class:`DatasetError` naming ``place`` and the choices."""
    same = [SYNONYMS.get(each, each) for each in classes]
    known = SYNONYMS.get(name.strip().lower(), name.strip().lower())
    if known not in same:
        raise DatasetError(f"{place}: expected one of {', '.join(classes)}; got {name!r}")
    return same.index(known)
