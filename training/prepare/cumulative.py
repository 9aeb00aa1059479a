"""ECEM's cumulative clips out of MELD's utterance clips: everything from the first utterance to the one in question.

Neighbouring clips of MELD overlap, so putting them one behind the other would show some images twice. What overlaps by
the time stamps of the table is cut: ``start_i := max(start_i, end_{i-1})``. Stamps and files do not always agree;
therefore a second check looks at the images: a run of images at the end of one clip that comes again at the beginning
of the next is cut there. Images are compared by a perceptual hash, which the compression hardly changes. A run in
which nothing moves proves nothing (the camera of a comedy often stands still) and is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from emo_models.preprocess import gray
from emo_perception.types import NS_PER_S
from training.datasets.record import Record, Span
from training.prepare.video import UnreadableVideo, Video

Hashes = NDArray[np.bool_]

#: Overlaps that the time stamps do not tell are at most so long.
LONGEST_S: Final = 5.0
#: Of the 255 bits of a hash so many differ at the most between two encodings of an image. Measured on H.264 clips of
#: talking people: at most 4 between encodings, 3 to 14 from each image to the next.
SAME_BITS: Final = 8


#: Raised when the same clips are put together otherwise.
VERSION: Final = "1"


@dataclass(frozen=True)
class Piece:
    """An utterance's own clip and when it was said, in seconds of the episode."""

    span: Span
    start_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        """How long it is by its times."""
        return self.end_s - self.start_s


@dataclass(frozen=True)
class Cumulative:
    """A cumulative clip. ``lacking``: clip ids of earlier utterances without a clip or times.

    ``overlap_s``: what was cut by time stamps; ``repeated_s``: by the look of the images.
    """

    spans: tuple[Span, ...]
    overlap_s: float = 0.0
    repeated_s: float = 0.0
    lacking: tuple[str, ...] = ()

    def video(self) -> Video:
        """Its images."""
        return Video(self.spans)


def pieces(meld: Iterable[Record]) -> dict[str, Piece]:
    """Clip id -> its piece, for every record of MELD that has a clip and times."""
    found = {}
    for record in meld:
        said = record.dialogue.target if record.dialogue is not None else None
        if record.source is not None and said is not None and said.start_s is not None and said.end_s is not None:
            found[record.clip_id] = Piece(record.source, said.start_s, said.end_s)
    return found


@dataclass
class CumulativeVideos:
    """Record -> the cumulative clip that ends with its utterance; the pieces are found by the utterances' clip ids."""

    pieces: Mapping[str, Piece]
    _cuts: dict[tuple[Span, Span], float] = field(default_factory=dict, init=False, repr=False)

    @property
    def producer(self) -> Mapping[str, str]:
        """For the feature store: how clips are put together."""
        return {"cumulative": VERSION}

    def has(self, record: Record) -> bool:
        """Whether there is anything to see: the target's own clip at the least."""
        return record.dialogue is not None and record.dialogue.target.clip_id in self.pieces

    def __call__(self, record: Record) -> Video:
        return self.plan(record).video()

    def plan(self, record: Record) -> Cumulative:
        """What the clip is made of. Raises :class:`UnreadableVideo` where the target has no clip or one is damaged."""
        if record.dialogue is None or not self.has(record):
            raise UnreadableVideo(f"{record.clip_id}: MELD's clip of this utterance is not there, or has no times")
        ids = [said.clip_id for said in (*record.dialogue.history, record.dialogue.target)]
        there = [self.pieces[clip_id] for clip_id in ids if clip_id in self.pieces]
        new = trim(there)
        cuts = [0.0, *(self._cut(before.span, after.span) for before, after in pairwise(new))]
        return Cumulative(
            spans=tuple(_later(p.span, cut) for p, cut in zip(new, cuts, strict=True) if cut < float("inf")),
            overlap_s=sum(p.length_s for p in there) - sum(p.length_s for p in new),
            repeated_s=sum(min(cut, p.length_s) for p, cut in zip(new, cuts, strict=True)),
            lacking=tuple(clip_id for clip_id in ids if clip_id not in self.pieces),
        )

    def _cut(self, before: Span, after: Span) -> float:
        if (before, after) not in self._cuts:
            self._cuts[before, after] = repeated_s(before, after)
        return self._cuts[before, after]


