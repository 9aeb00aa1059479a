"""``refs.jsonl`` inside a bag: what is right about stretches of it, as people said, or as a drawn world knows.

One JSON object a line:

=================  =====================================================================================
field              meaning
=================  =====================================================================================
``kind``           ``caption``: texts about what is seen; ``cause``: why the speaker of an utterance feels so
``id``             of the clip, or of the utterance as the bag's ``utterances`` have it
``start_ns``       where the stretch begins, stamp of its first image
``end_ns``         where it ends: stamp of the last image, or the end of the utterance
``texts``          all references; may be empty where only the emotion was annotated
``emotion``        in the data set's own words, or empty
``speaker``        whose utterance it is, or empty
``cause_phrases``  phrases any of which names the cause in a text, where they are known
``other_phrases``  phrases for what happened besides
``cause_kind``     kind of the cause, for figures per kind
=================  =====================================================================================
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from training.datasets.record import DatasetError

FILE: Final = "refs.jsonl"
CAPTION, CAUSE = "caption", "cause"
KINDS: Final = (CAPTION, CAUSE)


@dataclass(frozen=True)
class Reference:
    """One line of the file. Raises ``ValueError`` for an unknown kind, no id, and times that run backwards."""

    kind: str
    id: str
    start_ns: int = 0
    end_ns: int = 0
    texts: tuple[str, ...] = ()
    emotion: str = ""
    speaker: str = ""
    cause_phrases: tuple[str, ...] = ()
    other_phrases: tuple[str, ...] = ()
    cause_kind: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS or not self.id:
            raise ValueError(f"expected kind {' or '.join(KINDS)} and an id, got {self.kind!r} and {self.id!r}")
        if not 0 <= self.start_ns <= self.end_ns:
            raise ValueError(f"expected 0 <= start_ns <= end_ns, got {self.start_ns} and {self.end_ns}")

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Reference:
        """From a line's object; fields of others are passed over. Raises ``ValueError``, ``KeyError``, ``TypeError``."""
        kind, key, start_ns, end_ns = str(row["kind"]), str(row["id"]), row["start_ns"], row["end_ns"]
        if not isinstance(start_ns, int) or not isinstance(end_ns, int):
            raise TypeError("start_ns and end_ns must be whole nanoseconds")
        return cls(
            kind, key, start_ns, end_ns, _texts(row, "texts"), str(row.get("emotion", "")), str(row.get("speaker", "")),
            _texts(row, "cause_phrases"), _texts(row, "other_phrases"), str(row.get("cause_kind", "")),
        )  # fmt: skip


def write_references(file: Path, references: Iterable[Reference]) -> None:
    """Write the file; what is empty is left out, but for ``texts``."""
    lines = []
    for reference in references:
        row = {name: value for name, value in dataclasses.asdict(reference).items() if value or name == "texts"}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    file.write_text("".join(lines), encoding="utf-8")


def read_references(file: Path) -> list[Reference]:
    """What is in the file, in its order.

    Raises :class:`DatasetError` naming the line: no JSON, a field missing or of the wrong kind, the same thing twice.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{file}: cannot be read as JSON lines in UTF-8: {error}") from None
    found: dict[tuple[str, str], Reference] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            reference = Reference.of(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DatasetError(
                f'{file}, line {number}: expected {{"kind": "caption", "id": "...", "texts": ["..."], "start_ns": 0, '
                f'"end_ns": 0}} and what docs/bags.md lists; got {line[:80]!r} ({type(error).__name__}: {error})'
            ) from None
        if (reference.kind, reference.id) in found:
            raise DatasetError(f"{file}, line {number}: {reference.kind} {reference.id!r} is there twice")
        found[reference.kind, reference.id] = reference
    return list(found.values())


def _texts(row: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = row.get(name, ())
    if isinstance(value, str) or not all(isinstance(text, str) for text in value):
        raise TypeError(f"{name} must be a list of texts")
    return tuple(value)
