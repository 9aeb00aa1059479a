"""A feature store: named arrays of many clips on disk, each prepared once.

A store is a folder of shards. A shard is a safetensors file that is written beside its place, flushed to the disk and
then moved there in one step, so that a process that is killed at any point leaves only whole shards behind; what it
had not written yet is missing and is prepared again. Each shard carries who produced it and a checksum of every array.
Several processes may write into one store at the same time.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from training.prepare.errors import NO_SPACE, CorruptShard, NotPrepared, OtherProducer, StoreError, StoreFull

__all__ = ["CorruptShard", "FeatureStore", "NotPrepared", "OtherProducer", "StoreError", "StoreFull", "store_folder"]

Arrays = dict[str, NDArray[Any]]

FORM = "emo-features-1"
SUFFIX = ".safetensors"
#: Unfinished files older than this belong to a process that was killed: no shard takes so long to write.
STALE_S = 3600.0


class FeatureStore:
    """Arrays by clip and name.

    ``producer``: names of all that shaped the values (networks, preprocessing, sizes) -> hashes or settings. A store
    holds the work of one producer; opened for another it raises :class:`OtherProducer`, which tells the difference.
    ``None`` takes whatever producer the store has, for reading alone.

    A clip that was put can be read at once; it is on the disk after :meth:`flush`, which happens when ``shard_mb`` are
    waiting, when the oldest has waited ``wait_s``, and at the end of a ``with`` block. Use one object per process; a
    copy in another process (a pickled one, or after a fork) may read.

    Raises:
        OtherProducer: see above.
        CorruptShard: a file in the folder is no whole shard.

    """

    def __init__(
        self, folder: str | Path, producer: Mapping[str, str] | None, *, shard_mb: float = 64.0, wait_s: float = 30.0
    ) -> None:
        self.folder = Path(folder)
        self.producer = None if producer is None else {str(k): str(v) for k, v in sorted(producer.items())}
        self._may_write = producer is not None
        self._shard_bytes = round(shard_mb * 1e6)
        self._wait_s = wait_s
        self._places: dict[str, Path] = {}
        self._names: dict[str, tuple[str, ...]] = {}
        self._waiting: dict[str, Arrays] = {}
        self._waiting_bytes = 0
        self._waiting_since = 0.0
        self._shards: set[Path] = set()
        self._open: dict[Path, tuple[Any, dict[str, int]]] = {}
        self.refresh()

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Whatever else went wrong, the clips that are done are whole; a full disk would only fail once more.
        if not isinstance(error, StoreFull):
            self.flush()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def __len__(self) -> int:
        return len(self._places) + len(self._waiting)

    def __contains__(self, clip_id: object) -> bool:
        return clip_id in self._places or clip_id in self._waiting

    def __iter__(self) -> Iterator[str]:
        """All clip ids, sorted."""
        return iter(sorted({*self._places, *self._waiting}))

    def missing(self, ids: Iterable[str]) -> list[str]:
        """Those of ``ids`` that are not here, in their order, each once."""
        return [clip_id for clip_id in dict.fromkeys(ids) if clip_id not in self]

    def put(self, clip_id: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Add a clip.

        Raises:
            ValueError: no id, an id that is here already, no arrays, or an array that is not made of numbers.
            StoreFull: from :meth:`flush`; the clip then still waits and nothing on the disk is harmed.

        """
        if not self._may_write:
            raise ValueError(f"{self.folder}: opened for reading, without a producer; name the producer to write")
        if clip_id in self:
            raise ValueError(f"clip {clip_id!r} is in {self.folder} already; ask missing() for what to prepare")
        self._waiting[clip_id] = _checked(clip_id, arrays)
        if len(self._waiting) == 1:
            self._waiting_since = time.monotonic()
        self._waiting_bytes += sum(array.nbytes for array in self._waiting[clip_id].values())
        if self._waiting_bytes >= self._shard_bytes or time.monotonic() - self._waiting_since >= self._wait_s:
            self.flush()

    def get(self, clip_id: str) -> Arrays:
        """The arrays of a clip, each a copy of its own.

        Raises:
            NotPrepared: there is no such clip.
            CorruptShard: its bytes are not those that were written.

        """
        if clip_id in self._waiting:
            return {name: array.copy() for name, array in self._waiting[clip_id].items()}
        if clip_id not in self._places:
            raise NotPrepared(
                f"clip {clip_id!r} is not in {self.folder}, which has {len(self)} clips: prepare it first, with: "
                "emo data prepare"
            )
        return self._read(self._places[clip_id], clip_id)

    def flush(self) -> None:
        """Write what waits as one shard. Raises :class:`StoreFull`, and keeps it, when there is no room."""
        if not self._waiting:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        data = self._encoded()
        place = self.folder / f"{time.time_ns():020d}-{secrets.token_hex(4)}{SUFFIX}"
        part = place.with_suffix(".part")
        try:
            _write_whole(part, data)
            part.replace(place)
            _sync_folder(self.folder)
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            if error.errno in NO_SPACE:
                raise StoreFull(self._full(error, len(data))) from None
            raise
        for clip_id, arrays in self._waiting.items():
            self._places[clip_id], self._names[clip_id] = place, tuple(arrays)
        self._shards.add(place)
        self._waiting, self._waiting_bytes = {}, 0

    def refresh(self) -> None:
        """Find the shards that other processes have written since; remove what killed ones left unfinished."""
        for part in self.folder.glob("*.part"):
            with suppress(OSError):
                if time.time() - part.stat().st_mtime > STALE_S:
                    part.unlink()
        for shard in sorted(self.folder.glob("*" + SUFFIX)):
            if shard not in self._shards:
                self._admit(shard)

    def verify(self) -> int:
        """Read everything and compare the checksums; returns the number of clips. Raises :class:`CorruptShard`."""
        for clip_id, shard in self._places.items():
            self._read(shard, clip_id)
        return len(self._places)

    def _encoded(self) -> bytes:
        tensors = {f"{clip_id}/{name}": a for clip_id, arrays in self._waiting.items() for name, a in arrays.items()}
        sums = {key: _sum(array) for key, array in tensors.items()}
        note = {
            "form": FORM,
            "producer": json.dumps(self.producer),
            "clips": json.dumps({clip_id: list(arrays) for clip_id, arrays in self._waiting.items()}),
            "crc32": json.dumps(sums),
        }
        return bytes(save(tensors, metadata=note))

    def _admit(self, shard: Path) -> None:
        """Take up the clips of a shard; of a clip that two processes prepared, the first is kept."""
        note = _note(shard)
        producer = json.loads(note["producer"])
        if self.producer is None:
            self.producer = producer
        elif producer != self.producer:
            raise OtherProducer(_difference(self.folder, shard, self.producer, producer))
        for clip_id, names in json.loads(note["clips"]).items():
            if clip_id not in self._places:
                self._places[clip_id], self._names[clip_id] = shard, tuple(names)
        self._shards.add(shard)

    def _handle(self, shard: Path) -> tuple[Any, dict[str, int]]:
        """The open file and its checksums."""
        if shard not in self._open:
            file: Any = safe_open(shard, "np")
            self._open[shard] = file, json.loads(file.metadata()["crc32"])
        return self._open[shard]

    def _read(self, shard: Path, clip_id: str) -> Arrays:
        try:
            file, sums = self._handle(shard)
            arrays = {name: file.get_tensor(f"{clip_id}/{name}") for name in self._names[clip_id]}
        except (SafetensorError, OSError) as error:
            raise CorruptShard(_damaged(shard, str(error))) from None
        for name, array in arrays.items():
            if _sum(array) != sums[f"{clip_id}/{name}"]:
                raise CorruptShard(_damaged(shard, f"{name!r} of clip {clip_id!r} has changed since it was written"))
        return arrays

    def _full(self, error: OSError, needed: int) -> str:
        free = shutil.disk_usage(self.folder).free
        return (
            f"{self.folder}: no room for {needed / 1e6:.1f} MB ({error.strerror}; {free / 1e6:.0f} MB are free on that "
            f"disk): {len(self._places)} clips are safe. Make room, or allow more, and run the same command again: it "
            "goes on from there"
        )


