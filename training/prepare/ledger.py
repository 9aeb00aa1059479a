"""A file with one line of JSON per item, written as the work goes on, that survives a kill at any point."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from training.prepare.errors import NO_SPACE, OtherProducer, StoreError, StoreFull


class Ledger:
    """What is known of items by their ids. The first line tells who produced the others.

    A last line that is not whole, because the process was killed, is cut off when the file is opened. An item that is
    noted again replaces its former note. Raises :class:`OtherProducer` for a file of another producer and
    :class:`StoreError` for one that is no ledger.
    """

    def __init__(self, file: Path, producer: Mapping[str, str]) -> None:
        self.file = file
        self.producer = dict(producer)
        self._entries: dict[str, dict[str, Any]] = {}
        self._out: IO[bytes] | None = None
        whole = self._read() if file.is_file() else 0
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._out = file.open("r+b" if file.is_file() else "w+b", buffering=0)
            self._out.truncate(whole)
            self._out.seek(whole)
            if not whole:
                self._write({"producer": self.producer})
        except OSError as error:
            raise self._failed(error) from None

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, item: object) -> bool:
        return item in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def missing(self, ids: Iterable[str]) -> list[str]:
        """Those of ``ids`` that are not here, in their order, each once."""
        return [item for item in dict.fromkeys(ids) if item not in self._entries]

    def get(self, item: str) -> dict[str, Any]:
        """What was noted. Raises ``KeyError``."""
        return self._entries[item]

    def note(self, item: str, values: Mapping[str, Any]) -> None:
        """Add one item. Raises :class:`StoreFull` where there is no room; what was noted before is unharmed."""
        entry = {"id": item, **values}
        self._write(entry)
        self._entries[item] = json.loads(json.dumps(entry))

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._out is not None:
            self._out.close()
            self._out = None

    def _read(self) -> int:
        """Take up the whole lines; returns where they end."""
        data = self.file.read_bytes()
        whole = data.rfind(b"\n") + 1
        try:
            lines = [json.loads(line) for line in data[:whole].splitlines()]
            if lines and lines[0]["producer"] != self.producer:
                raise OtherProducer(
                    f"{self.file} was made with {lines[0]['producer']}, not with {self.producer}: name another file, or "
                    "delete it"
                )
            self._entries = {entry["id"]: entry for entry in lines[1:]}
        except (ValueError, KeyError, TypeError):
            raise StoreError(
                f"{self.file} is not a file of this command, or damaged: name another, or delete it"
            ) from None
        return whole

    def _write(self, entry: Mapping[str, Any]) -> None:
        if self._out is None:
            raise ValueError(f"{self.file} is closed")
        line = (json.dumps(entry, ensure_ascii=False) + "\n").encode()
        begin = self._out.tell()
        try:
            while line:  # a write to a disk that fills up may take only a part
                line = line[self._out.write(line) or 0 :]
        except OSError as error:
            self._out.truncate(begin)
            self._out.seek(begin)
            raise self._failed(error) from None

    def _failed(self, error: OSError) -> StoreError:
        if error.errno in NO_SPACE:
            return StoreFull(
                f"{self.file}: no room ({error.strerror}): {len(self)} items are safe. Make room, or allow more, and run "
                "the same command again: it goes on from there"
            )
        return StoreError(f"{self.file}: cannot be written: {error.strerror}")
