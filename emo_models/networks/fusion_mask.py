"""Who attends to whom in the fusion Transformer of ECPA, and SwinBERT's learned mask among visual tokens."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Added to a forbidden attention score; large enough to be exactly zero after the softmax, small enough for float16.
FORBIDDEN: Final = -1e4


class LearnedSparseAttention(nn.Module):
    """SwinBERT's learned mask among visual tokens: ``m = sigmoid(weight)``, diagonal 1, added as ``(1 - m) * -1e4``.

    It is bound to one number M of visual tokens, so to one T, and no longer changes once training is over.
    """

    eye: Tensor

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.weight = nn.Parameter(torch.randn(tokens * tokens, 1))
        self.register_buffer("eye", torch.eye(tokens), persistent=False)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Additive bias ``[M, M]`` and the sparsity penalty ``0.5 * mean |off-diagonal m|``."""
        mask_MM = torch.sigmoid(self.weight).view(self.tokens, self.tokens) * (1 - self.eye)
        penalty = 0.5 * mask_MM.sum() / (self.tokens * (self.tokens - 1))
        return (1 - (mask_MM + self.eye)) * FORBIDDEN, penalty


def open_columns(visual: int, valid_BP: Tensor) -> Tensor:
    """Additive bias ``[B, 1, 1, M + P]``: visual columns and valid prompts are open, invalid prompts are not."""
    is_open = F.pad(valid_BP, (visual, 0), value=True)
    return torch.where(is_open, 0.0, FORBIDDEN)[:, None, None]


def context_mask(visual: int, valid_BP: Tensor, sparse_MM: Tensor | None = None) -> Tensor:
    """Additive mask ``[B, 1, M + P, M + P]`` among the context; ``sparse_MM`` restricts visual among visual."""
    mask = open_columns(visual, valid_BP).repeat(1, 1, visual + valid_BP.shape[1], 1)
    if sparse_MM is not None:
        mask[:, :, :visual, :visual] = sparse_MM
    return mask


def fusion_mask(text: int, visual: int, valid_BP: Tensor, sparse_MM: Tensor | None = None) -> Tensor:
    """Additive attention mask ``[B, 1, N, N]``, N = L + M + P: row i attends to column j where it is 0.

    ======================  ==========  ======================  ============  ==============
    row \\ column           text j      visual                  valid prompt  invalid prompt
    ======================  ==========  ======================  ============  ==============
    text i                  0 iff j<=i  0                       0             -1e4
    visual, prompts         -1e4        0 (or learned sparse)   0             -1e4
    ======================  ==========  ======================  ============  ==============
    """
    context = context_mask(visual, valid_BP, sparse_MM)
    batch, _, size, _ = context.shape
    causal = context.new_full((text, text), FORBIDDEN).triu(1).expand(batch, 1, -1, -1)
    upper = torch.cat((causal, open_columns(visual, valid_BP).expand(-1, -1, text, -1)), 3)
    lower = torch.cat((context.new_full((batch, 1, size, text), FORBIDDEN), context), 3)
    return torch.cat((upper, lower), 2)
