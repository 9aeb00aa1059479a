"""Video Swin, the visual encoder of ECPA and SwinBERT.

ECPA: ``F_V = VE(V, θ_V) ∈ R^{M×d_v}`` (section III-A). Source of the network: Liu et al., Video Swin Transformer,
CVPR 2022; parameter names are those of its checkpoints (``k400``, ``k600_22k``) without the wrapper's prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from emo_models.networks.base import Network
from emo_models.networks.config import NetworkConfig
from emo_models.networks.swin import Size, SmallWindowBias, init_linears, plan_stages, swin_stages

_TINY: dict[str, Any] = {"embed_dim": 96, "depths": (2, 2, 6, 2), "heads": (3, 6, 12, 24), "drop_path": 0.1}
_SMALL: dict[str, Any] = {**_TINY, "depths": (2, 2, 18, 2)}
_BASE: dict[str, Any] = {"embed_dim": 128, "depths": (2, 2, 18, 2), "heads": (4, 8, 16, 32), "drop_path": 0.2}


@dataclass(frozen=True)
class VideoSwinConfig(NetworkConfig):
    """Architecture of :class:`VideoSwin`.

    ``paper`` is Base, for which the ECPA repository names weights, although the paper's Table I describes another
    network; ``fast`` is Tiny; ``toy`` is for clips of 64×64 pixels on a CPU.
    """

    #: Channels after the patch embedding; each stage doubles them.
    embed_dim: int = 128
    #: Blocks per stage, and their attention heads.
    depths: tuple[int, ...] = (2, 2, 18, 2)
    heads: tuple[int, ...] = (4, 8, 16, 32)
    #: Frames, rows and columns of a patch.
    patch: Size = (2, 4, 4)
    #: Largest attention window in patches; truncated where the feature map is smaller.
    window: Size = (8, 7, 7)
    #: Stochastic depth of the last block.
    drop_path: float = 0.2
    #: Relative position bias where the map is lower or narrower than the window: as the public code, or true offsets.
    small_window_bias: SmallWindowBias = "upstream"

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": _TINY,
        "small": _SMALL,
        "base": _BASE,
        "paper": _BASE,
        "fast": _TINY,
        "toy": {
            "embed_dim": 32,
            "depths": (2, 2, 2),
            "heads": (2, 4, 8),
            "window": (8, 4, 4),
            "drop_path": 0.0,
            "small_window_bias": "offset",
        },
    }

    def __post_init__(self) -> None:
        """Raise ``ValueError`` where the fields do not fit together."""
        self._require("small_window_bias", ("upstream", "offset"))
        if len(self.depths) != len(self.heads):
            raise ValueError(
                f"VideoSwinConfig: {len(self.depths)} depths but {len(self.heads)} heads; give one a stage"
            )
        for stage, heads in enumerate(self.heads):
            if (self.embed_dim * 2**stage) % heads:
                raise ValueError(
                    f"VideoSwinConfig: {self.embed_dim * 2**stage} channels of stage {stage} do not divide by {heads} heads"
                )

    @property
    def dim(self) -> int:
        """Channels of the output, ``D``."""
        return int(self.embed_dim * 2 ** (len(self.depths) - 1))

    def grid(self, frames: int, height: int = 224, width: int = 224) -> Size:
        """Size (T', H', W') of the output for a clip; M is the product: 4·7·7 = 196 for 8 frames, 784 for 32."""
        t, h, w = (-(-length // cell) for length, cell in zip((frames, height, width), self.patch, strict=True))
        for _ in self.depths[1:]:
            h, w = -(-h // 2), -(-w // 2)
        return t, h, w


class PatchEmbed3D(nn.Module):
    """Patches of 2×4×4 pixels → channels: ``[B, 3, T, h, w]`` → ``[B, T/2, h/4, w/4, C]``, zero-padded at the end."""

    def __init__(self, dim: int, patch: Size) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv3d(3, dim, patch, patch)
        self.norm = nn.LayerNorm(dim)

    def forward(self, clip_B3THW: Tensor) -> Tensor:
        pad_t, pad_h, pad_w = (-length % cell for length, cell in zip(clip_B3THW.shape[2:], self.patch, strict=True))
        x = self.proj(F.pad(clip_B3THW, (0, pad_w, 0, pad_h, 0, pad_t)))
        out: Tensor = self.norm(x.permute(0, 2, 3, 4, 1))
        return out


class VideoSwin(Network):
    """ECPA's visual encoder ``VE``: clip ``[B, 3, T, h, w]`` → feature map ``[B, D, T', H', W']``.

    With 224×224 pixels ``T' = ⌈T/2⌉`` and ``H' = W' = 7``; ``D`` is 1024 (Base) or 768 (Tiny, Small).
    :meth:`tokens` gives the same as ``F_V [B, M, D]``. Any number of frames works; windows are truncated, and not
    shifted, along an axis that is not longer than the window.
    """

    config_class = VideoSwinConfig

    def __init__(self, config: VideoSwinConfig | None = None) -> None:
        super().__init__()
        self.config = config or VideoSwinConfig()
        c = self.config
        self.patch_embed = PatchEmbed3D(c.embed_dim, c.patch)
        self.layers = swin_stages(
            c.embed_dim, c.depths, c.heads, c.window, drop_path=c.drop_path, small_window_bias=c.small_window_bias
        )
        self.norm = nn.LayerNorm(c.dim)
        init_linears(self)

    def plan(self, frames: int, height: int = 224, width: int = 224) -> Size:
        """Prepare windows, masks and bias indices for clips of this size; returns (T', H', W').

        ``forward`` does so by itself when the size changes, except while it is exported or compiled.
        """
        size = tuple(
            -(-length // cell) for length, cell in zip((frames, height, width), self.config.patch, strict=True)
        )
        return plan_stages(self.layers, (size[0], size[1], size[2]))

    def _features(self, clip_B3THW: Tensor) -> Tensor:
        if clip_B3THW.ndim != 5 or clip_B3THW.shape[1] != 3:
            raise ValueError(f"expected a clip [B, 3, T, h, w], got {list(clip_B3THW.shape)}; put the channels second")
        x_BTHWC = self.patch_embed(clip_B3THW)
        for stage in self.layers:
            x_BTHWC = stage(x_BTHWC)
        out: Tensor = self.norm(x_BTHWC)
        return out

    def forward(self, clip_B3THW: Tensor) -> Tensor:
        return self._features(clip_B3THW).permute(0, 4, 1, 2, 3)

    def tokens(self, clip_B3THW: Tensor) -> Tensor:
        """``F_V``: the feature map flattened in the order time, height, width: ``[B, M, D]``."""
        return self._features(clip_B3THW).flatten(1, 3)
