"""Where the weights of an engine come from: a file of ours with its card, or random numbers from one seed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open

from emo_models.checkpoints.own import NetworkCard, read_card, weights_hash
from emo_models.engines import catalogue
from emo_models.engines.catalogue import PartEntry, weights_file
from emo_models.engines.export import ExportedNetwork
from emo_models.engines.manifest import Weights
from emo_models.engines.parts import Part, make, pixels_of
from emo_models.engines.protocol import EngineError
from emo_models.registry import config_class

SEED: Final = 0
RANDOM: Final = f"random seed {SEED}"


def network(name: str, preset: str, work: Path, weights: Sequence[Path] = ()) -> ExportedNetwork:
    """The network behind an engine, with its weights.

    ``weights``: files of :func:`emo_models.checkpoints.save_weights`, or folders with ``NETWORK.safetensors``; the first
    that holds the engine's network is used, then one in the weight cache, then random numbers. Raises
    :class:`EngineError` for a file that is given and does not fit.
    """
    entry = catalogue.part(name)
    file = _file(entry, preset, weights)
    torch.manual_seed(SEED)
    kind = config_class(entry.network)
    if file is None:
        if preset not in catalogue.BUILT_PROFILES:
            raise EngineError(
                f"profile {preset!r} has no weights of {entry.network!r}: expected {weights_file(entry.network, preset)}; "
                f"type: emo train RECIPE --deploy {preset}"
            )
        config = kind.from_preset(preset)
        part = make(name, pixels_of(preset, {}), config)
        found = Weights(RANDOM, weights_hash(part.holder.state_dict()), "none: random numbers", ())
    else:
        card = read_card(file)
        config = kind.from_dict(card.config)
        part = make(name, pixels_of(preset, card.preprocessing), config)
        _require_its_faces(entry, part, card, file)
        found = _fill(entry, part.holder, file, card)
    part.module.eval()
    return ExportedNetwork(entry, preset, json.loads(json.dumps(config.to_dict())), part, found, work)


def _file(entry: PartEntry, preset: str, weights: Sequence[Path]) -> Path | None:
    """The weights file of a network: among those given, or in the weight cache; None where there is none."""
    named = f"{entry.network}.safetensors"
    for given in weights:
        if not given.exists():
            raise EngineError(f"--weights {given}: no such file or folder")
        if given.is_dir():
            if (given / named).is_file():
                return given / named
        elif read_card(given).network == entry.network:
            return given
    cached = weights_file(entry.network, preset)
    return cached if cached.is_file() else None


def _require_its_faces(entry: PartEntry, part: Part, card: NetworkCard, file: Path) -> None:
    """Weights that learned from faces of another size, alignment or normalisation would be fed what they never saw."""
    if not entry.alignment:
        return
    fed = {"faces": part.normalisation, "size": part.inputs[0].max[-1], "alignment": entry.alignment}
    if learned := {key: card.preprocessing[key] for key in fed if card.preprocessing.get(key, fed[key]) != fed[key]}:
        raise EngineError(
            f"{file}: engine {entry.name!r} is fed faces with {fed}, these weights learned from faces with {learned}; "
            "train them again with the former (options.size and options.clips.alignment of the recipe)"
        )


def _fill(entry: PartEntry, holder: torch.nn.Module, file: Path, card: NetworkCard) -> Weights:
    """Read the tensors that the part needs, and no others: a whole FAME-Net holds a language model."""
    if card.network != entry.network:
        raise EngineError(f"{file}: the weights are of {card.network!r}, engine {entry.name!r} needs {entry.network!r}")
    wanted: dict[str, Any] = {}
    with safe_open(str(file), framework="pt") as opened:
        present = set(opened.keys())
        if missing := sorted(set(holder.state_dict()) - present):
            raise EngineError(f"{file}: engine {entry.name!r} needs tensors that are not there, as {missing[0]!r}")
        for key in holder.state_dict():
            wanted[key] = opened.get_tensor(key)
    try:
        holder.load_state_dict(wanted)
    except RuntimeError as error:
        raise EngineError(f"{file}: the tensors do not fit engine {entry.name!r}: {error}") from None
    return Weights(file.name, weights_hash(wanted), card.licence, tuple(card.data))
