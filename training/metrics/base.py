"""What all metrics share: their error, and the account of what was compared with what."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

Value = TypeVar("Value")


class MetricError(ValueError):
    """Input that no figure can be computed from; the message says what was expected, what came and what to do."""


@dataclass(frozen=True)
class Coverage:
    """Which clips were compared. A metric is computed over ``scored`` only; the rest is told, never dropped in silence."""

    scored: tuple[str, ...]
    without_prediction: tuple[str, ...] = ()
    """Clips with a reference and no prediction."""
    without_reference: tuple[str, ...] = ()
    """Clips with a prediction and no reference."""
    empty_predictions: tuple[str, ...] = ()
    """Scored clips whose prediction has no words: they count as the worst."""

    @property
    def complete(self) -> bool:
        """Every prediction has a reference and every reference a prediction with words."""
        return not (self.without_prediction or self.without_reference or self.empty_predictions)

    def describe(self) -> str:
        """One line for people: ``1611 clips; 3 without a prediction (00017, 00023, 00104)``."""
        parts = [f"{len(self.scored)} clips"]
        for ids, what in (
            (self.without_prediction, "without a prediction, not scored"),
            (self.without_reference, "without a reference, not scored"),
            (self.empty_predictions, "with an empty prediction, scored as such"),
        ):
            if ids:
                parts.append(f"{len(ids)} {what} ({some(ids)})")
        return "; ".join(parts)


def pair(predictions: Mapping[str, Value], references: Mapping[str, Any]) -> Coverage:
    """The clips that both sides have, in the order of the references. Raises :class:`MetricError` where there are none."""
    if not predictions:
        raise MetricError("there are no predictions; expected at least one clip")
    if not references:
        raise MetricError("there are no references; expected at least one clip")
    shared = tuple(clip for clip in references if clip in predictions)
    if not shared:
        raise MetricError(
            f"no clip has both: predictions are of {some(predictions)}, references of {some(references)}; "
            "are both of the same data set, and are the ids written the same way?"
        )
    return Coverage(
        shared,
        tuple(clip for clip in references if clip not in predictions),
        tuple(clip for clip in predictions if clip not in references),
    )


def some(ids: Collection[str] | Iterable[str], most: int = 3) -> str:
    """The first few ids: ``a, b, c, ...``."""
    names = list(ids)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def hash_of(path: Path) -> str:
    """SHA-256 of a file, or over the names and hashes of all files of a folder; its first 16 digits.

    Raises :class:`MetricError` where there is nothing.
    """
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise MetricError(f"{path}: no model there; give the folder or file that holds it")
    digest = hashlib.sha256()
    for file in files:
        one = hashlib.sha256()
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                one.update(block)
        digest.update(f"{file.relative_to(path).as_posix()} {one.hexdigest()}\n".encode())
    return digest.hexdigest()[:16]
