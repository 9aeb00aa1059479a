"""Shifted-window attention over time, height and width: the blocks of Video Swin and, with one frame, of image Swin.

Source: Liu et al., Video Swin Transformer (CVPR 2022); Swin Transformer (ICCV 2021). Module names follow
the public checkpoints. Everything that depends on the size of the feature map (window, shift, masks, index of the
relative position bias) is computed once per size by ``plan`` and kept in buffers, so that an exported graph holds it
as constants.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = tuple[int, int, int]
SmallWindowBias = Literal["upstream", "offset"]

#: Added to the score of a query and a key that lie in different regions of a shifted window.
MASKED = -100.0


def effective_window(size: Size, window: Size, shift: Size) -> tuple[Size, Size]:
    """Window and shift for a feature map: along an axis not longer than the window there is one window, no shift."""
    fits = [s <= w for s, w in zip(size, window, strict=True)]
    used_window = tuple(s if fit else w for s, w, fit in zip(size, window, fits, strict=True))
    used_shift = tuple(0 if fit else d for d, fit in zip(shift, fits, strict=True))
    return _size(used_window), _size(used_shift)


def relative_position_index(window: Size, full_window: Size, mode: SmallWindowBias) -> Tensor:
    """Row of the bias table for each query and key of a window: ``[N, N]``, N the positions in ``window``.

    The table has ``(2T-1)(2H-1)(2W-1)`` rows for the full window. Where only the time axis is truncated, both modes
    agree. Where height or width is, ``upstream`` takes the first N positions of the full window's order, as the public
    code does, and ``offset`` the true offsets.
    """
    source = full_window if mode == "upstream" else window
    count = math.prod(window)
    positions_N3 = torch.cartesian_prod(*(torch.arange(length) for length in source))[:count]
    offsets_NN3 = positions_N3[:, None] - positions_N3[None, :] + torch.tensor(full_window) - 1
    _, rows_h, rows_w = (2 * length - 1 for length in full_window)
    return (offsets_NN3 * torch.tensor([rows_h * rows_w, rows_w, 1])).sum(-1)


def window_partition(x_BTHWC: Tensor, window: Size) -> Tensor:
    """Cut a feature map, whose size is a multiple of the window, into windows: ``[B·nW, N, C]``."""
    b, t, h, w, c = x_BTHWC.shape
    wt, wh, ww = window
    x = x_BTHWC.reshape(b, t // wt, wt, h // wh, wh, w // ww, ww, c)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, wt * wh * ww, c)


def window_merge(windows_WNC: Tensor, window: Size, size: Size) -> Tensor:
    """Inverse of :func:`window_partition`: ``[B, T, H, W, C]``."""
    wt, wh, ww = window
    t, h, w = size
    x = windows_WNC.reshape(-1, t // wt, h // wh, w // ww, wt, wh, ww, windows_WNC.shape[-1])
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(-1, t, h, w, windows_WNC.shape[-1])


def shifted_regions(size: Size, window: Size, shift: Size) -> Tensor:
    """Region of each position after the cyclic shift, cut into windows: ``[nW, N]``, equal where attention is allowed.

    Along a shifted axis the last window holds two regions: what was there, and what came round from the start.
    """
    labels = []
    for length, w, d in zip(size, window, shift, strict=True):
        label = torch.zeros(length, dtype=torch.long)
        if d > 0:
            label[-w:-d] = 1
            label[-d:] = 2
        labels.append(label)
    label_t, label_h, label_w = labels
    regions = label_t[:, None, None] * 9 + label_h[None, :, None] * 3 + label_w[None, None, :]
    return window_partition(regions[None, ..., None], window).squeeze(-1)


class DropPath(nn.Module):
    """Stochastic depth: drop a residual branch per sample with probability ``rate`` while training."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if self.rate == 0.0 or not self.training:
            return x
        keep = 1.0 - self.rate
        mask = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device, dtype=x.dtype) < keep
        return x * mask / keep


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows with relative position bias.

    ``softmax(Q Kᵀ / √d + B [+ mask]) V`` with B from the relative position; input and output ``[B·nW, N, C]``.
    """

    def __init__(self, dim: int, window: Size, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        rows = math.prod(2 * length - 1 for length in window)
        self.relative_position_bias_table = nn.Parameter(torch.empty(rows, heads))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x_WNC: Tensor, bias_index_NN: Tensor, mask_wNN: Tensor | None) -> Tensor:
        windows, n, c = x_WNC.shape
        q, k, v = self.qkv(x_WNC).reshape(windows, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        scores_WhNN = (q * self.scale) @ k.transpose(-2, -1)
        bias_hNN = self.relative_position_bias_table[bias_index_NN.reshape(-1)].reshape(n, n, -1).permute(2, 0, 1)
        scores_WhNN = scores_WhNN + bias_hNN
        if mask_wNN is not None:
            per_clip = scores_WhNN.reshape(-1, mask_wNN.shape[0], self.heads, n, n) + mask_wNN[:, None]
            scores_WhNN = per_clip.reshape(-1, self.heads, n, n)
        x_WNC = (scores_WhNN.softmax(-1) @ v).transpose(1, 2).reshape(windows, n, c)
        out: Tensor = self.proj(x_WNC)
        return out


class Mlp(nn.Module):
    """Two linear layers with GELU between, on the last axis."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class SwinBlock(nn.Module):
    """One pre-norm block: (shifted) window attention, then MLP; input and output ``[B, T, H, W, C]``."""

    def __init__(self, dim: int, heads: int, window: Size, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, window, heads)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, x_BTHWC: Tensor, window: Size, shift: Size, bias_index: Tensor, mask: Tensor | None) -> Tensor:
        x = self.norm1(x_BTHWC)
        t, h, w = x.shape[1:4]
        pad_t, pad_h, pad_w = (-length % cell for length, cell in zip((t, h, w), window, strict=True))
        # Zeros that are not masked, as in the public code: they answer with the biases of k and v.
        x = F.pad(x, (0, 0, 0, pad_w, 0, pad_h, 0, pad_t))
        padded = (t + pad_t, h + pad_h, w + pad_w)
        if any(shift):
            x = torch.roll(x, [-d for d in shift], (1, 2, 3))
        x = self.attn(window_partition(x, window), bias_index, mask)
        x = window_merge(x, window, padded)
        if any(shift):
            x = torch.roll(x, shift, (1, 2, 3))
        x_BTHWC = x_BTHWC + self.drop_path(x[:, :t, :h, :w])
        out: Tensor = x_BTHWC + self.drop_path(self.mlp(self.norm2(x_BTHWC)))
        return out


