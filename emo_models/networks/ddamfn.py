"""DDAMFN, the facial expression network of FAME-Net (there ``MFN`` and ``DDA``).

FAME-Net Eq. 7 to 9. Source: Zhang et al., A Dual-Direction Attention Mixed Feature Network for Facial Expression
Recognition (Electronics 2023): MixedFeatureNet and dual-direction attention. Parameter
names are those of the published checkpoints, less the parameters these carry but never use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emo_models.labels import VOCABULARIES
from emo_models.networks.base import ExpressionOutput, Network
from emo_models.networks.config import NetworkConfig


@dataclass(frozen=True)
class DDAMFNConfig(NetworkConfig):
    """Architecture of :class:`DDAMFN`; the presets are named after the data set of the published weights."""

    #: Classes, by their order in :data:`emo_models.labels.VOCABULARIES`.
    vocabulary: str = "affectnet8"
    #: Residual blocks at 28×28, 14×14 and 7×7.
    depths: tuple[int, int, int] = (9, 16, 6)
    #: Channels at 56×56; the last map has 8 times as many.
    width: int = 64
    #: Attention heads.
    heads: int = 2

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "affectnet8": {},
        "affectnet7": {"vocabulary": "affectnet7"},
        "rafdb": {"vocabulary": "rafdb7"},
        "paper": {},
        "fast": {"vocabulary": "affectnet7"},
        "toy": {"depths": (1, 1, 1), "width": 16},
    }

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a value outside its range."""
        self._require("vocabulary", tuple(VOCABULARIES))
        if self.width % 8:
            raise ValueError(f"DDAMFNConfig.width is {self.width}; it must be a multiple of 8")
        if self.heads < 1:
            raise ValueError(f"DDAMFNConfig.heads is {self.heads}; it must be at least 1")


class ConvBN(nn.Module):
    """Convolution without bias and batch norm, then PReLU per channel if ``act``."""

    def __init__(self, cin: int, cout: int, kernel: int | tuple[int, int] = 1, *, act: bool, **conv: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, bias=False, **conv)
        self.bn = nn.BatchNorm2d(cout)
        self.prelu = nn.PReLU(cout) if act else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return x if self.prelu is None else self.prelu(x)


