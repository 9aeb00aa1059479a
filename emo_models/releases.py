"""What exists in public of the networks that profiles build, and what trains them here: ``releases.yaml``.

Imports nothing heavy: a robot without torch names with it what is missing.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

FILE: Final = Path(__file__).with_name("releases.yaml")


@dataclass(frozen=True)
class Fill:
    """Which network a public file is: ``preset`` of :func:`emo_models.create`, ``layout`` of the file's tensors.

    ``preprocessing``: as in the card of weights, how faces are cut out for it.
    """

    network: str
    preset: str
    layout: str
    preprocessing: Mapping[str, Any]


@dataclass(frozen=True)
class PublicFile:
    """A published file: its ``file`` name, the publisher's page, and its licence; ``fills`` where it is a whole network."""

    name: str
    file: str
    about: str
    address: str
    licence: str
    fills: Fill | None = None


@dataclass(frozen=True)
class Origin:
    """Where the weights of a network can come from.

    ``holds``: public files that are the whole network; ``starts_from``: those that the training by ``recipe`` takes.
    """

    network: str
    about: str
    recipe: str
    holds: tuple[PublicFile, ...] = ()
    starts_from: tuple[PublicFile, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Releases:
    """All that is known."""

    files: Mapping[str, PublicFile] = field(default_factory=dict)
    origins: Mapping[str, Origin] = field(default_factory=dict)


@functools.cache
def releases() -> Releases:
    """The contents of ``releases.yaml``, by name of the file and of the network."""
    document = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    files = {}
    for name, entry in document["files"].items():
        fills = Fill(**entry["fills"]) if "fills" in entry else None
        files[name] = PublicFile(**{**entry, "name": name, "fills": fills})
    origins = {}
    for network, entry in document["networks"].items():
        named = {key: tuple(files[name] for name in entry.get(key, ())) for key in ("holds", "starts_from")}
        origins[network] = Origin(**{**entry, "network": network, **named})
    return Releases(files, origins)
