"""What can still be read of one damaged storage file: recordings that were cut off by a crash, a full disk or a copy.

An MCAP file is read record by record from its start, without the index at its end; a sqlite3 file row by row. Reading
stops where the file does.
"""

from __future__ import annotations

import re
import sqlite3
import sys
from binascii import crc32
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import IO, NamedTuple

import yaml

#: Durability of latched topics, in both spellings that rosbag2 has had.
TRANSIENT_LOCAL = (1, "transient_local")

#: What rosbags itself unpacks with.
ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"

MAGIC = b"\x89MCAP0\r\n"
SCHEMA, CHANNEL, MESSAGE, CHUNK, DATA_END = 0x03, 0x04, 0x05, 0x06, 0x0F


class Found(NamedTuple):
    """One message: CDR bytes as they were recorded."""

    topic: str
    kind: str
    received_ns: int
    cdr: bytes
    latched: bool


class CutError(RuntimeError):
    """Reading ended before the end of the recording; the message says where and why."""


def salvage(file: Path) -> Iterator[Found]:
    """Every message of a storage file from its start on. Raises :class:`CutError` after the last one that can be read."""
    if file.suffix == ".mcap":
        yield from _mcap(file)
    else:
        yield from _sqlite(file)


# MCAP (https://mcap.dev/spec)


@dataclass(frozen=True, slots=True)
class _Channel:
    topic: str
    kind: str
    latched: bool


class _Fields:
    """Reads the fields of one record in order. Raises ``EOFError`` where it ends early."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def take(self, size: int) -> bytes:
        part = self._data[self._at : self._at + size]
        if len(part) != size:
            raise EOFError(f"expected {size} bytes, got {len(part)}")
        self._at += size
        return part

    def text(self) -> str:
        return self.take(self.number(4)).decode()

    def rest(self) -> bytes:
        return self._data[self._at :]


def _mcap(file: Path) -> Iterator[Found]:
    size = file.stat().st_size
    with file.open("rb") as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            raise CutError(f"{file.name}: expected an MCAP file, this one begins otherwise")
        kinds: dict[int, str] = {}
        channels: dict[int, _Channel] = {}
        at = stream.tell()
        try:
            for operation, record in _records(stream):
                if operation == DATA_END:
                    break
                yield from _read(operation, record, kinds, channels)
                at = stream.tell()
            else:
                raise CutError(f"{file.name} is cut off: its data ends at byte {at} of {size}, without an index")
        except (EOFError, ImportError, KeyError, RuntimeError, ValueError, OSError) as error:
            if isinstance(error, CutError):
                raise
            raise CutError(
                f"{file.name} is cut off or damaged: the record at byte {at} of {size} cannot be read ({error})"
            ) from None


def _records(stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Operation code and content of the records that are there as a whole."""
    while len(head := stream.read(9)) == 9:
        length = int.from_bytes(head[1:], "little")
        record = stream.read(length)
        if len(record) != length:
            raise EOFError(f"expected {length} bytes, got {len(record)}")
        yield head[0], record


def _read(operation: int, record: bytes, kinds: dict[int, str], channels: dict[int, _Channel]) -> Iterator[Found]:
    fields = _Fields(record)
    if operation == SCHEMA:
        number = fields.number(2)
        kinds[number] = fields.text()
    elif operation == CHANNEL:
        number, schema = fields.number(2), fields.number(2)
        topic, _ = fields.text(), fields.text()
        metadata = _Fields(fields.take(fields.number(4)))
        pairs = {}
        while metadata.rest():
            name = metadata.text()
            pairs[name] = metadata.text()
        channels[number] = _Channel(topic, kinds[schema], is_latched(pairs.get("offered_qos_profiles", "")))
    elif operation == MESSAGE:
        channel = channels[fields.number(2)]
        fields.number(4)
        received_ns, _ = fields.number(8), fields.number(8)
        yield Found(channel.topic, channel.kind, received_ns, fields.rest(), channel.latched)
    elif operation == CHUNK:
        for inner, content in _records(BytesIO(_unpacked(fields))):
            yield from _read(inner, content, kinds, channels)


def _unpacked(chunk: _Fields) -> bytes:
    chunk.take(16)
    size, checksum, compression = chunk.number(8), chunk.number(4), chunk.text()
    data = chunk.take(chunk.number(8))
    if compression == "zstd":
        data = import_module(ZSTD).decompress(data)
    elif compression == "lz4":
        data = import_module("lz4.frame").decompress(data)
    elif compression:
        raise ValueError(f"unknown compression {compression!r}")
    if len(data) != size or (checksum and crc32(data) != checksum):
        raise ValueError("its checksum is wrong")
    return data


# sqlite3 (rosbag2_storage_sqlite3)


def _sqlite(file: Path) -> Iterator[Found]:
    # As a file that nobody changes: nothing is written beside a recording, not even a lock. A recording that was killed
    # in WAL mode has its last messages in another file, which only an ordinary opening takes in.
    mode = "mode=ro" if file.with_name(file.name + "-wal").exists() else "immutable=1"
    connection = sqlite3.connect(f"{file.absolute().as_uri()}?{mode}", uri=True)
    read = 0
    try:
        # A file that is shorter than its header says is refused as a whole, unless this is set.
        connection.execute("PRAGMA writable_schema=ON")
        columns = {row[1] for row in connection.execute("PRAGMA table_info(topics)")}
        qos = "offered_qos_profiles" if "offered_qos_profiles" in columns else "''"
        rows = connection.execute(f"SELECT id, name, type, {qos} FROM topics")
        topics = {number: (name, kind, is_latched(text)) for number, name, kind, text in rows}
        for topic_id, received_ns, cdr in connection.execute(
            "SELECT topic_id, timestamp, data FROM messages ORDER BY id"
        ):
            name, kind, latched = topics[topic_id]
            yield Found(name, kind, received_ns, bytes(cdr), latched)
            read += 1
    except (sqlite3.Error, KeyError, TypeError) as error:
        raise CutError(f"{file.name} is cut off or damaged after {read} messages ({error})") from None
    finally:
        connection.close()


def in_order(files: list[Path]) -> list[Path]:
    """Files of one bag in the order of their recording: ``x_2`` before ``x_10``."""
    return sorted(files, key=lambda f: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", f.name)])


def is_latched(profiles: str) -> bool:
    """Whether every publisher kept its last messages for late readers; ``profiles``: the offered QoS as YAML."""
    try:
        offered = yaml.safe_load(profiles) if profiles else []
        return bool(offered) and all(p["durability"] in TRANSIENT_LOCAL for p in offered)
    except (yaml.YAMLError, KeyError, TypeError):
        return False