class MixedDepthwiseConv(nn.Module):
    """Depth-wise convolution with another kernel size for each group of channels (MixConv), and no norm after it."""

    def __init__(self, splits: Sequence[int], stride: int) -> None:
        super().__init__()
        self.splits = list(splits)
        self.mixed_depthwise_conv = nn.ModuleList(
            nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)
            for channels, kernel in zip(splits, (3, 5, 7, 9), strict=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(x, self.splits, dim=1)
        return torch.cat([conv(part) for conv, part in zip(self.mixed_depthwise_conv, parts, strict=True)], dim=1)


class CoordinateGate(nn.Module):
    """Gates per row and per column from a descriptor of each (coordinate attention): σ of two small 1×1 networks.

    ``rows [N, C, h, 1]`` and ``columns [N, C, 1, w]`` → the same shapes, in (0, 1).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(8, channels // 32)
        self.conv1 = nn.Conv2d(channels, hidden, 1)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, channels, 1)
        self.conv3 = nn.Conv2d(hidden, channels, 1)

    def gates(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Row and column gates; batch norm sees rows and columns together."""
        height = rows.shape[2]
        y = torch.cat([rows, columns.transpose(2, 3)], dim=2)
        y = F.hardswish(self.bn1(self.conv1(y)))
        y_rows, y_columns = y[:, :, :height], y[:, :, height:].transpose(2, 3)
        return self.conv2(y_rows).sigmoid(), self.conv3(y_columns).sigmoid()


class CoordinateAttention(CoordinateGate):
    """``x ⊙ A_h ⊙ A_w`` with gates from the means over columns and rows; ``[N, C, h, w]`` → the same."""

    def forward(self, x: Tensor) -> Tensor:
        a_h, a_w = self.gates(x.mean(3, keepdim=True), x.mean(2, keepdim=True))
        return x * a_w * a_h


class MixedBlock(nn.Module):
    """Bottleneck of MixedFeatureNet: widen, mixed depth-wise, coordinate attention, project; ``[N, cin, h, w]``."""

    def __init__(self, cin: int, cout: int, splits: Sequence[int], stride: int) -> None:
        super().__init__()
        wide = sum(splits)
        self.residual = stride == 1 and cin == cout
        self.conv = ConvBN(cin, wide, act=True)
        self.conv_dw = MixedDepthwiseConv(splits, stride)
        self.CA = CoordinateAttention(wide)
        self.project = ConvBN(wide, cout, act=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.CA(self.conv_dw(self.conv(x))))
        return x + y if self.residual else y


class MixedStage(nn.Module):
    """Residual :class:`MixedBlock` s in a row."""

    def __init__(self, channels: int, splits: Sequence[int], depth: int) -> None:
        super().__init__()
        self.model = nn.Sequential(*(MixedBlock(channels, channels, splits, 1) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out


class DirectionAttention(CoordinateGate):
    """One head of dual-direction attention: ``A = A_w ⊙ A_h``, ``[N, C, 7, 7]`` → the same.

    Row and column descriptors come from learned 1×7 and 7×1 depth-wise convolutions instead of means.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.Linear_h = ConvBN(channels, channels, (1, 7), act=False, groups=channels)
        self.Linear_w = ConvBN(channels, channels, (7, 1), act=False, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        a_h, a_w = self.gates(self.Linear_h(x), self.Linear_w(x))
        return a_w * a_h


class DDAMFN(Network):
    """Expression of aligned faces: ``[N, 3, 112, 112]`` (ImageNet normalisation) → logits ``[N, C]``, features ``[N, 512]``.

    FAME-Net Eq. 7: ``F_MFN = MFN(B)``, ``[N, 512, 7, 7]``; Eq. 8 and 9 in their real form:
    ``y = F_MFN ⊙ max_heads(A_w ⊙ A_h)``, a depth-wise 7×7 convolution to ``[N, 512]``, then a linear classifier.
    """

    config_class = DDAMFNConfig

    def __init__(self, config: DDAMFNConfig | None = None) -> None:
        super().__init__()
        self.config = config or DDAMFNConfig()
        w, (d28, d14, d7) = self.config.width, self.config.depths
        self.features = nn.Sequential(
            ConvBN(3, w, 3, act=True, stride=2, padding=1),
            ConvBN(w, w, 3, act=True, padding=1, groups=w),
            MixedBlock(w, w, (w, w // 2, w // 2), 2),
            MixedStage(w, (3 * w // 2, w // 2), d28),
            MixedBlock(w, 2 * w, (2 * w, w, w), 2),
            MixedStage(2 * w, (3 * w, w), d14),
            MixedBlock(2 * w, 4 * w, (4 * w,) * 4, 2),
            MixedStage(4 * w, _thirds(8 * w), d7),
            ConvBN(4 * w, 8 * w, act=True),
        )
        for head in range(self.config.heads):
            attention = nn.Module()
            attention.CoordAtt = DirectionAttention(8 * w)
            self.add_module(f"cat_head{head}", attention)
        self.Linear = ConvBN(8 * w, 8 * w, 7, act=False, groups=8 * w)
        self.fc = nn.Linear(8 * w, len(VOCABULARIES[self.config.vocabulary]))

    def attention(self, map_NC77: Tensor) -> Tensor:
        """``A`` of every head: ``[N, heads, C, 7, 7]``; training keeps the heads apart through it."""
        heads = [self.get_submodule(f"cat_head{head}.CoordAtt")(map_NC77) for head in range(self.config.heads)]
        return torch.stack(heads, dim=1)

    def forward(self, faces_N3HW: Tensor) -> ExpressionOutput:
        if faces_N3HW.shape[-2:] != (112, 112):
            raise ValueError(f"expected faces [N, 3, 112, 112], got {list(faces_N3HW.shape)}; align them to 112 pixels")
        map_NC77 = self.features(faces_N3HW)
        return self.classify(map_NC77, self.attention(map_NC77))

    def classify(self, map_NC77: Tensor, attention_NHC77: Tensor) -> ExpressionOutput:
        """The result from the map and the heads' attention, apart for training, whose loss needs both."""
        features_NC = self.Linear(map_NC77 * attention_NHC77.amax(1)).flatten(1)
        return ExpressionOutput(self.fc(features_NC), features_NC)


def _thirds(channels: int) -> tuple[int, int, int]:
    """Three even parts, the first taking the rest: 512 → 172, 170, 170."""
    part = 2 * (channels // 6)
    return channels - 2 * part, part, part
