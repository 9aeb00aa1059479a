"""Spatio-temporal pooling of FAME-Net (Section 4.2, Eq. 1-3) and its linear layer g (Eq. 4).

The paper calls the mean over patches "temporal" pooling and the mean over frames "spatial"; its sums and shapes are
right, the words are exchanged.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def spatio_temporal_pool(x_TND: Tensor, pad_to: int = 0) -> Tensor:
    """R of Eq. 3 from X, the CLIP patches of one clip: ``[T, N, D] -> [T + N, D]``; T 100 and N 576 give 676 rows.

    ``pad_to``: fill R_t up with rows of zeros, as Video-ChatGPT does for clips of fewer frames.
    """
    return join(temporal_rows(x_TND), x_TND.mean(0), pad_to)


def temporal_rows(x_TND: Tensor) -> Tensor:
    """R_t of Eq. 1, one row for each frame: ``[T, N, D] -> [T, D]``."""
    return x_TND.mean(-2)


def join(rows_TD: Tensor, patches_ND: Tensor, pad_to: int = 0) -> Tensor:
    """R = [R_t ; R_s] of Eq. 3 from R_t ``[T, D]`` and R_s ``[N, D]``, the mean over frames of Eq. 2."""
    missing = max(pad_to - len(rows_TD), 0)
    return torch.cat((F.pad(rows_TD, (0, 0, 0, missing)), patches_ND))


def projector(kind: str, visual: int, language: int) -> nn.Module:
    """g of Eq. 4, Q_v = g(R): ``[..., D] -> [..., K]``.

    ``linear`` is the paper's and Video-ChatGPT's, ``mlp2x_gelu`` that of LLaVA 1.5; parameter names are theirs.
    """
    if kind == "linear":
        return nn.Linear(visual, language)
    if kind == "mlp2x_gelu":
        return nn.Sequential(nn.Linear(visual, language), nn.GELU(), nn.Linear(language, language))
    raise ValueError(f"projector is {kind!r}; choose one of: linear, mlp2x_gelu")
