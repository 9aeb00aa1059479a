"""CLIP as a task: pictures of clips against their captions, from nothing. FAME-Net takes its vision tower alone.

The paper's CLIP is published; a small one is for a world that no published one has seen.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

import emo_models
from emo_models.checkpoints import NetworkCard
from emo_models.networks.clip import Clip, contrastive_loss
from emo_models.networks.clip_vision import ClipVisionConfig
from emo_models.networks.language import tokenizer_note, train_tokenizer
from emo_models.preprocess import TRANSFORMS, ImageTransform, short_edge_crop
from emo_models.weights import cache_dir
from training.datasets import read_dataset
from training.datasets.record import Record
from training.prepare.clips import ClipForm, PreparedClip
from training.prepare.faces import FaceTrack
from training.prepare.run import prepare_clips
from training.prepare.store import FeatureStore
from training.prepare.video import Video
from training.tasks.pictures import Picture, in_table
from training.trainer.recipe import Recipe, RecipeError, read_options
from training.trainer.task import BaseTask

log = logging.getLogger(__name__)

#: Pictures of one step of an evaluation.
BATCH: Final = 64


@dataclass(frozen=True)
class ClipOptions:
    """What a recipe of this task can say under ``options``.

    ``frames``: pictures of each clip that are kept, of which an epoch sees one at random; ``features``: folder of the
    feature store, empty for one in the cache of weights; ``workers``: processes that cut out the pictures.
    """

    frames: int = 8
    features: str = ""
    workers: int = 1
    licence: str = "research only"


class NoFaces:
    """A finder for those who look at the whole picture only."""

    producer: Mapping[str, str] = {"faces": "none"}

    def __call__(self, record: Record, video: Video) -> list[FaceTrack]:  # noqa: ARG002 - nothing is looked for
        return []

    def close(self) -> None:
        """Nothing to free."""


def clip_transform(size: int) -> ImageTransform:
    """CLIP's preprocessing at another size of picture."""
    return dataclasses.replace(TRANSFORMS["clip336"], resize=size, crop=size)


@dataclass(frozen=True)
class Pair:
    """Images uint8 [F, s, s, 3], made when called, and the captions that are right for each of them."""

    images: Callable[[], NDArray[np.uint8]]
    captions: tuple[str, ...]


