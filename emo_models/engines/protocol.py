"""What every compiled or interpreted network looks like from outside.

A stage holds an :class:`Engine` and knows neither the backend nor the file behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


class EngineError(RuntimeError):
    """An engine could not be built, loaded or fed; the message names what was expected, what came and what to do."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Declared shape of one input or output; ``None`` marks a dimension that may vary (the batch)."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    def accepts(self, array: NDArray[Any]) -> bool:
        """Whether ``array`` has this dtype and a shape that fits."""
        return (
            array.dtype.name == self.dtype
            and array.ndim == len(self.shape)
            and all(want is None or want == got for want, got in zip(self.shape, array.shape, strict=True))
        )


class Described(Protocol):
    """What diagnostics tell of an engine; the speech recogniser, which keeps its own runtime, has it too."""

    name: str
    backend: str
    #: Version of the backend's library.
    version: str
    precision: str
    #: ``cpu`` or ``cuda``.
    device: str
    #: CPU threads it may use; 0 on a GPU.
    threads: int


class Engine(Described, Protocol):
    """A network ready to run: named arrays in, named arrays out.

    Not thread safe: one engine belongs to one worker. The arrays returned may be reused by the next call; copy what
    must outlive it.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def warmup(self, batch_sizes: Sequence[int] = (1,)) -> None:
        """Run each batch size once, so that no later call pays for compilation or allocation."""

    def __call__(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run once. Raises :class:`EngineError` when a name, dtype or shape differs from ``inputs``."""

    def close(self) -> None:
        """Free the engine's memory; calling it again does nothing."""


class DeviceEngine(Engine, Protocol):
    """An engine on a GPU, whose neighbours may be there too."""

    def on_device(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """As a call, with torch tensors that lie on the engine's device and stay there: nothing is copied to the host."""


def fed(engine: Engine, inputs: Mapping[str, Any]) -> list[Any]:
    """The values of ``inputs`` in the engine's order. Raises :class:`EngineError` naming the one that does not fit."""
    feed = []
    for spec in engine.inputs:
        array = inputs.get(spec.name)
        if array is None or not spec.accepts(array):
            got = "nothing" if array is None else f"{array.dtype} {list(array.shape)}"
            raise EngineError(f"{engine.name}: input {spec.name}: expected {spec.dtype} {list(spec.shape)}, got {got}")
        feed.append(array)
    return feed


def describe(engine: Described) -> dict[str, object]:
    """What diagnostics and reports say about an engine."""
    facts: dict[str, object] = {
        "engine": engine.name,
        "backend": engine.backend,
        "backend_version": engine.version,
        "precision": engine.precision,
        "device": engine.device,
    }
    return facts | ({"threads": engine.threads} if engine.threads else {})
