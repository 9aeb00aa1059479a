"""rosbag2 files without a ROS installation: write serialised messages, read them back, also from damaged recordings.

``rosbags`` does the work; this module teaches it the messages of ``emo_msgs`` and of other packages found here.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.interfaces import (
    Connection,
    Nodetype,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from emo_perception.bag_salvage import CutError, Found, in_order, salvage
from emo_perception.config import ConfigError
from emo_perception.types import NS_PER_S

log = logging.getLogger(__name__)

MESSAGES = "emo_msgs"
STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
SUFFIXES = {".mcap": "mcap", ".db3": "sqlite3"}
METADATA = "metadata.yaml"

#: A killed recorder loses at most this much of a sqlite3 bag; of an MCAP bag, the last megabyte.
COMMIT_NS = NS_PER_S


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


def learn(kind: str, definition: str = "") -> bool:
    """Make ``package/msg/Name`` known to :func:`typestore`: from the ``.msg`` files installed here, else as a bag defines it.

    False where neither has it.
    """
    store, types = typestore(), {}
    missing = {kind} - store.fielddefs.keys()
    while missing:
        name = missing.pop()
        file = _installed(name)
        if file is None:
            if not definition:
                return False
            types = get_types_from_msg(definition, kind)
            break
        types.update(get_types_from_msg(file.read_text(encoding="utf-8"), name))
        missing |= _parts(types[name]) - types.keys() - store.fielddefs.keys()
    store.register({name: fields for name, fields in types.items() if name not in store.fielddefs})
    return True


def _installed(kind: str) -> Path | None:
    package, _, name = kind.partition("/msg/")
    prefixes = [*filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)), sys.prefix]
    files = (Path(prefix) / "share" / package / "msg" / f"{name}.msg" for prefix in prefixes)
    return next((file for file in files if file.is_file()), None)


def _parts(definition: Any) -> set[str]:
    """Names of the message types that the fields of a definition are made of."""
    found = set()
    for _, (node, detail) in definition[1]:
        inner_node, inner = detail[0] if node in (Nodetype.ARRAY, Nodetype.SEQUENCE) else (node, detail)
        if inner_node == Nodetype.NAME:
            found.add(inner)
    return found


def _latched_qos() -> Qos:
    zero = QosTime(0, 0)
    return Qos(
        QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL,
        zero, zero, QosLiveliness.SYSTEM_DEFAULT, zero, False,
    )  # fmt: skip


class BagWriter:
    """Writes one bag folder. Raises :class:`BagError` when the folder exists or the storage is unknown.

    May be used from several threads, one at a time: all writing happens in a thread of its own, as sqlite3 asks for.
    """

    def __init__(self, folder: Path, storage: str = "mcap") -> None:
        if storage not in STORAGES:
            raise BagError(f"storage: expected one of {', '.join(STORAGES)}; got {storage!r}")
        if folder.exists():
            raise BagError(f"{folder} exists already: choose another folder, or move it away")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            # Version 8: the newest that Humble's "ros2 bag" reads too.
            self._writer = Writer(folder, version=8, storage_plugin=STORAGES[storage])
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="emo-bag")
            self._thread.submit(self._writer.open).result()
        except OSError as error:
            raise BagError(f"{folder} cannot be made: {error.strerror}; choose another folder") from None
        self._connections: dict[str, Connection] = {}
        self._commit_ns = 0
        self.counts: dict[str, int] = {}

    def add(self, topic: str, kind: str, *, latched: bool = False) -> None:
        """Announce a topic; :meth:`write` does so for those that are not. Raises :class:`BagError` for an unknown type."""
        if not learn(kind):
            raise BagError(f"{topic}: no definition of {kind} here; install or source its package before recording")
        offered = [_latched_qos()] if latched else []
        adding = self._thread.submit(
            self._writer.add_connection, topic, kind, typestore=typestore(), offered_qos_profiles=offered
        )
        self._connections[topic] = adding.result()
        self.counts[topic] = 0

    def write(self, topic: str, kind: str, received_ns: int, cdr: bytes) -> None:
        """One serialised message (CDR) of type ``kind`` (``package/msg/Name``) at the time it was received."""
        if topic not in self._connections:
            self.add(topic, kind)
        self._thread.submit(self._write, self._connections[topic], received_ns, cdr).result()
        self.counts[topic] += 1

    def close(self) -> None:
        """Write index and metadata; without them a bag is a damaged one, see :class:`Bag`."""
        try:
            self._thread.submit(self._writer.close).result()
        finally:
            self._thread.shutdown()

    def _write(self, connection: Connection, received_ns: int, cdr: bytes) -> None:
        self._writer.write(connection, received_ns, cdr)
        database = getattr(self._writer.storage, "conn", None)
        if database is not None and abs(received_ns - self._commit_ns) > COMMIT_NS:
            database.commit()  # rosbags does so only at the end
            self._commit_ns = received_ns


@dataclass(frozen=True, order=True)
class Topic:
    """A topic of a bag; ``latched``: late subscribers are to get its last message too.

    ``definition``: the text of its message type as the bag has it, empty where it has none.
    """

    name: str
    kind: str
    count: int
    latched: bool = False
    definition: str = ""


def differs(topic: Topic) -> bool:
    """Whether a message of ours was recorded with another definition than the one here: its bytes mean something else."""
    if not topic.kind.startswith(f"{MESSAGES}/msg/") or not topic.definition or topic.kind not in typestore().fielddefs:
        return False
    recorded = get_typestore(Stores.EMPTY)
    recorded.register(get_types_from_msg(topic.definition, topic.kind))
    return bool(recorded.hash_rihs01(topic.kind) != typestore().hash_rihs01(topic.kind))


@dataclass(frozen=True, slots=True, eq=False)
class Raw:
    """One message of a bag, as it was received."""

    topic: str
    kind: str
    received_ns: int
    cdr: bytes


class Bag:
    """A bag that is read: a folder of ``ros2 bag`` or of ours, or one storage file of it. Use as a context manager.

    A damaged recording is read as far as it goes: ``troubles`` says what is missing. Raises :class:`BagError` when
    there is nothing to read at all.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.troubles: list[str] = []
        self._parts = self._open()
        counts: dict[Topic, int] = {}
        spans = []
        for part in self._parts:
            for topic in part.topics:
                key = replace(topic, count=0)
                counts[key] = counts.get(key, 0) + topic.count
            if part.span_ns is not None:
                spans.append(part.span_ns)
            self._note(part.trouble)
        self.topics = tuple(replace(topic, count=count) for topic, count in sorted(counts.items()))
        self.count = sum(counts.values())
        self.start_ns = min((start for start, _ in spans), default=0)
        self.end_ns = max((end for _, end in spans), default=0)
        if self.troubles and not self.count:
            self.close()
            raise _unreadable(path, "; ".join(self.troubles))

    @property
    def storage(self) -> str:
        """Format of the files."""
        return self._parts[0].storage

    @property
    def size_bytes(self) -> int:
        """Size of everything that belongs to the bag."""
        files = [f for f in self.path.rglob("*") if f.is_file()] if self.path.is_dir() else [self.path]
        return sum(file.stat().st_size for file in files)

    def messages(self, topics: Container[str] | None = None) -> Iterator[Raw]:
        """Messages in the order of receipt; ``topics`` chooses some by name (None = all)."""
        for part in self._parts:
            yield from part.messages(topics)
            self._note(part.trouble)

    def close(self) -> None:
        """Close the files. Safe to call twice."""
        for part in self._parts:
            part.close()

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _note(self, trouble: str) -> None:
        if trouble and trouble not in self.troubles:
            self.troubles.append(trouble)

    def _open(self) -> list[_Part]:
        """The storage files, each for itself: rosbags loses topics whose QoS reads differently in file and metadata."""
        files = [self.path] if self.path.is_file() else in_order([f for f in self.path.glob("*") if f.is_file()])
        files = [file for file in files if file.suffix in SUFFIXES]
        whole, error = _opened(self.path)
        if whole is not None and whole.compression_mode:
            return [_Part(self.path, whole, "compressed")]
        if whole is not None:
            whole.close()
        if not files:
            raise _unreadable(self.path, error or "no storage file in it")
        if self.path.is_dir() and not (self.path / METADATA).is_file():
            self._note(f"{self.path} has no {METADATA}: its recorder did not end in order")
        elif whole is None and self.path.is_dir():
            self._note(f"{self.path}: {error}")
        return [_Part(file, _opened(file)[0], SUFFIXES[file.suffix]) for file in files]


