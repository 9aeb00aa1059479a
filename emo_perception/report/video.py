"""The overlay pictures of a run, with its sound, as one mp4 that plays everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from emo_perception.types import NS_PER_S, AudioChunk

TIME_BASE = Fraction(1, 90_000)


def write_video(path: Path, pictures: Sequence[tuple[int, bytes]], sound: Sequence[AudioChunk]) -> bool:
    """Write JPEG pictures at their stamps (H.264) and the sound under them (AAC); False when there are no pictures."""
    if not pictures:
        return False
    start_ns = pictures[0][0]
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        first = _decode(pictures[0][1])
        video: Any = container.add_stream("h264", rate=30, options={"crf": "20", "preset": "veryfast"})
        video.width, video.height, video.pix_fmt = first.shape[1] // 2 * 2, first.shape[0] // 2 * 2, "yuv420p"
        video.codec_context.time_base = video.time_base = TIME_BASE
        track: Any = container.add_stream("aac", rate=sound[0].sample_rate_hz, layout="mono") if sound else None
        for stamp_ns, jpeg in pictures:
            image = _decode(jpeg)[: video.height, : video.width]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")
            frame.pts = round((stamp_ns - start_ns) / NS_PER_S / TIME_BASE)
            frame.time_base = TIME_BASE
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if track is not None:
            _write_sound(container, track, sound, start_ns)
    return True


def _write_sound(container: Any, track: Any, sound: Sequence[AudioChunk], start_ns: int) -> None:
    for chunk in sound:
        rate = chunk.sample_rate_hz
        pts = round((chunk.stamp_ns - start_ns) * rate / NS_PER_S)
        if pts < 0:
            continue
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(chunk.samples[None]), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, pts, Fraction(1, rate)
        container.mux(track.encode(frame))
    container.mux(track.encode())


def _decode(jpeg: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
