"""The sources in real time: pace, drops, reconnection, failures, closing."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from media_files import count_of, write_clip
from source_tools import GSTREAMER_LACKS, Listener, each_backend, read, wait_for

from emo_perception.config import SourceConfig
from emo_perception.sources import SourceError, SourceState, SourceStatus, open_source
from emo_perception.types import NS_PER_S, Frame


@each_backend
def test_a_file_plays_at_its_own_speed(backend: str, tmp_path: Path) -> None:
    source = open_source(SourceConfig(uri=str(write_clip(tmp_path / "clip.mp4")), backend=backend))
    arrivals: list[tuple[int, int]] = []
    states: list[SourceStatus] = []
    source.start(lambda f: arrivals.append((time.monotonic_ns(), f.stamp_ns)), lambda _: None, states.append)
    wait_for(lambda: bool(states) and states[-1].state is SourceState.ENDED)
    source.close()
    assert source.zero_monotonic_ns is not None
    early = [stamp_ns - (now_ns - source.zero_monotonic_ns) for now_ns, stamp_ns in arrivals]
    assert max(early) <= 0  # never before its time
    assert [s.state for s in states] == [SourceState.OPENING, SourceState.PLAYING, SourceState.ENDED]
    assert states[-1].frames == len(arrivals)
    assert states[-1].frames + states[-1].dropped == 25
    assert states[-1].loops == 1
    assert states[-1].audio_chunks >= 15


@each_backend
def test_a_slow_taker_gets_the_newest_frame_and_all_sound(backend: str, tmp_path: Path) -> None:
    source = open_source(SourceConfig(uri=str(write_clip(tmp_path / "clip.mp4")), backend=backend))
    frames: list[int] = []
    samples: list[int] = []
    states: list[SourceStatus] = []
    hold = threading.Event()

    def slow(frame: Frame) -> None:
        frames.append(count_of(frame.image))
        hold.wait(0.2)

    source.start(slow, lambda c: samples.append(len(c.samples)), states.append)
    wait_for(lambda: bool(states) and states[-1].state is SourceState.ENDED)
    source.close()
    assert states[-1].dropped > 5
    assert len(frames) + states[-1].dropped == 25
    assert frames == sorted(frames)
    assert frames[-1] == 24
    assert sum(samples) >= 15_900


@each_backend
def test_without_realtime_a_file_waits_for_its_taker(backend: str, tmp_path: Path) -> None:
    config = SourceConfig(uri=str(write_clip(tmp_path / "clip.mp4")), backend=backend, realtime=False)
    source = open_source(config)
    listener = Listener(source)
    wait_for(lambda: listener.reached(SourceState.ENDED))
    source.close()
    assert [count_of(f.image) for f in listener.frames] == list(range(25))
    assert listener.states[-1].dropped == 0


def test_a_failing_callback_does_not_end_the_source(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = open_source(SourceConfig(uri=str(write_clip(tmp_path / "clip.mp4", frames=5)), backend="pyav"))
    states: list[SourceStatus] = []
    source.start(lambda _: 1 / 0, lambda _: None, states.append)
    wait_for(lambda: bool(states) and states[-1].state is SourceState.ENDED)
    source.close()
    assert "a callback failed" in caplog.text


def test_a_source_is_used_once(tmp_path: Path) -> None:
    source = open_source(SourceConfig(uri=str(write_clip(tmp_path / "clip.mp4")), backend="pyav"))
    list(source)
    with pytest.raises(RuntimeError, match="open_source"):
        list(source)


# ---- bad input


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("", "source.uri is empty"),
        ("/nowhere/clip.mp4", "no such file"),
        ("/tmp", "this is a folder"),
        ("http://host/clip.mp4", "expected /dev/videoN"),
    ],
)
def test_impossible_addresses(uri: str, says: str) -> None:
    with pytest.raises(SourceError, match=says) as caught:
        open_source(SourceConfig(uri=uri))
    assert caught.value.permanent


@each_backend
def test_not_a_video(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "notes.mp4"
    path.write_text("these are not the pictures you are looking for\n" * 100)
    with pytest.raises(SourceError, match="cannot be played as a video"):
        read(backend, path)
    source = open_source(SourceConfig(uri=str(path), backend=backend))
    listener = Listener(source)
    wait_for(lambda: listener.reached(SourceState.FAILED))
    source.close()
    assert "notes.mp4" in listener.states[-1].detail
    assert not listener.reached(SourceState.RECONNECTING)


@each_backend
def test_a_file_that_lost_its_end_is_played_and_reported(
    backend: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = write_clip(tmp_path / "clip.mkv", frames=100, sound_s=4.0)
    assert len(read(backend, whole)[0]) == 100
    assert "cut off" not in caplog.text
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert 20 < len(read(backend, whole)[0]) < 80
    assert "of the 4.0 s that it announces: is it cut off?" in caplog.text


@each_backend
def test_only_sound(backend: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="found only sound"):
        read(backend, write_clip(tmp_path / "song.wav", video=False))


@each_backend
def test_a_missing_camera_names_those_there_are(backend: str) -> None:
    config = SourceConfig(uri="/dev/video97", backend=backend, reconnect_first_s=0.05, reconnect_max_s=0.1)
    source = open_source(config)
    listener = Listener(source)
    wait_for(lambda: sum(s.state is SourceState.RECONNECTING for s in listener.states) >= 3)
    source.close()
    assert "no such camera; cameras on this machine" in listener.states[1].detail
    waits = [s.detail.rsplit(" in ", 1)[1] for s in listener.states if s.state is SourceState.RECONNECTING]
    assert waits[:3] == ["0.1 s", "0.1 s", "0.1 s"]


@each_backend
def test_closing_while_a_server_does_not_answer(backend: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        source = open_source(SourceConfig(uri=f"rtsp://127.0.0.1:{server.getsockname()[1]}/cam", backend=backend))
        listener = Listener(source)
        link, _ = server.accept()  # it has connected, and waits for an answer that never comes
        began = time.monotonic()
        source.close()
        link.close()
    assert time.monotonic() - began < 2.0
    assert not any(t.is_alive() for t in source._threads)
    assert listener.reached(SourceState.OPENING)


@each_backend
def test_nobody_at_the_address(backend: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    source = open_source(SourceConfig(uri=f"rtsp://me:secret@127.0.0.1:{port}/cam", backend=backend))
    listener = Listener(source)
    wait_for(lambda: listener.reached(SourceState.RECONNECTING))
    source.close()
    assert "secret" not in "".join(s.detail + s.uri for s in listener.states)


def rtsp_server_lacks() -> str:
    try:
        import gi

        gi.require_version("GstRtspServer", "1.0")
    except (ImportError, ValueError) as error:
        return f"{error} (Debian package gir1.2-gst-rtsp-server-1.0)"
    return GSTREAMER_LACKS


@contextmanager
def rtsp_server(port: int) -> Iterator[None]:
    script = Path(__file__).with_name("rtsp_server.py")
    command = [sys.executable, "-W", "ignore", str(script), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.terminate()


@pytest.mark.skipif(bool(rtsp_server_lacks()), reason=f"no RTSP server: {rtsp_server_lacks()}")
@each_backend
def test_a_stream_comes_back_after_its_server_was_away(backend: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = SourceConfig(uri=f"rtsp://127.0.0.1:{port}/cam", backend=backend, reconnect_first_s=0.1)
    source = open_source(config)
    try:
        with rtsp_server(port):
            listener = Listener(source)
            wait_for(lambda: len(listener.frames) > 10 and len(listener.chunks) > 5, 20)
            assert listener.frames[0].image.shape == (240, 320, 3)
            assert np.abs(listener.chunks[-1].samples).max() > 1000
            assert abs(listener.frames[-1].stamp_ns - listener.chunks[-1].stamp_ns) < NS_PER_S // 2
        wait_for(lambda: listener.reached(SourceState.RECONNECTING), 20)
        before = len(listener.frames)
        with rtsp_server(port):
            wait_for(
                lambda: len(listener.frames) > before + 10 and listener.states[-1].state is SourceState.PLAYING, 20
            )
            source.close()
    finally:
        source.close()
    assert listener.states[0].state is SourceState.OPENING
    assert "trying again in" in next(s.detail for s in listener.states if s.state is SourceState.RECONNECTING)
    stamps = [f.stamp_ns for f in listener.frames]
    assert stamps == sorted(set(stamps))
    assert source.zero_monotonic_ns is not None
    assert (
        abs(time.monotonic_ns() - source.zero_monotonic_ns - stamps[-1]) < NS_PER_S
    )  # stream time kept up with the clock
