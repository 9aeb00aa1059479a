"""The sources on real files, for every backend that this machine has."""

from __future__ import annotations

import logging
import struct
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from media_files import FPS, count_of, write_clip
from source_tools import each_backend, read, with_gstreamer

from emo_perception.config import SourceConfig
from emo_perception.sources import SourceError, open_source
from emo_perception.sources import choose as choosing
from emo_perception.sources.base import Kind, locate
from emo_perception.sources.outbox import Outbox
from emo_perception.sources.shaping import AudioChunker, RateLimiter, scaled_size
from emo_perception.types import NS_PER_S, AudioChunk, Frame

FRAME_NS = NS_PER_S // FPS


# ---- files, offline


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@each_backend
def test_every_frame_and_sample_of_a_file(backend: str, suffix: str, tmp_path: Path) -> None:
    frames, chunks = read(backend, write_clip(tmp_path / f"clip{suffix}"))
    assert [count_of(f.image) for f in frames] == list(range(25))
    steps = np.diff([f.stamp_ns for f in frames])
    assert np.all(np.abs(steps - FRAME_NS) <= 1_000_000)  # Matroska keeps milliseconds
    assert abs(frames[0].stamp_ns) <= FRAME_NS
    image = frames[0].image
    assert image.shape == (240, 320, 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.flags.owndata or image.base is not None
    sound = np.concatenate([c.samples for c in chunks])
    assert sound.dtype == np.int16
    assert abs(len(sound) - 16_000) < 16_000 * 0.07
    assert all(len(c.samples) == 1024 for c in chunks[:-1])
    spectrum = np.abs(np.fft.rfft(sound[4000:12000].astype(float)))
    assert np.argmax(spectrum) * 16_000 / 8000 == pytest.approx(1000, abs=5)


@each_backend
def test_flash_and_beep_come_out_together(backend: str, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "sync.mp4", frames=50, sound_s=2.0, flash=range(25, 30), beep_s=(1.0, 1.2))
    frames, chunks = read(backend, clip)
    flash_ns = next(f.stamp_ns for f in frames if f.image.mean() > 128)
    loud_ns = next(
        c.stamp_ns + int(np.argmax(np.abs(c.samples) > 4000)) * NS_PER_S // 16_000
        for c in chunks
        if np.abs(c.samples).max() > 4000
    )
    assert abs(flash_ns - loud_ns) < FRAME_NS
    assert abs(flash_ns - NS_PER_S) <= FRAME_NS


@each_backend
def test_sound_that_begins_late_keeps_its_time(backend: str, tmp_path: Path) -> None:
    frames, chunks = read(backend, write_clip(tmp_path / "late.mkv", frames=50, sound_s=1.0, sound_from_s=1.0))
    assert len(frames) == 50
    assert abs(chunks[0].stamp_ns - NS_PER_S) < 5_000_000


@each_backend
def test_silent_clip(backend: str, tmp_path: Path) -> None:
    frames, chunks = read(backend, write_clip(tmp_path / "silent.mp4", sound_s=None))
    assert len(frames) == 25
    assert not chunks


@each_backend
def test_sound_is_left_out_on_request(backend: str, tmp_path: Path) -> None:
    frames, chunks = read(backend, write_clip(tmp_path / "clip.mp4"), audio=False)
    assert len(frames) == 25
    assert not chunks


@each_backend
def test_rows_that_need_padding(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 641, 33, "bgr0"
        ramp = np.repeat((np.arange(641) % 256).astype(np.uint8)[None, :, None], 3, axis=2).repeat(33, axis=0)
        frame = av.VideoFrame.from_ndarray(ramp, format="rgb24")
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    frames, _ = read(backend, path)
    assert np.array_equal(frames[0].image, ramp)


@pytest.mark.parametrize("pixels", ["yuv420p10le", "yuv422p", "gray", "bgr0"])
@each_backend
def test_pixel_formats(backend: str, pixels: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        grey = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="rgb24")
        out.mux(stream.encode(grey))
        out.mux(stream.encode(None))
    frames, _ = read(backend, path)
    assert np.abs(frames[0].image.astype(int) - 90).max() <= 4


@each_backend
def test_a_telephone_video_is_turned_upright(backend: str, tmp_path: Path) -> None:
    clip = tmp_path / "phone.mp4"
    with av.open(str(clip), "w") as out:
        stream = out.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for _ in range(3):
            image = np.zeros((240, 320, 3), np.uint8)
            image[:, :40] = 255  # left edge as stored
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode(None))
    one = 1 << 16
    upright = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    quarter = struct.pack(">9i", 0, one, 0, -one, 0, 0, 240 * one, 0, 1 << 30)  # shown turned clockwise
    data = clip.read_bytes()
    track = data.index(b"tkhd")
    clip.write_bytes(data[:track] + data[track:].replace(upright, quarter, 1))
    frames, _ = read(backend, clip)
    assert frames[0].image.shape == (320, 240, 3)
    assert frames[0].image[:30].mean() > 200
    assert frames[0].image[60:].mean() < 50


@each_backend
def test_size_and_rate(backend: str, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", frames=50, sound_s=None)
    frames, _ = read(backend, clip, width=160, fps=10.0)
    assert frames[0].image.shape == (120, 160, 3)
    assert len(frames) == 20
    frames, _ = read(backend, clip, width=100, height=100)
    assert frames[0].image.shape == (100, 100, 3)
    assert len(frames) == 50


@each_backend
def test_twice_the_same(backend: str, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4")
    (frames, chunks), (frames2, chunks2) = read(backend, clip), read(backend, clip)
    assert [f.stamp_ns for f in frames] == [f.stamp_ns for f in frames2]
    assert [c.stamp_ns for c in chunks] == [c.stamp_ns for c in chunks2]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(frames, frames2, strict=True))
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(chunks, chunks2, strict=True))


@with_gstreamer
def test_the_backends_agree(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4")
    (frames, chunks), (frames2, chunks2) = read("gstreamer", clip), read("pyav", clip)
    assert [count_of(f.image) for f in frames] == [count_of(f.image) for f in frames2]
    assert np.abs(np.diff([[f.stamp_ns, g.stamp_ns] for f, g in zip(frames, frames2, strict=True)])).max() <= 2
    assert max(np.abs(f.image.astype(int) - g.image).mean() for f, g in zip(frames, frames2, strict=True)) < 4
    first, second = (np.concatenate([c.samples for c in part]).astype(float)[2000:14_000] for part in (chunks, chunks2))
    assert np.corrcoef(first, second)[0, 1] > 0.95  # less than a sample apart


@each_backend
def test_loop_goes_on_in_time(backend: str, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", frames=10, sound_s=0.4)
    source = open_source(SourceConfig(uri=str(clip), backend=backend, loop=True))
    frames = []
    for item in source:
        if isinstance(item, Frame):
            frames.append(item)
        if len(frames) == 25:
            source.close()
    assert [count_of(f.image) for f in frames] == [i % 10 for i in range(25)]
    steps = np.diff([f.stamp_ns for f in frames])
    assert steps.min() >= FRAME_NS - 1000
    assert steps.max() < 3 * FRAME_NS


@each_backend
def test_test_pattern(backend: str) -> None:
    frames, chunks = [], []
    for item in open_source(SourceConfig(uri="test://", backend=backend)):
        (frames if isinstance(item, Frame) else chunks).append(item)
        if item.stamp_ns >= NS_PER_S:
            break
    assert 30 <= len(frames) <= 31
    assert frames[0].image.shape == (480, 640, 3)
    assert 15 <= len(chunks) <= 17
    assert np.abs(chunks[3].samples).max() > 1000


# ---- pictures


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_picture(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"picture{suffix}"
    cv2.imwrite(str(path), np.full((30, 40, 3), (255, 0, 0), np.uint8))
    source = open_source(SourceConfig(uri=str(path), picture_s=1.0))
    frames = list(source)
    assert source.backend == "picture"
    assert len(frames) == 10
    assert [f.stamp_ns for f in frames] == [i * NS_PER_S // 10 for i in range(10)]
    assert isinstance(frames[0], Frame)
    assert frames[0].image[0, 0, 2] > 250
    assert frames[0].image[0, 0, 0] < 5


def test_cut_off_picture(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (99, 99, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:24])
    with pytest.raises(SourceError, match="is it cut off"):
        list(open_source(SourceConfig(uri=str(path))))


# ---- choice of the backend


def test_auto_takes_gstreamer_or_says_why_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    clip = write_clip(tmp_path / "clip.mp4", frames=2)
    monkeypatch.setattr(choosing, "gstreamer_lacks", lambda _: "GStreamer's Python bindings cannot be imported")
    assert open_source(SourceConfig(uri=str(clip))).backend == "pyav"
    assert "read by PyAV, for GStreamer's Python bindings cannot be imported" in caplog.text
    assert "sudo apt install python3-gi" in caplog.text
    with pytest.raises(SourceError, match="sudo apt install python3-gi"):
        open_source(SourceConfig(uri=str(clip), backend="gstreamer"))
    monkeypatch.setattr(choosing, "gstreamer_lacks", lambda _: "")
    assert open_source(SourceConfig(uri=str(clip))).backend == "gstreamer"


# ---- the parts


def test_kinds_are_read_from_the_content(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", frames=2)
    disguised = clip.rename(tmp_path / "clip.png")
    assert locate(str(disguised)).kind is Kind.FILE
    assert locate(disguised.as_uri()).kind is Kind.FILE
    assert locate("/dev/video0").kind is Kind.DEVICE
    assert locate("rtsp://cam/1").kind is Kind.RTSP
    assert locate("rtsp://me:secret@cam/1").shown == "rtsp://me:***@cam/1"


@pytest.mark.parametrize(("source_fps", "fps", "kept"), [(30, 10, 100), (30, 30, 300), (25, 60, 250), (30, 20, 200)])
def test_rate_limiter(source_fps: int, fps: float, kept: int) -> None:
    limiter = RateLimiter(fps)
    jitter = np.random.default_rng(0).integers(-2_000_000, 2_000_000, 10 * source_fps)
    stamps = [i * NS_PER_S // source_fps + int(jitter[i]) for i in range(10 * source_fps)]
    assert sum(limiter.keep(stamp) for stamp in stamps) == pytest.approx(kept, abs=1)


def test_scaled_size() -> None:
    assert scaled_size((640, 480), 0, 0) == (640, 480)
    assert scaled_size((640, 480), 320, 0) == (320, 240)
    assert scaled_size((640, 480), 0, 240) == (320, 240)
    assert scaled_size((640, 480), 100, 100) == (100, 100)


def test_chunker_counts_samples_and_starts_again_at_a_gap() -> None:
    chunker = AudioChunker(10, "mic")
    ramp = np.arange(400, dtype=np.int16)
    chunks = chunker.push(5_000_000, ramp[:100]) + chunker.push(11_300_000, ramp[100:])  # 50 us of jitter
    assert [c.stamp_ns for c in chunks] == [5_000_000, 15_000_000]
    assert np.array_equal(np.concatenate([c.samples for c in chunks]), ramp[:320])
    after = chunker.push(NS_PER_S, ramp[:160])
    assert [(c.stamp_ns, len(c.samples)) for c in after] == [(25_000_000, 80), (NS_PER_S, 160)]
    assert chunker.flush() == []


def test_outbox_keeps_order_and_counts_what_it_drops() -> None:
    outbox = Outbox(lossless=False)
    image = np.zeros((1, 1, 3), np.uint8)
    chunk = AudioChunk(0, np.zeros(1, np.int16))
    for entry in (Frame(1, image), chunk, Frame(2, image), chunk, Frame(3, image)):
        outbox.put(entry)
    outbox.close()
    taken = [outbox.take() for _ in range(4)]
    assert taken[0] is chunk
    assert taken[1] is chunk
    assert taken[3] is None
    assert isinstance(taken[2], Frame)
    assert taken[2].stamp_ns == 3
    assert outbox.dropped == 2
