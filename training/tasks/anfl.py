"""ANFL as a task: the action units of single faces, of which some may be unknown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emo_models.labels import AUOutput
from emo_models.networks.anfl import ANFL
from training.datasets import DatasetError, read_dataset
from training.losses.action_units import UNKNOWN, unit_weights, weighted_asymmetric
from training.metrics.action_units import score_action_units
from training.tasks.clip_faces import clip_faces
from training.tasks.er import Batch
from training.tasks.face_task import FaceTask, rows
from training.tasks.pictures import Picture, in_table
from training.trainer.recipe import Recipe

Labels = NDArray[np.int8]


class ANFLTask(FaceTask):
    """Trains :class:`emo_models.networks.anfl.ANFL`.

    ``data.name``: ``table``, ``root/labels.csv`` with the columns ``image``, ``split`` and the network's outputs (AU1,
    L12, ...), each 0, 1, or -1 or empty for unknown; columns that are missing are unknown. ``opengraphau``:
    ``root/img`` and ``root/list/hybrid_SPLIT_img_path.txt``, ``..._label.txt``. Otherwise a data set of a toy world.
    """

    network: ANFL
    transform = "opengraphau224"

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.outputs: tuple[AUOutput, ...] = self.network.config.outputs
        labels = np.stack([picture.label for picture in self.pictures_of("train")])
        self.weights = torch.from_numpy(unit_weights(labels))

    def pictures(self, split: str) -> list[Picture]:
        name = self.recipe.data.name
        if name == "table":
            return in_table(self.root, split, self._row, ())
        if name == "opengraphau":
            return opengraphau(self.root, split, len(self.outputs))
        return self._of_toy_world(split)

    def _row(self, row: Mapping[str, str], place: str) -> Labels:
        return np.array(
            [unit_label(row.get(output.name) or "", f"{place}: {output.name}") for output in self.outputs], np.int8
        )

    def _of_toy_world(self, split: str) -> list[Picture]:
        from training.tasks.toy_truth import unit_labels

        data = self.recipe.data
        records = read_dataset(data.name, self.root, **data.options).split(split)
        faces = clip_faces(records, self.root, self.options.size, self.options.clips)
        labels = unit_labels(self.root, self.outputs)
        return [Picture(face.image, labels(face.record.clip_id, face.number)) for face in faces]

    def labels(self) -> tuple[str, ...]:
        return tuple(output.name for output in self.outputs)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        scores = self.network(batch["image"]).scores
        return weighted_asymmetric(scores, batch["label"], self.weights.to(scores.device)), {}

    def evaluate(self, split: str) -> dict[str, float]:
        scores, labels = [], []
        for images, known in self.batches(split):
            scores.append(self.network(images).scores.float())
            labels.append(known)
        found = score_action_units(
            rows(scores).numpy(), rows(labels).numpy(), [output.number for output in self.outputs]
        )
        return found.means()


def unit_label(text: str, place: str) -> int:
    """0, 1 or :data:`UNKNOWN`. Raises :class:`DatasetError`."""
    known = {"0": 0, "1": 1, "-1": UNKNOWN, "": UNKNOWN}
    if text.strip() not in known:
        raise DatasetError(f"{place}: expected 0, 1, or -1 or nothing for unknown; got {text!r}")
    return known[text.strip()]


def opengraphau(root: Path, split: str, outputs: int) -> list[Picture]:
    """OpenGraphAU's lists: one picture a line, and its labels on the same line of another file.

    Raises :class:`DatasetError` for a missing file, another number of lines or labels, and labels that are none.
    """
    lists = [root / "list" / f"hybrid_{split}_{what}.txt" for what in ("img_path", "label")]
    for file in lists:
        if not file.is_file():
            raise DatasetError(
                f"{file} is missing: expected OpenGraphAU's lists in {root}/list and pictures in {root}/img"
            )
    names, labels = (file.read_text(encoding="utf-8").splitlines() for file in lists)
    if len(names) != len(labels):
        raise DatasetError(
            f"{lists[1]}: expected {len(names)} lines, as many as {lists[0].name} has; got {len(labels)}"
        )
    pictures = []
    for number, (name, line) in enumerate(zip(names, labels, strict=True), 1):
        place = f"{lists[1]}, line {number}"
        values = line.split()
        if len(values) != outputs:
            raise DatasetError(
                f"{place}: expected {outputs} labels, one for each output of the network; got {len(values)}"
            )
        label = np.array([unit_label(value, place) for value in values], np.int8)
        pictures.append(Picture(root / "img" / name.strip(), label))
    return pictures
