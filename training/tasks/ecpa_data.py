"""What ECPA is trained on: clips, what the frozen networks say of them, and captions.

Everything that does not change in training is computed once and kept in feature stores: the images of a clip, the
features of the frozen face networks and, where the visual encoder is frozen too, its features.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from emo_models.labels import SYNONYMS
from emo_models.networks.ecpa import ECPA, EcpaConfig
from emo_models.networks.ecpa.captions import CaptionBatch, CaptionTokenizer
from emo_models.networks.ecpa.eca import NO_EMOTION
from emo_models.networks.ecpa.vep import FaceFeatures
from emo_models.preprocess import TRANSFORMS, normalise
from training.datasets import Record
from training.prepare.clips import ClipForm, PreparedClip
from training.prepare.faces import MakeFinder
from training.prepare.features import Compute, compute_features, network_producer
from training.prepare.run import prepare_clips
from training.prepare.store import FeatureStore, store_folder

log = logging.getLogger(__name__)

Arrays = Mapping[str, NDArray[Any]]
#: How images become the input of the visual encoder and of the face networks: ImageNet's mean and spread.
NORM: Final = TRANSFORMS["imagenet224"]
#: Names of the arrays of :class:`FaceFeatures`.
FACE_ARRAYS: Final = ("er", "au_nodes", "au_scores", "valid")


@dataclass(frozen=True)
class Example:
    """A clip and one of its captions."""

    record: Record
    caption: str


def examples(records: Iterable[Record]) -> list[Example]:
    """Every caption of every clip that has both; a clip with several captions is several examples, as in SwinBERT."""
    return [Example(record, text) for record in records if record.source for text in record.captions]


def clips(records: Iterable[Record]) -> list[Record]:
    """The clips to write captions for: those with a video and at least one reference."""
    return [record for record in records if record.source and record.captions]


class ClipFeatures:
    """Features of clips by id: what the network reads besides the caption.

    ``folder``: of all stores; each producer has its own below it. Call :meth:`prepare` before reading.
    """

    def __init__(self, network: ECPA, folder: Path, *, face_size: int, crop: bool, memory_mb: int = 2048) -> None:
        config = network.config
        self.config, self.network, self.folder = config, network, folder
        self.form = ClipForm(frames=config.frames, image_size=config.image_size, face_size=face_size, crop=crop)
        self._memory = memory_mb * 1_000_000
        self._stores: list[FeatureStore] = []
        self._kept: dict[str, Arrays] = {}

    def prepare(self, records: Sequence[Record], make_faces: MakeFinder, workers: int = 1) -> set[str]:
        """Compute what is missing, going on where it was stopped. Returns the clips whose video cannot be read."""
        finder = make_faces()
        images = self._store("clips", self.form.producer(finder))
        finder.close()
        found = prepare_clips(records, images, self.form, make_faces, workers=workers)
        unreadable = {str(row.row) for row in found.quarantined}
        for row in found.quarantined:
            log.warning("clip %s is left out: %s", row.row, row.detail)
        ids = [record.clip_id for record in records if record.clip_id not in unreadable]
        self._stores = []
        if self.config.freeze_visual and self.config.visual_tokens:
            visual = network_producer(images, visual=self.network.visual.encoder)
            self._stores.append(self._computed("visual", visual, images, ids, self._visual))
        elif self.config.visual_tokens:
            self._stores.append(images)
        if self.network.au_net is not None:
            nets = {"au": self.network.au_net, "er": self.network.er_net}
            faces = network_producer(images, **{name: net for name, net in nets.items() if net is not None})
            self._stores.append(self._computed("faces", faces, images, ids, self._faces))
        return unreadable

    def __getitem__(self, clip_id: str) -> Arrays:
        """``clip`` uint8 [T, H, W, 3] or ``visual`` float16 [M, D]; arrays of the faces, where there are prompts."""
        if clip_id not in self._kept:
            found: dict[str, NDArray[Any]] = {}
            for store in self._stores:
                found.update(store.get(clip_id))
            needed: Arrays = {name: found[name] for name in ("clip", "visual", *FACE_ARRAYS) if name in found}
            size = sum(array.nbytes for array in needed.values())
            if size > self._memory:
                return needed
            self._memory -= size
            self._kept[clip_id] = needed
        return self._kept[clip_id]

    def _store(self, kind: str, producer: Mapping[str, str]) -> FeatureStore:
        return FeatureStore(store_folder(self.folder, kind, producer), producer)

    def _computed(
        self, kind: str, producer: Mapping[str, str], images: FeatureStore, ids: Sequence[str], compute: Compute
    ) -> FeatureStore:
        store = self._store(kind, producer)
        compute_features(images, store, compute, ids=ids)
        return store

    @torch.no_grad()
    def _visual(self, prepared: Sequence[PreparedClip]) -> list[Arrays]:
        clip = torch.stack([clip_tensor(p.clip, self.config.image_size) for p in prepared])
        features = self.network.visual.features(clip.to(_device(self.network)))
        return [{"visual": row.cpu().numpy().astype(np.float16)} for row in features]

    def _faces(self, prepared: Sequence[PreparedClip]) -> list[Arrays]:
        faces = torch.stack([torch.stack([_image(face) for face in p.faces]) for p in prepared])
        valid = torch.from_numpy(np.stack([p.face_valid for p in prepared]))
        device = _device(self.network)
        found = self.network.face_features(faces.to(device), valid.to(device))
        values = {"er": found.er, "au_nodes": found.au_nodes, "au_scores": found.au_scores}
        arrays = {name: value.cpu().numpy().astype(np.float16) for name, value in values.items()}
        arrays["valid"] = valid.numpy()
        return [{name: array[row] for name, array in arrays.items()} for row in range(len(prepared))]


class CaptionSet(Dataset[dict[str, Tensor]]):
    """Examples as tensors. ``rng(index)``: randomness of an item in this epoch; None: the middle of the image."""

    def __init__(
        self, items: Sequence[Example], features: ClipFeatures, tokenizer: CaptionTokenizer,
        rng: Callable[[int], np.random.Generator] | None = None,
    ) -> None:  # fmt: skip
        self.items, self.features, self.rng = items, features, rng
        self.captions = tokenizer([item.caption for item in items])
        classes = features.config.classes
        self.emotion = torch.tensor([emotion_index(item.record, classes) for item in items], dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Clip or its features, face features, caption and emotion of one example."""
        rng = None if self.rng is None else self.rng(index)
        tensors = clip_item(self.features[self.items[index].record.clip_id], self.features.config, rng)
        for name, part in vars(self.captions).items():
            tensors[f"caption_{name}"] = part[index]
        tensors["emotion"] = self.emotion[index]
        return tensors


