"""What the trainer asks of a task, and what most tasks share."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.data import Dataset

    from emo_models.checkpoints import NetworkCard
    from training.trainer.recipe import Recipe

#: Name of a task -> ``module:class``; the class takes a recipe as only argument.
TASKS: Final[dict[str, str]] = {
    "detector": "training.tasks.detector:DetectorTask",
    "er": "training.tasks.er:ERTask",
    "anfl": "training.tasks.anfl:ANFLTask",
    "ddamfn": "training.tasks.ddamfn:DDAMFNTask",
    "actions": "training.tasks.actions:ActionTask",
    "ecpa": "training.tasks.ecpa:ECPATask",
    "clip": "training.tasks.clip:ClipTask",
    "language": "training.tasks.language:LanguageTask",
    "fame": "training.tasks.fame:FAMETask",
}

#: A first loss at or above this share of ln V is that of a network that guesses.
GUESSING_SHARE: Final = 0.9
#: Below this share of positive AU-word pairs an alignment learns nothing.
LEAST_POSITIVE: Final = 0.01


class DoomedRunError(RuntimeError):
    """A training that cannot come to anything; the message says how that was seen and what to change."""


class Task(Protocol):
    """What is trained: one per network in ``training/tasks``.

    The trainer moves :attr:`network` to the device and puts it into training mode before each epoch and after each
    evaluation. With the same recipe and seed a task must do the same: randomness of an item comes from
    :func:`item_rng`, all other from torch's, numpy's and Python's own generators, whose states a checkpoint keeps.
    """

    network: nn.Module

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What is learned: dictionaries with ``params`` and, if need be, ``lr_factor`` (1) and ``weight_decay``.

        Without ``weight_decay`` a group has the recipe's, but none for its vectors and scalars (biases, norms).
        """
        ...

    def dataset(self, split: str) -> Dataset[Any]:
        """Map style; item i of an epoch is always the same. ``split``: ``train``, ``val`` or ``test``."""
        ...

    def collate(self, items: list[Any]) -> Any:
        """A batch of items: tensors, or containers of them, which the trainer moves to the device."""
        ...

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """What is minimised, and the numbers to log. It runs :attr:`network`."""
        ...

    def check_first_loss(self, loss: float) -> None:
        """Look at the loss of the very first step; may raise :class:`DoomedRunError`."""
        ...

    def begin_epoch(self, epoch: int) -> None:
        """Before epoch ``epoch`` (from 0), also where one is taken up again in its middle."""
        ...

    def end_epoch(self) -> dict[str, float]:
        """After an epoch: numbers to log. May raise :class:`DoomedRunError`."""
        ...

    def evaluate(self, split: str) -> dict[str, float]:
        """Metrics, the primary one first; higher is better in that. May switch the network's mode."""
        ...

    def state(self) -> dict[str, Any]:
        """What must survive a kill besides the network: numbers, strings, tensors, and containers of them."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        ...

    def card(self) -> NetworkCard:
        """The card of the weights; the trainer adds its notes and the hash."""
        ...


class BaseTask:
    """A task without peculiarities: all parameters are learned alike, and nothing is to be remembered."""

    network: nn.Module

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.epoch = 0

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": [p for p in self.network.parameters() if p.requires_grad]}]

    def collate(self, items: list[Any]) -> Any:
        from torch.utils.data import default_collate

        return default_collate(items)

    def check_first_loss(self, loss: float) -> None:
        del loss

    def begin_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def end_epoch(self) -> dict[str, float]:
        return {}

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        del state

    def rng(self, index: int) -> np.random.Generator:
        """Randomness of one item of this epoch."""
        return item_rng(self.recipe.seed, self.epoch, index)


def item_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Randomness that depends on seed, epoch and item alone, whichever process asks, and how often."""
    return np.random.default_rng((seed, epoch, index))


def require_less_than_guessing(loss: float, choices: int, what: str) -> None:
    """Raise :class:`DoomedRunError` where a first loss is that of guessing among ``choices``.

    For networks that start from weights which know their words: the public log of one such training stayed at
    ln 32003 = 10.37, for its language model had never been loaded.
    """
    limit = GUESSING_SHARE * math.log(choices)
    if not loss < limit:
        raise DoomedRunError(
            f"the first loss is {loss:.2f}, ln V is {math.log(choices):.2f}: {what} guesses, its weights were not "
            "loaded. Name them in the recipe before training"
        )


def require_positive_pairs(positive: int, pairs: int) -> float:
    """The share of positive AU-word pairs (NaN without pairs); :class:`DoomedRunError` below :data:`LEAST_POSITIVE`."""
    if not pairs:
        return math.nan
    rate = positive / pairs
    if rate < LEAST_POSITIVE:
        raise DoomedRunError(
            f"only {positive} of {pairs} AU-word pairs were positive in this epoch: the alignment drives all "
            "similarities to 0 and learns nothing. Choose pair_labels: lexicon or lexicon+self, and see that the "
            "captions speak of faces"
        )
    return rate


def create_task(recipe: Recipe) -> Task:
    """The task that a recipe names. Raises :class:`~training.trainer.recipe.RecipeError` listing the choices."""
    from training.trainer.recipe import RecipeError

    if recipe.task not in TASKS:
        raise RecipeError(f"task: expected one of {', '.join(sorted(TASKS))}; got {recipe.task!r}")
    module, _, name = TASKS[recipe.task].partition(":")
    return cast("Task", getattr(importlib.import_module(module), name)(recipe))
