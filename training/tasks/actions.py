"""A visual encoder that learns what happens in clips, as Kinetics teaches Video Swin before ECPA begins.

Kinetics itself is not trained on here: its weights are published. This is for a toy world, whose truth names the action,
the thing and the place of each clip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

import emo_models
from emo_models.checkpoints import NetworkCard
from emo_models.networks.video_swin import VideoSwin
from emo_models.weights import cache_dir
from training.datasets import Record, read_dataset
from training.prepare.clips import ClipForm
from training.prepare.run import prepare_clips
from training.prepare.store import FeatureStore, store_folder
from training.prepare.truth import truth_of
from training.tasks.ecpa_data import clip_tensor
from training.tasks.toy_truth import finder
from training.trainer.recipe import Recipe, read_options
from training.trainer.task import BaseTask

#: Faces are not needed; this is as small as they get.
_FACE_PX = 8


@dataclass(frozen=True)
class ActionOptions:
    """``labels``: fields of a clip's truth to be recognised; ``store``: folder of the clips, empty for the cache."""

    labels: tuple[str, ...] = ("action", "thing", "place")
    frames: int = 4
    image_size: int = 64
    store: str = ""
    licence: str = "CC0-1.0"


class ActionTask(BaseTask):
    """Trains :class:`emo_models.networks.video_swin.VideoSwin` under one classifier for each label."""

    network: VideoSwin

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.options = read_options(ActionOptions, recipe.options)
        self.root = Path(recipe.data.root).expanduser()
        self.data = read_dataset(recipe.data.name, self.root, **recipe.data.options)
        truth = truth_of(self.root)
        self.classes = {
            label: sorted({str(getattr(clip, label)) for clip in truth.values()}) for label in self.options.labels
        }
        self.network = cast(
            "VideoSwin",
            emo_models.create(recipe.network.name, recipe.network.preset, **recipe.network.options),
        )
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dim = self.network.config.dim
        self.heads = nn.ModuleDict({label: nn.Linear(dim, len(names)) for label, names in self.classes.items()})
        self.heads.to(device)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": [*self.network.parameters(), *self.heads.parameters()]}]

    def dataset(self, split: str) -> LabelledClips:
        """Clips of a split that can be read, decoded now where they are not stored yet."""
        records = [record for record in self.data.split(split) if record.source is not None]
        form = ClipForm(self.options.frames, self.options.image_size, _FACE_PX)
        make_finder = finder(self.root)
        producer = form.producer(make_finder())
        folder = Path(self.options.store).expanduser() if self.options.store else cache_dir() / "features"
        store = FeatureStore(store_folder(folder / self.data.name, "actions", producer), producer)
        found = prepare_clips(records, store, form, make_finder)
        bad = {str(row.row) for row in found.quarantined}
        return LabelledClips([r for r in records if r.clip_id not in bad], store, self)

    def loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum of the cross-entropies."""
        scores = self._scores(batch["clip"])
        losses = {label: F.cross_entropy(scores[label], batch[label]) for label in scores}
        return torch.stack(list(losses.values())).sum(), losses

    def evaluate(self, split: str) -> dict[str, float]:
        """Mean accuracy, and that of each label."""
        data = self.dataset(split)
        device = next(self.network.parameters()).device
        right: dict[str, list[Tensor]] = {label: [] for label in self.classes}
        for start in range(0, len(data), 32):
            batch = self.collate([data[index] for index in range(start, min(start + 32, len(data)))])
            scores = self._scores(batch["clip"].to(device))
            for label, score in scores.items():
                right[label].append(score.argmax(1).cpu() == batch[label])
        each = {f"{label} accuracy": float(torch.cat(found).float().mean()) for label, found in right.items()}
        return {"accuracy": sum(each.values()) / len(each), **each}

    def state(self) -> dict[str, Any]:
        return {"heads": dict(self.heads.state_dict())}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.heads.load_state_dict(state["heads"])

    def card(self) -> NetworkCard:
        """Card of the encoder; the classifiers are not kept."""
        return NetworkCard(
            network=self.recipe.network.name, config=self.network.config.to_dict(), labels=(),
            preprocessing={"clip": {"transform": "imagenet224", "frames": self.options.frames, "sampling": "uniform",
                                    "px": self.options.image_size}},
            licence=self.options.licence, data=(self.data.name,),
        )  # fmt: skip

    def _scores(self, clip: Tensor) -> dict[str, Tensor]:
        pooled = self.network.tokens(clip).mean(1)
        return {label: head(pooled) for label, head in self.heads.items()}


class LabelledClips(Dataset[dict[str, Tensor]]):
    """Clips float32 [3, T, px, px] with the number of each label."""

    def __init__(self, records: Sequence[Record], store: FeatureStore, task: ActionTask) -> None:
        self.records, self.store, self.size = records, store, task.options.image_size
        truth = truth_of(task.root)
        self.labels = [
            {label: names.index(str(getattr(truth[record.clip_id], label))) for label, names in task.classes.items()}
            for record in records
        ]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One clip."""
        clip = clip_tensor(self.store.get(self.records[index].clip_id)["clip"], self.size)
        return {"clip": clip, **{label: torch.tensor(number) for label, number in self.labels[index].items()}}
