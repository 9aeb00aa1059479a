"""Both towers of CLIP, for training one: FAME-Net takes only the vision tower (:mod:`.clip_vision`) of a trained CLIP.

Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021, by
``transformers``; parameter names are those of its checkpoints, so a file trained here is read as a public one, by
``load_checkpoint(fame.clip, file, "clip")``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

from emo_models.networks.base import Network
from emo_models.networks.clip_vision import ClipVisionConfig
from emo_models.networks.config import NetworkConfig


@dataclass(frozen=True)
class ClipConfig(NetworkConfig):
    """Architecture of :class:`Clip`. ``vision``: a preset of ``ClipVisionConfig``; ``project``: width of the common space.

    ``words``, ``length``, ``dim``, ``layers``, ``heads``, ``mlp``: of the text tower; ``stop``: id of its end token.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "fast": {"vision": "fast", "project": 512, "dim": 512, "heads": 8, "mlp": 2048},
        "toy": {
            "vision": "toy", "project": 32, "words": 320, "length": 64, "dim": 64, "layers": 1, "heads": 4, "mlp": 128,
            "stop": 1,
        },
    }  # fmt: skip

    vision: str = "paper"
    project: int = 768
    words: int = 49408
    length: int = 77
    dim: int = 768
    layers: int = 12
    heads: int = 12
    mlp: int = 3072
    stop: int = 49407

    def __post_init__(self) -> None:
        self._require("vision", tuple(ClipVisionConfig.PRESETS))
        if self.dim % self.heads or not 0 <= self.stop < self.words:
            raise ValueError(
                f"ClipConfig: dim {self.dim} must be a multiple of heads {self.heads}, and stop {self.stop} one of "
                f"{self.words} words"
            )


class ClipOutput(NamedTuple):
    """Unit vectors of B pictures and C texts in the common space, and their similarity at the learned temperature."""

    #: ``[B, P]``
    image: Tensor
    #: ``[C, P]``
    text: Tensor
    #: ``[B, C]``
    scores: Tensor


class Clip(Network):
    """Frames ``[B, 3, H, W]`` (CLIP normalisation) and ids ``[C, L]`` with their mask → features of both, and scores."""

    config_class = ClipConfig

    def __init__(self, config: ClipConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or ClipConfig()
        v = ClipVisionConfig.from_preset(c.vision)
        vision = transformers.CLIPVisionConfig(
            image_size=v.image, patch_size=v.patch, hidden_size=v.dim, num_hidden_layers=v.layers,
            num_attention_heads=v.heads, intermediate_size=v.mlp, projection_dim=c.project,
        )  # fmt: skip
        text = transformers.CLIPTextConfig(
            vocab_size=c.words, max_position_embeddings=c.length, hidden_size=c.dim, num_hidden_layers=c.layers,
            num_attention_heads=c.heads, intermediate_size=c.mlp, projection_dim=c.project, bos_token_id=0,
            eos_token_id=c.stop, pad_token_id=c.stop,
        )  # fmt: skip
        whole = transformers.CLIPModel(
            transformers.CLIPConfig(
                text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=c.project
            )
        )
        # transformers 4 wraps each tower once more than version 5.
        self.vision_model: nn.Module = getattr(whole.vision_model, "vision_model", whole.vision_model)
        self.text_model: nn.Module = getattr(whole.text_model, "text_model", whole.text_model)
        self.visual_projection = whole.visual_projection
        self.text_projection = whole.text_projection
        self.logit_scale = whole.logit_scale

    def forward(self, frames_B3HW: Tensor, ids_CL: Tensor, mask_CL: Tensor) -> ClipOutput:
        image = self.visual_projection(self.vision_model(pixel_values=frames_B3HW).pooler_output)
        hidden = self.text_model(input_ids=ids_CL, attention_mask=mask_CL.long()).last_hidden_state
        # The end token is the last real one: taken by the mask, for padding repeats its id.
        text = self.text_projection(hidden[torch.arange(len(hidden)), mask_CL.long().sum(1) - 1])
        image, text = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
        return ClipOutput(image, text, self.logit_scale.exp().clamp(max=100.0) * image @ text.T)


def contrastive_loss(scores_BC: Tensor, same_BC: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy between B pictures and C texts, each with a counterpart; ``same``: who belongs together.

    Where one text belongs to several pictures, the target is spread over them, so that equals are not pushed apart.
    """
    rows = same_BC.to(scores_BC.dtype)
    forth = F.cross_entropy(scores_BC, rows / rows.sum(1, keepdim=True))
    back = F.cross_entropy(scores_BC.T, rows.T / rows.sum(0)[:, None])
    return (forth + back) / 2