class PatchMerging(nn.Module):
    """Halve height and width, double the channels: ``[B, T, H, W, C]`` → ``[B, T, ⌈H/2⌉, ⌈W/2⌉, 2C]``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x_BTHWC: Tensor) -> Tensor:
        h, w = x_BTHWC.shape[2:4]
        x = F.pad(x_BTHWC, (0, 0, 0, w % 2, 0, h % 2))
        # Column by column, the order of the public checkpoints.
        parts = [x[:, :, row::2, column::2] for column, row in itertools.product((0, 1), (0, 1))]
        out: Tensor = self.reduction(self.norm(torch.cat(parts, -1)))
        return out


class SwinStage(nn.Module):
    """Blocks at one resolution, every second one shifted by half a window, then an optional :class:`PatchMerging`."""

    bias_index: Tensor
    regions: Tensor

    def __init__(
        self,
        dim: int,
        heads: int,
        window: Size,
        drop_paths: Sequence[float],
        *,
        merge: bool,
        small_window_bias: SmallWindowBias,
    ) -> None:
        super().__init__()
        self.full_window = window
        self.small_window_bias: SmallWindowBias = small_window_bias
        self.blocks = nn.ModuleList(SwinBlock(dim, heads, window, rate) for rate in drop_paths)
        self.downsample = PatchMerging(dim) if merge else None
        self.planned: Size | None = None
        self.window, self.shift = window, (0, 0, 0)
        self.register_buffer("bias_index", torch.empty(0, dtype=torch.long), persistent=False)
        self.register_buffer("regions", torch.empty(0, dtype=torch.long), persistent=False)

    def plan(self, size: Size) -> None:
        """Compute window, shift, bias index and regions for feature maps of this size."""
        if torch.compiler.is_compiling():
            raise RuntimeError(f"the graph is traced for a size {size} that was not planned; call plan() before export")
        half = _size(length // 2 for length in self.full_window)
        self.window, self.shift = effective_window(size, self.full_window, half)
        device = next(self.parameters()).device
        index = relative_position_index(self.window, self.full_window, self.small_window_bias)
        padded = _size(-(-s // w) * w for s, w in zip(size, self.window, strict=True))
        self.bias_index = index.to(device)
        self.regions = shifted_regions(padded, self.window, self.shift).to(device)
        self.planned = size

    def forward(self, x_BTHWC: Tensor) -> Tensor:
        size = _size(x_BTHWC.shape[1:4])
        if size != self.planned:
            self.plan(size)
        mask_wNN = None
        if any(self.shift):
            apart = self.regions[:, :, None] != self.regions[:, None, :]
            mask_wNN = apart.to(x_BTHWC.dtype) * MASKED
        for number, block in enumerate(self.blocks):
            if number % 2 == 0:
                x_BTHWC = block(x_BTHWC, self.window, (0, 0, 0), self.bias_index, None)
            else:
                x_BTHWC = block(x_BTHWC, self.window, self.shift, self.bias_index, mask_wNN)
        return x_BTHWC if self.downsample is None else self.downsample(x_BTHWC)


class ImagePatches(nn.Module):
    """Patches of 4×4 pixels → channels: ``[N, 3, h, w]`` → ``[N, h/4, w/4, C]``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, 4, 4)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x_N3HW: Tensor) -> Tensor:
        out: Tensor = self.norm(self.proj(x_N3HW).permute(0, 2, 3, 1))
        return out


