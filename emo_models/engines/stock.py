"""What the cache has of an engine, without loading it: an artefact that fits, or weights that one can be built from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from emo_models.engines import catalogue
from emo_models.engines.backends.base import Backend, misfits
from emo_models.engines.manifest import Manifest
from emo_models.engines.protocol import EngineError
from emo_models.engines.select import candidates
from emo_models.engines.store import Artefact


@dataclass(frozen=True)
class Stock:
    """``manifest``: of the artefact that would be loaded, None where none can be; ``why``: what keeps each from being used.

    ``weights``: what engines can be built from, None where there are none.
    """

    manifest: Manifest | None
    why: tuple[str, ...]
    weights: Path | None

    @property
    def usable(self) -> bool:
        """Whether there is an artefact that can be loaded."""
        return self.manifest is not None


def stock(name: str, preset: str, precision: str = "fp32", *, random: bool = False) -> Stock:
    """What there is of the engine ``name`` of the catalogue; ``random``: engines with random weights do too.

    Hashes of files are checked when they are loaded, not here.
    """
    entry = catalogue.part(name)
    file = catalogue.weights_file(entry.network, preset)
    weights = file if file.is_file() else None
    why = []
    for backend, artefact in candidates(name, preset, entry.precision(precision), "auto"):
        if not (reason := _unusable(backend, artefact, random=random)):
            return Stock(artefact.manifest, (), weights)
        why.append(f"{artefact.folder.name}: {reason}")
    return Stock(None, tuple(why), weights)


def _unusable(backend: Backend, artefact: Artefact, *, random: bool) -> str:
    """Why an artefact cannot be used, empty where it can."""
    manifest = artefact.manifest
    if manifest is None:
        return artefact.problem
    if manifest.weights.random and not random:
        return f"its weights are random numbers ({manifest.weights.origin}), not trained"
    try:
        return backend.runs() or "; ".join(map(str, misfits(manifest, backend)))
    except EngineError as error:
        return str(error)
