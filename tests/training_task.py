"""A small task for the tests of the trainer: sums of numbers, learned with dropout and augmentation.

As a program, ``python training_task.py FOLDER CHANGES``, with CHANGES of the recipe as JSON, trains it. With ``KILL_AT=n`` in
the environment it kills itself in its n-th forward pass, with ``STOP_AT=n`` it types Ctrl-C there; with ``FILE_LIMIT=n`` no file may become larger than n bytes.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emo_models import create
from emo_models.checkpoints import NetworkCard
from training.trainer import recipe as recipes
from training.trainer.loop import train
from training.trainer.task import BaseTask


class Numbers(torch.utils.data.Dataset):
    """Pictures of noise whose class is the brighter half; augmented anew in each epoch."""

    def __init__(self, task: Any, size: int) -> None:
        self.task, self.size = task, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        noise = torch.from_numpy(self.task.rng(index).standard_normal((3, 32, 32)).astype("float32"))
        label = index % 2
        noise[:, :, 16 * label : 16 * (label + 1)] += 1.0
        return noise, label


class ToyTask(BaseTask):
    """Classifies :class:`Numbers` by a toy ResNet (with batch norm) and dropout."""

    def __init__(self, recipe: recipes.Recipe) -> None:
        super().__init__(recipe)
        self.network = create("er_resnet", "toy", width=8)
        if recipe.options.get("plain"):  # nothing that depends on how a batch is dealt out
            self.network.eval().requires_grad_(False)
            self.network.train = lambda mode=True: self.network
            self.network.fc.requires_grad_(True)
        self.seen, self.passes = 0.0, 0
        if limit := int(os.environ.get("FILE_LIMIT", "0")):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    def dataset(self, split: str) -> Numbers:
        return Numbers(self, 48 if split == "train" else 8)

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        images, labels = batch
        self.passes += 1
        if self.passes == int(os.environ.get("KILL_AT", "0")):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.passes == int(os.environ.get("STOP_AT", "0")):
            signal.raise_signal(signal.SIGINT)
        features = self.network(images).features
        dropped = features if self.recipe.options.get("plain") else nn.functional.dropout(features, 0.3)
        loss = nn.functional.cross_entropy(self.network.fc(dropped), labels)
        self.seen += float(loss.detach())
        return loss * self.recipe.options.get("factor", 1.0), {"ce": loss}

    def evaluate(self, split: str) -> dict[str, float]:
        data = self.dataset(split)
        images = torch.stack([data[i][0] for i in range(len(data))])
        labels = torch.tensor([data[i][1] for i in range(len(data))])
        torch.rand(3)  # what an evaluation draws must not matter
        return {"accuracy": float((self.network(images).logits.argmax(1) == labels).float().mean())}

    def state(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state(self, state: Any) -> None:
        self.seen = state["seen"]

    def card(self) -> NetworkCard:
        return NetworkCard(
            "er_resnet", self.network.config.to_dict(), (), {}, "Apache-2.0", ("noise",), notes={"seen": self.seen}
        )


def make_recipe(out: Path, **changes: Any) -> recipes.Recipe:
    values = {
        "task": "er", "network": {"name": "er_resnet", "preset": "toy"}, "data": {"name": "numbers", "root": "."},
        "optimiser": {"lr": 3e-3}, "epochs": 2, "batch": 8, "checkpoint_steps": 2, "out": str(out), **changes,
    }  # fmt: skip
    return recipes.from_dict(values)


def run(recipe: recipes.Recipe, resume: bool = True) -> Any:
    torch.set_num_threads(1)
    return train(recipe, resume=resume, make_task=ToyTask)


def engines(argv: list[str]) -> int:
    """Stands where ``emo engines`` is registered, and says what it was asked for."""
    print("engines:", *argv)
    return 0


if __name__ == "__main__":
    run(make_recipe(Path(sys.argv[1]), **json.loads(sys.argv[2])))
