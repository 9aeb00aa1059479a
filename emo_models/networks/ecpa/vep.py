"""Visual emotion prompting (VEP, Section III-C): P_ER and P_AU from the features of frozen face networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from emo_models.labels import OPENGRAPHAU_MAIN


@dataclass
class FaceFeatures:
    """What the frozen networks say of one face over T frames; it can be computed once and stored.

    ``er``: ``[B, T, De]``; ``au_nodes``: ``[B, T, 27, 512]``, n_t; ``au_scores``: ``[B, T, 27]``, s_t in [0, 1];
    ``valid``: bool ``[B, T]``, a face was found in the frame.
    """

    er: Tensor
    au_nodes: Tensor
    au_scores: Tensor
    valid: Tensor


@dataclass
class ErPrompt:
    """P_ER ``[B, 1, hidden]`` and its validity, bool ``[B, 1]``."""

    tokens: Tensor
    valid: Tensor


@dataclass
class AuPrompts:
    """P_AU = {a_k}: ``tokens [B, K, hidden]``, ``valid`` bool ``[B, K]``.

    ``index``: int64 ``[B, K]``, which of the 27 units a_k is; ``frames``: bool ``[B, K, T]``, frames it was pooled of.
    """

    tokens: Tensor
    valid: Tensor
    index: Tensor
    frames: Tensor


class ErLevelPrompting(nn.Module):
    """Eq. 4: ``P_ER = LN(MLP(mean_t e_t))`` over valid frames; ``[B, T, De] -> [B, 1, hidden]``.

    A clip without a face gets a learned vector, marked invalid.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.LayerNorm(hidden))
        self.null = nn.Parameter(torch.randn(hidden) * 0.02)

    def forward(self, e_BTD: Tensor, valid_BT: Tensor) -> ErPrompt:
        """Prompt of each clip."""
        weight = valid_BT.to(e_BTD.dtype)[..., None]
        mean = (e_BTD * weight).sum(1) / weight.sum(1).clamp(min=1)
        some = valid_BT.any(1, keepdim=True)
        return ErPrompt(torch.where(some, self.mlp(mean), self.null)[:, None], some)


class AuLevelPrompting(nn.Module):
    """Eq. 5: the K units with the highest confidence, as tokens ``a_k = LN(W f_k + b)``; ``-> [B, K, hidden]``.

    ``f_k = sum_t s_tk n_tk / (sum_t s_tk + 1e-6)``. With ``au_pool="clip"`` the sums run over the valid frames and the
    units are ranked by their mean score; with ``per_frame`` each of ``frames`` evenly spaced valid frames gives K of
    its own. Only the 27 main units are eligible, without those in ``exclude`` (FACS numbers). Tokens without a valid
    frame are marked invalid, so that nothing attends to them.
    """

    eligible: Tensor

    def __init__(
        self, hidden: int, top_k: int = 3, frames: int = 0, exclude: tuple[int, ...] = (), *, identity: bool = False,
        width: int = 512,
    ) -> None:  # fmt: skip
        super().__init__()
        if unknown := sorted(set(exclude) - set(OPENGRAPHAU_MAIN)):
            raise ValueError(f"au_exclude names {unknown}, which ANFL does not report; it reports {OPENGRAPHAU_MAIN}")
        self.top_k, self.frames = top_k, frames
        self.fc = nn.Linear(width, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.identity = nn.Embedding(len(OPENGRAPHAU_MAIN), hidden) if identity else None
        if self.identity is not None:
            nn.init.zeros_(self.identity.weight)
        eligible = torch.tensor([au not in exclude for au in OPENGRAPHAU_MAIN])
        self.register_buffer("eligible", eligible, persistent=False)

    def forward(self, nodes_BTAD: Tensor, scores_BTA: Tensor, valid_BT: Tensor) -> AuPrompts:
        """Prompts of each clip."""
        groups = frame_groups(valid_BT, self.frames)
        parts = [self._pool(nodes_BTAD, scores_BTA, group) for group in groups]
        return AuPrompts(
            torch.cat([part.tokens for part in parts], 1),
            torch.cat([part.valid for part in parts], 1),
            torch.cat([part.index for part in parts], 1),
            torch.cat([part.frames for part in parts], 1),
        )

    def _pool(self, nodes_BTAD: Tensor, scores_BTA: Tensor, used_BT: Tensor) -> AuPrompts:
        weight_BTA = scores_BTA * used_BT[..., None].to(scores_BTA.dtype)
        mean_BA = weight_BTA.sum(1) / used_BT.sum(1, keepdim=True).clamp(min=1)
        index_BK = mean_BA.masked_fill(~self.eligible, -1.0).topk(self.top_k, dim=1).indices
        f_BAD = (weight_BTA[..., None] * nodes_BTAD).sum(1) / (weight_BTA.sum(1)[..., None] + 1e-6)
        f_BKD = f_BAD.gather(1, index_BK[..., None].expand(-1, -1, f_BAD.shape[-1]))
        tokens = self.norm(self.fc(f_BKD))
        if self.identity is not None:
            tokens = tokens + self.identity(index_BK)
        valid_BK = used_BT.any(1, keepdim=True).expand(-1, self.top_k)
        return AuPrompts(tokens, valid_BK, index_BK, used_BT[:, None].expand(-1, self.top_k, -1))


def frame_groups(valid_BT: Tensor, count: int) -> list[Tensor]:
    """The frames, bool ``[B, T]``, that each K of the AU prompts are pooled of: all valid ones, or ``count`` times one."""
    return _evenly_spaced(valid_BT, count) if count else [valid_BT]


def _evenly_spaced(valid_BT: Tensor, count: int) -> list[Tensor]:
    """Pick ``count`` valid frames of each clip, evenly spaced; bool ``[B, T]`` with at most one frame each.

    A clip with fewer valid frames gives each of them once; what is left over is empty.
    """
    rank_BT = valid_BT.cumsum(1) - 1
    total_B = valid_BT.sum(1)
    picks = []
    for slot in range(count):
        spaced = (slot * (total_B - 1)) // max(count - 1, 1)
        wanted_B = torch.where(total_B > count, spaced, torch.full_like(total_B, slot))
        picks.append(valid_BT & (rank_BT == wanted_B[:, None]))
    return picks
