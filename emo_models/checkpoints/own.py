"""Weights made here: one safetensors file that carries its card."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor

from emo_models.checkpoints.read import CheckpointError, file_kind, read_checkpoint
from emo_models.networks.base import Network
from emo_models.networks.config import NetworkConfig
from emo_models.registry import config_class, network_class


@dataclass(frozen=True)
class NetworkCard:
    """What must be known about weights to use them: it travels inside the file."""

    #: Name for :func:`emo_models.create`.
    network: str
    #: All fields of the network's config.
    config: Mapping[str, Any]
    #: Names of the outputs, in their order; empty where there are none.
    labels: tuple[str, ...]
    #: Name and parameters of the preprocessing in :mod:`emo_models.preprocess`.
    preprocessing: Mapping[str, Any]
    #: Licence of the weights, which data sets often restrict more than the code does.
    licence: str
    #: Data sets they were trained on.
    data: tuple[str, ...]
    #: SHA-256 over all names, types, shapes and values; filled in by :func:`save_weights`.
    sha256: str = ""
    #: Anything else worth knowing: metrics, commit, date.
    notes: Mapping[str, Any] = field(default_factory=dict)


def save_weights(network: Network, path: str | Path, card: NetworkCard) -> NetworkCard:
    """Write the weights with their card, whole or not at all; returns the card as it was written, with its hash.

    Raises:
        ValueError: the card is of another network or config, or has no licence or data.

    """
    if not isinstance(network, network_class(card.network)):
        raise ValueError(f"the card is of {card.network!r}, the network is a {type(network).__name__}")
    if _plain(card.config) != _plain(cast("NetworkConfig", network.config).to_dict()):
        raise ValueError("the card's config is not the network's; give network.config.to_dict()")
    if not card.licence or not card.data:
        raise ValueError("a card needs the licence of the weights and the data they were trained on")
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    card = dataclasses.replace(card, sha256=weights_hash(state))
    # Tensors that share memory are written each: a file is loaded by name.
    copies = {name: tensor.clone() for name, tensor in state.items()}
    unfinished = Path(f"{path}.unfinished")
    save_file(copies, str(unfinished), metadata={"card": json.dumps(dataclasses.asdict(card))})
    unfinished.replace(path)
    return read_card(path)


def load_weights(path: str | Path, into: Network | None = None) -> tuple[Network, NetworkCard]:
    """The network that a file of :func:`save_weights` holds, in evaluation mode, and its card.

    ``into``: the network to fill, for one that its config alone does not describe: FAME-Net around a language model of
    yours. Without it the network is built from the card.

    Raises:
        CheckpointError: not such a file, damaged, changed since it was written, or of another shape than the network.

    """
    card = read_card(path)
    state, _ = read_checkpoint(path)
    if weights_hash(state) != card.sha256:
        raise CheckpointError(f"the tensors of {path} are not those its card was written for; fetch the file again")
    network = into or network_class(card.network)(config_class(card.network).from_dict(card.config))
    assert isinstance(network, Network)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            f"the tensors of {path} do not fit the network: {error}. A network made around a part of yours, as FAME-Net "
            "around a language model, is filled by load_weights(path, into=network)"
        ) from None
    return network.eval(), card


def read_card(path: str | Path) -> NetworkCard:
    """The card of a weights file, without its tensors. Raises :class:`CheckpointError` where there is none."""
    path = Path(path)
    if file_kind(path) != "safetensors":
        raise CheckpointError(f"{path} carries no card: it is not a safetensors file; load it with load_checkpoint")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length)
    try:
        values = json.loads(json.loads(header)["__metadata__"]["card"])
        known = {item.name for item in dataclasses.fields(NetworkCard)}
        values = {name: value for name, value in values.items() if name in known}
        return NetworkCard(**{**values, "labels": tuple(values["labels"]), "data": tuple(values["data"])})
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} carries no card of ours; load it with load_checkpoint and a layout") from error


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of all tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))
