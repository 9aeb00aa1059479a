"""SCRFD, the face detector that can be trained here.

Source: Guo et al., Sample and Computation Redistribution for Efficient Face Detection (ICLR 2022), in the shapes of the
published models with five points. Neither paper of this project makes a contribution here: FAME-Net describes an
anchor-based detector with non-maximum suppression, ECPA none.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emo_models.detection import ANCHOR_SIDES, STRIDES
from emo_models.networks.base import Network
from emo_models.networks.config import NetworkConfig

#: The classifier starts at this chance of a face, so that the many empty anchors do not drown the few others.
START_CHANCE = 0.01


class SCRFDOutput(NamedTuple):
    """Raw maps of a batch, for A = 2·(h/s)·(w/s) anchors at stride s; :func:`emo_models.detection.decode` reads them."""

    #: ``[N, A]``, before the sigmoid.
    score_8: Tensor
    score_16: Tensor
    score_32: Tensor
    #: ``[N, A, 4]``: from the anchor's centre to the left, top, right and bottom side, in strides.
    box_8: Tensor
    box_16: Tensor
    box_32: Tensor
    #: ``[N, A, 10]``: from the anchor's centre to five points x, y, in strides.
    points_8: Tensor
    points_16: Tensor
    points_32: Tensor


@dataclass(frozen=True)
class SCRFDConfig(NetworkConfig):
    """Architecture of :class:`SCRFD`; presets are named after the published models' operations at 640 x 480."""

    #: ``resnet``: pairs of 3×3 convolutions around a shortcut. ``mobilenet``: depth-wise separable convolutions.
    backbone: Literal["resnet", "mobilenet"] = "resnet"
    #: Channels at stride 2.
    stem: int = 56
    #: Blocks and channels at the strides 4, 8, 16, 32.
    blocks: tuple[int, ...] = (3, 4, 2, 3)
    planes: tuple[int, ...] = (56, 88, 88, 224)
    #: Channels of the feature pyramid.
    neck: int = 56
    #: Convolutions of each stride's head and their channels; depth-wise separable with the mobile backbone.
    head_convs: int = 3
    head: int = 80

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "10g": {},
        "paper": {},
        "500m": {"backbone": "mobilenet", "stem": 16, "blocks": (2, 3, 2, 6), "planes": (40, 72, 152, 288),
                 "neck": 16, "head_convs": 2, "head": 64},
        "fast": {"backbone": "mobilenet", "stem": 16, "blocks": (2, 3, 2, 6), "planes": (40, 72, 152, 288),
                 "neck": 16, "head_convs": 2, "head": 64},
        "toy": {"backbone": "mobilenet", "stem": 8, "blocks": (1, 1, 1, 1), "planes": (16, 24, 32, 48),
                "neck": 16, "head_convs": 1, "head": 24},
    }  # fmt: skip

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a value outside its range."""
        self._require("backbone", ("resnet", "mobilenet"))
        for name in ("blocks", "planes"):
            if len(getattr(self, name)) != 4:
                raise ValueError(f"SCRFDConfig.{name} has {len(getattr(self, name))} numbers; there are 4 stages")


class ConvBN(nn.Sequential):
    """Convolution without bias, batch norm, ReLU if ``act``; the size stays but for the stride."""

    def __init__(
        self, cin: int, cout: int, kernel: int = 3, *, stride: int = 1, groups: int = 1, act: bool = True
    ) -> None:
        conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(cout), *([nn.ReLU(inplace=True)] if act else []))


def separable(cin: int, cout: int, stride: int = 1) -> nn.Sequential:
    """MobileNet's block: a depth-wise 3×3 and a 1×1 convolution."""
    return nn.Sequential(ConvBN(cin, cin, stride=stride, groups=cin), ConvBN(cin, cout, kernel=1))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions around a shortcut, which averages where it must shrink: ``[N, cin, h, w]`` → ``cout``."""

    def __init__(self, cin: int, cout: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(ConvBN(cin, cout, stride=stride), ConvBN(cout, cout, act=False))
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or cin != cout:
            shrink = nn.AvgPool2d(stride, stride) if stride != 1 else nn.Identity()
            self.shortcut = nn.Sequential(shrink, ConvBN(cin, cout, kernel=1, act=False))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


_BLOCKS: dict[str, Callable[[int, int, int], nn.Module]] = {"mobilenet": separable, "resnet": BasicBlock}


class Backbone(nn.Module):
    """``[N, 3, h, w]`` → maps at the strides 8, 16 and 32."""

    def __init__(self, config: SCRFDConfig) -> None:
        super().__init__()
        c, block = config.stem, _BLOCKS[config.backbone]
        if config.backbone == "mobilenet":
            self.stem = nn.Sequential(ConvBN(3, c, stride=2), separable(c, c))
            strides = (2, 2, 2, 2)
        else:
            convs = (ConvBN(3, c // 2, stride=2), ConvBN(c // 2, c // 2), ConvBN(c // 2, c))
            self.stem = nn.Sequential(*convs, nn.MaxPool2d(3, 2, 1))
            strides = (1, 2, 2, 2)
        self.stages = nn.ModuleList()
        for depth, planes, stride in zip(config.blocks, config.planes, strides, strict=True):
            first = block(c, planes, stride)
            self.stages.append(nn.Sequential(first, *(block(planes, planes, 1) for _ in range(depth - 1))))
            c = planes

    def forward(self, x: Tensor) -> list[Tensor]:
        x, maps = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[1:]


class PathAggregation(nn.Module):
    """Feature pyramid down and up again (PAFPN): maps of three strides → as many of ``width`` channels."""

    def __init__(self, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1) for _ in channels)
        self.down = nn.ModuleList(nn.Conv2d(width, width, 3, 2, 1) for _ in channels[1:])
        self.out = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1) for _ in channels[1:])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        x = [conv(each) for conv, each in zip(self.lateral, maps, strict=True)]
        for i in range(len(x) - 1, 0, -1):
            x[i - 1] = x[i - 1] + F.interpolate(x[i], scale_factor=2.0, mode="nearest")
        x = [conv(each) for conv, each in zip(self.smooth, x, strict=True)]
        for i, down in enumerate(self.down):
            x[i + 1] = x[i + 1] + down(x[i])
        return [x[0], *(conv(each) for conv, each in zip(self.out, x[1:], strict=True))]


class Head(nn.Module):
    """Scores, boxes and points of one stride: ``[N, C, h, w]`` → ``[N, A]``, ``[N, A, 4]``, ``[N, A, 10]``."""

    def __init__(self, config: SCRFDConfig, anchors: int) -> None:
        super().__init__()
        widths = [config.neck, *[config.head] * config.head_convs]
        conv = separable if config.backbone == "mobilenet" else ConvBN
        self.shared = nn.Sequential(*(conv(*pair) for pair in itertools.pairwise(widths)))
        self.score = nn.Conv2d(config.head, anchors, 3, 1, 1)
        self.box = nn.Conv2d(config.head, 4 * anchors, 3, 1, 1)
        self.points = nn.Conv2d(config.head, 10 * anchors, 3, 1, 1)
        for last in (self.score, self.box, self.points):
            nn.init.normal_(last.weight, std=0.01)
        nn.init.constant_(self.score.bias, -math.log(1 / START_CHANCE - 1))  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.shared(x)
        score, box, points = (last(x).permute(0, 2, 3, 1) for last in (self.score, self.box, self.points))
        n = x.shape[0]
        return score.reshape(n, -1), box.reshape(n, -1, 4), points.reshape(n, -1, 10)


class SCRFD(Network):
    """Faces of an image: ``[N, 3, h, w]``, sides multiples of 32 → :class:`SCRFDOutput`.

    The input is RGB as :func:`emo_models.preprocess.fit_into` makes it.
    """

    config_class = SCRFDConfig

    def __init__(self, config: SCRFDConfig | None = None) -> None:
        super().__init__()
        self.config = config or SCRFDConfig()
        self.backbone = Backbone(self.config)
        self.neck = PathAggregation(self.config.planes[1:], self.config.neck)
        self.heads = nn.ModuleList(Head(self.config, len(sides)) for sides in ANCHOR_SIDES)
        # One factor for the boxes of each stride, learned, for the strides share nothing else.
        self.box_scale = nn.Parameter(torch.ones(len(STRIDES)))

    def forward(self, images_N3HW: Tensor) -> SCRFDOutput:
        height, width = images_N3HW.shape[-2:]
        if height % STRIDES[-1] or width % STRIDES[-1]:
            raise ValueError(
                f"expected images [N, 3, h, w] whose sides are multiples of {STRIDES[-1]}, got "
                f"{list(images_N3HW.shape)}; fit_into() of emo_models.preprocess makes them so"
            )
        maps = self.neck(self.backbone(images_N3HW))
        scores, boxes, points = zip(*(head(x) for head, x in zip(self.heads, maps, strict=True)), strict=True)
        scaled = (box * self.box_scale[i] for i, box in enumerate(boxes))
        return SCRFDOutput(*scores, *scaled, *points)
