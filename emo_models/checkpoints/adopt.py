"""A public file that is a whole network becomes weights of ours, with a card: what engines are built from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

from emo_models.checkpoints.load import LoadReport, load_checkpoint
from emo_models.checkpoints.own import NetworkCard, save_weights
from emo_models.checkpoints.read import CheckpointError
from emo_models.labels import VOCABULARIES
from emo_models.networks.base import Network
from emo_models.preprocess import TRANSFORMS
from emo_models.registry import create
from emo_models.releases import releases


def adopt(release: str, source: Path, target: Path) -> tuple[NetworkCard, LoadReport]:
    """Read the public file ``source``, one of ``releases.yaml`` that fills a network, and write ``target``, whole or not at all.

    Raises :class:`CheckpointError` for an unknown release and a file that does not fit; the message lists or names it.
    """
    known = {name: file for name, file in releases().files.items() if file.fills is not None}
    if release not in known:
        raise CheckpointError(f"no public file {release!r} that is a whole network; there are: {', '.join(known)}")
    public = known[release]
    fills = public.fills
    assert fills is not None
    network = cast("Network", create(fills.network, fills.preset))
    report = load_checkpoint(network, source, fills.layout)
    form = dataclasses.asdict(TRANSFORMS[fills.preprocessing["faces"]])
    config = cast("Any", network.config)
    card = NetworkCard(
        fills.network,
        config.to_dict(),
        output_names(config),
        {**fills.preprocessing, **form},
        public.licence,
        (f"as published: {public.about}",),
        notes={"release": release, "address": public.address, "file": source.name},
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    return save_weights(network, target, card), report


def output_names(config: Any) -> tuple[str, ...]:
    """Names of the outputs of a network for faces."""
    if hasattr(config, "vocabulary"):
        return VOCABULARIES[config.vocabulary]
    return tuple(output.name for output in config.outputs)