class Pictures(Dataset[dict[str, Any]]):
    """One picture and one caption of each pair; while training both are drawn, else the middle and the first."""

    def __init__(self, task: ClipTask, pairs: Sequence[Pair], *, train: bool) -> None:
        self.task, self.pairs, self.train = task, pairs, train
        self._images: dict[int, NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        pair = self.pairs[index]
        if index not in self._images:
            self._images[index] = pair.images()
        images = self._images[index]
        number, caption = len(images) // 2, pair.captions[0]
        if self.train:
            rng = self.task.rng(index)
            number, caption = int(rng.integers(len(images))), pair.captions[rng.integers(len(pair.captions))]
        return {"image": torch.from_numpy(self.task.transform(images[number])), "caption": caption}


class ClipTask(BaseTask):
    """Trains :class:`emo_models.networks.clip.Clip` on clips with captions or, ``data.name: table``, on pictures:
    ``labels.csv`` with the columns image, split and caption. Raises :class:`RecipeError` for data without them."""

    network: Clip

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.options = read_options(ClipOptions, recipe.options)
        self.network = cast("Clip", emo_models.create("clip", recipe.network.preset, **recipe.network.options))
        c = self.network.config
        self.image = ClipVisionConfig.from_preset(c.vision).image
        self.transform = clip_transform(self.image)
        self.root = Path(recipe.data.root).expanduser()
        self.data = (
            None if recipe.data.name == "table" else read_dataset(recipe.data.name, self.root, **recipe.data.options)
        )
        captions = [text for pair in self._pairs("train", read=False) for text in pair.captions]
        self.tokenizer = train_tokenizer(captions, c.words)
        if self.tokenizer.eos_token_id != c.stop:
            raise RecipeError(
                f"network.options.stop: the tokenizer's end is {self.tokenizer.eos_token_id}; got {c.stop}"
            )
        self.form = ClipForm(frames=self.options.frames, image_size=self.image, face_size=8, kernel="bicubic")
        folder = Path(self.options.features) if self.options.features else cache_dir() / "features"
        # Clip ids are not unique beyond one data set.
        key = hashlib.sha256(f"{self.root.resolve()} {self.form}".encode()).hexdigest()[:12]
        self.store = FeatureStore(folder / f"clip-{recipe.data.name}-{key}", self.form.producer(NoFaces()))

    def dataset(self, split: str) -> Pictures:
        """The pictures are cut out now, where they are not stored yet; a video that cannot be read is left out."""
        return Pictures(self, self._pairs(split), train=split == "train")

    def collate(self, items: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Pictures, the different captions among theirs, and whose is whose."""
        texts = sorted({item["caption"] for item in items})
        length = self.network.config.length
        ids = [[*self.tokenizer(text)["input_ids"][: length - 1], self.network.config.stop] for text in texts]
        rows = [torch.tensor(row) for row in ids]
        pad = torch.nn.utils.rnn.pad_sequence
        return {
            "image": torch.stack([item["image"] for item in items]),
            "ids": pad(rows, batch_first=True, padding_value=self.network.config.stop),
            "mask": pad([torch.ones_like(row) for row in rows], batch_first=True),
            "same": torch.tensor([[item["caption"] == text for text in texts] for item in items]),
        }

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """CLIP's symmetric loss over the pictures and captions of a batch."""
        scores = self.network(batch["image"], batch["ids"], batch["mask"]).scores
        right = batch["same"].gather(1, scores.argmax(1, keepdim=True)).float().mean()
        return contrastive_loss(scores, batch["same"]), {"right caption": right}

    def evaluate(self, split: str) -> dict[str, float]:
        """Share of pictures whose own caption is the nearest of all different ones in the split, and what chance is."""
        data = self.dataset(split)
        if not len(data):
            raise RecipeError(f"data: no clip with a caption in the split {split!r} of {self.recipe.data.root}")
        device = next(self.network.parameters()).device
        whole = self.collate([data[i] for i in range(len(data))])
        ids, mask = whole["ids"].to(device), whole["mask"].to(device)
        best = torch.cat([
            self.network(images.to(device), ids, mask).scores.argmax(1).cpu() for images in torch.split(whole["image"], BATCH)
        ])  # fmt: skip
        right = whole["same"].gather(1, best[:, None]).float().mean()
        return {"right caption": float(right), "right caption by chance": 1 / len(ids)}

    def card(self) -> NetworkCard:
        return NetworkCard(
            "clip", self.network.config.to_dict(), (), {"frames": dataclasses.asdict(self.transform)},
            self.options.licence, (self.recipe.data.name,), notes=tokenizer_note(self.tokenizer),
        )  # fmt: skip

    def _pairs(self, split: str, *, read: bool = True) -> list[Pair]:
        """``read``: cut out what is missing and leave out what cannot be read; else only the captions are of use."""
        if self.data is None:
            found = in_table(self.root, split, lambda row, _: row["caption"], ("caption",))
            return [Pair(partial(self._scaled, picture), (picture.label,)) for picture in found]
        records = [record for record in self.data.split(split) if record.source and record.captions]
        if read:
            made = prepare_clips(records, self.store, self.form, NoFaces, workers=self.options.workers)
            bad = {str(row.row) for row in made.quarantined}
            for row in made.quarantined:
                log.warning("clip %s is left out: %s", row.row, row.detail)
            records = [record for record in records if record.clip_id not in bad]
        return [Pair(partial(self._frames, record.clip_id), record.captions) for record in records]

    def _scaled(self, picture: Picture) -> NDArray[np.uint8]:
        return short_edge_crop(picture.load(), self.image, self.image, self.transform.kernel)[None]

    def _frames(self, clip_id: str) -> NDArray[np.uint8]:
        return PreparedClip.of(self.store.get(clip_id)).clip
