"""The files of data sets: tables, JSON, spreadsheets, folders of clips; errors name file, row, expected and found."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from training.datasets.encodings import decode
from training.datasets.quarantine import Findings
from training.datasets.record import DatasetError, RecordError, Span

#: Suffixes of clips.
VIDEOS: Final = (".mp4", ".avi", ".mkv", ".webm", ".mov")
NO_VIDEO: Final = frozenset({"no-video"})
_SEPARATORS: Final = {"\t": "tabs", ",": "commas", ";": "semicolons"}

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")

Row = tuple[int, dict[str, str]]


def read_bytes(file: Path) -> bytes:
    """Content of a file. Raises :class:`DatasetError` when it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise DatasetError(f"{file}: cannot be read: {error.strerror}") from None


def first_of(root: Path, *places: str) -> Path | None:
    """The first of several usual places under ``root`` that exists."""
    return next((root / place for place in places if (root / place).exists()), None)


def needed(root: Path, what: str, *places: str) -> Path:
    """As :func:`first_of`. Raises :class:`DatasetError` naming ``what`` and the places that were looked at."""
    found = first_of(root, *places)
    if found is None:
        listed = " or ".join(places)
        raise DatasetError(f"{root}: expected {what} at {listed}, found {_listing(root)}; is it the right folder?")
    return found


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return (", ".join(names[:6]) + (", ..." if len(names) > 6 else "")) or "nothing"


def lines(file: Path, findings: Findings) -> Iterator[tuple[int, bytes]]:
    """Non-empty lines of a file as bytes, without their ends, numbered from 1. Zero bytes are refused."""
    for number, line in enumerate(_LINE_END.split(read_bytes(file)), 1):
        if b"\0" in line:
            findings.refuse(file, number, "bad-encoding", "expected text, got zero bytes: a damaged copy?")
        elif line.strip():
            yield number, line


def _text_lines(file: Path, findings: Findings) -> Iterator[tuple[int, str]]:
    """Lines as text, each in the first encoding that fits it; those that fit none are refused."""
    for number, raw in lines(file, findings):
        with findings.row(file, number):
            yield number, decode(raw) + "\n"


def read_table(file: Path, columns: Sequence[str], findings: Findings, *, text: str = "") -> Iterator[Row]:
    """Rows of a CSV or TSV file with a header: line number, column -> value, both stripped.

    The separator is the one of the header. ``text`` names a last column whose value may hold the separator. Rows with
    another number of fields are refused. Raises :class:`DatasetError` for a missing column.
    """
    source = list(_text_lines(file, findings))
    if not source:
        raise DatasetError(f"{file}: expected a table with the columns {', '.join(columns)}, the file is empty")
    first = source[0][1]
    separator = next((mark for mark in _SEPARATORS if mark in first), ",")
    # Tab-separated captions are not quoted: a lone quotation mark in one would swallow the rows behind it.
    reader = csv.reader(
        (line for _, line in source), delimiter=separator,
        quoting=csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL,
    )  # fmt: skip
    try:
        header = [name.strip() for name in next(reader)]
    except csv.Error as error:
        raise DatasetError(f"{file}: expected a header with the columns {', '.join(columns)}: {error}") from None
    missing = [column for column in columns if column not in header]
    if missing:
        raise DatasetError(
            f"{file}: expected the columns {', '.join(columns)}; got {', '.join(header)} (separated by "
            f"{_SEPARATORS[separator]}), without {', '.join(missing)}"
        )
    joiner = separator if text and header[-1] == text else ""
    numbers = [number for number, _ in source]
    for begin, end, parts in _rows(reader):
        whole = len(header) - 1
        fields = [*parts[:whole], joiner.join(parts[whole:])] if joiner and len(parts) > whole else parts
        if len(fields) == len(header):
            yield numbers[begin], {name: value.strip() for name, value in zip(header, fields, strict=True)}
            continue
        detail = f"expected {len(header)} fields, got {len(fields) or 'none'}"
        if end - begin > 1:
            detail += f" in lines {numbers[begin]} to {numbers[end - 1]}: a quotation mark that is not closed?"
        findings.refuse(file, numbers[begin], "wrong-fields", detail)


