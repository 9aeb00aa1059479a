"""Other ways to align prompts with words: the losses that ECPA's own are compared with (its Table VI), and supervision.

The paper names the four losses and prints no equation. Here:

* *global similarity* (ER - sentence): ``1 - cos(P_ER, h_t)``, the mean over the clips.
* *similarity-based cross-entropy* (ER - sentence): each P_ER has to find its own sentence among those of the batch by
  their cosines, and each sentence its own P_ER.
* *cross-entropy* (AU - word): each a_k has to find its positive word among all content words of its own caption.
* *normal contrast* (AU - word): each a_k has to find its positive word among those of the whole batch, and each such
  word its a_k. Words of clips with the same expression are negatives, too, which the paper suspects to do harm.

Pairs are matched and labelled as for the paper's own loss (Eq. 10 and 11), so that the loss alone is compared. Cosines
are divided by :data:`TEMPERATURE`. With these ER losses nothing but the captions trains the classifier behind the class
token: ``class_token_grad=True`` belongs to them.

:class:`LexiconTagger` is no alignment at all: it learns from the same lexicon, as plain supervision, which unit a word
names. It shows what the lexicon alone is worth.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emo_models.labels import OPENGRAPHAU_MAIN
from emo_models.networks.ecpa.eca import AuWordAlignment, AuWordLoss, similarity

#: Cosines are divided by it before a softmax, as in CLIP at its start.
TEMPERATURE: Final = 0.07
#: Names for recipes.
ER_LOSSES: Final = ("cross_entropy", "similarity", "similarity_ce")
AU_LOSSES: Final = ("pairs", "cross_entropy", "contrast", "tagger")


def global_similarity_loss(p_er_BD: Tensor, h_BD: Tensor) -> Tensor:
    """Mean of ``1 - cos(P_ER, h_t)`` over the clips."""
    return (1 - F.cosine_similarity(p_er_BD, h_BD)).mean()


def similarity_cross_entropy(p_er_BD: Tensor, h_BD: Tensor) -> Tensor:
    """Cross-entropy of finding one's own sentence, and one's own prompt, in the batch."""
    return _find_partner(similarity(p_er_BD[None], h_BD[None])[0])


class AuWordCrossEntropy(AuWordLoss):
    """``-log softmax_j(S_kj / tau)`` at the positive word of a_k, over the content words of its caption."""

    def __call__(
        self, a_BKD: Tensor, au_valid_BK: Tensor, t_BND: Tensor, word_valid_BN: Tensor, g_BKN: Tensor
    ) -> AuWordAlignment:
        """Mean over the positive pairs; 0 without any."""
        parts, pairs = [], 0
        s_BKN = similarity(a_BKD, t_BND)
        for s, g, au_valid, word_valid in zip(s_BKN, g_BKN, au_valid_BK, word_valid_BN, strict=True):
            s_kn, g_kn = s[au_valid][:, word_valid], g[au_valid][:, word_valid]
            rows, columns = self.assign(s_kn, g_kn)
            positive = self.positive(s_kn[rows, columns], g_kn[rows, columns])
            pairs += len(rows)
            parts.append(F.cross_entropy(s_kn[rows[positive]] / TEMPERATURE, columns[positive], reduction="none"))
        losses = torch.cat(parts)
        return AuWordAlignment(losses.sum() / max(len(losses), 1), pairs, len(losses))


class AuWordContrast(AuWordLoss):
    """InfoNCE over the positive pairs of the batch, both ways."""

    def __call__(
        self, a_BKD: Tensor, au_valid_BK: Tensor, t_BND: Tensor, word_valid_BN: Tensor, g_BKN: Tensor
    ) -> AuWordAlignment:
        """Mean over the positive pairs; 0 with fewer than two."""
        units, words, pairs = [], [], 0
        s_BKN = similarity(a_BKD, t_BND)
        for b, (s, g) in enumerate(zip(s_BKN, g_BKN, strict=True)):
            s_kn = s[au_valid_BK[b]][:, word_valid_BN[b]]
            g_kn = g[au_valid_BK[b]][:, word_valid_BN[b]]
            rows, columns = self.assign(s_kn, g_kn)
            positive = self.positive(s_kn[rows, columns], g_kn[rows, columns])
            pairs += len(rows)
            units.append(a_BKD[b, au_valid_BK[b]][rows[positive]])
            words.append(t_BND[b, word_valid_BN[b]][columns[positive]])
        a_PD, t_PD = torch.cat(units), torch.cat(words)
        if len(a_PD) < 2:
            return AuWordAlignment((a_BKD * 0).sum(), pairs, len(a_PD))
        return AuWordAlignment(_find_partner(similarity(a_PD[None], t_PD[None])[0]), pairs, len(a_PD))


class LexiconTagger(nn.Module):
    """Which of the 27 units a word names, learned from the lexicon without any face: ``t [..., hidden] -> [..., 27]``."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.units = nn.Linear(hidden, len(OPENGRAPHAU_MAIN))

    def forward(self, t: Tensor) -> Tensor:
        """Logit of each unit for each word."""
        logits: Tensor = self.units(t)
        return logits

    def loss(self, t_BND: Tensor, word_valid_BN: Tensor, word_aus_BNA: Tensor) -> Tensor:
        """Binary cross-entropy over all units of all content words; 0 without words."""
        logits = self(t_BND[word_valid_BN])
        target = word_aus_BNA[word_valid_BN].to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / max(len(logits), 1)


def au_word_loss(name: str, labels: str, threshold: float, margin: float) -> AuWordLoss:
    """The loss called ``name`` in a recipe (:data:`AU_LOSSES` without the tagger). Raises ``ValueError`` listing them."""
    kinds = {"pairs": AuWordLoss, "cross_entropy": AuWordCrossEntropy, "contrast": AuWordContrast}
    if name not in kinds:
        raise ValueError(f"au_loss is {name!r}; choose one of: {', '.join(AU_LOSSES)}")
    return kinds[name](labels, threshold, margin)


def er_sentence(name: str, ours: Tensor, p_er_BD: Tensor, h_BD: Tensor) -> Tensor:
    """The ER - sentence loss called ``name`` (:data:`ER_LOSSES`); ``ours``: the paper's own, already computed."""
    if name == "cross_entropy":
        return ours
    if name == "similarity":
        return global_similarity_loss(p_er_BD, h_BD)
    if name == "similarity_ce":
        return similarity_cross_entropy(p_er_BD, h_BD)
    raise ValueError(f"er_loss is {name!r}; choose one of: {', '.join(ER_LOSSES)}")


def _find_partner(s_PP: Tensor) -> Tensor:
    scores, own = s_PP / TEMPERATURE, torch.arange(len(s_PP), device=s_PP.device)
    return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2
