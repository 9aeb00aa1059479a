"""The fusion Transformer of ECPA (its Section III-F, Eq. 13-14): BERT-base over text, visual and prompt tokens.

The sequence is ``[text L | visual M | prompts P]``; the last two are the *context*, ``C_x = M + P`` tokens. Text is
causal and sees the context, the context never sees text, so that keys and values of the context are computed once
for a clip and those of a word once for a word (:meth:`BertFusion.prefill`, :meth:`BertFusion.step`).

The paper gives three contradictory sizes; BERT-base (12 layers, 12 heads, 768) is the only one in which 12 heads divide
the width and P_AU is 768 wide. Architecture after Devlin et al., "BERT", NAACL 2019, and Lin et al., "SwinBERT",
CVPR 2022; names of modules are those of the published checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emo_models.networks.base import Network
from emo_models.networks.config import NetworkConfig
from emo_models.networks.fusion_mask import FORBIDDEN, LearnedSparseAttention, context_mask, fusion_mask, open_columns


@dataclass(frozen=True)
class BertFusionConfig(NetworkConfig):
    """Sizes of the fusion. ``sparse_tokens``: M of the learned sparse attention, 0 for none.

    ``word_embedding``: false where another network embeds the words and the fusion adds their positions only.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "fast": {},
        "toy": {
            "vocab_size": 256, "hidden": 64, "layers": 2, "heads": 4, "feed_forward": 128, "positions": 64,
            "visual_width": 48,
        },
    }  # fmt: skip

    vocab_size: int = 30522
    hidden: int = 768
    layers: int = 12
    heads: int = 12
    feed_forward: int = 3072
    positions: int = 512
    visual_width: int = 512
    dropout: float = 0.1
    sparse_tokens: int = 0
    word_embedding: bool = True

    def __post_init__(self) -> None:
        if self.hidden % self.heads:
            raise ValueError(f"BertFusionConfig: {self.heads} heads do not divide the width {self.hidden}")


class BertEmbeddings(nn.Module):
    """F_T of a caption: word + position + type 0, layer norm, dropout. ``ids [B, L] -> [B, L, hidden]``."""

    def __init__(self, config: BertFusionConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden) if config.word_embedding else None
        self.position_embeddings = nn.Embedding(config.positions, config.hidden)
        self.token_type_embeddings = nn.Embedding(2, config.hidden)
        self.LayerNorm = nn.LayerNorm(config.hidden, eps=1e-12)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, ids_BL: Tensor, start: int | Tensor = 0) -> Tensor:
        """``start``: position of the first token; a tensor where a graph with fixed shapes is made of it."""
        if self.word_embeddings is None:
            raise RuntimeError("this fusion has no word embedding; pass word vectors to finish()")
        return self.finish(self.word_embeddings(ids_BL), start)

    def finish(self, words_BLD: Tensor, start: int | Tensor = 0) -> Tensor:
        """Positions, type, norm and dropout on word vectors from wherever (``[B, L, hidden]``)."""
        positions = torch.arange(words_BLD.shape[1], device=words_BLD.device) + start
        total = words_BLD + self.token_type_embeddings.weight[0] + self.position_embeddings(positions)
        normed: Tensor = self.dropout(self.LayerNorm(total))
        return normed


