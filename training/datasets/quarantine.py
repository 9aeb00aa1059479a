"""What was left out and why: the reasons, the file they are written to, and the notebook every reader keeps."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from training.datasets.record import Dataset, DatasetError, QuarantinedRow, Record, RecordError

#: Every reason for which a row is left out.
REASONS: Final[dict[str, str]] = {
    "bad-encoding": "bytes that are text in none of the expected encodings",
    "bad-id": "an id that does not have the form of this data set's ids",
    "bad-number": "a number was expected",
    "bad-split": "a split of another name",
    "bad-times": "a stretch of time that is empty or runs backwards",
    "class-out-of-range": "a class that this data set does not have",
    "duplicate": "an id that occurred before; the first one counts",
    "known-bad-clip": "a clip that is known to be broken or wrongly cut",
    "missing-value": "an empty field that is needed",
    "no-answer": "the annotators gave no explanation",
    "no-words": "a text without a word",
    "not-annotated": "a video that no row names",
    "short-answer": "an explanation of three words or fewer",
    "unknown-clip": "a reference to a clip or utterance that is not there",
    "unknown-form": "an entry that does not have the form of this data set's entries",
    "unreadable-video": "a video from which no picture can be decoded",
    "wrong-fields": "another number of fields than the columns",
}


def write_quarantine(rows: Iterable[QuarantinedRow], file: Path) -> None:
    """One JSON object a line: file, row, reason, detail. Raises :class:`DatasetError` when it cannot be written."""
    lines = [
        json.dumps({"file": r.file, "row": r.row, "reason": r.reason, "detail": r.detail}, ensure_ascii=False) + "\n"
        for r in rows
    ]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise DatasetError(f"{file}: the quarantine file cannot be written: {error.strerror}") from None


class Findings:
    """What a reader notes while it reads, and the :class:`Dataset` that comes of it."""

    def __init__(self, name: str, root: Path, expected: Mapping[str, int] | None = None) -> None:
        self.name, self.root = name, root
        self._expected = dict(expected or {})
        self._records: dict[str, Record] = {}
        self._quarantined: list[QuarantinedRow] = []
        self._found: Counter[str] = Counter()
        self._missing: list[str] = []

    def relative(self, file: Path) -> str:
        """A file's name as the quarantine has it."""
        return file.relative_to(self.root).as_posix() if file.is_relative_to(self.root) else str(file)

    def refuse(self, file: Path, row: int | str, reason: str, detail: str) -> None:
        """Leave a row out. Raises ``KeyError`` for a reason that :data:`REASONS` does not have."""
        if reason not in REASONS:
            raise KeyError(f"no reason {reason!r}; known: {', '.join(REASONS)}")
        self._quarantined.append(QuarantinedRow(self.relative(file), row, reason, detail))

    @contextmanager
    def row(self, file: Path, row: int | str) -> Iterator[None]:
        """Whatever cannot be a record inside the block is left out under its reason."""
        try:
            yield
        except RecordError as error:
            self.refuse(file, row, error.reason, str(error))

    def keep(self, record: Record) -> None:
        """Add a record. Raises :class:`RecordError` for a clip id that occurred before."""
        if record.clip_id in self._records:
            raise RecordError("duplicate", f"expected each clip once; {record.clip_id} occurred before")
        self._records[record.clip_id] = record

    def count(self, what: str, number: int = 1) -> None:
        """Count something, under the name that the published figures have."""
        self._found[what] += number

    def found(self, what: str) -> int:
        """How many of it were counted so far."""
        return self._found[what]

    def lack(self, text: str) -> None:
        """Say that something is not there."""
        self._missing.append(text)

    def dataset(self) -> Dataset:
        """Everything that was kept and noted. Counts the records of each split and the missing clips."""
        records = tuple(self._records.values())
        lost = [record.clip_id for record in records if record.source is None]
        if lost:
            self.lack(f"{len(lost):,} of {len(records):,} clips, as {', '.join(lost[:3])}")
        return Dataset(
            self.name, self.root, records, tuple(self._quarantined), self._expected, dict(self._found),
            tuple(self._missing),
        )  # fmt: skip
