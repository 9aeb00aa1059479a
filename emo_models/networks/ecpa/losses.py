"""The total loss of ECPA: Eq. 14 (words), Eq. 15 (sum) and Eq. 16 (dynamic weight average)."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F

log = logging.getLogger(__name__)

#: x of Eq. 15.
LOSSES: Final = ("er", "au", "mlm")
#: Weights of ``fixed``, those the released script back-propagates, and of ``mlm_only``.
WEIGHTS: Final[dict[str, dict[str, float]]] = {
    "fixed": {"er": 0.0, "au": 0.6, "mlm": 1.0},
    "mlm_only": {"er": 0.0, "au": 0.0, "mlm": 1.0},
}
#: Below this share of positive pairs the AU-word alignment does not learn.
FEW_POSITIVES: Final = 0.01


def mlm_loss(scores_NV: Tensor, words_N: Tensor) -> Tensor:
    """L_MLM, Eq. 14: mean cross-entropy over the N masked words of the batch; 0 without any."""
    return F.cross_entropy(scores_NV, words_N, reduction="sum") / max(len(words_N), 1)


class DynamicWeightAverage:
    """Dynamic weight average (Liu et al., CVPR 2019), which Eq. 16 prints without its factor and by training step.

    ``r_x(e) = mean L_x(e-1) / mean L_x(e-2)``, ``lambda_x(e) = n exp(r_x / tau) / sum exp(r / tau)`` for epoch e, and 1
    in the first two epochs; the weights of the n losses sum to n. A ratio is 1 where its denominator vanishes, and is
    clipped to [0.1, 10].
    """

    def __init__(self, names: tuple[str, ...] = LOSSES, temperature: float = 2.0) -> None:
        self.names, self.temperature = names, temperature
        self.means: list[dict[str, float]] = []
        self._sums = dict.fromkeys(names, 0.0)
        self._steps = 0

    def weights(self) -> dict[str, float]:
        """lambda_x of the epoch that runs."""
        if len(self.means) < 2:
            return dict.fromkeys(self.names, 1.0)
        older, newer = self.means[-2:]
        powers = {name: math.exp(_ratio(newer[name], older[name]) / self.temperature) for name in self.names}
        total = sum(powers.values())
        return {name: len(self.names) * power / total for name, power in powers.items()}

    def record(self, losses: Mapping[str, Tensor]) -> None:
        """Remember the losses of one training step."""
        self._steps += 1
        for name in self.names:
            self._sums[name] += float(losses[name].detach())

    def end_epoch(self) -> None:
        """Close an epoch. Raises ``ValueError`` when no step was recorded in it."""
        if not self._steps:
            raise ValueError("end_epoch before any step of the epoch was recorded; call record() once a step")
        self.means = [*self.means[-1:], {name: total / self._steps for name, total in self._sums.items()}]
        self._sums = dict.fromkeys(self.names, 0.0)
        self._steps = 0

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs."""
        return {"means": [dict(mean) for mean in self.means], "sums": dict(self._sums), "steps": self._steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.means, self._steps = [dict(mean) for mean in state["means"]], int(state["steps"])
        self._sums = dict(state["sums"])


class TotalLoss:
    """``L = sum_x lambda_x L_x``, Eq. 15, plus the sparsity penalty where the fusion has one.

    ``mode``: ``dwa`` weighs by Eq. 16; ``fixed`` and ``mlm_only`` by :data:`WEIGHTS`. :meth:`end_epoch` warns when
    hardly any AU-word pair was positive.
    """

    def __init__(self, mode: str = "dwa", names: tuple[str, ...] = LOSSES) -> None:
        if mode != "dwa" and mode not in WEIGHTS:
            raise ValueError(f"loss_mode is {mode!r}; choose one of: dwa, {', '.join(WEIGHTS)}")
        self.mode = mode
        self.dwa = DynamicWeightAverage(names)
        self.pairs = self.positive = 0

    def weights(self) -> dict[str, float]:
        """lambda_x of the epoch that runs."""
        if self.mode == "dwa":
            return self.dwa.weights()
        return {name: WEIGHTS[self.mode][name] for name in self.dwa.names}

    def __call__(
        self, losses: Mapping[str, Tensor], sparsity: Tensor | None = None, pairs: int = 0, positive: int = 0
    ) -> Tensor:
        """Total of one training step, recorded for the weights of later epochs."""
        self.dwa.record(losses)
        self.pairs += pairs
        self.positive += positive
        weighted = [weight * losses[name] for name, weight in self.weights().items() if weight]
        return torch.stack(weighted + ([] if sparsity is None else [sparsity])).sum()

    def end_epoch(self) -> float:
        """Close an epoch; returns its share of positive AU-word pairs (NaN without pairs)."""
        self.dwa.end_epoch()
        rate = self.positive / self.pairs if self.pairs else math.nan
        if rate < FEW_POSITIVES:
            log.warning(
                "only %d of %d AU-word pairs were positive in this epoch: the alignment drives all similarities to 0; "
                "use pair_labels='lexicon+self', or check that the captions name action units",
                self.positive, self.pairs,
            )  # fmt: skip
        self.pairs = self.positive = 0
        return rate


def _ratio(newer: float, older: float) -> float:
    return 1.0 if older < 1e-8 else min(max(newer / older, 0.1), 10.0)
