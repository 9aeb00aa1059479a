"""Textual emotion prompting (TEP, Section III-D): the class token of a sentence and the masked words.

Eq. 6 attaches [CLASS-k] to F_T without saying where k comes from. Feeding the true class would leak the label into the
classifier of Eq. 8, and at inference it is unknown. So the class token is the mean of the class embeddings under the
probabilities of the visual-only branch, the same in training and at inference.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class ClassOutput:
    """Scores of Eq. 8 ``z [B, C]``, probabilities without text ``p_vis [B, C]``, class token ``q [B, 1, hidden]``."""

    z: Tensor
    p_vis: Tensor
    q: Tensor


class ClassBranch(nn.Module):
    """Sentence-level prompting and the classifier that Eq. 8 needs: ``z = W2 GELU(W1 [P_ER ; h])``.

    ``h`` is the caption's feature h_t, replaced by the learned ``h_null`` for a share ``text_dropout`` of the training
    captions and always at inference. ``q = sum_k p_vis_k E_k`` where ``p_vis`` uses ``h_null`` and ``E [C, hidden]``
    are the learned tokens [CLASS-k]. Without ``class_token_grad`` p_vis is a constant to the captioning loss, which
    then trains E but not the classifier.
    """

    def __init__(self, classes: int, hidden: int, *, text_dropout: float = 0.5, class_token_grad: bool = False) -> None:
        super().__init__()
        self.text_dropout, self.class_token_grad = text_dropout, class_token_grad
        self.E = nn.Parameter(torch.randn(classes, hidden) * 0.02)
        self.h_null = nn.Parameter(torch.randn(hidden) * 0.02)
        self.classifier = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.GELU(), nn.Linear(hidden, classes))

    def forward(self, p_er_B1D: Tensor, h_BD: Tensor | None = None) -> ClassOutput:
        """``p_er [B, 1, hidden]``, ``h`` the feature of the unmasked caption or None."""
        p_er = p_er_B1D[:, 0]
        null = self.h_null.expand_as(p_er)
        visual = self.classifier(torch.cat((p_er, null), 1))
        p_vis = visual.softmax(1)
        weights = p_vis if self.class_token_grad else p_vis.detach()
        q = (weights @ self.E)[:, None]
        if h_BD is None:
            return ClassOutput(visual, p_vis, q)
        hidden_text = torch.rand(len(h_BD), 1, device=h_BD.device) < self.text_dropout
        h = torch.where(hidden_text, null, h_BD) if self.training else h_BD
        return ClassOutput(self.classifier(torch.cat((p_er, h), 1)), p_vis, q)

    @torch.no_grad()
    def init_class_embeddings(self, words_VD: Tensor, pieces: list[list[int]]) -> None:
        """Start E at the word embeddings of the class names: the mean of each name's ``pieces``."""
        if len(pieces) != len(self.E):
            raise ValueError(f"expected the pieces of {len(self.E)} class names, got {len(pieces)}")
        for row, ids in zip(self.E, pieces, strict=True):
            row.copy_(words_VD[ids].mean(0))


@dataclass
class MaskedText:
    """Ids with [MASK] in place ``[B, L]``, and which positions were ``selected`` for Eq. 14, bool ``[B, L]``."""

    ids: Tensor
    selected: Tensor


class WordMasking:
    """Word-level prompting, Eq. 7, by a real [MASK] as in BERT: a vector of zeros has no cosine for Eq. 9.

    Positions 1..len-1, the stop token included, are selected with probability ``rate`` (0.5, SwinBERT's), at least one
    and at most ``limit``; 80 % of them become [MASK], 10 % a random word, 10 % stay.
    """

    def __init__(self, mask_id: int, words: int, rate: float = 0.5, limit: int = 45) -> None:
        if not 0 < rate <= 1:
            raise ValueError(f"mask_rate must be in (0, 1], got {rate}")
        self.mask_id, self.words, self.rate, self.limit = mask_id, words, rate, limit

    def __call__(self, ids_BL: Tensor, length_B: Tensor, generator: torch.Generator | None = None) -> MaskedText:
        """``length``: tokens of each caption, start and stop included."""

        def uniform() -> Tensor:
            return torch.rand(ids_BL.shape, generator=generator).to(ids_BL.device)

        position = torch.arange(ids_BL.shape[1], device=ids_BL.device)
        maskable = (position > 0) & (position < length_B[:, None])
        draw = uniform().masked_fill(~maskable, 2.0)
        rank = draw.argsort(1).argsort(1)
        selected = maskable & ((draw < self.rate) | (rank == 0)) & (rank < self.limit)
        fate = uniform()
        random_ids = torch.randint(self.words, ids_BL.shape, generator=generator).to(ids_BL.device)
        ids = torch.where(selected & (fate < 0.8), self.mask_id, ids_BL)
        return MaskedText(torch.where(selected & (fate >= 0.9), random_ids, ids), selected)
