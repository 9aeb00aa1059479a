"""The images of a clip: one span of a file or several in a row, decoded by the run-time source and numbered from 0."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from emo_models.preprocess import limit_width
from emo_perception.config import PerceptionConfig, SourceConfig
from emo_perception.sources import Item, SourceError, open_source
from emo_perception.types import NS_PER_S, AudioChunk, Frame
from training.datasets.record import Record, Span

#: Step to the next span where the one before has a single image.
STEP_NS = NS_PER_S // 25
#: Images of a clip that need no more than this are kept for the second look: decoding them again takes a quarter of the
#: time of preparing a clip.
KEEP_BYTES = 256_000_000


class UnreadableVideo(RuntimeError):  # noqa: N818 - the name says it
    """A clip without images; the message names the file and the reason."""


class Video:
    """The images of ``spans``, one span after the other, on one time line from 0, as the perception process sees them.

    A span holds the images with ``start_s <= t < end_s``; t = 0 is the file's first image. Decoding is by PyAV on every
    machine, so that frame numbers mean the same everywhere. ``max_width``: wider images are scaled down, as at run time.
    """

    def __init__(self, spans: Sequence[Span], *, max_width: int = PerceptionConfig().max_width) -> None:
        self.spans = tuple(spans)
        self.max_width = max_width
        self._stamps: NDArray[np.int64] | None = None
        self._kept: list[Frame] | None = None

    @classmethod
    def of(cls, record: Record) -> Video:
        """The video of a record. Raises :class:`UnreadableVideo` for a record that has none."""
        if record.source is None:
            raise UnreadableVideo(f"clip {record.clip_id!r} has no video on this disk")
        return cls([record.source])

    def frames(self) -> Generator[Frame, None, None]:
        """Every image, in order. Raises :class:`UnreadableVideo`, also when a span has no image at all."""
        if self._kept is not None:
            yield from self._kept
            return
        stamps: list[int] = []
        kept: list[Frame] | None = []
        size = 0
        for frame in self._decode():
            stamps.append(frame.stamp_ns)
            size += frame.image.nbytes
            if kept is not None:
                kept.append(frame)
            if size > KEEP_BYTES:
                kept = None
            yield frame
        self._stamps, self._kept = np.array(stamps, np.int64), kept

    def stamps(self) -> NDArray[np.int64]:
        """When each image is shown, ns int64 [F]; decodes all once to know. Raises :class:`UnreadableVideo`."""
        if self._stamps is None:
            for _ in self.frames():
                pass
        assert self._stamps is not None
        return self._stamps

    def count(self) -> int:
        """How many images there are; as :meth:`stamps`."""
        return len(self.stamps())

    def _decode(self) -> Iterator[Frame]:
        begin_ns = 0
        for span in self.spans:
            last_ns, step_ns = -1, STEP_NS
            for frame in span_items(span):
                assert isinstance(frame, Frame)
                if last_ns >= 0:
                    step_ns = begin_ns + frame.stamp_ns - last_ns
                last_ns = begin_ns + frame.stamp_ns
                image, _ = limit_width(frame.image, self.max_width)
                yield replace(frame, stamp_ns=last_ns, image=image)
            begin_ns = last_ns + step_ns


def span_items(span: Span, *, sound: bool = False) -> Iterator[Item]:
    """The images of a span, and its sound if wanted, stamped from its start: chunks as they come, not cut to the span.

    Raises :class:`UnreadableVideo`, also for a span without an image.
    """
    start_ns = round(span.start_s * NS_PER_S)
    end_ns = None if span.end_s is None else round(span.end_s * NS_PER_S)
    config = SourceConfig(uri=str(span.file), backend="pyav", audio=sound, realtime=False)
    last_ns = -1
    try:
        for item in open_source(config):
            if isinstance(item, AudioChunk):
                if item.end_ns > start_ns:
                    yield replace(item, stamp_ns=item.stamp_ns - start_ns)
                continue
            if end_ns is not None and item.stamp_ns >= end_ns:
                break
            last_ns = item.stamp_ns
            if last_ns >= start_ns:
                yield replace(item, stamp_ns=last_ns - start_ns)
    except SourceError as error:
        raise UnreadableVideo(str(error)) from None
    if last_ns < start_ns:
        end = "its end" if span.end_s is None else f"{span.end_s:g} s"
        raise UnreadableVideo(
            f"{span.file}: no image between {span.start_s:g} s and {end}; the last one before is at {last_ns / NS_PER_S:.2f} s"
        )
