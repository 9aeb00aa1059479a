"""Clips out of a recording: the pictures of each cut with the sound under them, one pass over the whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from emo_perception.report.video import write_video
from emo_perception.sources import Item
from emo_perception.types import NS_PER_S, AudioChunk, Frame
from training.recordings.cuts import Cut

#: Sound and pictures of a bag are in the order of receipt: a clip is written when both must be through its end.
SETTLE_NS = 2 * NS_PER_S
JPEG_QUALITY = 95


@dataclass
class _Open:
    cut: Cut
    file: Path
    pictures: dict[int, bytes] = field(default_factory=dict)
    sound: list[AudioChunk] = field(default_factory=list)


def write_clips(items: Iterable[Item], wanted: Mapping[Path, Cut]) -> list[Path]:
    """Write each cut to its file as mp4 (H.264, AAC); returns those that got a picture, in the order of the cuts.

    Only the pictures of the cuts that are open are held, as JPEG.
    """
    waiting = sorted(((cut, file) for file, cut in wanted.items()), key=lambda pair: pair[0].start_ns, reverse=True)
    opened: list[_Open] = []
    written = []
    for item in items:
        while waiting and waiting[-1][0].start_ns <= _end_ns(item):
            opened.append(_Open(*waiting.pop()))
        for one in opened:
            _take(one, item)
        done = [one for one in opened if one.cut.end_ns + SETTLE_NS < item.stamp_ns]
        written += [one.file for one in done if _write(one)]
        opened = [one for one in opened if one not in done]
    written += [one.file for one in opened if _write(one)]
    order = list(wanted)
    return sorted(written, key=order.index)


def _end_ns(item: Item) -> int:
    return item.end_ns if isinstance(item, AudioChunk) else item.stamp_ns


def _take(one: _Open, item: Item) -> None:
    cut = one.cut
    if isinstance(item, Frame):
        if cut.start_ns <= item.stamp_ns < cut.end_ns:
            bgr = cv2.cvtColor(item.image, cv2.COLOR_RGB2BGR)
            _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            one.pictures[item.stamp_ns] = jpeg.tobytes()
    elif item.stamp_ns < cut.end_ns and item.end_ns > cut.start_ns:
        one.sound.append(item)


def _write(one: _Open) -> bool:
    if not one.pictures:
        return False
    pictures = sorted(one.pictures.items())
    one.file.parent.mkdir(parents=True, exist_ok=True)
    sound = list(trimmed(one.sound, pictures[0][0], one.cut.end_ns))
    return write_video(one.file, pictures, sound)


def trimmed(chunks: Iterable[AudioChunk], start_ns: int, end_ns: int) -> Iterator[AudioChunk]:
    """The sound between two times, in order, without what two chunks both have."""
    last_ns = start_ns
    for chunk in sorted(chunks, key=lambda c: c.stamp_ns):
        rate = chunk.sample_rate_hz
        first = max(0, -((chunk.stamp_ns - last_ns) * rate // NS_PER_S))
        last = min(len(chunk.samples), (end_ns - chunk.stamp_ns) * rate // NS_PER_S)
        if last > first:
            samples = np.ascontiguousarray(chunk.samples[first:last])
            kept = replace(chunk, stamp_ns=chunk.stamp_ns + first * NS_PER_S // rate, samples=samples)
            last_ns = kept.end_ns
            yield kept
