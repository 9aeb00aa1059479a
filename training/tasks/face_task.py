"""What the tasks of the three networks for faces share: pictures with labels, batches, cards."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader

import emo_models
from emo_models.checkpoints import LAYOUTS, NetworkCard, load_checkpoint, load_weights
from emo_models.engines import catalogue
from emo_models.networks.base import Network
from emo_models.networks.config import NetworkConfig
from training.tasks.clip_faces import ClipFacesOptions
from training.tasks.ecpa_weights import find
from training.tasks.pictures import Picture, PictureSet, Variation, form_of
from training.trainer.recipe import Recipe, RecipeError, read_options
from training.trainer.task import BaseTask

#: Key of ``network.weights``: what the whole network starts from.
START = "start"


@dataclass(frozen=True)
class FaceOptions:
    """What a recipe for a network of faces can say under ``options``.

    ``size``: pixels of a face; ``clips``: how faces come out of clips; ``folders``: folder -> class, where the folders
    of ``data.name: folders`` have other names; ``batch``: pictures of one step of an evaluation.
    """

    size: int = 224
    variation: Variation = field(default_factory=Variation)
    clips: ClipFacesOptions = field(default_factory=ClipFacesOptions)
    folders: Mapping[str, str] = field(default_factory=dict)
    batch: int = 64
    licence: str = "research only"


class FaceTask(BaseTask, ABC):
    """Trains a network that takes one face."""

    network: Network
    #: Key of :data:`emo_models.preprocess.TRANSFORMS`.
    transform: str

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.options = _aligned(read_options(FaceOptions, recipe.options), recipe.network.name)
        self.form = form_of(self.transform, self.options.size)
        self.root = Path(recipe.data.root).expanduser()
        network = emo_models.create(recipe.network.name, recipe.network.preset, **recipe.network.options)
        self.network = cast("Network", network)
        start(self.network, recipe.network.weights)
        self._pictures: dict[str, list[Picture]] = {}

    @abstractmethod
    def pictures(self, split: str) -> list[Picture]:
        """The labelled faces of a split. Raises :class:`DatasetError`."""

    @abstractmethod
    def labels(self) -> tuple[str, ...]:
        """Names of the outputs."""

    def pictures_of(self, split: str) -> list[Picture]:
        """:meth:`pictures`, read once."""
        if split not in self._pictures:
            self._pictures[split] = self.pictures(split)
        return self._pictures[split]

    def dataset(self, split: str) -> PictureSet:
        train = split == "train"
        return PictureSet(
            self.pictures_of(split), self.form, self.options.variation if train else None, self.rng if train else None
        )

    def batches(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels of a whole split, in its order, as they are at run time; images on the network's device."""
        device = next(self.network.parameters()).device
        for batch in DataLoader(self.dataset(split), self.options.batch):
            yield batch["image"].to(device), batch["label"]

    def card(self) -> NetworkCard:
        config = cast("NetworkConfig", self.network.config)
        form = dataclasses.asdict(self.form)
        how = {"faces": self.transform, "size": self.options.size, "alignment": self.options.clips.alignment, **form}
        return NetworkCard(
            self.recipe.network.name,
            config.to_dict(),
            self.labels(),
            how,
            self.options.licence,
            (self.recipe.data.name,),
        )


def _aligned(options: FaceOptions, network: str) -> FaceOptions:
    """The options with an alignment: where the recipe leaves it open that of the running graph."""
    alignment: Any = options.clips.alignment or catalogue.part(network).alignment
    return dataclasses.replace(options, clips=dataclasses.replace(options.clips, alignment=alignment))


def start(network: Network, weights: Mapping[str, str]) -> None:
    """Fill a network with ``start: FILE`` of ours or ``start: LAYOUT:FILE`` of others. Raises :class:`RecipeError`."""
    if unknown := sorted(set(weights) - {START}):
        raise RecipeError(f"network.weights: no part {unknown[0]!r}; there is {START}")
    if START not in weights:
        return
    layout, colon, file = weights[START].partition(":")
    if colon and layout in LAYOUTS:
        load_checkpoint(network, find(file, START), layout)
    else:
        load_weights(find(weights[START], START), into=network)
        network.train()


def rows(values: list[Tensor]) -> Tensor:
    """All rows below each other, on the CPU."""
    return torch.cat([value.cpu() for value in values])