class _Part:
    """One storage file; ``reader`` is None when rosbags refuses it: then it is salvaged."""

    def __init__(self, path: Path, reader: Reader | None, storage: str) -> None:
        self.storage = storage
        self.trouble = ""
        self.span_ns: tuple[int, int] | None = None
        self._path, self._reader = path, reader
        self.topics = self._survey() if reader is None else [_topic(c) for c in reader.connections]
        if reader is not None and reader.message_count:
            self.span_ns = (reader.start_time, reader.end_time - 1)

    def messages(self, topics: Container[str] | None) -> Iterator[Raw]:
        """Messages up to the end, or to where the file is damaged: ``trouble`` then says where."""
        if self._reader is None:
            yield from (
                Raw(m.topic, m.kind, m.received_ns, m.cdr)
                for m in self._salvaged()
                if topics is None or m.topic in topics
            )
            return
        wanted = [c for c in self._reader.connections if topics is None or c.topic in topics]
        messages = self._reader.messages(wanted) if wanted else iter(())
        read = 0
        while True:
            try:
                connection, received_ns, cdr = next(messages)
            except StopIteration:
                return
            except Exception as error:  # rosbags raises whatever damaged bytes lead to
                self.trouble = f"{self._path.name} is damaged after {read} messages ({type(error).__name__}: {error})"
                return
            read += 1
            yield Raw(connection.topic, connection.msgtype, received_ns, bytes(cdr))

    def close(self) -> None:
        if self._reader is not None and self._reader.is_open:
            self._reader.close()

    def _salvaged(self) -> Iterator[Found]:
        try:
            yield from salvage(self._path)
        except CutError as cut:
            self.trouble = str(cut)

    def _survey(self) -> list[Topic]:
        """Go through the file once, to know what is in it."""
        counts: dict[tuple[str, str, bool], int] = {}
        for found in self._salvaged():
            key = (found.topic, found.kind, found.latched)
            counts[key] = counts.get(key, 0) + 1
            start_ns, end_ns = self.span_ns or (found.received_ns, found.received_ns)
            self.span_ns = (min(start_ns, found.received_ns), max(end_ns, found.received_ns))
        return [Topic(name, kind, count, late) for (name, kind, late), count in counts.items()]


