"""ANFL, the action-unit network behind ECPA's AU-level prompts.

ECPA Eq. 5: ``P_AU = FC(ANFL(V))``. Source: Luo et al., Learning Multi-dimensional Edge Feature-based AU Relation
Graph for Facial Action Unit Recognition (IJCAI 2022), stage 1; OpenGraphAU is the same network with 27
AUs and 14 sides. Stage 2 (MEFL) costs eight times as much and is not part of ECPA.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emo_models.labels import OPENGRAPHAU_EXCLUDED, AUOutput, anfl_outputs
from emo_models.networks.base import Network
from emo_models.networks.config import NetworkConfig
from emo_models.networks.resnet import ResNetTrunk
from emo_models.networks.swin import ImageSwin


class ANFLOutput(NamedTuple):
    """What ANFL says about N faces, with 27 AUs and node width 512 of the ResNet-50 preset."""

    #: Node features ``n``, after the graph and its ReLU: ``[N, 27, 512]``.
    nodes: Tensor
    #: Mean over the 49 positions of the shared features, ECPA's cheap ER feature: ``[N, 512]``.
    pooled: Tensor
    #: Cosine with the class centres, in [0, 1]: ``[N, 41]``, the order of :attr:`ANFLConfig.outputs`.
    scores: Tensor


@dataclass(frozen=True)
class ANFLConfig(NetworkConfig):
    """Architecture of :class:`ANFL`.

    ``resnet50`` (also ``paper``) and ``swin_tiny`` (also ``fast``) are OpenGraphAU; ``bp4d`` and ``disfa`` the models
    of the ME-GraphAU paper.
    """

    trunk: Literal["resnet", "swin"] = "resnet"
    #: Bottlenecks per stage (resnet) or blocks per stage (swin).
    depths: tuple[int, ...] = (3, 4, 6, 3)
    #: Channels of the first stage.
    width: int = 64
    #: Attention heads per stage (swin only).
    heads: tuple[int, ...] = (3, 6, 12, 24)
    #: Outputs: OpenGraphAU's 27 + 14, or the AUs of one data set.
    aus: Literal["opengraphau", "bp4d", "disfa"] = "opengraphau"
    #: Nearest neighbours in the graph, ties beyond them included; a node counts as its own.
    neighbours: int = 4
    #: ``upstream``: left and right AU12 are scored from AU11's node, as the public weights need; ``facs``: from AU12's.
    side_parents: Literal["upstream", "facs"] = "upstream"

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "resnet50": {},
        "paper": {},
        "swin_tiny": {"trunk": "swin", "depths": (2, 2, 6, 2), "width": 96},
        "fast": {"trunk": "swin", "depths": (2, 2, 6, 2), "width": 96},
        "bp4d": {"aus": "bp4d"},
        "disfa": {"aus": "disfa", "neighbours": 3},
        "toy": {"depths": (1, 1, 1, 1), "width": 16, "side_parents": "facs"},
    }

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a value outside its range."""
        self._require("trunk", ("resnet", "swin"))
        self._require("aus", ("opengraphau", "bp4d", "disfa"))
        self._require("side_parents", ("upstream", "facs"))
        nodes = sum(not output.side for output in self.outputs)
        if not 1 <= self.neighbours <= nodes:
            raise ValueError(f"ANFLConfig.neighbours is {self.neighbours}; choose 1 to {nodes}, the number of nodes")

    @property
    def outputs(self) -> tuple[AUOutput, ...]:
        """The scores in their order: which AU, which side, from which node, and whether to trust it."""
        return anfl_outputs(self.aus, self.side_parents)

    @property
    def selectable(self) -> tuple[bool, ...]:
        """For each node, whether it may be chosen as AU prompt by default; AU11 of the public weights may not."""
        excluded = OPENGRAPHAU_EXCLUDED if self.aus == "opengraphau" and self.side_parents == "upstream" else ()
        return tuple(output.number not in excluded for output in self.outputs if not output.side)

    @property
    def dim(self) -> int:
        """Width of a node: a quarter of ResNet's channels, half of Swin's."""
        return int(8 * self.width if self.trunk == "resnet" else self.width * 2 ** (len(self.depths) - 1) // 2)


class LinearBlock(nn.Module):
    """Linear, batch norm over channels, ReLU: ``[N, P, in]`` → ``[N, P, out]`` for P positions."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.fc = nn.Linear(dim_in, dim_out)
        self.bn = nn.BatchNorm1d(dim_out)
        nn.init.normal_(self.fc.weight, 0.0, math.sqrt(2.0 / dim_out))

    def forward(self, x_NPC: Tensor) -> Tensor:
        return F.relu(self.bn(self.fc(x_NPC).transpose(1, 2))).transpose(1, 2)


class AUGraph(nn.Module):
    """Facial graph generator and one graph convolution of ME-GraphAU: ``[N, K, C]`` → ``[N, K, C]``.

    ``x ← ReLU(x + BN(A' V(x) + U(x)))`` with ``A' = D^-½ A D^-½``, D the row sums of A, and ``A_ij = 1`` where the dot
    product of nodes i and j is at least the k-th largest of row i: equal values at the border all count. A carries no
    gradient.
    """

    def __init__(self, dim: int, nodes: int, neighbours: int) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.U = nn.Linear(dim, dim)
        self.V = nn.Linear(dim, dim)
        self.bnv = nn.BatchNorm1d(nodes)
        for linear in (self.U, self.V):
            nn.init.normal_(linear.weight, 0.0, math.sqrt(2.0 / dim))

    def adjacency(self, x_NKC: Tensor) -> Tensor:
        """Normalised adjacency ``A' [N, K, K]``."""
        x = x_NKC.detach()
        similarity_NKK = x @ x.transpose(1, 2)
        threshold = similarity_NKK.topk(self.neighbours, dim=-1).values[..., -1:]
        a_NKK = (similarity_NKK >= threshold).to(x.dtype)
        d_NK = a_NKK.sum(-1).rsqrt()
        return d_NK[:, :, None] * a_NKK * d_NK[:, None, :]

    def forward(self, x_NKC: Tensor) -> Tensor:
        messages = self.adjacency(x_NKC) @ self.V(x_NKC) + self.U(x_NKC)
        return F.relu(x_NKC + self.bnv(messages))


class AUHead(nn.Module):
    """AU-specific features, graph and cosine scores: ``[N, 49, C]`` → nodes ``[N, K, C]``, scores ``[N, K + sides]``."""

    parents: Tensor

    def __init__(self, dim: int, outputs: tuple[AUOutput, ...], neighbours: int) -> None:
        super().__init__()
        nodes = sum(not output.side for output in outputs)
        parents = [output.node for output in outputs if output.side]
        self.main_class_linears = nn.ModuleList(LinearBlock(dim, dim) for _ in range(nodes))
        self.gnn = AUGraph(dim, nodes, neighbours)
        self.main_sc = nn.Parameter(nn.init.xavier_uniform_(torch.empty(nodes, dim)))
        self.sub_sc: nn.Parameter | None = None
        if parents:
            self.sub_sc = nn.Parameter(nn.init.xavier_uniform_(torch.empty(len(parents), dim)))
        self.register_buffer("parents", torch.tensor(parents, dtype=torch.long), persistent=False)

    def forward(self, x_NPC: Tensor) -> tuple[Tensor, Tensor]:
        nodes_NKC: Tensor = torch.stack([linear(x_NPC).mean(1) for linear in self.main_class_linears], dim=1)
        nodes_NKC = self.gnn(nodes_NKC)
        unit_NKC = F.normalize(nodes_NKC, dim=-1)
        scores_NK = (unit_NKC * F.normalize(F.relu(self.main_sc), dim=-1)).sum(-1)
        if self.sub_sc is None:
            return nodes_NKC, scores_NK
        centres_SC = F.normalize(F.relu(self.sub_sc), dim=-1)
        scores_NS = (unit_NKC[:, self.parents] * centres_SC).sum(-1)
        return nodes_NKC, torch.cat([scores_NK, scores_NS], dim=-1)


class ANFL(Network):
    """AU nodes and scores of faces: ``[N, 3, 224, 224]`` (ImageNet normalisation) → :class:`ANFLOutput`.

    The ``ANFL`` of ECPA Eq. 5. ECPA's ``n_t`` is ``nodes`` and ``s_t`` the first 27 ``scores``. An AU counts as active
    from a score of 0.5. Parameter names are those of OpenGraphAU's stage 1.
    """

    config_class = ANFLConfig

    def __init__(self, config: ANFLConfig | None = None) -> None:
        super().__init__()
        self.config = config or ANFLConfig()
        c = self.config
        self.backbone: ResNetTrunk | ImageSwin
        if c.trunk == "resnet":
            self.backbone = ResNetTrunk(c.depths, c.width)
        else:
            self.backbone = ImageSwin(c.width, c.depths, c.heads, drop_path=0.2)
        self.global_linear = LinearBlock(self.backbone.dim, c.dim)
        self.head = AUHead(c.dim, c.outputs, c.neighbours)

    def plan(self, height: int = 224, width: int = 224) -> None:
        """Prepare the constants of a Swin trunk for faces of this size; needed before export only."""
        if isinstance(self.backbone, ImageSwin):
            self.backbone.plan(height, width)

    def forward(self, faces_N3HW: Tensor) -> ANFLOutput:
        x_NPC = self.global_linear(self.backbone(faces_N3HW))
        nodes_NKC, scores_NS = self.head(x_NPC)
        return ANFLOutput(nodes_NKC, x_NPC.mean(1), scores_NS)

    def load_key_map(self, state: dict[str, Any]) -> dict[str, Any]:
        """The models of one data set call their heads ``class_linears`` and ``sc``."""
        renames = {"head.class_linears.": "head.main_class_linears.", "head.sc": "head.main_sc"}
        renamed = {}
        for key, value in state.items():
            old = next((prefix for prefix in renames if key.startswith(prefix)), None)
            renamed[key if old is None else renames[old] + key[len(old) :]] = value
        return renamed
