"""Sound out of messages, whoever made them: ours, and both packages that are called ``audio_common_msgs``. ROS-free.

They are told apart by their fields, for their names are the same:

* ours: ``AudioChunk{header, sample_rate, channels, int16[] data}``;
* ros-drivers: ``AudioDataStamped{header, audio{uint8[] data}}``; ``AudioInfo`` on a topic beside it says what the bytes are;
* mgonzs13: ``AudioStamped{header, audio{audio_data{float32_data, int16_data, ...}, info{format, channels, rate}}}``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from emo_perception import from_msg
from emo_perception.streaming.resample import HIGHEST_HZ, LOWEST_HZ
from emo_perception.types import AudioChunk


class BadSound(ValueError):  # noqa: N818 - the name says it
    """Sound that cannot be used; the message names what was expected, what came and what to do."""


#: Magic numbers of compressed sound, for who publishes it without saying so.
COMPRESSED = {
    b"ID3": "MP3",
    b"\xff\xfb": "MP3",
    b"\xff\xf3": "MP3",
    b"\xff\xf2": "MP3",
    b"OggS": "Ogg",
    b"fLaC": "FLAC",
}
#: GStreamer's names of sample formats, which ros-drivers uses -> numpy, full scale, zero.
GST_FORMATS = {
    "S16LE": ("<i2", 32768.0, 0.0),
    "S16BE": (">i2", 32768.0, 0.0),
    "S32LE": ("<i4", 2147483648.0, 0.0),
    "F32LE": ("<f4", 1.0, 0.0),
    "S8": ("i1", 128.0, 0.0),
    "U8": ("u1", 128.0, 128.0),
}
#: Fields of mgonzs13's AudioData -> full scale, zero.
MGONZS_FIELDS = {
    "float32_data": (1.0, 0.0),
    "int32_data": (2147483648.0, 0.0),
    "int16_data": (32768.0, 0.0),
    "int8_data": (128.0, 0.0),
    "uint8_data": (128.0, 128.0),
}


def sound(message: Any, info: Any = None) -> AudioChunk:
    """Mono PCM of a message; ``info``: the ``AudioInfo`` that belongs to it. Raises :class:`BadSound`."""
    if not hasattr(message, "header"):
        raise BadSound(
            f"{type(message).__name__} has no header: expected the acquisition time of the sound; read a stamped topic, "
            "as audio_stamped of audio_capture, with audio_topic:=..."
        )
    stamp_ns, frame_id = from_msg.stamp_ns(message.header.stamp), message.header.frame_id
    if stamp_ns == 0:
        raise BadSound("header.stamp is zero: expected the acquisition time of the first sample; set it in the driver")
    if hasattr(message, "sample_rate"):
        try:
            chunk = from_msg.audio(message)
        except ValueError as error:
            raise BadSound(str(error)) from None
        return _checked(chunk)
    audio = getattr(message, "audio", None)
    if hasattr(audio, "audio_data"):
        samples, rate_hz = _mgonzs(audio)
    elif hasattr(audio, "data"):
        samples, rate_hz = _ros_drivers(audio, info)
    else:
        raise BadSound(
            f"{type(message).__name__}: expected emo_msgs/AudioChunk, or AudioStamped or AudioDataStamped of "
            "audio_common_msgs"
        )
    return _checked(AudioChunk(stamp_ns, samples, rate_hz, frame_id))


def _checked(chunk: AudioChunk) -> AudioChunk:
    if not LOWEST_HZ <= chunk.sample_rate_hz <= HIGHEST_HZ:
        raise BadSound(f"expected a sample rate of {LOWEST_HZ} to {HIGHEST_HZ} Hz, got {chunk.sample_rate_hz} Hz")
    return chunk


def _ros_drivers(audio: Any, info: Any) -> tuple[NDArray[np.int16], int]:
    data = bytes(audio.data)
    for magic, name in COMPRESSED.items():
        if data.startswith(magic):
            raise BadSound(_compressed(name))
    if info is None:
        raise BadSound("AudioData says nothing of its format: expected AudioInfo on audio_info beside it, none came")
    if info.coding_format not in ("", "wave", "raw", "pcm"):
        raise BadSound(_compressed(info.coding_format))
    if info.sample_format not in GST_FORMATS:
        raise BadSound(f"sample_format: expected one of {', '.join(GST_FORMATS)}; got {info.sample_format!r}")
    kind, scale, zero = GST_FORMATS[info.sample_format]
    if len(data) % np.dtype(kind).itemsize:
        raise BadSound(f"expected whole samples of {info.sample_format}, got {len(data)} bytes")
    return _mono(np.frombuffer(data, kind), scale, zero, info.channels), int(info.sample_rate)


def _compressed(name: str) -> str:
    return (
        f"compressed sound ({name}): expected PCM; start the driver with format:=wave (audio_capture's default is mp3)"
    )


def _mgonzs(audio: Any) -> tuple[NDArray[np.int16], int]:
    filled = [name for name in MGONZS_FIELDS if len(getattr(audio.audio_data, name, ()))]
    if len(filled) > 1:
        raise BadSound(f"expected samples in one field of audio_data, got {' and '.join(filled)}")
    if not filled:
        return np.zeros(0, np.int16), int(audio.info.rate)
    scale, zero = MGONZS_FIELDS[filled[0]]
    return _mono(np.asarray(getattr(audio.audio_data, filled[0])), scale, zero, audio.info.channels), int(
        audio.info.rate
    )


def _mono(values: NDArray[Any], scale: float, zero: float, channels: int) -> NDArray[np.int16]:
    """int16 [n] of interleaved samples of any kind. Raises :class:`BadSound`."""
    if channels < 1 or len(values) % channels:
        raise BadSound(f"expected whole samples of all channels, got {len(values)} values of {channels} channels")
    scaled = (values.astype(np.float64).reshape(-1, channels).mean(axis=1) - zero) / scale
    if not np.isfinite(scaled).all():
        bad = int(np.count_nonzero(~np.isfinite(scaled)))
        raise BadSound(
            f"{bad} of {len(scaled)} samples are NaN or infinite: expected values in [-1, 1]; check the driver"
        )
    whole: NDArray[np.int16] = np.clip(np.rint(scaled * 32768), -32768, 32767).astype(np.int16)
    return whole
