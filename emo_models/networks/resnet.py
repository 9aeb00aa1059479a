"""The residual trunk that the ER classifier and ANFL share.

Source: He et al., Deep Residual Learning (CVPR 2016), with the stride on the 3×3 convolution. Module names are those
of torchvision and of ME-GraphAU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 convolutions around a shortcut: ``[N, C, h, w]`` → ``[N, 4·width, h/stride, w/stride]``."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels != 4 * width:
            projection = nn.Conv2d(channels, 4 * width, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNetLayers(nn.Module):
    """The convolutions of a ResNet; ``depths=(3, 4, 6, 3)``, ``width=64`` is ResNet-50, with 2048 channels out."""

    def __init__(self, depths: Sequence[int] = (3, 4, 6, 3), width: int = 64) -> None:
        super().__init__()
        self.dim = 32 * width
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _stage(width, width, depths[0], 1)
        self.layer2 = _stage(4 * width, 2 * width, depths[1], 2)
        self.layer3 = _stage(8 * width, 4 * width, depths[2], 2)
        self.layer4 = _stage(16 * width, 8 * width, depths[3], 2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def feature_map(self, x_N3HW: Tensor) -> Tensor:
        """``[N, 3, h, w]`` → ``[N, 32·width, h/32, w/32]``, the output of the last stage."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x_N3HW))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        out: Tensor = x
        return out


class ResNetTrunk(ResNetLayers):
    """ResNet without pooling and classifier: ``[N, 3, h, w]`` → tokens in row order ``[N, h·w/32², 32·width]``."""

    def forward(self, x_N3HW: Tensor) -> Tensor:
        return self.feature_map(x_N3HW).flatten(2).transpose(1, 2)


def _stage(channels: int, width: int, depth: int, stride: int) -> nn.Sequential:
    first = Bottleneck(channels, width, stride)
    return nn.Sequential(first, *(Bottleneck(4 * width, width, 1) for _ in range(depth - 1)))
