"""Sound as it comes: any rate, any kind of message, and what cannot be used."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from emo_perception import from_msg, pcm
from emo_perception.nodes import convert
from emo_perception.streaming.resample import RATE_HZ, Resampler
from emo_perception.types import NS_PER_S, AudioChunk, Utterance, Word

START_NS = 1_700_000_000 * NS_PER_S

#: Both packages that are called audio_common_msgs, as their authors define them.
ROS_DRIVERS = {
    "AudioData": "uint8[] data",
    "AudioDataStamped": "std_msgs/Header header\naudio_common_msgs/AudioData audio",
    "AudioInfo": "uint8 channels\nuint32 sample_rate\nstring sample_format\nuint32 bitrate\nstring coding_format",
}
MGONZS = {
    "AudioData": "float32[] float32_data\nint32[] int32_data\nint16[] int16_data\nint8[] int8_data\nuint8[] uint8_data",
    "AudioInfo": "int32 format\nint32 channels\nint32 rate\nint32 chunk",
    "Audio": "audio_common_msgs/AudioData audio_data\naudio_common_msgs/AudioInfo info",
    "AudioStamped": "std_msgs/Header header\naudio_common_msgs/Audio audio",
}


def types_of(definitions: dict[str, str]) -> SimpleNamespace:
    store = get_typestore(Stores.ROS2_JAZZY)
    for name, text in definitions.items():
        store.register(get_types_from_msg(text, f"audio_common_msgs/msg/{name}"))
    made = {name: store.types[f"audio_common_msgs/msg/{name}"] for name in definitions}
    time, header = store.types["builtin_interfaces/msg/Time"], store.types["std_msgs/msg/Header"]
    return SimpleNamespace(**made, header=lambda sec=1: header(time(sec, 5), "mic"))


DRIVERS, MGONZ = types_of(ROS_DRIVERS), types_of(MGONZS)


def tone(rate_hz: int, seconds: float = 1.0, hz: float = 440.0) -> np.ndarray:
    return (8000 * np.sin(2 * np.pi * hz * np.arange(round(rate_hz * seconds)) / rate_hz)).astype(np.int16)


def resampled(samples: np.ndarray, rate_hz: int, size: int) -> list[AudioChunk]:
    resampler = Resampler()
    return [
        resampler(AudioChunk(START_NS + i * NS_PER_S // rate_hz, samples[i : i + size], rate_hz, "mic"))
        for i in range(0, len(samples), size)
    ]


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 22_050, 44_100, 48_000, 44_099, 192_000])
def test_any_rate_in_pieces_of_any_size_gives_the_same_sound(rate_hz: int) -> None:
    whole = np.concatenate([c.samples for c in resampled(tone(rate_hz), rate_hz, rate_hz)])
    assert RATE_HZ - 30 < len(whole) <= RATE_HZ
    middle = slice(100, -100)
    assert np.abs(whole - tone(RATE_HZ)[: len(whole)].astype(int))[middle].max() < 10
    for size in (13, 1411):
        pieces = resampled(tone(rate_hz), rate_hz, size)
        np.testing.assert_array_equal(np.concatenate([c.samples for c in pieces]), whole)
        before = 0
        for piece in pieces:
            if len(piece.samples):
                assert abs(piece.stamp_ns - START_NS - before * NS_PER_S // RATE_HZ) <= 2
            before += len(piece.samples)


def test_what_is_above_the_band_does_not_come_back_as_something_else() -> None:
    (chunk,) = resampled(tone(48_000, hz=12_000), 48_000, 48_000)
    assert np.abs(chunk.samples[100:-100]).max() < 10


def test_a_hole_or_another_rate_starts_anew() -> None:
    resampler = Resampler()
    resampler(AudioChunk(START_NS, tone(48_000), 48_000))
    later = resampler(AudioChunk(START_NS + 5 * NS_PER_S, tone(48_000), 48_000))
    assert later.stamp_ns == START_NS + 5 * NS_PER_S
    slower = resampler(AudioChunk(START_NS + 6 * NS_PER_S, tone(8_000), 8_000))
    assert slower.stamp_ns == START_NS + 6 * NS_PER_S
    assert np.abs(slower.samples - tone(RATE_HZ)[: len(slower.samples)].astype(int))[100:-100].max() < 10


def test_sixteen_kilohertz_passes_as_it_is() -> None:
    chunk = AudioChunk(START_NS, tone(RATE_HZ), RATE_HZ)
    assert Resampler()(chunk) is chunk


@pytest.mark.parametrize("rate_hz", [44, 3_999, 192_001])
def test_rates_that_no_microphone_has_are_refused(rate_hz: int) -> None:
    with pytest.raises(ValueError, match=f"expected a sample rate of 4000 to 192000 Hz, got {rate_hz} Hz"):
        Resampler()(AudioChunk(START_NS, tone(8_000), rate_hz))


def stereo(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.stack((left, right), axis=1).reshape(-1)


@pytest.mark.parametrize(
    ("field", "convert_to"),
    [
        ("float32_data", lambda x: (x / 32768).astype(np.float32)),
        ("int32_data", lambda x: x.astype(np.int32) * 65536),
        ("int16_data", lambda x: x),
        ("int8_data", lambda x: (x // 256).astype(np.int8)),
        ("uint8_data", lambda x: (x // 256 + 128).astype(np.uint8)),
    ],
)
def test_every_field_of_an_audio_stamped_is_read(field: str, convert_to: object) -> None:
    empty = {name: np.zeros(0) for name in pcm.MGONZS_FIELDS}
    both = stereo(tone(44_100), np.zeros(44_100, np.int16))
    data = MGONZ.AudioData(**{**empty, field: convert_to(both)})
    message = MGONZ.AudioStamped(MGONZ.header(), MGONZ.Audio(data, MGONZ.AudioInfo(8, 2, 44_100, 1024)))
    chunk = pcm.sound(message)
    assert (chunk.stamp_ns, chunk.sample_rate_hz, chunk.frame_id) == (NS_PER_S + 5, 44_100, "mic")
    assert np.abs(chunk.samples - tone(44_100) / 2).max() <= (1 if field[-6:-5] not in "8" else 129)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("S16LE", tone(8_000).astype("<i2")),
        ("S16BE", tone(8_000).astype(">i2")),
        ("S32LE", tone(8_000).astype("<i4") * 65536),
        ("F32LE", (tone(8_000) / 32768).astype("<f4")),
    ],
)
def test_audio_data_is_read_as_its_info_says(name: str, data: np.ndarray) -> None:
    message = DRIVERS.AudioDataStamped(DRIVERS.header(), DRIVERS.AudioData(np.frombuffer(data.tobytes(), np.uint8)))
    chunk = pcm.sound(message, DRIVERS.AudioInfo(1, 8_000, name, 0, "wave"))
    np.testing.assert_allclose(chunk.samples, tone(8_000), atol=1)
    assert chunk.sample_rate_hz == 8_000


def drivers(data: bytes, sec: int = 1) -> object:
    return DRIVERS.AudioDataStamped(DRIVERS.header(sec), DRIVERS.AudioData(np.frombuffer(data, np.uint8)))


def mgonz(samples: np.ndarray, channels: int = 1, rate_hz: int = 16_000) -> object:
    empty = {name: np.zeros(0) for name in pcm.MGONZS_FIELDS}
    data = MGONZ.AudioData(**{**empty, "float32_data": samples})
    return MGONZ.AudioStamped(MGONZ.header(), MGONZ.Audio(data, MGONZ.AudioInfo(1, channels, rate_hz, 0)))


WAVE = DRIVERS.AudioInfo(1, 16_000, "S16LE", 0, "wave")


@pytest.mark.parametrize(
    ("message", "info", "said"),
    [
        (drivers(b"\xff\xfb" + bytes(400)), None, r"compressed sound \(MP3\): expected PCM; .* format:=wave"),
        (drivers(b"OggS" + bytes(400)), WAVE, r"compressed sound \(Ogg\): expected PCM"),
        (drivers(bytes(400)), DRIVERS.AudioInfo(1, 16_000, "S16LE", 0, "mp3"), r"compressed sound \(mp3\)"),
        (drivers(bytes(400)), None, "expected AudioInfo on audio_info beside it, none came"),
        (drivers(bytes(400)), DRIVERS.AudioInfo(1, 16_000, "S24LE", 0, "wave"), "expected one of S16LE.*got 'S24LE'"),
        (drivers(bytes(401)), WAVE, "whole samples of S16LE, got 401 bytes"),
        (drivers(bytes(402)), DRIVERS.AudioInfo(2, 16_000, "S16LE", 0, "wave"), "201 values of 2 channels"),
        (drivers(bytes(400), sec=0), WAVE, None),
        (DRIVERS.AudioData(np.zeros(4, np.uint8)), WAVE, "AudioData has no header.*audio_topic:="),
        (mgonz(np.array([0.1, np.nan, np.inf, 0.2], np.float32)), None, "2 of 4 samples are NaN or infinite"),
        (mgonz(np.zeros(5, np.float32), channels=2), None, "5 values of 2 channels"),
        (mgonz(np.zeros(5, np.float32), channels=0), None, "5 values of 0 channels"),
        (mgonz(np.zeros(5, np.float32), rate_hz=44), None, "got 44 Hz"),
        (SimpleNamespace(header=MGONZ.header(), text="hello"), None, "SimpleNamespace: expected emo_msgs/AudioChunk"),
    ],
)
def test_sound_that_cannot_be_says_what_was_expected(message: object, info: object, said: str | None) -> None:
    if said is None:
        message.header.stamp.nanosec = 0
        said = "header.stamp is zero"
    with pytest.raises(pcm.BadSound, match=said):
        pcm.sound(message, info)


def test_loud_floats_are_limited_and_nothing_is_still_sound() -> None:
    assert pcm.sound(mgonz(np.array([2.0, -2.0], np.float32))).samples.tolist() == [32767, -32768]
    assert len(pcm.sound(mgonz(np.zeros(0, np.float32))).samples) == 0


def test_an_utterance_survives_the_way_over_a_topic() -> None:
    word = Word("hello", START_NS, START_NS + 7, 0.5)
    before = Utterance("u1", START_NS, START_NS + 9, "hello", "Ann", 3, "en", 0.25, (word,), "mic")
    assert from_msg.utterance(convert.utterance_msg(before)) == before
