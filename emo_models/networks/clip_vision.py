"""CLIP's vision tower as FAME-Net uses it: the patches of the last block but one.

FAME-Net, before Eq. 1: ``X ∈ R^{T×576×1024}`` from CLIP ViT-L/14@336. LLaVA and Video-ChatGPT take hidden state −2,
which is the output of block 23 of 24; block 24 and the last norm are never computed here. Source of the tower: Radford
et al., 2021, by ``transformers``; parameter names are those of its checkpoints, ``vision_model.*``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import transformers
from torch import Tensor, nn

from emo_models.networks.base import Network
from emo_models.networks.config import NetworkConfig


@dataclass(frozen=True)
class ClipVisionConfig(NetworkConfig):
    """Architecture of :class:`ClipVision`: ``paper`` is ViT-L/14 at 336 pixels, ``video_chatgpt`` at 224."""

    #: Side of the square input, in pixels.
    image: int = 336
    #: Side of a patch, in pixels.
    patch: int = 14
    #: Width of a patch token, ``D``.
    dim: int = 1024
    #: Blocks of the published tower; one fewer is built.
    layers: int = 24
    heads: int = 16
    mlp: int = 4096

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "video_chatgpt": {"image": 224},
        "fast": {"image": 224, "patch": 32, "dim": 768, "layers": 12, "heads": 12, "mlp": 3072},
        "toy": {"image": 56, "patch": 14, "dim": 64, "layers": 3, "heads": 4, "mlp": 128},
    }

    def __post_init__(self) -> None:
        """Raise ``ValueError`` where the fields do not fit together."""
        if self.image % self.patch or self.dim % self.heads or self.layers < 2:
            raise ValueError(
                f"ClipVisionConfig: image {self.image} must be a multiple of patch {self.patch}, dim {self.dim} of "
                f"heads {self.heads}, and layers {self.layers} at least 2"
            )

    @property
    def patches(self) -> int:
        """Patch tokens of a frame: 576 at 336 pixels, 256 at 224."""
        return (self.image // self.patch) ** 2


class ClipVision(Network):
    """Frames ``[N, 3, 336, 336]`` (CLIP normalisation) → patch tokens ``X [N, 576, 1024]``, class token dropped."""

    config_class = ClipVisionConfig

    def __init__(self, config: ClipVisionConfig | None = None) -> None:
        super().__init__()
        self.config = config or ClipVisionConfig()
        c = self.config
        tower = transformers.CLIPVisionModel(
            transformers.CLIPVisionConfig(
                image_size=c.image,
                patch_size=c.patch,
                hidden_size=c.dim,
                num_hidden_layers=c.layers - 1,
                num_attention_heads=c.heads,
                intermediate_size=c.mlp,
            )
        )
        # transformers 4 wraps the tower once more than version 5; without the wrap the parameter names are the same.
        self.vision_model: nn.Module = getattr(tower, "vision_model", tower)
        self.vision_model.post_layernorm = nn.Identity()

    def forward(self, frames_N3HW: Tensor) -> Tensor:
        tokens_NPD: Tensor = self.vision_model(pixel_values=frames_N3HW).last_hidden_state
        return tokens_NPD[:, 1:]

    def left_out(self) -> tuple[str, ...]:
        """The last block of the published tower."""
        return (f"vision_model.encoder.layers.{self.config.layers - 1}.",)
