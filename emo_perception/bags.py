"""rosbag2 files without a ROS installation: write serialised messages, read them back as objects.

``rosbags`` does the work; this module only teaches it the messages of ``emo_msgs``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader, ReaderError, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from emo_perception.config import ConfigError

MESSAGES = "emo_msgs"
STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}


class BagError(RuntimeError):
    """A bag that cannot be written or read; the message says what was expected and what to do."""


def _definitions() -> Path:
    """The folder with the ``.msg`` files: of a checkout, or of the prefix they were installed into."""
    here = Path(__file__).resolve()
    shared = (Path("share") / MESSAGES / "msg",)
    places = [here.parents[1] / MESSAGES / "msg", *(p / s for p in (*here.parents, Path(sys.prefix)) for s in shared)]
    for place in places:
        if place.is_dir() and any(place.glob("*.msg")):
            return place
    raise ConfigError(
        f"the definitions of {MESSAGES} are missing: expected {places[0]}, or share/{MESSAGES}/msg once installed"
    )


@cache
def typestore() -> Typestore:
    """The message types of the oldest supported ROS (Humble) and of ``emo_msgs``."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    types = {}
    for file in sorted(_definitions().glob("*.msg")):
        types.update(get_types_from_msg(file.read_text(encoding="utf-8"), f"{MESSAGES}/msg/{file.stem}"))
    store.register(types)
    return store


class BagWriter:
    """Writes one bag folder. Raises :class:`BagError` when the folder exists or the storage is unknown."""

    def __init__(self, folder: Path, storage: str = "mcap") -> None:
        if storage not in STORAGES:
            raise BagError(f"storage: expected one of {', '.join(STORAGES)}; got {storage!r}")
        if folder.exists():
            raise BagError(f"{folder} exists already: choose another folder, or move it away")
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Version 8: the newest that Humble's "ros2 bag" reads too.
        self._writer = Writer(folder, version=8, storage_plugin=STORAGES[storage])
        self._writer.open()
        self._connections: dict[str, Connection] = {}
        self.counts: dict[str, int] = {}

    def write(self, topic: str, kind: str, received_ns: int, cdr: bytes) -> None:
        """One serialised message (CDR) of type ``kind`` (``package/msg/Name``) at the time it was received."""
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(topic, kind, typestore=typestore())
            self.counts[topic] = 0
        self._writer.write(self._connections[topic], received_ns, cdr)
        self.counts[topic] += 1

    def close(self) -> None:
        """Write index and metadata; without them the bag cannot be read."""
        self._writer.close()


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """One message of a bag: ``message`` has the fields of its type, sequences as numpy arrays."""

    topic: str
    kind: str
    received_ns: int
    message: Any


def read(folder: Path, topics: Sequence[str] = ()) -> Iterator[Recorded]:
    """Messages in the order of receipt; ``topics`` chooses some by name. Raises :class:`BagError`."""
    try:
        with Reader(folder) as reader:
            wanted = [c for c in reader.connections if not topics or c.topic in topics]
            if not wanted:
                return
            for connection, received_ns, data in reader.messages(wanted):
                message = typestore().deserialize_cdr(data, connection.msgtype)
                yield Recorded(connection.topic, connection.msgtype, received_ns, message)
    except (ReaderError, OSError) as error:
        raise BagError(
            f"{folder}: not a readable bag ({error}); expected a folder with metadata.yaml and .mcap or .db3 files"
        ) from None
