"""What every compiled or interpreted network looks like from outside.

A stage holds an :class:`Engine` and knows neither the backend nor the file behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray


class EngineError(RuntimeError):
    """An engine could not be loaded or fed; the message names what was expected, what came and what to do."""


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


class Engine(Protocol):
    """A network ready to run: named arrays in, named arrays out.

    Not thread safe: one engine belongs to one worker. The arrays returned may be reused by the next call; copy what
    must outlive it.
    """

    name: str
    backend: str
    precision: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def warmup(self, batch_sizes: Sequence[int] = (1,)) -> None:
        """Run each batch size once, so that no later call pays for compilation or allocation."""

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once. Raises :class:`EngineError` when a name, dtype or shape differs from ``inputs``."""

    def close(self) -> None:
        """Free the engine's memory; calling it again does nothing."""
