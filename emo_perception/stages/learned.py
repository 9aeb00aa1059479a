"""The engines of stages that run built networks, as their parameters ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from emo_models.engines import EngineError, catalogue
from emo_models.engines.manifest import Manifest
from emo_models.engines.select import Selection, select
from emo_models.preprocess import FaceTransform
from emo_perception.config import LearnedConfig

#: Why nothing is said of what networks of random numbers measured, saw or wrote.
RANDOM: Final = "random weights: not valid"


def engine_of(name: str, config: LearnedConfig) -> Selection:
    """The engine ``name`` of the catalogue in the size, precision and kind of weights that a node is configured for.

    Raises :class:`EngineError` naming the node, and what to type.
    """
    try:
        return select(
            name, config.preset, precision=config.precision, threads=config.threads, random=config.weights == "random"
        )
    except EngineError as error:
        raise EngineError(f"{config.node}: {error}") from None


def manifest_of(selection: Selection) -> Manifest:
    """The manifest of a built engine."""
    assert selection.manifest is not None, "engines that are built have one"
    return selection.manifest


def face_transform(manifest: Manifest) -> FaceTransform:
    """How the engine of a face network is fed: alignment of the catalogue, size and normalisation of the manifest."""
    return FaceTransform(catalogue.part(manifest.network).alignment, manifest.inputs[0].max[-1], manifest.normalisation)


class FaceNetwork:
    """A built network that takes aligned faces: all of an image in one run, or as many at a time as its batch holds.

    Raises as :func:`engine_of`.
    """

    def __init__(self, name: str, config: LearnedConfig) -> None:
        self.selection = engine_of(name, config)
        self.engine = self.selection.engine
        self.manifest = manifest_of(self.selection)
        self.transform = face_transform(self.manifest)
        (faces,) = self.manifest.inputs
        self._input = np.zeros(faces.max, np.float32)

    def warmup(self) -> None:
        """Run every number of faces once."""
        self.engine.warmup(range(1, len(self._input) + 1))

    def __call__(self, image: NDArray[np.uint8], points: Sequence[NDArray[np.float32]]) -> dict[str, NDArray[Any]]:
        """The five points [5, 2] of each face -> outputs by name, a row for each face; arrays of the caller's own."""
        batch = len(self._input)
        parts = [self._run(image, points[first : first + batch]) for first in range(0, len(points), batch)]
        return {port.name: np.concatenate([part[port.name] for part in parts]) for port in self.manifest.outputs}

    def close(self) -> None:
        """Free the engine."""
        self.engine.close()

    def _run(self, image: NDArray[np.uint8], points: Sequence[NDArray[np.float32]]) -> dict[str, NDArray[Any]]:
        for row, five in zip(self._input, points, strict=False):
            self.transform(image, five, row)
        found = self.engine({self.manifest.inputs[0].name: self._input[: len(points)]})
        return {name: value.copy() for name, value in found.items()}