def _opened(path: Path) -> tuple[Reader | None, str]:
    """rosbags' reader, or why there is none."""
    try:
        reader = Reader(path)
        reader.open()
    except Exception as error:  # as above: damaged bytes lead to anything
        return None, str(error)
    return reader, ""


def _topic(connection: Connection) -> Topic:
    offered = connection.ext.offered_qos_profiles
    latched = bool(offered) and all(q.durability == QosDurability.TRANSIENT_LOCAL for q in offered)
    return Topic(connection.topic, connection.msgtype, connection.msgcount, latched, connection.msgdef.data)


def _unreadable(path: Path, reason: str) -> BagError:
    return BagError(f"{path}: not a readable bag ({reason}); expected a folder with {METADATA} and .mcap or .db3 files")


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """One message of a bag: ``message`` has the fields of its type, sequences as numpy arrays."""

    topic: str
    kind: str
    received_ns: int
    message: Any


def read(folder: Path, topics: Sequence[str] = ()) -> Iterator[Recorded]:
    """Messages in the order of receipt; ``topics`` chooses some by name. What is missing is logged.

    Raises :class:`BagError` for what is no bag, and for a type that nobody here knows.
    """
    with Bag(folder) as bag:
        for topic in bag.topics:
            learn(topic.kind, topic.definition)
        for raw in bag.messages(topics or None):
            yield Recorded(raw.topic, raw.kind, raw.received_ns, deserialize(raw))
        for trouble in bag.troubles:
            log.warning("%s", trouble)


def deserialize(raw: Raw) -> Any:
    """The fields of a message. Raises :class:`BagError` for an unknown type and for bytes that do not fit it."""
    if not learn(raw.kind):
        raise BagError(f"{raw.topic}: no definition of {raw.kind} here; install or source its package")
    try:
        return typestore().deserialize_cdr(raw.cdr, raw.kind)
    except Exception as error:  # rosbags raises whatever wrong bytes lead to
        raise BagError(f"{raw.topic}: {len(raw.cdr)} bytes are no {raw.kind} ({type(error).__name__})") from None
