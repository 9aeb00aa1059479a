"""SCRFD as a task: finding the faces of whole pictures, and five points of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

import emo_models
from emo_models.checkpoints import NetworkCard
from emo_models.detection import FacesFound, decode
from emo_models.networks.scrfd import SCRFD
from training.datasets import read_dataset
from training.losses.detection import POINTS_WEIGHT, as_targets, detection_loss
from training.metrics.detection import score_detections
from training.tasks.face_task import start
from training.tasks.scenes import Scene, SceneSet, SceneVariation, retinaface
from training.trainer.recipe import Recipe, read_options
from training.trainer.task import BaseTask

Batch = dict[str, Any]


@dataclass(frozen=True)
class DetectorOptions:
    """What a recipe for a detector can say under ``options``.

    ``size``: height and width of the network's input, multiples of 32; ``frames``: of each clip of a toy world;
    ``points_weight``: of the points' loss beside 1 of the score's and 2 of the box's, as published;
    ``batch``: pictures of one step of an evaluation; ``least_score``: confidence from which a face is evaluated.
    """

    size: tuple[int, int] = (640, 640)
    variation: SceneVariation = field(default_factory=SceneVariation)
    frames: int = 4
    points_weight: float = POINTS_WEIGHT
    batch: int = 16
    least_score: float = 0.02
    licence: str = "research only"


class DetectorTask(BaseTask):
    """Trains :class:`emo_models.networks.scrfd.SCRFD`; ``data.name``: ``retinaface``, or a data set of a toy world."""

    network: SCRFD

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.options = read_options(DetectorOptions, recipe.options)
        network = emo_models.create(recipe.network.name, recipe.network.preset, **recipe.network.options)
        self.network = cast("SCRFD", network)
        start(self.network, recipe.network.weights)
        self._scenes: dict[str, list[Scene]] = {}

    def scenes(self, split: str) -> list[Scene]:
        """The pictures of a split, read once. Raises :class:`training.datasets.DatasetError`."""
        if split not in self._scenes:
            root = Path(self.recipe.data.root).expanduser()
            if self.recipe.data.name == "retinaface":
                self._scenes[split] = retinaface(root, split)
            else:
                from training.tasks.toy_truth import scenes

                records = read_dataset(self.recipe.data.name, root, **self.recipe.data.options).split(split)
                self._scenes[split] = scenes(root, records, self.options.frames)
        return self._scenes[split]

    def dataset(self, split: str) -> SceneSet:
        train = split == "train"
        variation = self.options.variation if train else None
        return SceneSet(self.scenes(split), self.options.size, variation, self.rng if train else None)

    def collate(self, items: list[dict[str, Tensor]]) -> Batch:
        """Images [N, 3, h, w]; boxes and points stay lists, for each image has its own number of faces."""
        return {"image": torch.stack([item["image"] for item in items]),
                "boxes": [item["boxes"] for item in items], "points": [item["points"] for item in items]}  # fmt: skip

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        faces = [as_targets(boxes) for boxes in batch["boxes"]]
        return detection_loss(
            self.network(batch["image"]),
            self.options.size,
            faces,
            batch["points"],
            points_weight=self.options.points_weight,
        )

    def evaluate(self, split: str) -> dict[str, float]:
        data, found, truth = self.dataset(split), [], []
        for first in range(0, len(data), self.options.batch):
            items = [data[i] for i in range(first, min(first + self.options.batch, len(data)))]
            found += self._find(torch.stack([item["image"] for item in items]))
            truth += [(item["boxes"].numpy(), item["points"].numpy()) for item in items]
        return score_detections([(each.boxes, each.points) for each in found], truth).values()

    def _find(self, images: Tensor) -> list[FacesFound]:
        output = self.network(images.to(next(self.network.parameters()).device))
        maps = {name: values.float().cpu().numpy() for name, values in output._asdict().items()}
        size, least = self.options.size, self.options.least_score
        return [decode(maps, size, least_score=least, image=number) for number in range(len(images))]

    def card(self) -> NetworkCard:
        how = {"image": "fit_into", "size_hw": list(self.options.size)}
        return NetworkCard(
            self.recipe.network.name,
            self.network.config.to_dict(),
            (),
            how,
            self.options.licence,
            (self.recipe.data.name,),
        )