class ImageSwin(nn.Module):
    """Image Swin without its classifier: ``[N, 3, h, w]`` → tokens ``[N, h·w/32², 8·embed_dim]`` after the last norm.

    An image is a clip of one frame and a window of one frame is an image's window, so the blocks are the same.
    """

    def __init__(self, embed_dim: int, depths: Sequence[int], heads: Sequence[int], drop_path: float) -> None:
        super().__init__()
        self.dim = embed_dim * 2 ** (len(depths) - 1)
        self.patch_embed = ImagePatches(embed_dim)
        self.layers = swin_stages(embed_dim, depths, heads, (1, 7, 7), drop_path=drop_path)
        self.norm = nn.LayerNorm(self.dim)
        init_linears(self)

    def plan(self, height: int, width: int) -> None:
        """Prepare the constants for images of this size; ``forward`` does it itself, except while being exported."""
        plan_stages(self.layers, (1, height // 4, width // 4))

    def forward(self, x_N3HW: Tensor) -> Tensor:
        x = self.patch_embed(x_N3HW)[:, None]
        for stage in self.layers:
            x = stage(x)
        tokens: Tensor = self.norm(x).flatten(1, 3)
        return tokens


def swin_stages(
    embed_dim: int,
    depths: Sequence[int],
    heads: Sequence[int],
    window: Size,
    *,
    drop_path: float,
    small_window_bias: SmallWindowBias = "upstream",
) -> nn.ModuleList:
    """All stages of a Swin network; the rate of stochastic depth grows linearly from 0 to ``drop_path``."""
    total = sum(depths)
    rates = [drop_path * i / max(total - 1, 1) for i in range(total)]
    stages = nn.ModuleList()
    for i, (depth, stage_heads) in enumerate(zip(depths, heads, strict=True)):
        start = sum(depths[:i])
        stages.append(
            SwinStage(
                embed_dim * 2**i,
                stage_heads,
                window,
                rates[start : start + depth],
                merge=i < len(depths) - 1,
                small_window_bias=small_window_bias,
            )
        )
    return stages


def plan_stages(stages: nn.ModuleList, size: Size) -> Size:
    """Plan each stage for its size, given the first one's; returns the size of the last."""
    for stage in stages:
        assert isinstance(stage, SwinStage)
        stage.plan(size)
        if stage.downsample is not None:
            size = (size[0], -(-size[1] // 2), -(-size[2] // 2))
    return size


def init_linears(module: nn.Module) -> None:
    """Initialise a Swin network as published: truncated normal of 0.02 for linear weights, zero biases."""
    for child in module.modules():
        if isinstance(child, nn.Linear):
            nn.init.trunc_normal_(child.weight, std=0.02)
            if child.bias is not None:
                nn.init.zeros_(child.bias)


def _size(values: Iterable[int]) -> Size:
    t, h, w = values
    return t, h, w