def _rows(reader: Any) -> Iterator[tuple[int, int, list[str]]]:
    """Index of a row's first line and of the one behind its last, and its fields; none for what is no row."""
    while True:
        begin = reader.line_num
        try:
            fields = next(reader, None)
        except csv.Error:
            fields = []
        if fields is None:
            return
        yield begin, reader.line_num, fields


def read_json(file: Path) -> Any:
    """Value of a JSON file. Raises :class:`DatasetError` that says where it breaks off."""
    raw = read_bytes(file)
    try:
        return json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file}: expected UTF-8, byte {error.start} is not; download it again") from None
    except json.JSONDecodeError as error:
        raise DatasetError(
            f"{file}: expected JSON, it breaks at line {error.lineno}, column {error.colno} of {len(raw):,} bytes "
            f"({error.msg}); an interrupted download?"
        ) from None


def read_sheet(file: Path) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Rows of the first sheet of an xlsx file, numbered from 1, empty ones left out. Raises :class:`DatasetError`."""
    try:
        from openpyxl import load_workbook
    except ImportError:
        raise DatasetError(f"{file}: reading .xlsx needs openpyxl; type: pip install openpyxl") from None
    try:
        book = load_workbook(file, read_only=True, data_only=True)
    except Exception as error:  # openpyxl raises whatever a damaged zip or XML leads to
        raise DatasetError(f"{file}: expected an .xlsx workbook, it cannot be opened ({error})") from None
    try:
        for number, row in enumerate(book.worksheets[0].iter_rows(values_only=True), 1):
            if any(cell is not None for cell in row):
                yield number, row
    finally:
        book.close()


class Clips:
    """The video files of some folders, by their name without suffix. Hidden files (as ``._x.mp4``) are no clips."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = tuple(folders)
        self.files: dict[str, Path] = {}
        for folder in folders:
            for path in sorted(folder.iterdir()):
                if path.suffix.lower() in VIDEOS and not path.name.startswith("."):
                    self.files.setdefault(path.stem, path)

    def span(self, *stems: str) -> tuple[Span | None, frozenset[str]]:
        """The whole clip of the first name that exists, or None with the flag ``no-video``."""
        for stem in stems:
            if stem in self.files:
                return Span(self.files[stem]), frozenset()
        return None, NO_VIDEO


def clips(root: Path, override: str, *places: str) -> Clips:
    """The clips of ``override`` (the option ``videos``), or else of those usual places under ``root`` that exist.

    Raises :class:`DatasetError` when ``override`` is no folder.
    """
    if override:
        folder = Path(override).expanduser()
        if not folder.is_dir():
            raise DatasetError(f"videos: expected a folder with clips, there is none at {folder}")
        return Clips([folder])
    return Clips([root / place for place in places if (root / place).is_dir()])


def number(text: object, what: str) -> int:
    """A whole number, of a text or of JSON. Raises :class:`RecordError` (``bad-number``)."""
    try:
        return int(str(text))
    except ValueError:
        raise RecordError("bad-number", f"{what}: expected a whole number, got {text!r}") from None


def value(row: dict[str, str], column: str) -> str:
    """A value that must be there. Raises :class:`RecordError` (``missing-value``)."""
    if not row[column]:
        raise RecordError("missing-value", f"expected a value in column {column}, it is empty")
    return row[column]


def field(entry: Any, key: str, kind: type | tuple[type, ...]) -> Any:
    """A field of a JSON object. Raises :class:`RecordError` (``unknown-form``) naming what came instead."""
    if not isinstance(entry, dict) or key not in entry:
        have = ", ".join(map(str, entry)) if isinstance(entry, dict) else type(entry).__name__
        raise RecordError("unknown-form", f"expected an object with {key}, got {have}")
    if not isinstance(entry[key], kind):
        raise RecordError("unknown-form", f"{key}: got {type(entry[key]).__name__} {str(entry[key])[:40]!r}")
    return entry[key]