def trim(said: Sequence[Piece]) -> list[Piece]:
    """Of each piece the part that the ones before have not shown, by time stamps; those with none are left out.

    A piece that jumps back to before its predecessor, without touching it, is kept whole.
    """
    new: list[Piece] = []
    for piece in said:
        start_s = piece.start_s
        if new and piece.end_s > new[-1].start_s:
            start_s = max(start_s, new[-1].end_s)
        if start_s < piece.end_s:
            new.append(Piece(_later(piece.span, start_s - piece.start_s), start_s, piece.end_s))
    return new


def repeated_s(before: Span, after: Span) -> float:
    """Seconds at the beginning of ``after`` that repeat the end of ``before``; infinite when all of it does.

    Raises :class:`UnreadableVideo`.
    """
    old, _ = _hashes(before, last=True)
    new, stamps = _hashes(after)
    count = repeated(old, new)
    return float("inf") if count == len(new) else stamps[count]


def repeated(old: Hashes, new: Hashes) -> int:
    """How many images at the beginning of ``new`` [m, bits] are those at the end of ``old`` [n, bits].

    Of all lengths the best match, of equals the longest; 0 where an image of it does not match its counterpart, and
    where the run is so still that another length would match as well.
    """
    best, least = 0, float("inf")
    for count in range(1, min(len(old), len(new)) + 1):
        apart = (old[-count:] != new[:count]).sum(1)
        if apart.max() <= SAME_BITS and apart.mean() <= least:
            best, least = count, float(apart.mean())
    return best if best and _moves(new[:best]) else 0


def perceptual_hash(image: NDArray[np.uint8]) -> Hashes:
    """255 bits of an image: which of its low spatial frequencies (16 x 16 of a DCT, without the mean) exceed their median.

    As pHash (Zauner, 2010), which has 8 x 8; that many see a mouth move too. Brightness, contrast, size and compression
    hardly change it.
    """
    small = cv2.resize(gray(image), (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = np.asarray(cv2.dct(small)[:16, :16]).ravel()[1:]
    return np.asarray(low > np.median(low))


def write_mp4(video: Video, file: Path) -> None:
    """Write the images with their stamps as H.264 (MPEG-4 part 2 where this build has no encoder for it), silent.

    The file is whole or not there. Raises :class:`UnreadableVideo` and ``OSError``.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part.mp4")
    try:
        with av.open(str(part), "w") as out:
            _encode(video, out)
        part.replace(file)
    except OSError as error:  # the encoder's own kind cannot be sent from one process to another
        raise OSError(error.errno, error.strerror, str(file)) from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _encode(video: Video, out: Any) -> None:
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    base = Fraction(1, 90_000)
    stream: Any = None
    with closing(video.frames()) as frames:
        for frame in frames:
            # The usual pixel format has one colour for two by two pixels, and so needs even sizes.
            height, width = (length // 2 * 2 for length in frame.image.shape[:2])
            if stream is None:
                stream = out.add_stream(codec, rate=25)
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                stream.time_base = stream.codec_context.time_base = base
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.image[:height, :width]), format="rgb24")
            image.pts, image.time_base = round(frame.stamp_ns * base.denominator / NS_PER_S), base
            out.mux(stream.encode(image))
    out.mux(stream.encode(None))


def _hashes(span: Span, *, last: bool = False) -> tuple[Hashes, list[float]]:
    """Hashes of the first :data:`LONGEST_S` of a clip, or the last, and the seconds of its images in the clip."""
    found: list[Hashes] = []
    stamps: list[float] = []
    with closing(Video([span]).frames()) as frames:
        for frame in frames:
            if not last and frame.stamp_ns > LONGEST_S * NS_PER_S:
                break
            found.append(perceptual_hash(frame.image))
            stamps.append(frame.stamp_ns / NS_PER_S)
    keep = next(i for i, at_s in enumerate(stamps) if at_s >= stamps[-1] - LONGEST_S) if last else 0
    return np.stack(found[keep:]), stamps[keep:]


def _moves(run: Hashes) -> bool:
    """Whether two images of a run could be told apart."""
    return bool(((run[:, None] != run[None]).sum(2) > SAME_BITS).any())


def _later(span: Span, by_s: float) -> Span:
    return replace(span, start_s=span.start_s + by_s)
