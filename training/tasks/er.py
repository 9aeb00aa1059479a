"""The emotion recogniser behind ECPA's ER-level prompt as a task: cross-entropy over the classes of single faces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch.nn.functional as F
from torch import Tensor

from emo_models.labels import SYNONYMS, VOCABULARIES
from emo_models.networks.ddamfn import DDAMFNConfig
from emo_models.networks.er_resnet import ERResNet, ERResNetConfig
from training.datasets import read_dataset
from training.metrics.classes import ClassScores, confusion_matrix
from training.tasks.clip_faces import clip_faces
from training.tasks.face_task import FaceTask, rows
from training.tasks.pictures import Picture, class_index, in_folders, in_table
from training.trainer.recipe import Recipe

Batch = dict[str, Tensor]


class ExpressionTask(FaceTask):
    """Classifies faces: ``data.name`` is ``folders``, ``table``, or a data set of clips whose subjects' faces are taken.

    Of a data set only clips with a single label that is one of the network's classes are used.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        config = cast("ERResNetConfig | DDAMFNConfig", self.network.config)
        self.classes = VOCABULARIES[config.vocabulary]

    def pictures(self, split: str) -> list[Picture]:
        data = self.recipe.data
        if data.name == "folders":
            return in_folders(self.root, split, self.classes, self.options.folders)
        if data.name == "table":
            return in_table(self.root, split, self._emotion, ("emotion",))
        known = {SYNONYMS.get(name, name) for name in self.classes}
        records = [
            record
            for record in read_dataset(data.name, self.root, **data.options).split(split)
            if len(record.emotions) == 1 and SYNONYMS.get(record.emotions[0], record.emotions[0]) in known
        ]
        faces = clip_faces(records, self.root, self.options.size, self.options.clips)
        return [Picture(f.image, class_index(f.record.emotions[0], self.classes, f.record.clip_id)) for f in faces]

    def _emotion(self, row: Mapping[str, str], place: str) -> int:
        return class_index(row["emotion"], self.classes, f"{place}: emotion")

    def labels(self) -> tuple[str, ...]:
        return self.classes

    def evaluate(self, split: str) -> dict[str, float]:
        said, true = [], []
        for images, labels in self.batches(split):
            said.append(self.network(images).logits.argmax(1))
            true.append(labels)
        matrix = confusion_matrix(rows(true).tolist(), rows(said).tolist(), len(self.classes))
        values = ClassScores(self.classes, matrix).values()
        return {"UAR": values.pop("UAR"), **values}


class ERTask(ExpressionTask):
    """Trains :class:`emo_models.networks.er_resnet.ERResNet`."""

    network: ERResNet
    transform = "imagenet224"

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.network(batch["image"]).logits
        return F.cross_entropy(logits, batch["label"]), {"accuracy": accuracy(logits, batch["label"])}


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of right classes."""
    return (logits.argmax(1) == labels).float().mean()
