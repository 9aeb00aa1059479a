"""Which engine runs: the preferred backend whose artefact is whole and fits this machine. Nothing is built here."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from emo_models import weights
from emo_models.engines import catalogue
from emo_models.engines.backends import backend as find_backend
from emo_models.engines.backends import in_order
from emo_models.engines.backends.base import Backend, misfits
from emo_models.engines.catalogue import CardEntry, PartEntry
from emo_models.engines.manifest import Manifest, read_golden
from emo_models.engines.measure import beyond, parity
from emo_models.engines.protocol import Engine, EngineError, describe
from emo_models.engines.store import Artefact, artefacts, title
from emo_models.engines.threads import cpu_threads

log = logging.getLogger(__name__)


class StrictError(EngineError):
    """The preferred artefact cannot be used, and nothing else may be."""


@dataclass(frozen=True)
class Selection:
    """The engine that runs; ``why``: what was preferred and passed over, a sentence each."""

    engine: Engine
    why: tuple[str, ...]
    manifest: Manifest | None = None

    @property
    def random(self) -> bool:
        """Whether its weights are random numbers: then nothing that it says is valid."""
        return self.manifest is not None and self.manifest.weights.random

    def facts(self) -> dict[str, object]:
        """What diagnostics and reports say: the engine, the origin of built weights, and what was passed over for it."""
        facts = describe(self.engine)
        if self.manifest is not None:
            facts["weights"] = self.manifest.weights.origin
        return facts | ({"passed_over": "; ".join(self.why)} if self.why else {})


def select(
    name: str, preset: str, *, precision: str = "fp32", backend: str = "auto", threads: int = 0, strict: bool = False,
    random: bool = False,
) -> Selection:  # fmt: skip
    """Load the engine ``name`` of the catalogue, warmed up for its batch sizes.

    ``precision`` is that of the profile; ``backend``: only that one; ``random``: engines made of random numbers do too,
    where there is none of trained weights. Raises :class:`EngineError` where no artefact can be used, with the reason
    for each and the command that builds one; :class:`StrictError` already for the first that was passed over, if
    ``strict``.
    """
    entry = catalogue.part(name)
    precision = entry.precision(precision)
    why: list[str] = []
    for one, artefact in candidates(name, preset, precision, backend):
        try:
            manifest = _usable(one, artefact)
            if manifest.weights.random and not random:
                raise EngineError(f"its weights are random numbers ({manifest.weights.origin}), not trained")
            engine = one.load(artefact.folder, manifest, threads or cpu_threads(name))
            engine.warmup(entry.batches)
            if manifest.parity is None and (faults := golden_faults(engine, artefact.folder, manifest)):
                raise EngineError(
                    f"it was never compared with eager fp32 before, and is not what that computes: {'; '.join(faults)}"
                )
        except EngineError as error:
            why.append(f"{one.name}: {error}")
            log.warning("%s: passed over %s: %s", name, artefact.folder.name, error)
            if strict:
                raise StrictError(
                    f"{name}: {artefact.folder.name} cannot be used, and strict forbids others: {error}"
                ) from None
            continue
        if manifest.weights.random:
            log.warning("%s: its weights are %s: for measurements only", name, manifest.weights.origin)
        return Selection(engine, tuple(why), manifest)
    passed = "; ".join(why) or "none was built"
    raise EngineError(
        f"no engine {name!r} ({preset}, {precision}) can be used here: {passed}; type: emo engines build --profile "
        f"{preset} --network {name} --precision {precision}{_trained(entry, preset, random=random)}"
    )


def _trained(entry: PartEntry, preset: str, *, random: bool) -> str:
    """The end of the command that builds an engine of trained weights."""
    if random or catalogue.weights_file(entry.network, preset).is_file():
        return ""
    return f" --weights FOLDER, which holds {entry.network}.safetensors"


def open_card(name: str, *, precision: str = "fp32", threads: int = 0) -> Selection:
    """The engine of a public file, read as it is: the first backend that can.

    Raises :class:`emo_models.weights.WeightsError` for a missing or damaged file, :class:`EngineError` where no backend
    reads it.
    """
    entry = catalogue.CARDS[name]
    file = weights.path(name)
    threads = cpu_threads(entry.stage, threads)
    why: list[str] = []
    for kind, reader in _READERS.items():
        try:
            return Selection(reader(entry, file, precision, threads), tuple(why))
        except EngineError as error:
            why.append(f"{kind}: {error}")
    raise EngineError(f"{name}: no backend reads {file}: {'; '.join(why)}")


def golden_faults(engine: Engine, folder: Path, manifest: Manifest) -> list[str]:
    """Run the golden inputs of an artefact again: what is out of tolerance, empty where nothing is."""
    pairs = []
    for inputs, expected in read_golden(folder):
        pairs.append(({name: value.copy() for name, value in engine(inputs).items()}, expected))
    found = parity(pairs, catalogue.part(manifest.network).classes)
    return beyond(found, manifest.tolerance, labels=not manifest.weights.random)


def candidates(name: str, preset: str, precision: str, backend: str) -> Iterator[tuple[Backend, Artefact]]:
    """Artefacts of this engine in the order of preference, damaged ones too.

    Trained weights come before random ones, whatever the backend, then the preferred backend, then the newest; an
    unreadable artefact comes first of its backend, to be told of.
    """
    if backend != "auto":
        find_backend(backend)  # an unknown name is an error
    stored = artefacts()
    found = [
        (one, artefact)
        for one in in_order()
        if backend in ("auto", one.name)
        for artefact in sorted(stored, key=_built, reverse=True)
        if artefact.title == title(name, preset, one.name, precision)
    ]
    yield from sorted(found, key=lambda pair: pair[1].manifest is not None and pair[1].manifest.weights.random)


def _built(artefact: Artefact) -> str:
    return "~" if artefact.manifest is None else artefact.manifest.built


def _usable(backend: Backend, artefact: Artefact) -> Manifest:
    """The manifest of an artefact that is whole and fits. Raises :class:`EngineError` naming what does not."""
    if reason := backend.runs():
        raise EngineError(reason)
    manifest = artefact.verify()
    said = title(manifest.network, manifest.preset, manifest.backend, manifest.precision)
    if said != artefact.title:
        raise EngineError(
            f"the folder is named {artefact.title}, its manifest is of {said}: it was renamed or replaced"
        )
    if found := misfits(manifest, backend):
        raise EngineError("; ".join(map(str, found)))
    return manifest


def _by_openvino(entry: CardEntry, file: Path, precision: str, threads: int) -> Engine:
    from emo_models.engines.backends.openvino import OpenVinoEngine

    return OpenVinoEngine(
        entry.name, file, inputs=entry.inputs, outputs=entry.outputs, precision=precision, threads=threads
    )


def _by_onnxruntime(entry: CardEntry, file: Path, precision: str, threads: int) -> Engine:
    from emo_models.engines.backends.onnxruntime import OnnxRuntimeEngine

    if file.suffix != ".onnx" or precision != "fp32":
        raise EngineError(f"reads ONNX in fp32, this is {file.suffix} in {precision}")
    return OnnxRuntimeEngine(entry.name, file, inputs=entry.inputs, outputs=entry.outputs, threads=threads)


#: Backends that read public files, the preferred one first.
_READERS: Final = {"openvino": _by_openvino, "onnxruntime": _by_onnxruntime}
