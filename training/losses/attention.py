"""The loss that keeps DDAMFN's attention heads apart.

Source: Zhang et al. (Electronics 2023), attention loss: the inverse of the mean distance between heads.
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

#: The largest inverse distance: heads that start alike must not drown the classifier.
LIMIT = 1e3


def head_distance(attention_NHC: Tensor) -> Tensor:
    """``pairs / Σ_(i<j) MSE(A_i, A_j)`` of the heads' maps ``[N, H, C, 7, 7]``; 0 for a single head."""
    heads = attention_NHC.unbind(1)
    pairs = list(combinations(range(len(heads)), 2))
    if not pairs:
        return attention_NHC.new_zeros(())
    distance = torch.stack([(heads[i].float() - heads[j].float()).square().mean() for i, j in pairs]).mean()
    return 1 / distance.clamp(min=1 / LIMIT)
