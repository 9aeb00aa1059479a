"""The manifest beside each artefact: what it is, what it was made from and with, and what was measured of it.

A file ``manifest.json`` in the artefact's folder. Nothing is loaded that its manifest does not vouch for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from emo_models.engines.protocol import Arrays, EngineError, TensorSpec
from emo_models.engines.typed import SchemaError, from_plain, to_plain
from emo_models.weights import sha256_of

SCHEMA: Final = 1
FILE: Final = "manifest.json"
#: The golden inputs and what eager fp32 made of them, beside the manifest: arrays ``0/in/NAME`` and ``0/out/NAME``.
GOLDEN: Final = "golden.npz"
#: Samples that are kept so.
KEPT: Final = 2


class ManifestError(EngineError):
    """An artefact has no manifest or not a valid one; the message names the field."""


@dataclass(frozen=True)
class Port:
    """An input or output and the shapes it was built for; ``layout`` is a letter per axis, as ``NCHW``."""

    name: str
    dtype: str
    layout: str
    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    @property
    def spec(self) -> TensorSpec:
        """The shape as an engine declares it: what differs between ``min`` and ``max`` may vary."""
        shape = tuple(low if low == high else None for low, high in zip(self.min, self.max, strict=True))
        return TensorSpec(self.name, shape, self.dtype)


@dataclass(frozen=True)
class Weights:
    """Where the weights came from: the name of a file, or ``random seed 0`` where there was none.

    ``data``: what they were trained on, of random numbers nothing.
    """

    origin: str
    sha256: str
    licence: str
    data: tuple[str, ...]

    @property
    def random(self) -> bool:
        """Whether they are random numbers: good for measurements only."""
        return not self.data


@dataclass(frozen=True)
class Machine:
    """Where an artefact was built, or where it is to run.

    ``platform`` is as ``linux-x86_64``; ``instruction_set``: extensions of the CPU; of a GPU: ``gpu``, its
    ``capability`` as ``8.7`` and the ``driver``'s CUDA version as ``13.0``, empty where there is none.
    """

    platform: str
    instruction_set: tuple[str, ...]
    gpu: str
    capability: str
    driver: str


@dataclass(frozen=True)
class Tolerance:
    """How far an engine may be from eager fp32: see :class:`Parity` for the figures."""

    relative: float
    cosine: float
    label_agreement: float


@dataclass(frozen=True)
class Parity:
    """The golden inputs through the engine and through eager fp32.

    The worst of all outputs and samples: ``max_abs`` error, ``relative`` = that over the largest magnitude of the
    output, ``cosine`` of both as vectors; ``label_agreement``: share of samples with the same most probable class, for
    classifiers only.
    """

    max_abs: float
    relative: float
    cosine: float
    label_agreement: float | None
    samples: int


@dataclass(frozen=True)
class Latency:
    """Wall-clock milliseconds of one call at a batch size, over ``runs`` runs at the end of the build."""

    batch: int
    p50_ms: float
    p95_ms: float
    runs: int


@dataclass(frozen=True)
class Manifest:
    """All facts about one artefact; see the module."""

    schema: int
    #: SHA-256 over everything that makes the artefact; the folder's name ends with its beginning.
    key: str
    #: Name in the catalogue, as ``anfl``.
    network: str
    preset: str
    config: Mapping[str, Any]
    weights: Weights
    graph_sha256: str
    #: File -> SHA-256, for each file of the folder but the manifest.
    files: Mapping[str, str]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    #: Name in ``emo_models.preprocess.TRANSFORMS``; empty where the input is no picture.
    normalisation: str
    #: Names of the classes, in the order of the output; empty where there are none.
    labels: tuple[str, ...]
    precision: str
    #: Type -> number of convolutions and matrix products that run in it, read back from what was built.
    layer_dtypes: Mapping[str, int]
    backend: str
    #: Package -> version, of all that took part in the build.
    versions: Mapping[str, str]
    machine: Machine
    #: Instruction-set extensions that the artefact needs; ``a|b`` means one of both.
    requires: tuple[str, ...]
    settings: Mapping[str, Any]
    calibration_sha256: str
    tolerance: Tolerance
    #: None where the machine that built it could not run it: then it is compared when it is loaded.
    parity: Parity | None
    latency: tuple[Latency, ...]
    #: UTC, ISO 8601.
    built: str


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write ``manifest.json`` into an artefact's folder."""
    text = json.dumps(to_plain(manifest), indent=1, sort_keys=False, allow_nan=False)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an artefact. Raises :class:`ManifestError` naming the field that is wrong."""
    file = folder / FILE
    again = "build the engine again: emo engines build"
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ManifestError(f"{file}: no manifest, so nothing vouches for this artefact; {again}") from None
    except (OSError, ValueError) as error:
        raise ManifestError(f"{file}: not readable as JSON: {error}; {again}") from None
    if isinstance(values, dict) and values.get("schema", SCHEMA) != SCHEMA:
        raise ManifestError(f"{file}: schema: expected {SCHEMA}, got {values['schema']!r}; {again}")
    try:
        return from_plain(Manifest, values)
    except SchemaError as error:
        raise ManifestError(f"{file}: {error}; {again}") from None


def hash_files(folder: Path) -> dict[str, str]:
    """File -> SHA-256 of all files below a folder but its manifest."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / FILE)
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def save_golden(folder: Path, samples: Sequence[Arrays], expected: Sequence[Arrays]) -> None:
    """Keep the first random and the last sample beside the artefact, with what eager fp32 made of them."""
    kept: dict[str, Any] = {}
    for number, index in enumerate((0, -1)[:KEPT]):
        kept.update({f"{number}/in/{name}": value for name, value in samples[index].items()})
        kept.update({f"{number}/out/{name}": value for name, value in expected[index].items()})
    np.savez(folder / GOLDEN, **kept)


def read_golden(folder: Path) -> list[tuple[Arrays, Arrays]]:
    """Inputs and expected outputs that :func:`save_golden` kept."""
    with np.load(folder / GOLDEN) as stored:
        arrays = {name: stored[name] for name in stored.files}

    def of(number: int, side: str) -> Arrays:
        prefix = f"{number}/{side}/"
        return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}

    return [(of(number, "in"), of(number, "out")) for number in range(KEPT)]
