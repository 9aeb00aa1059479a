"""Writing clips: H.264 and, where somebody speaks, AAC in an MP4; the same frames give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, cast

import av
import numpy as np
from numpy.typing import NDArray

from training.toyworld.pen import Image

SAMPLE_RATE_HZ: Final = 16_000
#: x264's slower presets look ahead, and that part of it now and then decides otherwise for the same images.
_H264: Final = {"crf": "20", "preset": "superfast"}


def write_video(file: Path, images: Sequence[Image], fps: int, sound: NDArray[np.float32] | None = None) -> None:
    """Write RGB images [H, W, 3] of even size; ``sound``: mono samples in -1 to 1 at :data:`SAMPLE_RATE_HZ`.

    One thread and no time of day in the file, so that it is reproducible with the same versions of the libraries.
    """
    height, width = images[0].shape[:2]
    with av.open(str(file), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        video = cast("Any", container.add_stream("libx264", rate=fps, options=_H264))
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.thread_count = 1
        video.codec_context.flags |= int(av.codec.context.Flags.bitexact)
        voice = (
            cast("Any", container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono")) if sound is not None else None
        )
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if voice is not None and sound is not None:
            voice.codec_context.flags |= int(av.codec.context.Flags.bitexact)
            samples = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound[None]), format="fltp", layout="mono")
            samples.sample_rate, samples.pts = SAMPLE_RATE_HZ, 0
            container.mux(voice.encode(samples))
            container.mux(voice.encode(None))
