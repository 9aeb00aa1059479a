"""The plain Transformer captioner, the baseline of the paper's Tables VIII and IX.

The paper's reference for it is the Vision Transformer, which writes no captions; its Table I lists the sizes 6 layers,
8 heads and 512, those of Vaswani et al., "Attention is all you need", 2017. So that is what this is: an encoder over
the visual tokens, and a decoder that predicts each word from those before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emo_models.networks.bert_fusion import (
    BertAttention,
    BertEmbeddings,
    BertEncoder,
    BertFusionConfig,
    BertIntermediate,
    BertResidual,
    FusionCache,
    KeysValues,
    init_bert,
)
from emo_models.networks.fusion_mask import FORBIDDEN


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the clip, feed-forward; post-LN. ``[B, n, hidden] -> [B, n, hidden]``."""

    def __init__(self, config: BertFusionConfig) -> None:
        super().__init__()
        self.attention = BertAttention(config)
        self.cross = BertAttention(config)
        self.intermediate = BertIntermediate(config)
        self.output = BertResidual(config.feed_forward, config)

    def memory(self, clip_BMD: Tensor) -> KeysValues:
        """Keys and values of the encoded clip."""
        return self.cross.self.project(clip_BMD)[1:]

    def forward(
        self, x_BnD: Tensor, clip: KeysValues, bias: Tensor, past: KeysValues | None = None
    ) -> tuple[Tensor, KeysValues]:
        """``clip``: keys and values of the encoded clip; ``past``: those of the words in front of ``x``."""
        query, key, value = self.attention.self.project(x_BnD)
        seen = (key, value) if past is None else (torch.cat((past[0], key), 2), torch.cat((past[1], value), 2))
        x_BnD = self.attention.output(self.attention.self.attend(query, *seen, bias), x_BnD)
        query = self.cross.self.project(x_BnD)[0]
        x_BnD = self.cross.output(self.cross.self.attend(query, *clip, None), x_BnD)
        return self.output(self.intermediate(x_BnD), x_BnD), (key, value)


class EncoderDecoder(nn.Module):
    """Methods of :class:`~emo_models.networks.bert_fusion.BertFusion`; row i scores word i + 1, without a [MASK]."""

    fills_mask = False

    def __init__(self, config: BertFusionConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = BertEmbeddings(config)
        self.img_embedding = nn.Linear(config.visual_width, config.hidden)
        self.encoder = BertEncoder(config)
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.layers))
        self.words = nn.Linear(config.hidden, config.vocab_size)
        init_bert(self, config.hidden)

    def embed_visual(self, visual_BMV: Tensor) -> Tensor:
        """``[B, M, visual_width] -> [B, M, hidden]``."""
        embedded: Tensor = self.img_embedding(visual_BMV)
        return embedded

    def encode(self, text_BLD: Tensor, context_BCD: Tensor, valid_BP: Tensor) -> Tensor:  # noqa: ARG002
        """Text rows ``[B, L, hidden]``; there are no prompts whose validity would matter."""
        memory = self.encoder(context_BCD, None)
        bias = text_BLD.new_full((text_BLD.shape[1],) * 2, FORBIDDEN).triu(1)
        for layer in self._layers():
            text_BLD, _ = layer(text_BLD, layer.memory(memory), bias)
        return text_BLD

    def head(self, rows: Tensor) -> Tensor:
        """Word scores, ``[..., hidden] -> [..., V]``."""
        scores: Tensor = self.words(rows)
        return scores

    def sparsity(self) -> None:
        """There is no learned sparse attention."""

    def prefill(self, context_BCD: Tensor, valid_BP: Tensor, text_length: int) -> FusionCache:  # noqa: ARG002
        """Encode the clip once."""
        memory = self.encoder(context_BCD, None)
        pairs = [layer.memory(memory) for layer in self._layers()]
        batch, heads, _, width = pairs[0][0].shape
        empty = memory.new_zeros(batch, heads, text_length, width)
        text_k, text_v = ([empty.clone() for _ in pairs] for _ in range(2))
        stored = torch.zeros((), dtype=torch.int64, device=memory.device)
        bias = memory.new_zeros(batch, 1, 1, 1)
        return FusionCache([k for k, _ in pairs], [v for _, v in pairs], bias, text_k, text_v, stored)

    def step(self, pair_B2D: Tensor, cache: FusionCache) -> Tensor:
        """Scores ``[B, V]`` of the next word from the embedding of the last one; the second of the pair is not read."""
        word = pair_B2D[:, :1]
        slots = torch.arange(cache.text_k[0].shape[2], device=word.device)
        stored = torch.where(slots < cache.length, 0.0, FORBIDDEN).to(word.dtype)
        bias = F.pad(stored, (0, 1))[None]
        for index, layer in enumerate(self._layers()):
            clip = cache.context_k[index], cache.context_v[index]
            word, (key, value) = layer(word, clip, bias, (cache.text_k[index], cache.text_v[index]))
            cache.text_k[index].index_copy_(2, cache.length[None], key)
            cache.text_v[index].index_copy_(2, cache.length[None], value)
        cache.length.add_(1)
        return self.head(word[:, 0])

    def _layers(self) -> Iterator[DecoderLayer]:
        return (cast("DecoderLayer", layer) for layer in self.decoder)
