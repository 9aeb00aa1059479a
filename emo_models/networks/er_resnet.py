"""The ResNet-50 emotion recogniser behind ECPA's ER-level prompt.

ECPA Eq. 4: ``P_ER = MLP(Resnet50(V))``. The paper names neither the training set nor the layer; here the pooled
feature is the prompt's source and the classes are a vocabulary of :mod:`emo_models.labels`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from emo_models.labels import VOCABULARIES
from emo_models.networks.base import ExpressionOutput, Network
from emo_models.networks.config import NetworkConfig
from emo_models.networks.resnet import ResNetLayers


@dataclass(frozen=True)
class ERResNetConfig(NetworkConfig):
    """Architecture of :class:`ERResNet`: ``paper`` is ResNet-50, ``fast`` ResNet-26 of the same width out."""

    #: Classes, by their order in :data:`emo_models.labels.VOCABULARIES`.
    vocabulary: str = "mafw11"
    #: Bottleneck blocks per stage.
    depths: tuple[int, ...] = (3, 4, 6, 3)
    #: Channels of the first stage; the pooled feature has 32 times as many.
    width: int = 64

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "resnet50": {},
        "paper": {},
        "fast": {"depths": (2, 2, 2, 2)},
        "toy": {"depths": (1, 1, 1, 1), "width": 16},
    }

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for an unknown vocabulary or a wrong number of stages."""
        self._require("vocabulary", tuple(VOCABULARIES))
        if len(self.depths) != 4:
            raise ValueError(f"ERResNetConfig.depths has {len(self.depths)} numbers; a ResNet has 4 stages")


class ERResNet(Network, ResNetLayers):
    """Faces ``[N, 3, h, w]`` (224×224, ImageNet normalisation) → logits ``[N, C]`` and features ``[N, 2048]``.

    The ``Resnet50`` of ECPA Eq. 4. Parameter names are torchvision's, so that its checkpoints load as they are.
    """

    config_class = ERResNetConfig

    def __init__(self, config: ERResNetConfig | None = None) -> None:
        config = config or ERResNetConfig()
        ResNetLayers.__init__(self, config.depths, config.width)
        self.config = config
        self.fc = nn.Linear(self.dim, len(VOCABULARIES[config.vocabulary]))

    def forward(self, x_N3HW: Tensor) -> ExpressionOutput:
        features_ND = self.feature_map(x_N3HW).mean((2, 3))
        return ExpressionOutput(self.fc(features_ND), features_ND)
