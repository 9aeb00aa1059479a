"""Shifted-window attention written the slow way: position by position, from the definition, for comparison."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int, int]


def naive_block(block, x_BTHWC: Tensor, window: Size, *, shifted: bool, upstream_bias: bool) -> Tensor:
    """One Swin block; ``window`` is the full window of the network."""
    size = tuple(x_BTHWC.shape[1:4])
    used = tuple(min(s, w) for s, w in zip(size, window, strict=True))
    shift = tuple(w // 2 if shifted and s > w else 0 for s, w in zip(size, window, strict=True))
    padded = tuple(math.ceil(s / u) * u for s, u in zip(size, used, strict=True))
    out = torch.zeros_like(x_BTHWC)
    for b, clip in enumerate(block.norm1(x_BTHWC)):
        full = torch.zeros(*padded, clip.shape[-1])
        full[: size[0], : size[1], : size[2]] = clip
        for group in groups(padded, used, shift):
            rows = [[bias_row(a, b, used, window, upstream_bias) for _, b in group] for _, a in group]
            answer = attend(block.attn, torch.stack([full[p] for p, _ in group]), torch.tensor(rows))
            for (p, _), value in zip(group, answer, strict=True):
                if all(c < s for c, s in zip(p, size, strict=True)):
                    out[(b, *p)] = value
    x = x_BTHWC + out
    return x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))


def groups(padded: Size, used: Size, shift: Size) -> list[list[tuple[Size, Size]]]:
    """Positions that attend to each other, each with its place in the window."""
    found: dict[tuple, list[tuple[Size, Size]]] = {}
    for p in itertools.product(*map(range, padded)):
        # Where the position lies after everything moved towards the origin by the shift.
        moved = tuple((c - d) % length for c, d, length in zip(p, shift, padded, strict=True))
        cell = tuple(c // w for c, w in zip(moved, used, strict=True))
        came_round = tuple(d > 0 and c < d for c, d in zip(p, shift, strict=True))
        place = tuple(c % w for c, w in zip(moved, used, strict=True))
        found.setdefault((cell, came_round), []).append((p, place))
    return list(found.values())


def attend(attention, x_NC: Tensor, rows_NN: Tensor) -> Tensor:
    c, heads = x_NC.shape[1], attention.heads
    q, k, v = attention.qkv(x_NC).split(c, dim=-1)
    bias = attention.relative_position_bias_table[rows_NN]
    parts = []
    for head in range(heads):
        channels = slice(head * c // heads, (head + 1) * c // heads)
        scores = q[:, channels] @ k[:, channels].T / math.sqrt(c // heads) + bias[..., head]
        parts.append(scores.softmax(-1) @ v[:, channels])
    return attention.proj(torch.cat(parts, -1))


def bias_row(a: Size, b: Size, used: Size, window: Size, upstream_bias: bool) -> int:
    """Row of the bias table for a query at ``a`` and a key at ``b`` of a window."""
    if upstream_bias:
        # The public code numbers the positions of the small window and looks the numbers up in the full one.
        a, b = (unravel(ravel(place, used), window) for place in (a, b))
    row = 0
    for ca, cb, length in zip(a, b, window, strict=True):
        row = row * (2 * length - 1) + ca - cb + length - 1
    return row


def ravel(place: Size, shape: Size) -> int:
    return (place[0] * shape[1] + place[1]) * shape[2] + place[2]


def unravel(number: int, shape: Size) -> Size:
    return number // (shape[1] * shape[2]), number // shape[2] % shape[1], number % shape[2]


def naive_merge(merge, x_BTHWC: Tensor) -> Tensor:
    b, t, h, w, c = x_BTHWC.shape
    out = torch.zeros(b, t, math.ceil(h / 2), math.ceil(w / 2), 4 * c)
    for y, x in itertools.product(range(h), range(w)):
        corner = y % 2 + 2 * (x % 2)
        out[:, :, y // 2, x // 2, corner * c : (corner + 1) * c] = x_BTHWC[:, :, y, x]
    return merge.reduction(merge.norm(out))


def naive_video_swin(network, clip_B3THW: Tensor) -> Tensor:
    """The whole network, ``[B, D, T', H', W']``; the clip must be a multiple of the patch."""
    config = network.config
    x = network.patch_embed.proj(clip_B3THW).permute(0, 2, 3, 4, 1)
    x = network.patch_embed.norm(x)
    for stage in network.layers:
        for number, block in enumerate(stage.blocks):
            upstream = config.small_window_bias == "upstream"
            x = naive_block(block, x, config.window, shifted=number % 2 == 1, upstream_bias=upstream)
        if stage.downsample is not None:
            x = naive_merge(stage.downsample, x)
    return network.norm(x).permute(0, 4, 1, 2, 3)
