"""What all networks have in common: a config, and a way to freeze them for good."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, TypeVar

from torch import Tensor, nn

from emo_models.networks.config import NetworkConfig

NetworkT = TypeVar("NetworkT", bound="Network")


class ExpressionOutput(NamedTuple):
    """Result of an expression network on N faces."""

    #: ``[N, C]``, before the softmax, in the order of the config's vocabulary.
    logits: Tensor
    #: ``[N, De]``, the input of the classifier.
    features: Tensor


class Network(nn.Module):
    """A network with a config that can be frozen.

    Both papers use pre-trained networks whose parameters and batch-norm statistics stay as they are (ECPA, below
    Eq. 5; FAME-Net, section 4.4). ``requires_grad`` alone does not keep the statistics when a parent module is put
    into training mode, hence :meth:`freeze`.
    """

    config_class: ClassVar[type[NetworkConfig]]
    frozen: bool = False

    def freeze(self: NetworkT) -> NetworkT:
        """Stop gradients into the parameters and stay in evaluation mode, also when a parent is trained."""
        self.requires_grad_(False)
        self.eval()
        self.frozen = True
        return self

    def train(self: NetworkT, mode: bool = True) -> NetworkT:
        super().train(mode and not self.frozen)
        return self

    def load_key_map(self, state: dict[str, Any]) -> dict[str, Any]:
        """A public checkpoint's keys under this network's names; the identity unless a network says otherwise."""
        return state

    def left_out(self) -> tuple[str, ...]:
        """Prefixes of tensors in public checkpoints that the network knowingly does without."""
        return ()
