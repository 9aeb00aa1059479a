"""DDAMFN as a task: cross-entropy over aligned faces, and attention heads that look at different places."""

from __future__ import annotations

from typing import Final

import torch.nn.functional as F
from torch import Tensor

from emo_models.networks.ddamfn import DDAMFN
from training.losses.attention import head_distance
from training.tasks.er import Batch, ExpressionTask, accuracy

#: Weight of the attention loss, as published.
ATTENTION_WEIGHT: Final = 0.1


class DDAMFNTask(ExpressionTask):
    """Trains :class:`emo_models.networks.ddamfn.DDAMFN`."""

    network: DDAMFN
    transform = "ddamfn112"

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        feature_map = self.network.features(batch["image"])
        attention = self.network.attention(feature_map)
        logits = self.network.classify(feature_map, attention).logits
        classes, heads = F.cross_entropy(logits, batch["label"]), head_distance(attention)
        total = classes + ATTENTION_WEIGHT * heads
        return total, {"classes": classes, "heads": heads, "accuracy": accuracy(logits, batch["label"])}
