"""Readers of data sets: each turns its own files into the one common record."""

from __future__ import annotations

import dataclasses
import difflib
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from training.datasets.record import (
    Dataset,
    DatasetError,
    Dialogue,
    QuarantinedRow,
    Reader,
    Record,
    RecordError,
    Span,
    Utterance,
)

__all__ = [
    "READERS", "Dataset", "DatasetError", "Dialogue", "QuarantinedRow", "Reader", "Record", "RecordError", "Span",
    "Utterance", "read_dataset", "reader", "reader_class",
]  # fmt: skip

#: Name of a data set -> its reader, loaded only when asked for.
READERS: Final = {
    "ecem": "training.datasets.ecem:Ecem",
    "ecf": "training.datasets.ecf:Ecf",
    "ecgf": "training.datasets.ecgf:Ecgf",
    "emvidcap": "training.datasets.emvidcap:EmVidCap",
    "mafw": "training.datasets.mafw:Mafw",
    "meld": "training.datasets.meld:Meld",
    "msrvtt": "training.datasets.msrvtt:MsrVtt",
    "msvd": "training.datasets.msvd:Msvd",
    "swinbert": "training.datasets.swinbert:SwinBertTsv",
}


def reader_class(name: str) -> type[Any]:
    """The class of a reader: a dataclass of its options. Raises :class:`DatasetError` that lists the names there are."""
    if name not in READERS:
        near = difflib.get_close_matches(name, READERS, n=1)
        guess = f" (did you mean {near[0]!r}?)" if near else ""
        raise DatasetError(f"no reader {name!r}{guess}; there are: {', '.join(sorted(READERS))}")
    module, _, attribute = READERS[name].partition(":")
    kind: type[Any] = getattr(import_module(module), attribute)
    return kind


def reader(name: str, **options: Any) -> Reader:
    """The reader of a data set with its options. Raises :class:`DatasetError` that lists the names or options there are."""
    kind = reader_class(name)
    known = [field.name for field in dataclasses.fields(kind) if field.init]
    unknown = sorted(options.keys() - set(known))
    if unknown:
        raise DatasetError(f"{name}: no option {', '.join(unknown)}; there are: {', '.join(known) or 'none'}")
    made: Reader = kind(**options)
    return made


def read_dataset(name: str, root: Path, **options: Any) -> Dataset:
    """Read the data set ``name`` (a key of :data:`READERS`) that lies in ``root``.

    Raises :class:`DatasetError` for an unknown name or option, and when ``root`` does not hold that data set.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise DatasetError(f"{name}: expected a folder, there is none at {root}")
    return reader(name, **options).read(root)