class BertSelfAttention(nn.Module):
    """Query, key and value of all heads; ``[B, n, hidden] -> 3 x [B, heads, n, hidden / heads]``."""

    def __init__(self, config: BertFusionConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.hidden, config.hidden)
        self.key = nn.Linear(config.hidden, config.hidden)
        self.value = nn.Linear(config.hidden, config.hidden)
        self.dropout = config.dropout

    def project(self, x_BnD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of the tokens."""
        return self._split(self.query(x_BnD)), self._split(self.key(x_BnD)), self._split(self.value(x_BnD))

    def attend(self, q_BHnd: Tensor, k_BHmd: Tensor, v_BHmd: Tensor, bias: Tensor | None) -> Tensor:
        """Softmax attention ``[B, n, hidden]``; an additive ``bias`` broadcasts to ``[B, heads, n, m]``."""
        rate = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q_BHnd, k_BHmd, v_BHmd, attn_mask=bias, dropout_p=rate)
        return mixed.transpose(1, 2).flatten(2)

    def _split(self, x_BnD: Tensor) -> Tensor:
        return x_BnD.reshape(*x_BnD.shape[:2], self.heads, -1).transpose(1, 2)


class BertResidual(nn.Module):
    """``LN(x + dropout(W y + b))``: the end of both halves of a post-LN layer."""

    def __init__(self, width: int, config: BertFusionConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(width, config.hidden)
        self.LayerNorm = nn.LayerNorm(config.hidden, eps=1e-12)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        normed: Tensor = self.LayerNorm(x + self.dropout(self.dense(y)))
        return normed


class BertAttention(nn.Module):
    """Self-attention and its residual; the children carry the names of published checkpoints."""

    def __init__(self, config: BertFusionConfig) -> None:
        super().__init__()
        self.self = BertSelfAttention(config)
        self.output = BertResidual(config.hidden, config)


class BertIntermediate(nn.Module):
    """The widening half of the feed-forward part: ``GELU(W x + b)``."""

    def __init__(self, config: BertFusionConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden, config.feed_forward)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.dense(x))


class BertLayer(nn.Module):
    """One post-LN Transformer layer; ``x [B, n, hidden]`` and ``bias [B, 1, n, n]`` to ``[B, n, hidden]``."""

    def __init__(self, config: BertFusionConfig) -> None:
        super().__init__()
        self.attention = BertAttention(config)
        self.intermediate = BertIntermediate(config)
        self.output = BertResidual(config.feed_forward, config)

    def forward(self, x_BnD: Tensor, bias: Tensor | None) -> Tensor:
        return self.with_keys(x_BnD, bias)[0]

    def with_keys(
        self, x_BnD: Tensor, bias: Tensor | None, past: KeysValues | None = None
    ) -> tuple[Tensor, KeysValues]:
        """The output, and the keys and values of ``x`` alone. ``past``: keys and values in front of those of ``x``."""
        query, key, value = self.attention.self.project(x_BnD)
        seen = (key, value) if past is None else (torch.cat((past[0], key), 2), torch.cat((past[1], value), 2))
        mixed = self.attention.self.attend(query, *seen, bias)
        x_BnD = self.attention.output(mixed, x_BnD)
        return self.output(self.intermediate(x_BnD), x_BnD), (key, value)


KeysValues = tuple[Tensor, Tensor]


class BertEncoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: BertFusionConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(BertLayer(config) for _ in range(config.layers))

    def layers(self) -> Iterator[BertLayer]:
        """The layers, first to last."""
        return (cast("BertLayer", layer) for layer in self.layer)

    def forward(self, x_BnD: Tensor, bias: Tensor | None) -> Tensor:
        for layer in self.layer:
            x_BnD = layer(x_BnD, bias)
        return x_BnD


class BertBody(nn.Module):
    """Text embedding, image embedding and the layers. Visual tokens get neither norm, position nor type."""

    def __init__(self, config: BertFusionConfig) -> None:
        super().__init__()
        self.embeddings = BertEmbeddings(config)
        self.encoder = BertEncoder(config)
        self.img_embedding = nn.Linear(config.visual_width, config.hidden)
        self.dropout = nn.Dropout(config.dropout)


class BertTransform(nn.Module):
    """Dense, GELU, layer norm in front of the decoder of the masked-language head."""

    def __init__(self, config: BertFusionConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden, config.hidden)
        self.LayerNorm = nn.LayerNorm(config.hidden, eps=1e-12)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.LayerNorm(F.gelu(self.dense(x)))
        return normed


class BertPredictions(nn.Module):
    """Masked-language head of Eq. 14, not tied to the word embedding; ``[..., hidden] -> [..., V]``."""

    def __init__(self, config: BertFusionConfig) -> None:
        super().__init__()
        self.transform = BertTransform(config)
        self.decoder = nn.Linear(config.hidden, config.vocab_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.decoder(self.transform(x)) + self.bias
        return scores


class BertHead(nn.Module):
    """Holds ``predictions``, under the name of published checkpoints."""

    def __init__(self, config: BertFusionConfig) -> None:
        super().__init__()
        self.predictions = BertPredictions(config)


@dataclass
class FusionCache:
    """Keys and values of a clip and of the words so far: all a further word needs. Fixed shapes, written in place.

    ``context_*`` and ``text_*``: one ``[B, heads, C_x or L, hidden / heads]`` per layer; ``context_bias``:
    ``[B, 1, 1, C_x]``; ``length``: int64 scalar, number of text tokens stored.
    """

    context_k: list[Tensor]
    context_v: list[Tensor]
    context_bias: Tensor
    text_k: list[Tensor]
    text_v: list[Tensor]
    length: Tensor

    def select(self, rows: Tensor) -> FusionCache:
        """The cache of the given batch rows, in that order, as beam search needs it."""
        groups = (self.context_k, self.context_v, self.text_k, self.text_v)
        context_k, context_v, text_k, text_v = ([item[rows] for item in group] for group in groups)
        return FusionCache(context_k, context_v, self.context_bias[rows], text_k, text_v, self.length.clone())


class BertFusion(Network):
    """The multimodal Transformer ``Trans`` of Eq. 13 with the masked-language head of Eq. 14.

    Input of :meth:`forward`: ids ``[B, L]``, visual features ``[B, M, visual_width]``, prompt tokens ``[B, P, hidden]``
    with their validity ``[B, P]``. Output: word scores ``[B, L, V]``. Text and visual rows are those of SwinBERT
    exactly when there is no valid prompt.
    """

    config_class = BertFusionConfig
    #: A word is predicted in the row of a [MASK] in its place.
    fills_mask = True
    learn_vid_att: LearnedSparseAttention | None

    def __init__(self, config: BertFusionConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or BertFusionConfig()
        self.bert = BertBody(config)
        self.cls = BertHead(config)
        self.learn_vid_att = LearnedSparseAttention(config.sparse_tokens) if config.sparse_tokens else None
        init_bert(self, self.config.hidden)

    def forward(
        self, ids_BL: Tensor, visual_BMV: Tensor, prompts_BPD: Tensor | None = None, valid_BP: Tensor | None = None
    ) -> Tensor:
        """Word scores ``[B, L, V]`` of every text position."""
        context, valid = self.context(self.embed_visual(visual_BMV), prompts_BPD, valid_BP)
        return self.head(self.encode(self.bert.embeddings(ids_BL), context, valid))

    @property
    def embeddings(self) -> BertEmbeddings:
        """The text embedding layer, F_T."""
        return self.bert.embeddings

    def embed_visual(self, visual_BMV: Tensor) -> Tensor:
        """F_V as the fusion sees it: ``[B, M, visual_width] -> [B, M, hidden]``."""
        embedded: Tensor = self.bert.dropout(self.bert.img_embedding(visual_BMV))
        return embedded

    def context(
        self, visual_BMD: Tensor, prompts_BPD: Tensor | None = None, valid_BP: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Join visual and prompt tokens; a missing ``valid_BP`` means that all prompts are valid."""
        batch = visual_BMD.shape[0]
        if prompts_BPD is None:
            prompts_BPD = visual_BMD.new_zeros(batch, 0, self.config.hidden)
        if valid_BP is None:
            valid_BP = torch.ones(prompts_BPD.shape[:2], dtype=torch.bool, device=visual_BMD.device)
        return torch.cat((visual_BMD, prompts_BPD), 1), valid_BP

    def encode(self, text_BLD: Tensor, context_BCD: Tensor, valid_BP: Tensor) -> Tensor:
        """Text rows of F_E (Eq. 13), ``[B, L, hidden]``, by the full mask."""
        length, visual = text_BLD.shape[1], context_BCD.shape[1] - valid_BP.shape[1]
        bias = fusion_mask(length, visual, valid_BP, self._sparse_bias(visual)).to(text_BLD.dtype)
        rows: Tensor = self.bert.encoder(torch.cat((text_BLD, context_BCD), 1), bias)
        return rows[:, :length]

    def encode_caption(self, text_BLD: Tensor, length_B: Tensor) -> Tensor:
        """h_t: the [CLS] row of the layers run on a caption alone, both ways; ``[B, L, hidden] -> [B, hidden]``."""
        real = torch.arange(text_BLD.shape[1], device=text_BLD.device) < length_B[:, None]
        bias = torch.where(real, 0.0, FORBIDDEN)[:, None, None].to(text_BLD.dtype)
        rows: Tensor = self.bert.encoder(text_BLD, bias)
        return rows[:, 0]

    def head(self, rows: Tensor) -> Tensor:
        """Word scores, ``[..., hidden] -> [..., V]``."""
        scores: Tensor = self.cls.predictions(rows)
        return scores

    def sparsity(self) -> Tensor | None:
        """Penalty of the learned sparse attention, or None where there is none."""
        return None if self.learn_vid_att is None else self.learn_vid_att()[1]

    def prefill(self, context_BCD: Tensor, valid_BP: Tensor, text_length: int) -> FusionCache:
        """Run the context once. ``text_length``: L, the most text tokens the cache can hold."""
        visual = context_BCD.shape[1] - valid_BP.shape[1]
        bias = context_mask(visual, valid_BP, self._sparse_bias(visual)).to(context_BCD.dtype)
        columns = open_columns(visual, valid_BP).to(context_BCD.dtype)
        keys, values = [], []
        for layer in self.bert.encoder.layers():
            context_BCD, (key, value) = layer.with_keys(context_BCD, bias)
            keys.append(key)
            values.append(value)
        batch, heads, _, width = keys[0].shape
        empty = keys[0].new_zeros(batch, heads, text_length, width)
        stored = torch.zeros((), dtype=torch.int64, device=empty.device)
        text_k, text_v = ([empty.clone() for _ in keys] for _ in range(2))
        return FusionCache(keys, values, columns, text_k, text_v, stored)

    def step(self, pair_B2D: Tensor, cache: FusionCache) -> Tensor:
        """Scores ``[B, V]`` of the next word, from the embeddings ``[B, 2, hidden]`` of the last word and of [MASK].

        The keys and values of the word are stored in the cache, those of [MASK] are not. Exact: the result equals
        that of :meth:`encode` on the whole text, for earlier rows never see later ones.
        """
        slots = torch.arange(cache.text_k[0].shape[2], device=pair_B2D.device)
        stored = torch.where(slots < cache.length, 0.0, FORBIDDEN)
        pair = pair_B2D.new_tensor([[0.0, FORBIDDEN], [0.0, 0.0]])
        batch = pair_B2D.shape[0]
        bias = torch.cat(
            (
                cache.context_bias.expand(batch, 1, 2, -1),
                stored.to(pair.dtype).expand(batch, 1, 2, -1),
                pair.expand(batch, 1, -1, -1),
            ),
            3,
        )
        for index, layer in enumerate(self.bert.encoder.layers()):
            past_k = torch.cat((cache.context_k[index], cache.text_k[index]), 2)
            past_v = torch.cat((cache.context_v[index], cache.text_v[index]), 2)
            pair_B2D, (key, value) = layer.with_keys(pair_B2D, bias, (past_k, past_v))
            cache.text_k[index].index_copy_(2, cache.length[None], key[:, :, :1])
            cache.text_v[index].index_copy_(2, cache.length[None], value[:, :, :1])
        cache.length.add_(1)
        return self.head(pair_B2D[:, 1])

    def _sparse_bias(self, visual: int) -> Tensor | None:
        if self.learn_vid_att is None:
            return None
        if visual != self.learn_vid_att.tokens:
            raise ValueError(
                f"the learned sparse attention is bound to M = {self.learn_vid_att.tokens} visual tokens, the clip has "
                f"{visual}; sample the number of frames the mask was trained with, or create it with sparse_tokens=0"
            )
        bias: Tensor = self.learn_vid_att()[0]
        return bias


def init_bert(network: nn.Module, width: int) -> None:
    """BERT's initialisation: weights normal with deviation 0.02 at its 768 columns, biases zero.

    A sum over fewer columns is smaller: with 0.02 a narrow network hardly attends to what it is given, and learns the
    language alone. So the deviation grows as the root of 768 / ``width``.
    """
    deviation = 0.02 * math.sqrt(768 / width)
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=deviation)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
