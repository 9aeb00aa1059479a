"""The loss of ANFL: weighted asymmetric cross-entropy over labels of which some are unknown.

Source: Luo et al. (IJCAI 2022), section 3.3, with the unknown labels of OpenGraphAU's mixed data set.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Label of an action unit that was not annotated.
UNKNOWN: Final = -1


def weighted_asymmetric(scores_NK: Tensor, labels_NK: Tensor, weights_K: Tensor | None = None) -> Tensor:
    """Mean over the known labels of ``-w (y log p + (1 - y) p log(1 - p))``.

    The factor p, without gradient, makes inactive units that are already low count little: most units of most faces are
    inactive. Scores in [0, 1]; labels 0, 1 or :data:`UNKNOWN`. Without a known label the loss is 0.
    """
    p = scores_NK.float().clamp(1e-6, 1 - 1e-6)
    y = labels_NK.to(p.dtype)
    loss = -(y * p.log() + (1 - y) * p.detach() * (1 - p).log())
    if weights_K is not None:
        loss = loss * weights_K
    known = labels_NK != UNKNOWN
    return torch.where(known, loss, 0.0).sum() / known.sum().clamp(min=1)


def unit_weights(labels: NDArray[np.integer]) -> NDArray[np.float32]:
    """Inverse of each unit's rate among its known labels [N, K], of mean 1: float32 [K].

    A unit that never occurs gets the largest weight of the others; with nothing known all are 1.
    """
    known, active = (labels != UNKNOWN).sum(0), (labels == 1).sum(0)
    weights = np.divide(known, active, out=np.zeros(labels.shape[1]), where=active > 0)
    if not weights.any():
        return np.ones(labels.shape[1], np.float32)
    weights[active == 0] = weights.max()
    return np.asarray(weights / weights.mean(), np.float32)
