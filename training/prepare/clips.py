"""Clip -> arrays: the chosen images at the network's size and the subject's face, upright, beside each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from emo_models.preprocess import (
    ALIGNMENTS,
    align_face,
    middle_frames,
    resize,
    short_edge_crop,
    uniform_frames,
)
from training.datasets.record import Record
from training.prepare.faces import FaceFinder, FaceTrack
from training.prepare.video import Video

Image = NDArray[np.uint8]

Stamps = NDArray[np.int64]


def _dyadic(stamps: Stamps, wanted: int, rate_hz: float) -> NDArray[np.int64]:
    """FAME-Net's grid: images numbered at a base rate, of which the finest level of at most ``wanted`` is taken."""
    from emo_models.networks.fame.streaming import FrameClock, dyadic_frames

    clock = FrameClock(rate_hz)
    image_of = {number: i for i, stamp in enumerate(stamps.tolist()) if (number := clock(stamp)) is not None}
    return np.array([image_of[number] for number in dyadic_frames(image_of, wanted)], np.int64)


#: Name -> which images of a clip are taken: ``uniform`` as ECPA (all its T, first and last included), ``middle`` of T
#: segments as Video-ChatGPT, ``dyadic`` as FAME-Net at run time; the last two give fewer than T of a short clip.
SAMPLING: Final[dict[str, Callable[[Stamps, int, float], NDArray[np.int64]]]] = {
    "uniform": lambda stamps, wanted, _: uniform_frames(len(stamps), wanted),
    "middle": lambda stamps, wanted, _: middle_frames(len(stamps), wanted),
    "dyadic": _dyadic,
}
#: Raised when the same input gives other arrays: it keeps old features from being taken for new ones.
VERSION: Final = "1"


@dataclass(frozen=True)
class ClipForm:
    """What a prepared clip looks like.

    ``frames`` T images by ``sampling`` (a key of :data:`SAMPLING`; ``rate_hz`` is the base rate of ``dyadic``), their short edge ``image_size`` pixels by ``kernel``;
    ``crop``: the middle square of each, as at run time, or the whole width (for random crops while training).
    Faces are ``face_size`` x ``face_size`` by ``alignment`` (a key of :data:`emo_models.preprocess.ALIGNMENTS`).
    """

    frames: int = 8
    image_size: int = 224
    face_size: int = 224
    sampling: str = "uniform"
    kernel: str = "bilinear"
    crop: bool = True
    alignment: str = "arcface"
    rate_hz: float = 10.0

    def __post_init__(self) -> None:
        for name, least in (("frames", 1), ("image_size", 8), ("face_size", 8)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        if self.rate_hz <= 0:
            raise ValueError(f"rate_hz: expected more than 0, got {self.rate_hz:g}")
        for name, choices in (("sampling", SAMPLING), ("alignment", ALIGNMENTS), ("kernel", ("bilinear", "bicubic"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: expected one of {', '.join(choices)}; got {getattr(self, name)!r}")

    def producer(self, faces: FaceFinder) -> dict[str, str]:
        """The producer of clips of this form, for the feature store."""
        form = {f"clip_{name}": str(value) for name, value in asdict(self).items()}
        return {"prepare": VERSION, **form, **faces.producer}


@dataclass(frozen=True, eq=False)
class PreparedClip:
    """``clip`` uint8 [T, H, W, 3], ``faces`` uint8 [T, h, w, 3], black where ``face_valid`` bool [T] is False.

    ``stamps`` int64 [T]: ns from the clip's beginning; ``numbers`` int64 [T]: which of its ``count`` images were taken.
    """

    clip: Image
    faces: Image
    face_valid: NDArray[np.bool_]
    stamps: NDArray[np.int64]
    numbers: NDArray[np.int64]
    count: int

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As the feature store keeps it."""
        return {
            "clip": self.clip,
            "faces": self.faces,
            "face_valid": self.face_valid,
            "stamps": self.stamps,
            "numbers": self.numbers,
            "count": np.array(self.count, np.int64),
        }

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> PreparedClip:
        """Back from the feature store; other arrays beside are ignored."""
        a = arrays
        return cls(a["clip"], a["faces"], a["face_valid"], a["stamps"], a["numbers"], int(a["count"]))


def prepare_clip(
    record: Record,
    *,
    frames: int,
    image_size: int,
    face_size: int,
    faces: FaceFinder,
    sampling: str = "uniform",
    kernel: str = "bilinear",
    crop: bool = True,
    alignment: str = "arcface",
    rate_hz: float = 10.0,
    video: Video | None = None,
) -> PreparedClip:
    """A record's clip as :class:`ClipForm` describes it, with the face of its subject.

    ``video``: what to take instead of the record's own span. Every image is decoded: the number of images that a file
    announces is often wrong. Raises :class:`training.prepare.video.UnreadableVideo`, and ``ValueError`` as the form.
    """
    form = ClipForm(frames, image_size, face_size, sampling, kernel, crop, alignment, rate_hz)
    video = video or Video.of(record)
    people = faces(record, video)
    subject = people[0] if people else FaceTrack()
    numbers = SAMPLING[sampling](video.stamps(), frames, rate_hz)
    pictures: dict[int, Image] = {}
    crops: dict[int, Image] = {}
    stamps: dict[int, int] = {}
    wanted = set(numbers.tolist())
    with closing(video.frames()) as images:
        for number, frame in zip(range(int(numbers[-1]) + 1), images, strict=False):
            if number in wanted:
                stamps[number] = frame.stamp_ns
                pictures[number] = _picture(frame.image, form)
                if number in subject.points:
                    crops[number] = align_face(frame.image, subject.points[number], face_size, ALIGNMENTS[alignment])
    nobody = np.zeros((face_size, face_size, 3), np.uint8)
    order = numbers.tolist()
    return PreparedClip(
        np.stack([pictures[n] for n in order]),
        np.stack([crops.get(n, nobody) for n in order]),
        np.array([n in crops for n in order]),
        np.array([stamps[n] for n in order], np.int64),
        numbers,
        video.count(),
    )


def _picture(image: Image, form: ClipForm) -> Image:
    """Short edge to the wanted size; the middle square of it, or all."""
    if form.crop:
        return short_edge_crop(image, form.image_size, form.image_size, form.kernel)
    height, width = image.shape[:2]
    edge = min(height, width)
    return resize(image, (form.image_size * height // edge, form.image_size * width // edge), form.kernel)
