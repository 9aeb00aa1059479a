"""Small videos with a counter in the pixels, a flash and a beep, written by the tests themselves."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

FPS = 25
RATE_HZ = 44_100
TONE_HZ = 1000


def counted(index: int, width: int, height: int) -> np.ndarray:
    """RGB image [H, W, 3]; its eight vertical bars spell ``index`` in binary, lowest bit left."""
    bits = np.array([(index >> bit) & 1 for bit in range(8)], np.uint8)
    row = np.repeat(bits, -(-width // 8))[:width] * 200 + 20
    return np.repeat(np.tile(row, (height, 1))[..., None], 3, axis=2).astype(np.uint8)


def count_of(image: np.ndarray) -> int:
    """The number that :func:`counted` wrote."""
    width = image.shape[1]
    centres = [int((bit + 0.5) * -(-width // 8)) for bit in range(8)]
    row = image[image.shape[0] // 2, [min(c, width - 1) for c in centres]].mean(axis=1)
    return sum(int(value > 120) << bit for bit, value in enumerate(row))


def write_clip(
    path: Path,
    *,
    frames: int = 25,
    size: tuple[int, int] = (320, 240),
    sound_s: float | None = 1.0,
    beep_s: tuple[float, float] = (0.0, 1e9),
    flash: range | None = None,
    video: bool = True,
    sound_from_s: float = 0.0,
) -> Path:
    """A clip whose frames carry their index (white during ``flash``, black around it), with a tone during ``beep_s``."""
    with av.open(str(path), "w") as out:
        if video:
            images = out.add_stream("mpeg4", rate=FPS)
            images.width, images.height, images.pix_fmt = *size, "yuv420p"
            images.bit_rate = 4_000_000
        if sound_s is not None:
            sound = out.add_stream(
                "pcm_s16le" if path.suffix in (".mkv", ".wav") else "aac", rate=RATE_HZ, layout="mono"
            )
        for index in range(frames if video else 0):
            image = (
                counted(index, *size)
                if flash is None
                else np.full((size[1], size[0], 3), 255 * (index in flash), np.uint8)
            )
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            out.mux(images.encode(frame))
        if video:
            out.mux(images.encode(None))
        if sound_s is not None:
            times = np.arange(int(sound_s * RATE_HZ)) / RATE_HZ + sound_from_s
            tone = 12_000 * np.sin(2 * np.pi * TONE_HZ * times) * ((times >= beep_s[0]) & (times < beep_s[1]))
            for start in range(0, len(tone), 1024):
                part = av.AudioFrame.from_ndarray(tone[None, start : start + 1024].astype(np.int16), "s16", "mono")
                part.sample_rate, part.pts, part.time_base = (
                    RATE_HZ,
                    start + int(sound_from_s * RATE_HZ),
                    Fraction(1, RATE_HZ),
                )
                out.mux(sound.encode(part))
            out.mux(sound.encode(None))
    return path
