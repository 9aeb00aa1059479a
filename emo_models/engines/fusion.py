"""ECPA's parts as graphs of fixed shapes: prompts, the context once for a clip, and one word at a time.

The cache of keys and values is an input and stays with the caller, who writes each word's row into it: an exported graph
that changes a cache of its own silently loses it.

Parameters have the names they have in :class:`~emo_models.networks.ecpa.ECPA`.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from emo_models.engines.protocol import EngineError
from emo_models.networks.anfl import ANFLConfig
from emo_models.networks.bert_fusion import BertFusion, BertLayer
from emo_models.networks.ddamfn import DDAMFNConfig
from emo_models.networks.ecpa.config import EcpaConfig
from emo_models.networks.ecpa.model import fusion_config
from emo_models.networks.ecpa.tep import ClassBranch
from emo_models.networks.ecpa.vep import AuLevelPrompting, ErLevelPrompting
from emo_models.networks.er_resnet import ERResNetConfig
from emo_models.networks.fusion_mask import FORBIDDEN


class PromptHead(nn.Module):
    """Face features of a clip to prompt tokens.

    ``er [1, T, De]``, ``au_nodes [1, T, 27, Da]``, ``au_scores [1, T, 27]``, ``valid`` bool ``[1, T]`` -> ``prompts
    [1, P, hidden]``, ``prompts_valid`` bool ``[1, P]``, ``emotion [1, C]`` (probabilities), ``au_tokens [1, K, hidden]``
    (a_k, for the evidence of words), ``au_index`` int64 ``[1, K]``.
    """

    def __init__(self, c: EcpaConfig) -> None:
        super().__init__()
        if not (c.er_prompt and c.class_prompt and c.au_prompt):
            raise EngineError("the prompt head is built for all three prompts; this ECPA has some switched off")
        self.er_width, self.au_width = face_widths(c)
        self.er_prompting = ErLevelPrompting(self.er_width, c.hidden)
        self.class_branch = ClassBranch(len(c.classes), c.hidden)
        frames = c.au_frames if c.au_pool == "per_frame" else 0
        self.au_prompting = AuLevelPrompting(
            c.hidden, c.top_k, frames, c.au_exclude, identity=c.au_identity, width=self.au_width
        )
        self.kind = nn.Parameter(torch.zeros(3, c.hidden))

    def forward(self, er: Tensor, au_nodes: Tensor, au_scores: Tensor, valid: Tensor) -> tuple[Tensor, ...]:
        p_er = self.er_prompting(er, valid)
        branch = self.class_branch(p_er.tokens)
        au = self.au_prompting(au_nodes, au_scores, valid)
        tokens = torch.cat((p_er.tokens + self.kind[0], branch.q + self.kind[1], au.tokens + self.kind[2]), 1)
        return tokens, torch.cat((p_er.valid, p_er.valid, au.valid), 1), branch.p_vis, au.tokens, au.index


def face_widths(c: EcpaConfig) -> tuple[int, int]:
    """Widths De of the ER features and Da of the AU nodes that this ECPA reads."""
    au = ANFLConfig.from_preset(c.au_preset).dim
    if c.er_source == "au_trunk":
        return au, au
    if c.er_source == "ddamfn":
        return 8 * DDAMFNConfig.from_preset(c.er_preset).width, au
    return 32 * ERResNetConfig.from_preset(c.er_preset).width, au


class _Fusion(nn.Module):
    """Holds the fusion under its name in ECPA."""

    def __init__(self, c: EcpaConfig, visual_tokens: int) -> None:
        super().__init__()
        if c.fusion != "bert" or c.text != "bert":
            raise EngineError(f"engines are made of BERT's fusion and words; this ECPA has {c.fusion!r} and {c.text!r}")
        self.trans_encoder = BertFusion(fusion_config(c, visual_tokens))


class FusionPrefill(_Fusion):
    """Run a clip's context once.

    ``visual [1, M, visual_width]``, ``prompts [1, P, hidden]``, ``prompts_valid`` bool ``[1, P]`` -> ``keys``, ``values
    [layers, 1, heads, M + P, d]`` and ``bias [1, M + P]``, which is added to the scores of the context.
    """

    def forward(self, visual: Tensor, prompts: Tensor, prompts_valid: Tensor) -> tuple[Tensor, ...]:
        context, valid = self.trans_encoder.context(self.trans_encoder.embed_visual(visual), prompts, prompts_valid)
        cache = self.trans_encoder.prefill(context, valid, 0)
        return torch.stack(cache.context_k), torch.stack(cache.context_v), cache.context_bias[:, 0, 0]


class FusionStep(_Fusion):
    """Scores of the next word, from the last one and the cache; exactly :meth:`BertFusion.step`.

    ``word`` int64 ``[B]``; ``position`` int64 ``[1]``, of that word; ``keys``, ``values [layers, B, heads, S, d]``: the
    context in the first places, then a row for each word so far, anything behind; ``bias [B, S]``: 0 for rows that
    count, :data:`FORBIDDEN` for others. -> ``scores [B, V]``; ``new_keys``, ``new_values [layers, B, heads, d]``, the
    row of this word; ``vector [B, hidden]``: t_j of this word, which the evidence is found with.

    The scores of cached and new rows are joined instead of the rows, of which there are many more.
    """

    def __init__(self, c: EcpaConfig, visual_tokens: int) -> None:
        super().__init__(c, visual_tokens)
        self.mask_id = c.specials[3]
        self.register_buffer("pair_bias", torch.tensor([[0.0, FORBIDDEN], [0.0, 0.0]]), persistent=False)

    def forward(self, word: Tensor, position: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        pair = torch.stack((word, torch.full_like(word, self.mask_id)), 1)
        x = embedded = self.trans_encoder.embeddings(pair, position)
        new_keys, new_values = [], []
        for index, layer in enumerate(self.trans_encoder.bert.encoder.layers()):
            x, key, value = self._layer(layer, x, keys[index], values[index], bias[:, None, None])
            new_keys.append(key[:, :, 0])
            new_values.append(value[:, :, 0])
        return self.trans_encoder.head(x[:, 1]), torch.stack(new_keys), torch.stack(new_values), embedded[:, 0]

    def _layer(
        self, layer: BertLayer, x: Tensor, past_k: Tensor, past_v: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = layer.attention.self.project(x)
        query = query * query.shape[-1] ** -0.5
        past = query @ past_k.transpose(2, 3) + bias
        pair = query @ key.transpose(2, 3) + cast("Tensor", self.pair_bias).to(x.dtype)
        weight = torch.cat((past, pair), 3).softmax(3)
        slots = past_k.shape[2]
        mixed = (weight[..., :slots] @ past_v + weight[..., slots:] @ value).transpose(1, 2).flatten(2)
        x = layer.attention.output(mixed, x)
        return layer.output(layer.intermediate(x), x), key, value
