"""Where the parts of ECPA start: published files, or weights that were trained here."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast

from torch import nn

from emo_models.checkpoints import LAYOUTS, CheckpointError, load_checkpoint, load_release, load_weights
from emo_models.networks.bert_fusion import BertFusion
from emo_models.networks.ecpa import ECPA
from emo_models.networks.ecpa.pretrained import load_bert, load_tower
from emo_models.networks.ecpa.text import TowerText
from emo_models.weights import cache_dir
from training.trainer.recipe import RecipeError

log = logging.getLogger(__name__)

#: Key of ``network.weights`` -> what it fills.
PARTS: Final = {
    "visual": "the visual encoder",
    "au_net": "the action-unit network",
    "er_net": "the expression network",
    "bert": "the fusion, of a BERT: a folder or a name of the model hub",
    "text_tower": "the text encoder, of a folder or a name of the model hub",
    "fusion": "the fusion, of an ECPA that was trained here, with or without prompts",
    "swinbert": "visual encoder and fusion, of SwinBERT's released file",
}


def load_parts_of(network: ECPA, weights: Mapping[str, str]) -> None:
    """Fill parts of the network: ``au_net: toy/anfl.safetensors`` or, with a layout, ``visual: video_swin:FILE``.

    A file is looked for at its path, then in the cache of weights. A file of a whole ECPA gives the part asked for. A
    part that this network was built without, as an ablation is, is passed over.

    Raises :class:`RecipeError` for an unknown part and a file that is not there;
    ``OSError`` or ``CheckpointError`` for one that does not fit.
    """
    if unknown := sorted(set(weights) - set(PARTS)):
        choices = "; ".join(f"{name}: {what}" for name, what in PARTS.items())
        raise RecipeError(f"network.weights: no part {', '.join(unknown)}; there are {choices}")
    for part, source in weights.items():
        target = _target(network, part)
        if target is None:
            log.info("this network has no %s: %s is not needed", part, source)
        elif part == "swinbert":
            load_release(network, find(source, part), "swinbert")
        elif part == "bert":
            load_bert(cast("BertFusion", target), source)
        elif part == "text_tower":
            load_tower(cast("TowerText", target), source)
        else:
            _load(target, part, source)


def find(source: str, part: str) -> Path:
    """The file at a path, or below the cache of weights. Raises :class:`RecipeError` telling where it was looked for."""
    places = (Path(source).expanduser(), cache_dir() / source)
    for place in places:
        if place.is_file():
            return place
    hint = "; type: make toy" if source.startswith("toy/") else ""
    raise RecipeError(f"network.weights.{part}: no file {' nor '.join(map(str, places))}{hint}")


def _load(target: nn.Module, part: str, source: str) -> None:
    layout, colon, file = source.partition(":")
    if colon and layout in LAYOUTS:
        load_checkpoint(target, find(file, part), layout)
        return
    path = find(source, part)
    loaded: nn.Module | None = load_weights(path)[0]
    if isinstance(loaded, ECPA):
        loaded = _target(loaded, part)
    if loaded is None:
        raise RecipeError(f"network.weights.{part}: {path} is an ECPA without {PARTS[part]}; name another file")
    try:
        target.load_state_dict(loaded.state_dict())
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit {PARTS[part]} of this network: {error}") from None


def _target(network: ECPA, part: str) -> nn.Module | None:
    """What a key of :data:`PARTS` fills, None where the network was built without it."""
    found: dict[str, nn.Module | None] = {
        "visual": network.visual.encoder, "au_net": network.au_net, "er_net": network.er_net,
        "bert": network.trans_encoder, "fusion": network.trans_encoder, "text_tower": network.text_tower, "swinbert": network,
    }  # fmt: skip
    return found[part]