def clip_item(arrays: Arrays, config: EcpaConfig, rng: np.random.Generator | None = None) -> dict[str, Tensor]:
    """What the network reads of one clip; with ``rng`` one random crop for all images of the clip."""
    tensors = {}
    if "visual" in arrays:
        tensors["clip"] = torch.from_numpy(arrays["visual"].astype(np.float32))
    elif "clip" in arrays:
        tensors["clip"] = clip_tensor(arrays["clip"], config.image_size, rng)
    else:
        tensors["clip"] = torch.zeros(0)
    for name in FACE_ARRAYS:
        if name in arrays:
            value = arrays[name]
            tensors[name] = torch.from_numpy(value if name == "valid" else value.astype(np.float32))
    return tensors


def clip_tensor(images: NDArray[np.uint8], size: int, rng: np.random.Generator | None = None) -> Tensor:
    """uint8 [T, H, W, 3] -> float32 [3, T, size, size]: the middle or, with ``rng``, a random square."""
    rows, columns = images.shape[1] - size, images.shape[2] - size
    top, left = (rows // 2, columns // 2) if rng is None else (rng.integers(rows + 1), rng.integers(columns + 1))
    cut = images[:, top : top + size, left : left + size]
    return torch.from_numpy(np.stack([normalise(image, NORM.mean, NORM.std) for image in cut], 1))


def caption_batch(batch: Mapping[str, Tensor]) -> CaptionBatch:
    """The captions of a collated batch."""
    return CaptionBatch(**{field.name: batch[f"caption_{field.name}"] for field in dataclasses.fields(CaptionBatch)})


def face_features(batch: Mapping[str, Tensor]) -> FaceFeatures | None:
    """The face features of a collated batch, None for a network without prompts."""
    return FaceFeatures(**{name: batch[name] for name in FACE_ARRAYS}) if "er" in batch else None


def emotion_index(record: Record, classes: Sequence[str]) -> int:
    """Number of a single label among the classes; ``NO_EMOTION`` for none, several, or one that is not a class."""
    if len(record.emotions) != 1:
        return NO_EMOTION
    same = [SYNONYMS.get(name, name) for name in classes]
    emotion = SYNONYMS.get(record.emotions[0], record.emotions[0])
    return same.index(emotion) if emotion in same else NO_EMOTION


def _image(face: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(normalise(face, NORM.mean, NORM.std))


def _device(network: ECPA) -> torch.device:
    return next(network.parameters()).device
