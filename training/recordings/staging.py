"""A scene, written as a bag that looks as if a robot had recorded it: images, sound, and who said what and when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from emo_perception.bags import BagWriter, typestore
from emo_perception.config import SourceConfig
from emo_perception.sources import Item
from emo_perception.types import NS_PER_S, AudioChunk, Frame
from training.datasets.record import Utterance
from training.prepare.video import STEP_NS, span_items
from training.recordings.clips import JPEG_QUALITY, trimmed
from training.recordings.references import CAPTION, FILE, Reference, write_references
from training.recordings.scenes import Part, Scene

#: The first image of every bag: a fixed time, so that the same data gives the same bag.
START_NS: Final = 1_700_000_000 * NS_PER_S
IMAGES: Final = {"raw": "/image_raw", "jpeg": "/image_raw/compressed", "png": "/image_raw/compressed"}
AUDIO, UTTERANCES = "/audio", "/utterances"
FRAME_ID: Final = SourceConfig().frame_id


def write_scene(scene: Scene, folder: Path, *, storage: str, images: str) -> list[Reference]:
    """Write a bag and, last, its ``refs.jsonl``; returns what is in that. ``images``: a key of :data:`IMAGES`.

    Raises :class:`emo_perception.bags.BagError`, and :class:`training.prepare.video.UnreadableVideo` for a clip that
    cannot be decoded.
    """
    writer = BagWriter(folder, storage)
    try:
        references = list(_write(scene, writer, images))
    finally:
        writer.close()
    write_references(folder / FILE, references)
    return references


def _write(scene: Scene, writer: BagWriter, images: str) -> Iterator[Reference]:
    begin_ns = START_NS
    for part in scene.parts:
        played = _Playing(begin_ns)
        for item in played.items(part):
            if isinstance(item, Frame):
                writer.write(IMAGES[images], *_image(item, images))
            else:
                writer.write(AUDIO, *_sound(item))
        # After the last image of all, none would come to say that everything until the end was seen.
        quiet_ns = played.last_ns if part is scene.parts[-1] else played.quiet_ns
        if part.said is not None:
            writer.write(UTTERANCES, *_words(part.said, begin_ns, quiet_ns))
        if part.reference is not None:
            seen = part.reference.kind == CAPTION
            yield replace(part.reference, start_ns=begin_ns, end_ns=played.last_ns if seen else quiet_ns)
        begin_ns = played.end_ns


@dataclass
class _Playing:
    """One clip on the time line of the bag, from ``begin_ns``."""

    begin_ns: int
    last_ns: int = 0
    step_ns: int = STEP_NS

    @property
    def end_ns(self) -> int:
        """When the first image of the next clip is due."""
        return self.last_ns + self.step_ns

    @property
    def quiet_ns(self) -> int:
        """The end of the utterance: after its last image, and clearly before the next clip's first."""
        return self.last_ns + self.step_ns // 2

    def items(self, part: Part) -> Iterator[Item]:
        """Images and sound in the order of receipt: a chunk comes when it is full. Sound ends with the images."""
        waiting: list[AudioChunk] = []
        for item in span_items(part.span, sound=True):
            placed = replace(item, stamp_ns=self.begin_ns + item.stamp_ns)
            if isinstance(placed, AudioChunk):
                waiting.append(placed)
                continue
            while waiting and waiting[0].end_ns <= placed.stamp_ns:
                yield from trimmed([waiting.pop(0)], self.begin_ns, placed.stamp_ns)
            if self.last_ns:
                self.step_ns = placed.stamp_ns - self.last_ns
            self.last_ns = placed.stamp_ns
            yield placed
        yield from trimmed(waiting, self.begin_ns, self.quiet_ns)


def _image(frame: Frame, form: str) -> tuple[str, int, bytes]:
    head = _header(frame.stamp_ns)
    if form == "raw":
        height, width = frame.image.shape[:2]
        data = np.ascontiguousarray(frame.image).reshape(-1)
        kind = "sensor_msgs/msg/Image"
        cdr = _cdr(
            kind, header=head, height=height, width=width, encoding="rgb8", is_bigendian=0, step=3 * width, data=data
        )
        return kind, frame.stamp_ns, cdr
    parameters = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if form == "jpeg" else []
    _, data = cv2.imencode(f".{form}", cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR), parameters)
    kind = "sensor_msgs/msg/CompressedImage"
    return kind, frame.stamp_ns, _cdr(kind, header=head, format=form, data=data.reshape(-1))


def _sound(chunk: AudioChunk) -> tuple[str, int, bytes]:
    kind = "emo_msgs/msg/AudioChunk"
    data = np.ascontiguousarray(chunk.samples)
    cdr = _cdr(kind, header=_header(chunk.stamp_ns), sample_rate=chunk.sample_rate_hz, channels=1, data=data)
    return kind, chunk.end_ns, cdr


def _words(said: Utterance, begin_ns: int, end_ns: int) -> tuple[str, int, bytes]:
    kind = "emo_msgs/msg/Utterance"
    cdr = _cdr(
        kind, header=_header(end_ns), id=said.clip_id, speaker=said.speaker, track_id=0, start=_time(begin_ns),
        end=_time(end_ns), text=said.text, language="en", confidence=1.0, words=[],
    )  # fmt: skip
    return kind, end_ns + 1, cdr  # after the image of that moment


def _header(stamp_ns: int) -> Any:
    return typestore().types["std_msgs/msg/Header"](stamp=_time(stamp_ns), frame_id=FRAME_ID)


def _time(stamp_ns: int) -> Any:
    sec, nanosec = divmod(stamp_ns, NS_PER_S)
    return typestore().types["builtin_interfaces/msg/Time"](sec=sec, nanosec=nanosec)


def _cdr(kind: str, **fields: Any) -> bytes:
    store = typestore()
    return bytes(store.serialize_cdr(store.types[kind](**fields), kind))
