"""What every source of images and sound shares: addresses, states, errors, and what a backend has to provide."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum
from pathlib import Path
from typing import Protocol

import cv2

from emo_perception.types import AudioChunk, Frame

Item = Frame | AudioChunk


class SourceError(RuntimeError):
    """A source that cannot be opened or read; the message says what was expected, what came and what to do.

    ``permanent``: trying again cannot help (a missing program, a wrong address), so not even a camera is reconnected.
    """

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class SourceState(IntEnum):
    """What a source is doing; the numbers are those of ``emo_msgs/SourceState``."""

    OPENING = 0
    PLAYING = 1
    RECONNECTING = 2
    ENDED = 3
    FAILED = 4


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """A state with its story. ``stamp_ns``: stream time of the last item; ``dropped``: frames replaced by newer ones."""

    state: SourceState
    uri: str
    backend: str
    detail: str = ""
    stamp_ns: int = 0
    frames: int = 0
    audio_chunks: int = 0
    loops: int = 0
    dropped: int = 0


class Kind(Enum):
    """What an address leads to."""

    FILE = "file"
    PICTURE = "picture"
    DEVICE = "device"
    RTSP = "rtsp"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Location:
    """A checked address: ``address`` is an absolute path, a device node or an RTSP URL."""

    kind: Kind
    address: str

    @property
    def live(self) -> bool:
        """Whether time passes without us: cameras and streams, which are opened again when they fail."""
        return self.kind in (Kind.DEVICE, Kind.RTSP)

    @property
    def shown(self) -> str:
        """The address as it may stand in logs and messages: without its password."""
        return re.sub(r"(//[^/@:]*):[^/@]*@", r"\1:***@", self.address)


class Reader(Protocol):
    """One opening of a source by a backend.

    ``dropped``: images lost inside it, replaced by newer ones or undated. ``duration_ns``: length that a file announces,
    known while it is read; 0 = none.
    """

    dropped: int
    duration_ns: int

    def items(self) -> Iterator[Item]:
        """Open, yield everything, close. Files come in stamp order, complete; live sources as they arrive.

        Stamps are the stream's own, images and sound on one clock, from any zero. Ends early, quietly, once the stop
        event is set. Raises :class:`SourceError`.
        """
        ...

    def age_ns(self, item: Item) -> int:
        """How long ago a live item, just yielded, was acquired: of sound, its first sample."""
        ...


ACCEPTED = "/dev/videoN, a video file, a picture, rtsp://host/path or test://"


def locate(uri: str) -> Location:
    """Find out what ``uri`` leads to; a file's kind is read from its content, not from its name.

    Raises :class:`SourceError` for an empty or unknown address and for a file that is missing or unreadable.
    """
    if not uri:
        raise SourceError(f"source.uri is empty: expected {ACCEPTED}", permanent=True)
    if re.match(r"rtsps?://.", uri):
        return Location(Kind.RTSP, uri)
    if uri == "test://":
        return Location(Kind.TEST, uri)
    if uri.startswith("/dev/"):
        return Location(Kind.DEVICE, uri)
    path = uri.removeprefix("file://")
    if "://" in path:
        raise SourceError(f"source.uri: expected {ACCEPTED}; got {uri!r}", permanent=True)
    return _locate_file(Path(path).expanduser().absolute())


def _locate_file(path: Path) -> Location:
    if not path.exists():
        raise SourceError(f"{path}: no such file; source.uri takes {ACCEPTED}", permanent=True)
    if not path.is_file():
        raise SourceError(f"{path}: expected a file, this is a folder; source.uri takes {ACCEPTED}", permanent=True)
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise SourceError(f"{path}: the file is empty", permanent=True)
    except PermissionError:
        raise SourceError(f"{path}: not readable by this user: chmod a+r {path}", permanent=True) from None
    picture = cv2.haveImageReader(str(path)) and cv2.imcount(str(path)) <= 1  # more: an animation, for a video backend
    return Location(Kind.PICTURE if picture else Kind.FILE, str(path))


def check_device(device: str) -> None:
    """Raise :class:`SourceError` unless the camera ``device`` exists and may be opened; names the cameras there are."""
    path = Path(device)
    if not path.exists():
        cameras = sorted(Path("/dev").glob("video*"))
        found = ", ".join(f"{camera} ({_camera_name(camera)})" for camera in cameras) or "none"
        raise SourceError(f"{device}: no such camera; cameras on this machine: {found}")
    try:
        path.open("rb").close()
    except PermissionError:
        raise SourceError(f"{device}: permission denied: sudo usermod -aG video $USER, then log in again") from None
    except OSError as error:
        raise SourceError(f"{device}: cannot be opened: {error.strerror}") from None


def _camera_name(camera: Path) -> str:
    try:
        return Path("/sys/class/video4linux", camera.name, "name").read_text(encoding="utf-8").strip()
    except OSError:
        return "unnamed"
