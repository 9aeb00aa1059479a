"""The one door to the networks: :func:`create`, :func:`list_networks`, :func:`list_presets`.

Nothing here imports torch; a network's module, and torch with it, is imported when the network is asked for.
A network is registered by one line of :data:`NETWORKS`. Its class takes a config, a :class:`~emo_models.networks.config
.NetworkConfig`, as only argument and names that config's class as ``config_class``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from torch import nn

    from emo_models.networks.config import NetworkConfig

#: Name of a network -> ``module:class``.
NETWORKS: Final[dict[str, str]] = {
    "video_swin": "emo_models.networks.video_swin:VideoSwin",
    "er_resnet": "emo_models.networks.er_resnet:ERResNet",
    "anfl": "emo_models.networks.anfl:ANFL",
    "ddamfn": "emo_models.networks.ddamfn:DDAMFN",
    "bert_fusion": "emo_models.networks.bert_fusion:BertFusion",
    "ecpa": "emo_models.networks.ecpa:ECPA",
    "fame": "emo_models.networks.fame:FAME",
    "scrfd": "emo_models.networks.scrfd:SCRFD",
}


class UnknownNetworkError(KeyError):
    """A network, preset or option that does not exist; the message lists those that do."""

    def __str__(self) -> str:
        return str(self.args[0])


def list_networks() -> tuple[str, ...]:
    """Names that :func:`create` accepts."""
    return tuple(sorted(NETWORKS))


def list_presets(name: str) -> tuple[str, ...]:
    """Presets of one network. Raises :class:`UnknownNetworkError` for an unknown name."""
    return tuple(sorted(config_class(name).PRESETS))


def network_class(name: str) -> type[nn.Module]:
    """The class behind a name. Raises :class:`UnknownNetworkError`, or ``ImportError`` where torch is missing."""
    if name not in NETWORKS:
        raise UnknownNetworkError(f"unknown network {name!r}; choose one of: {', '.join(list_networks())}")
    module_name, _, class_name = NETWORKS[name].partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in {"torch", "transformers", "safetensors", "scipy"}:
            raise ImportError(
                f"network {name!r} needs the package {package!r}, which the start profile does without; "
                "run: pip install -e '.[torch]'"
            ) from error
        raise
    return cast("type[nn.Module]", getattr(module, class_name))


def config_class(name: str) -> type[NetworkConfig]:
    """The config dataclass of a network."""
    return cast("type[NetworkConfig]", cast("Any", network_class(name)).config_class)


def create(name: str, preset: str = "paper", **options: Any) -> nn.Module:
    """Build a network, randomly initialised.

    Args:
        name: one of :func:`list_networks`.
        preset: one of :func:`list_presets` of that network.
        **options: fields of the network's config that differ from the preset.

    Raises:
        UnknownNetworkError: no such network, preset or option; the message lists the choices.
        ValueError: an option has a value outside its range.
        ImportError: torch is not installed.

    """
    network = network_class(name)
    return network(config_class(name).from_preset(preset, **options))
