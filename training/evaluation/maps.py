"""What happens inside ECPA for one clip and caption: attention (Fig. 10), prompts (Fig. 11), alignment (Fig. 12)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cosine_similarity

from emo_models.labels import OPENGRAPHAU_MAIN
from emo_models.networks.bert_fusion import BertFusion, BertSelfAttention
from emo_models.networks.ecpa import ECPA
from emo_models.networks.ecpa.captions import CaptionBatch, CaptionTokenizer, owners
from emo_models.networks.ecpa.eca import similarity, word_vectors
from emo_models.networks.ecpa.model import Context
from emo_models.networks.ecpa.vep import FaceFeatures
from training.metrics.base import MetricError

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Maps:
    """Of one clip; N words, S pairs of frames, P prompts, K action units.

    ``attention``: ``[N, S + P]``, mean over layers and heads, summed over the places of a pair of frames; ``columns``
    names them. ``spatial``: name -> ``[S, h, w]``: strength of the video features (their length), and their cosine with
    the ER prompt and with each unit's. ``similarity``: ``[K, M]`` of units and content words, cosine.
    """

    clip_id: str
    words: tuple[str, ...]
    columns: tuple[str, ...]
    steps: int
    attention: Array
    spatial: dict[str, Array]
    aus: tuple[int, ...]
    content: tuple[str, ...]
    similarity: Array
    emotion: dict[str, float]
    frames: NDArray[np.uint8] | None = None


@torch.no_grad()
def ecpa_maps(
    network: ECPA,
    clip: Tensor,
    features: FaceFeatures | None,
    tokenizer: CaptionTokenizer,
    *,
    text: str,
    clip_id: str = "",
) -> Maps:
    """Maps of one clip (batch of one: ``clip [1, 3, T, h, w]`` or its stored features) with the caption ``text``.

    Raises :class:`MetricError` for a network without attention over the clip, and in training mode.
    """
    fusion = network.trans_encoder
    if not isinstance(fusion, BertFusion) or network.training:
        raise MetricError("maps are made of ECPA with the BERT fusion, in evaluation mode")
    context = network.context(clip, features)
    captions = tokenizer([text]).to(clip.device)
    length = int(captions.length[0])
    embedded = network.embed_text(captions.ids[:, :length])
    with _recorded(fusion) as seen:
        fusion.encode(embedded, context.tokens, context.valid)
    weights = torch.stack(seen).mean((0, 2))[0, :length, length:]  # [L, M + P]
    visual = context.tokens.shape[1] - context.valid.shape[1]
    spans, pieces = _words(tokenizer, text, length)
    rows = torch.stack([weights[[p for p, word in enumerate(pieces) if word == n]].mean(0) for n in range(len(spans))])
    grid = _grid(network, visual)
    over_time = rows[:, :visual].reshape(len(spans), grid[0], -1).sum(2)
    names = _prompt_names(context)
    tokens = context.tokens[0, :visual]
    prompt_tokens = context.tokens[0, visual:]
    spatial = {"video features": _array(tokens.norm(dim=-1).reshape(grid))}
    for name, prompt, valid in zip(names, prompt_tokens, context.valid[0].tolist(), strict=True):
        if valid and name != "class":
            spatial[name] = _array(cosine_similarity(tokens, prompt[None], dim=-1).reshape(grid))
    aus, content, cosines = _alignment(network, context, captions, tokenizer, text)
    emotion = {}
    if context.cls is not None:
        emotion = dict(zip(network.config.classes, context.cls.p_vis[0].tolist(), strict=True))
    return Maps(
        clip_id, tuple(text[a:b] for a, b in spans), (*(f"frames {2 * s + 1}-{2 * s + 2}" for s in range(grid[0])), *names),
        grid[0], _array(torch.cat((over_time, rows[:, visual:]), 1)), spatial, aus, content, cosines, emotion,
    )  # fmt: skip


def _grid(network: ECPA, visual: int) -> tuple[int, int, int]:
    """Pairs of frames, rows and columns of the visual tokens."""
    steps = max(1, network.config.frames // 2)
    side = round((visual / steps) ** 0.5)
    if steps * side * side != visual:
        raise MetricError(f"{visual} visual tokens are not {steps} square grids; the maps cannot be laid out")
    return steps, side, side


def _prompt_names(context: Context) -> list[str]:
    """In their order behind the visual tokens."""
    names = []
    if context.er is not None:
        names += ["ER prompt"] if context.cls is None else ["ER prompt", "class"]
    if context.au is not None:
        names += [f"AU{OPENGRAPHAU_MAIN[int(index)]} prompt" for index in context.au.index[0]]
    return names


def _words(tokenizer: CaptionTokenizer, text: str, length: int) -> tuple[list[tuple[int, int]], list[int]]:
    """Spans of all words that fit, and for each of the ``length`` tokens the number of its word, -1 for none."""
    spans = [hit.span() for hit in re.finditer(r"\w+(?:['’]\w+)*", text)]
    encoded = tokenizer.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    owned = owners([tuple(span) for span in encoded["offset_mapping"]], spans)[: length - 2]
    pieces = [-1, *owned, -1]
    kept = sorted({word for word in pieces if word >= 0})
    if not kept:
        raise MetricError(f"the caption {text!r} has no word that the network knows")
    number = {word: place for place, word in enumerate(kept)}
    return [spans[word] for word in kept], [number.get(word, -1) for word in pieces]


def _alignment(
    network: ECPA, context: Context, captions: CaptionBatch, tokenizer: CaptionTokenizer, text: str
) -> tuple[tuple[int, ...], tuple[str, ...], Array]:
    """Units, content words and their cosines."""
    au, ids = context.au, captions.ids
    if au is None or not bool(au.valid[0].any()):
        return (), (), np.zeros((0, 0), np.float32)
    t, there = word_vectors(network.embed_text(ids), captions.word, torch.ones_like(ids, dtype=torch.bool))
    slots = au.valid[0].nonzero()[:, 0]
    cosines = similarity(au.tokens[0, slots][None], t[0, there[0]][None])[0]
    spans = [s for s, has in zip(tokenizer.lexicon.content_words(text), there[0].tolist(), strict=False) if has]
    aus = tuple(OPENGRAPHAU_MAIN[int(index)] for index in au.index[0, slots])
    return aus, tuple(text[a:b] for a, b in spans), _array(cosines)


@contextmanager
def _recorded(fusion: BertFusion) -> Iterator[list[Tensor]]:
    """Attention weights ``[B, heads, n, m]`` of every layer that runs inside."""
    seen: list[Tensor] = []
    layers: list[BertSelfAttention] = [layer.attention.self for layer in fusion.bert.encoder.layers()]

    def recording(layer: BertSelfAttention) -> object:
        def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
            scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
            seen.append((scores if bias is None else scores + bias).softmax(-1))
            return BertSelfAttention.attend(layer, q, k, v, bias)

        return attend

    for layer in layers:
        layer.attend = recording(layer)  # type: ignore[method-assign, assignment]
    try:
        yield seen
    finally:
        for layer in layers:
            del layer.attend


def _array(values: Tensor) -> Array:
    return np.asarray(values.float().cpu().numpy(), np.float32)
