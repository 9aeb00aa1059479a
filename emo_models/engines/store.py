"""Where artefacts lie: ``engines/`` in the weight cache, a folder each, under a key of everything that makes them.

A folder comes under its final name only when it is whole, by one rename. One process at a time builds a key; what a
killed build left behind is swept up by the next one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from emo_models.engines.manifest import Manifest, ManifestError, hash_files, read_manifest
from emo_models.engines.protocol import EngineError
from emo_models.engines.typed import to_plain
from emo_models.weights import cache_dir

BUILDING: Final = ".building"
LOCKS: Final = ".locks"
WORK: Final = "work"


class TamperedError(EngineError):
    """A file of an artefact is not the one that its manifest vouches for."""


def root() -> Path:
    """The folder of all artefacts."""
    return cache_dir() / "engines"


def key_of(facts: Mapping[str, Any]) -> str:
    """SHA-256 over plain values, the same for the same facts in whatever order."""
    return hashlib.sha256(json.dumps(to_plain(dict(facts)), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Artefact:
    """A folder of the store; ``problem``: why its manifest cannot be read, empty where it can."""

    folder: Path
    manifest: Manifest | None
    problem: str = ""

    @property
    def title(self) -> str:
        """See :func:`title`; also where the manifest cannot be read."""
        return self.folder.name.rpartition("-")[0]

    def verify(self) -> Manifest:
        """Its manifest, once every file was found to be the one it vouches for.

        Raises :class:`ManifestError` or :class:`TamperedError`, which name the file.
        """
        if self.manifest is None:
            raise ManifestError(self.problem)
        again = "it was cut short or changed; build the engine again: emo engines build"
        expected, found = self.manifest.files, hash_files(self.folder)
        for name in sorted({*expected, *found}):
            if name not in found:
                raise TamperedError(f"{self.folder / name}: files.{name}: missing; {again}")
            if name not in expected:
                raise TamperedError(f"{self.folder / name}: the manifest knows no such file; {again}")
            if expected[name] != found[name]:
                raise TamperedError(
                    f"{self.folder / name}: expected SHA-256 {expected[name]}, found {found[name]}; {again}"
                )
        return self.manifest


def artefacts() -> list[Artefact]:
    """All that lie in the store, readable or not, by name."""
    if not root().is_dir():
        return []
    return [_artefact(folder) for folder in sorted(root().iterdir()) if folder.is_dir() and folder.name[0] != "."]


def _artefact(folder: Path) -> Artefact:
    try:
        return Artefact(folder, read_manifest(folder))
    except ManifestError as error:
        return Artefact(folder, None, str(error))


def title(network: str, preset: str, backend: str, precision: str) -> str:
    """What the name of an artefact's folder begins with, for people and for the search: ``anfl-toy-openvino-fp32``."""
    return f"{network}-{preset}-{backend}-{precision}"


def place(of: str, key: str) -> Path:
    """Where the artefact of a :func:`title` and key lies or will lie."""
    return root() / f"{of}-{key[:16]}"


def install(target: Path, make: Callable[[Path], None], note: Callable[[str], None]) -> bool:
    """Have ``make`` fill a folder of its own and move that to ``target``; false where a valid artefact is there already.

    Waits for another process that builds the same. Whatever ``make`` raises leaves nothing behind. Raises
    :class:`EngineError` where the store cannot be written.
    """
    with _locked(target.name, note):
        for left in _building().glob(f"{target.name}.*"):
            note(f"removing what a build that was killed left: {left.name}")
            shutil.rmtree(left)
        if target.exists():
            try:
                _artefact(target).verify()
                return False
            except EngineError as error:
                note(f"building again, for {error}")
        scratch = _building() / f"{target.name}.{os.getpid()}"
        try:
            scratch.mkdir()
            make(scratch)
            _replace(scratch, target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return True


@contextmanager
def workspace() -> Iterator[Path]:
    """A folder for what is made on the way to artefacts, gone at the end; also removes those of processes that died."""
    try:
        _building().mkdir(parents=True, exist_ok=True)
        for left in _building().glob(f"{WORK}.*"):
            if not Path("/proc", left.suffix[1:]).exists():
                shutil.rmtree(left, ignore_errors=True)
        folder = _building() / f"{WORK}.{os.getpid()}"
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise _unwritable(error) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _replace(scratch: Path, target: Path) -> None:
    """Rename a folder to a name that a damaged one may have."""
    if target.exists():
        old = _building() / f"{target.name}.old"
        target.rename(old)
        scratch.rename(target)
        shutil.rmtree(old)
    else:
        scratch.rename(target)


def _unwritable(error: OSError) -> EngineError:
    return EngineError(f"cannot write to {root()}: {error}; set EMO_CACHE to a folder that you may write to")


def _building() -> Path:
    return root() / BUILDING


@contextmanager
def _locked(name: str, note: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of one artefact; the kernel frees it when the process dies."""
    import fcntl  # not on Windows, where artefacts can be read all the same

    try:
        for folder in (_building(), root() / LOCKS):
            folder.mkdir(parents=True, exist_ok=True)
        lock = (root() / LOCKS / f"{name}.lock").open("w")
    except OSError as error:
        raise _unwritable(error) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(f"another process is building {name}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
