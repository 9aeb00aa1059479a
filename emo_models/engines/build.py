"""From weights to an installed artefact: export, build, compare with eager fp32, read back, time, write down, rename.

What is out of tolerance or runs in another precision than asked is not installed.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emo_models.engines import store
from emo_models.engines.backends import backend as backend_of
from emo_models.engines.backends import in_order
from emo_models.engines.backends.base import Backend, BuildResult, BuildSpec, Progress, precision_fault
from emo_models.engines.export import ExportedNetwork
from emo_models.engines.golden import Inputs, calibration_inputs, golden_inputs
from emo_models.engines.machine import this_machine
from emo_models.engines.manifest import (
    SCHEMA,
    Latency,
    Manifest,
    Parity,
    hash_files,
    read_manifest,
    save_golden,
    write_manifest,
)
from emo_models.engines.measure import BUDGET_S, beyond, latency, parity
from emo_models.engines.protocol import Engine, EngineError
from emo_models.engines.source import RANDOM


class ToleranceError(EngineError):
    """The engine's outputs are too far from those of eager fp32; the message has the figures."""


class PrecisionError(EngineError):
    """Convolutions or matrix products run in another precision than asked."""


@dataclass(frozen=True)
class Options:
    """How to build; see :class:`BuildSpec`.

    ``backend``: a name or ``auto``; ``calibration``: a folder of pictures; ``timing_s``: how long each batch is timed.
    """

    backend: str = "auto"
    precision: str = "fp32"
    settings: Mapping[str, Any] = field(default_factory=dict)
    calibration: Path | None = None
    threads: int = 0
    timing_s: float = BUDGET_S


@dataclass(frozen=True)
class Built:
    """An artefact; ``fresh``: made now, else it was there already."""

    folder: Path
    manifest: Manifest
    fresh: bool


def choose_backend(options: Options, precision: str) -> Backend:
    """The backend asked for, or the preferred one that runs here and knows the precision.

    Raises :class:`EngineError` that says of each why not.
    """
    wanted = in_order() if options.backend == "auto" else (backend_of(options.backend),)
    reasons = []
    for one in wanted:
        reason = one.available()
        if not reason and options.backend == "auto":
            reason = one.runs()
        if not reason and precision not in one.precisions:
            reason = f"builds {', '.join(one.precisions)} only"
        if not reason:
            return one
        reasons.append(f"{one.name}: {reason}")
    raise EngineError(f"nothing builds {precision} here; " + "; ".join(reasons))


def build(source: ExportedNetwork, options: Options, progress: Progress) -> Built:
    """Build and install the artefact of one network, unless a valid one of the same key is there.

    Raises :class:`EngineError`: :class:`ToleranceError`, :class:`PrecisionError`, or whatever the backend says.
    """
    precision = source.entry.precision(options.precision)
    backend = choose_backend(options, precision)
    calibration = calibration_inputs(source.part, options.calibration) if precision == "int8" else []
    spec = BuildSpec(precision, calibration, options.settings, options.threads)
    progress("exporting")
    job = _Job(source, backend, spec, progress, options)
    target = store.place(store.title(source.name, source.preset, backend.name, precision), job.key)
    fresh = store.install(target, job.make, progress)
    return Built(target, read_manifest(target), fresh)


class _Job:
    """One build: all that its steps share."""

    def __init__(
        self, source: ExportedNetwork, backend: Backend, spec: BuildSpec, progress: Progress, options: Options
    ) -> None:
        self.source, self.backend, self.spec, self.progress = source, backend, spec, progress
        self.timing_s = options.timing_s
        # Classes are compared on as many pictures as there are.
        pictures = bool(source.entry.classes and source.part.normalisation)
        self.labelled = calibration_inputs(source.part, options.calibration) if pictures else []
        self.tolerance = source.entry.tolerance(spec.precision)
        self.calibration_sha256 = _hash_inputs(spec.calibration)
        self.versions = {**source.versions(), **backend.versions()}
        machine = this_machine()
        self.key = store.key_of({
            "schema": SCHEMA, "network": source.name, "preset": source.preset, "graph": source.graph_sha256,
            "inputs": source.inputs, "outputs": source.outputs, "backend": backend.name, "precision": spec.precision,
            "settings": spec.settings, "versions": self.versions, "calibration": self.calibration_sha256,
            "platform": machine.platform, "instruction_set": machine.instruction_set,
            "capability": machine.capability if backend.device == "cuda" else "", "tolerance": self.tolerance,
        })  # fmt: skip

    def make(self, folder: Path) -> None:
        """Fill the folder of an artefact."""
        result = self.backend.build(self.source, self.spec, folder, self.progress)
        self._check_dtypes(result)
        samples = golden_inputs(self.source.part) + self.labelled
        expected = [self.source.part.run(inputs) for inputs in samples]
        save_golden(folder, samples, expected)
        draft = self._manifest(folder, result, None, ())
        if reason := self.backend.runs():
            self.progress(f"not compared here ({reason}): that is done where it is loaded")
            write_manifest(draft, folder)
            return
        engine = self.backend.load(folder, draft, self.spec.threads)
        try:
            self.progress(f"comparing {len(samples)} inputs with eager fp32")
            found = self._compare(engine, samples, expected)
            self.progress("timing")
            times = self._time(engine)
        finally:
            engine.close()
        write_manifest(self._manifest(folder, result, found, times), folder)

    def _check_dtypes(self, result: BuildResult) -> None:
        if fault := precision_fault(self.spec.precision, result.layer_dtypes):
            raise PrecisionError(f"{self.source.name}: {self.backend.name}: {fault}; not installed")

    def _compare(self, engine: Engine, samples: Sequence[Inputs], expected: Sequence[Inputs]) -> Parity:
        outputs = [{name: value.copy() for name, value in engine(inputs).items()} for inputs in samples]
        found = parity(list(zip(outputs, expected, strict=True)), self.source.entry.classes)
        if faults := beyond(found, self.tolerance, labels=self.source.weights.origin != RANDOM):
            raise ToleranceError(
                f"{self.source.name}: {self.backend.name} {self.spec.precision} is not what eager fp32 computes: "
                f"{'; '.join(faults)}; not installed"
            )
        return found

    def _time(self, engine: Engine) -> tuple[Latency, ...]:
        generator = np.random.default_rng(0)
        samples = {n: self.source.part.sample(generator, n) for n in self.source.entry.batches}
        return tuple(latency(engine, inputs, n, self.timing_s) for n, inputs in samples.items())

    def _manifest(
        self, folder: Path, result: BuildResult, found: Parity | None, times: tuple[Latency, ...]
    ) -> Manifest:
        source = self.source
        return Manifest(
            schema=SCHEMA, key=self.key, network=source.name, preset=source.preset, config=source.config,
            weights=source.weights, graph_sha256=source.graph_sha256, files=hash_files(folder), inputs=source.inputs,
            outputs=source.outputs, normalisation=source.part.normalisation, labels=source.part.labels,
            precision=self.spec.precision, layer_dtypes=result.layer_dtypes, backend=self.backend.name,
            versions={**self.versions, **result.versions}, machine=this_machine(), requires=result.requires,
            settings=result.settings, calibration_sha256=self.calibration_sha256, tolerance=self.tolerance,
            parity=found, latency=times,
            built=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        )  # fmt: skip


def _hash_inputs(samples: Sequence[Mapping[str, Any]]) -> str:
    digest = hashlib.sha256()
    for sample in samples:
        for name, array in sorted(sample.items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest() if samples else ""
