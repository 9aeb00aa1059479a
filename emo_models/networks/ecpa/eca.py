"""Emotion-oriented cross-modal alignment (ECA, Section III-E): the losses of Eq. 8 and of Eq. 9-12."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

#: What a lexicon hit adds to a similarity in the assignment, far above any cosine.
LEXICON_BONUS: Final = 10.0
#: Label of a sample without an emotion (MSVD, MSR-VTT).
NO_EMOTION: Final = -100


def er_sentence_loss(z_BC: Tensor, y_B: Tensor) -> Tensor:
    """L_ER, Eq. 8: mean cross-entropy of the scores ``z [B, C]`` over the samples with a label ``y``.

    The paper prints a minus in front of CE, which would maximise the loss. Labels of :data:`NO_EMOTION` are left out;
    without any label the loss is 0.
    """
    count = (y_B != NO_EMOTION).sum().clamp(min=1)
    return F.cross_entropy(z_BC, y_B, ignore_index=NO_EMOTION, reduction="sum") / count


def word_vectors(text_BLD: Tensor, word_BL: Tensor, usable_BL: Tensor) -> tuple[Tensor, Tensor]:
    """t_j: means over the pieces of each whole word. ``word [B, L]``: word of each piece, -1 for none.

    A word with a piece that is not ``usable`` (bool ``[B, L]``) is left out. Returns ``[B, N, hidden]`` and which words
    are there, bool ``[B, N]``, with N = L.
    """
    member_BNL = word_BL[:, None] == torch.arange(word_BL.shape[1], device=word_BL.device)[:, None]
    weight = member_BNL.to(text_BLD.dtype)
    vectors = weight @ text_BLD / weight.sum(2, keepdim=True).clamp(min=1)
    return vectors, member_BNL.any(2) & ~(member_BNL & ~usable_BL[:, None]).any(2)


def similarity(a_BKD: Tensor, t_BND: Tensor) -> Tensor:
    """S_kj of Eq. 9: cosine of each AU prompt and each word, ``[B, K, N]``."""
    return F.normalize(a_BKD, dim=-1) @ F.normalize(t_BND, dim=-1).transpose(1, 2)


def match(score_KN: Tensor) -> tuple[Tensor, Tensor]:
    """Eq. 10: the assignment of units to words with the largest sum, each word at most once (Hungarian method).

    Returns the matched rows and columns; where K > N the surplus rows go without. Carries no gradient.
    """
    rows, columns = linear_sum_assignment(score_KN.detach().cpu().double().numpy(), maximize=True)
    device = score_KN.device
    return torch.as_tensor(rows, device=device), torch.as_tensor(columns, device=device)


def pair_loss(d: Tensor, positive: Tensor, margin: float = 0.5) -> Tensor:
    """Eq. 12 for each pair: ``(1 - Y) d^2 + Y max(0, m - d)^2``.

    ``d`` is a similarity, not a distance: a positive pair is pulled up to ``margin``, a negative one pushed to 0.
    """
    y = positive.to(d.dtype)
    return (1 - y) * d.square() + y * F.relu(margin - d).square()


@dataclass
class AuWordAlignment:
    """L_AUCL, and what it was made of: ``pairs`` assigned in the batch and how many of them are ``positive``."""

    loss: Tensor
    pairs: int
    positive: int


class AuWordLoss:
    """AU-word alignment, Eq. 9-12, over the matched pairs of a batch.

    Eq. 11 labels a pair positive by its own similarity, ``d_k > T_C``. From random prompts no pair ever is, and Eq. 12
    drives all of them to 0. So a pair is positive, too, when the word belongs to a phrase of that unit in the lexicon,
    ``G_kj = 1``, and such pairs come first in the assignment. ``labels``: ``self`` (the paper's letter), ``lexicon``,
    or ``lexicon+self``.
    """

    def __init__(self, labels: str = "lexicon+self", threshold: float = 0.3, margin: float = 0.5) -> None:
        if labels not in {"self", "lexicon", "lexicon+self"}:
            raise ValueError(f"pair_labels is {labels!r}; choose one of: self, lexicon, lexicon+self")
        self.labels, self.threshold, self.margin = labels, threshold, margin

    def __call__(
        self, a_BKD: Tensor, au_valid_BK: Tensor, t_BND: Tensor, word_valid_BN: Tensor, g_BKN: Tensor
    ) -> AuWordAlignment:
        """``a``: AU prompts, ``t``: whole words, ``g``: lexicon hits, bool."""
        s_BKN = similarity(a_BKD, t_BND)
        d_parts, g_parts = [], []
        for s, g, au_valid, word_valid in zip(s_BKN, g_BKN, au_valid_BK, word_valid_BN, strict=True):
            s_kn, g_kn = s[au_valid][:, word_valid], g[au_valid][:, word_valid]
            rows, columns = self.assign(s_kn, g_kn)
            d_parts.append(s_kn[rows, columns])
            g_parts.append(g_kn[rows, columns])
        d, hit = torch.cat(d_parts), torch.cat(g_parts)
        positive = self.positive(d, hit)
        loss = pair_loss(d, positive, self.margin).sum() / max(len(d), 1)
        return AuWordAlignment(loss, len(d), int(positive.sum()))

    def assign(self, s_KN: Tensor, g_KN: Tensor) -> tuple[Tensor, Tensor]:
        """Eq. 10 for one clip: matched rows and columns, lexicon hits first unless the labels do without."""
        return match(s_KN if self.labels == "self" else s_KN + LEXICON_BONUS * g_KN)

    def positive(self, d: Tensor, hit: Tensor) -> Tensor:
        """Y of Eq. 11, bool, of pairs with similarity ``d`` and lexicon hit ``hit``."""
        positive = torch.zeros_like(hit)
        if "lexicon" in self.labels:
            positive |= hit
        if "self" in self.labels:
            positive |= d.detach() > self.threshold
        return positive