def store_folder(root: Path, kind: str, producer: Mapping[str, str]) -> Path:
    """Where the store of a producer lies among others: ``ROOT/KIND-`` and 12 digits of the hash of the producer."""
    key = hashlib.sha256(json.dumps(dict(producer), sort_keys=True).encode()).hexdigest()[:12]
    return root / f"{kind}-{key}"


def _checked(clip_id: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    if not clip_id or not arrays:
        raise ValueError(f"expected a clip id and at least one array, got {clip_id!r} and {list(arrays)}")
    checked: Arrays = {}
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            raise ValueError(f"{name!r} of clip {clip_id!r}: expected numbers of at most 8 bytes, got {array.dtype}")
        if not name or "/" in name:
            raise ValueError(f"an array of clip {clip_id!r} is called {name!r}: expected a name without '/'")
        checked[name] = np.array(array, order="C")  # a copy: whoever gave it may go on writing into it
    return checked


def _sum(array: NDArray[Any]) -> int:
    return zlib.crc32(array.data)


def _write_whole(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the new name last through a power cut; not every file system offers it."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _note(shard: Path) -> dict[str, str]:
    """What a shard says of itself. Raises :class:`CorruptShard` for what is none."""
    try:
        file: Any = safe_open(shard, "np")
        note: dict[str, str] | None = file.metadata()
    except (SafetensorError, OSError) as error:
        raise CorruptShard(_damaged(shard, str(error))) from None
    if note is None or note.get("form") != FORM:
        raise CorruptShard(_damaged(shard, f"expected the mark {FORM!r}, found {(note or {}).get('form')!r}"))
    return note


def _damaged(shard: Path, why: str) -> str:
    return f"{shard} is damaged: {why}; delete it and run the same command again: only its clips are prepared anew"


def _difference(folder: Path, shard: Path, wanted: Mapping[str, str], found: Mapping[str, str]) -> str:
    keys = [key for key in sorted({*wanted, *found}) if wanted.get(key) != found.get(key)]
    told = "; ".join(f"{key}: wanted {wanted.get(key, 'none')}, found {found.get(key, 'none')}" for key in keys)
    return f"{folder} holds the features of another producer ({shard.name}): {told}. Name another folder, or delete it"
