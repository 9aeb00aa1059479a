"""Visual encoders of ECPA (VE of Section III-A, Table VII): F_V from Video Swin or, frame by frame, from CLIP."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emo_models.networks.clip_vision import ClipVision, ClipVisionConfig
from emo_models.networks.ecpa.config import EcpaConfig
from emo_models.networks.video_swin import VideoSwin, VideoSwinConfig

#: Rows and columns that CLIP's patches of a frame are averaged to; as many as Video Swin has at 224 px.
CLIP_GRID = 7


class VisualEncoder(nn.Module):
    """``F_V = fc(VE(V))``: clip ``[B, 3, T, h, w] -> [B, M, visual_width]``, M = 49 T/2 at 224 px.

    The paper does not say how CLIP's patches become tokens of a clip. Here the patches of a frame are averaged to 7 x 7
    and frames two by two, so that M and the order time, row, column are those of Video Swin.
    """

    def __init__(self, config: EcpaConfig) -> None:
        super().__init__()
        self.frames, self.image_size = config.frames, config.image_size
        self.encoder: VideoSwin | ClipVision
        if config.visual == "video_swin":
            self.encoder = VideoSwin(VideoSwinConfig.from_preset(config.visual_preset or "base"))
            width = self.encoder.config.dim
            t, h, w = self.encoder.config.grid(config.frames, config.image_size, config.image_size)
            self.tokens = t * h * w
        else:
            clip = ClipVisionConfig.from_preset(config.visual_preset or "video_chatgpt")
            if clip.image != config.image_size:
                raise ValueError(
                    f"this CLIP reads {clip.image} px, EcpaConfig.image_size is {config.image_size}; set both alike"
                )
            self.encoder = ClipVision(clip)
            width = clip.dim
            self.tokens = (config.frames + 1) // 2 * CLIP_GRID**2
        if config.freeze_visual:
            self.encoder.freeze()
        self.fc = nn.Linear(width, config.visual_width)

    def forward(self, clip: Tensor) -> Tensor:
        """``clip``: pixels ``[B, 3, T, h, w]``, or what :meth:`features` made of them, ``[B, M, D]``."""
        if clip.ndim == 3 and tuple(clip.shape[1:]) != (self.tokens, self.fc.in_features):
            raise ValueError(
                f"expected features [B, {self.tokens}, {self.fc.in_features}] of this encoder, got {list(clip.shape)}"
            )
        projected: Tensor = self.fc(clip if clip.ndim == 3 else self.features(clip))
        return projected

    def features(self, clip_B3THW: Tensor) -> Tensor:
        """Tokens of the encoder ``[B, M, D]``; those of a frozen encoder can be computed once and stored."""
        expected = (3, self.frames, self.image_size, self.image_size)
        if clip_B3THW.ndim != 5 or tuple(clip_B3THW.shape[1:]) != expected:
            raise ValueError(f"expected a clip [B, {', '.join(map(str, expected))}], got {list(clip_B3THW.shape)}")
        if isinstance(self.encoder, VideoSwin):
            return self.encoder.tokens(clip_B3THW)
        return self._clip_tokens(self.encoder, clip_B3THW)

    def _clip_tokens(self, encoder: ClipVision, clip_B3THW: Tensor) -> Tensor:
        frames = clip_B3THW.transpose(1, 2)
        if frames.shape[1] % 2:
            frames = torch.cat((frames, frames[:, -1:]), 1)
        batch, count = frames.shape[:2]
        patches_NPD = cast("Tensor", encoder(frames.flatten(0, 1)))
        side = int(patches_NPD.shape[1] ** 0.5)
        grid = patches_NPD.transpose(1, 2).reshape(batch * count, -1, side, side)
        pooled = F.adaptive_avg_pool2d(grid, CLIP_GRID).flatten(2).transpose(1, 2)
        return pooled.reshape(batch, count // 2, 2, CLIP_GRID**2, -1).mean(2).flatten(1, 2)
