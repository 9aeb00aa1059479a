"""The real source process on real files: what arrives on its topics, and how it ends."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from graph_peer import Peer, end, start
from media_files import FPS, count_of, write_clip
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image

from emo_msgs.msg import AudioChunk
from emo_msgs.msg import SourceState as StateMsg
from emo_perception import from_msg
from emo_perception.config import EXIT_CONFIG
from emo_perception.images import frame_from_msg
from emo_perception.nodes import qos
from emo_perception.sources import SourceState
from emo_perception.types import NS_PER_S


class Watcher(Peer):
    """Keeps everything the source publishes, by topic."""

    def __init__(self) -> None:
        super().__init__("watcher")
        self.got: dict[str, list] = {}
        self.subscribe(StateMsg, "source_state", qos.STATE)

    def subscribe(self, message: type, topic: str, profile: QoSProfile) -> None:
        self.got[topic] = self.hear(message, topic, profile)

    def spin_until(self, condition: Callable[[], bool]) -> None:
        self.until(condition, "what the source should send")

    def state(self) -> int | None:
        return self.got["source_state"][-1].state if self.got["source_state"] else None


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    made = Watcher()
    yield made
    made.close()


@contextmanager
def source_process(**parameters: object) -> Iterator[subprocess.Popen[str]]:
    process = start("source", *(part for name, value in parameters.items() for part in ("-p", f"{name}:={value}")))
    try:
        yield process
    finally:
        end(process)


def stop(process: subprocess.Popen[str], how: signal.Signals) -> float:
    began = time.monotonic()
    output = end(process, how)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    return time.monotonic() - began


def test_the_numbers_of_the_states_are_those_of_the_message() -> None:
    assert {state.name: int(state) for state in SourceState} == {s.name: getattr(StateMsg, s.name) for s in SourceState}


def test_a_clip_arrives_whole_and_its_end_is_latched(watcher: Watcher, tmp_path: Path) -> None:
    watcher.subscribe(Image, "image_raw", qos._qos(100))
    watcher.subscribe(AudioChunk, "audio", qos.AUDIO_SUB)
    clip = write_clip(tmp_path / "clip.mp4", frames=30, sound_s=1.2)
    with source_process(uri=clip, backend="pyav", frame_id="eye") as process:
        watcher.spin_until(lambda: watcher.state() == StateMsg.ENDED)
        end = watcher.got["source_state"][-1]
        watcher.spin_until(lambda: len(watcher.got["audio"]) == end.audio_chunks)
        images, chunks = watcher.got["image_raw"], watcher.got["audio"]
        counts = [count_of(frame_from_msg(m).image) for m in images]
        assert counts[0] == 0
        assert counts == sorted(set(counts))
        assert end.frames >= len(counts) >= 25  # live: a frame may be lost to a newer one on a busy machine
        assert {m.header.frame_id for m in (*images, *chunks)} == {"eye"}
        first_ns = from_msg.stamp_ns(images[0].header.stamp)
        for message, count in zip(images, counts, strict=True):
            expected_ns = first_ns + count * NS_PER_S // FPS
            assert abs(from_msg.stamp_ns(message.header.stamp) - expected_ns) < 1000
        sound = [from_msg.audio(m) for m in chunks]
        assert sound[0].sample_rate_hz == 16_000
        assert all(a.end_ns == b.stamp_ns for a, b in pairwise(sound))
        assert abs(sound[0].stamp_ns - first_ns) < NS_PER_S // FPS
        now_ns = watcher.node.get_clock().now().nanoseconds
        assert 0 < now_ns - first_ns < 30 * NS_PER_S
        assert (end.backend, end.uri, end.loops) == ("pyav", str(clip), 1)
        watcher.subscribe(StateMsg, "source_state", qos.STATE)  # one who comes late still learns of the end
        watcher.spin_until(lambda: watcher.state() == StateMsg.ENDED)
        assert process.poll() is None
        assert stop(process, signal.SIGINT) < 4.0


def test_jpeg_and_diagnostics(watcher: Watcher, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), np.full((48, 64, 3), (0, 0, 200), np.uint8))
    watcher.subscribe(CompressedImage, "image_raw/compressed", qos.IMAGE_SUB)
    watcher.subscribe(DiagnosticArray, "/diagnostics", 10)
    with source_process(uri=path, encoding="jpeg", picture_s=60.0) as process:
        watcher.spin_until(lambda: len(watcher.got["image_raw/compressed"]) > 3)
        image = frame_from_msg(watcher.got["image_raw/compressed"][0]).image
        assert image.shape == (48, 64, 3)
        assert np.abs(image.mean((0, 1)) - (200, 0, 0)).max() < 4
        watcher.spin_until(
            lambda: any(
                value.key == "state" and value.value == "PLAYING"
                for array in watcher.got["/diagnostics"]
                for value in array.status[0].values
            )
        )
        assert "image_raw" not in dict(watcher.node.get_topic_names_and_types())
        assert stop(process, signal.SIGTERM) < 4.0


def test_a_file_waits_for_its_first_subscriber(watcher: Watcher, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", frames=10, sound_s=None)
    with source_process(uri=clip, backend="pyav", wait_for_subscriber_s=600.0):
        watcher.subscribe(DiagnosticArray, "/diagnostics", 10)
        watcher.spin_until(lambda: len(watcher.got["/diagnostics"]) >= 2)  # it has been up for a second or two
        assert watcher.state() is None
        watcher.subscribe(Image, "image_raw", qos._qos(100))
        watcher.spin_until(lambda: watcher.state() == StateMsg.ENDED)
        assert count_of(frame_from_msg(watcher.got["image_raw"][0]).image) == 0
    with source_process(uri=clip, backend="pyav", wait_for_subscriber_s=0.0):
        watcher.got["source_state"].clear()
        watcher.spin_until(lambda: watcher.state() == StateMsg.ENDED)


def test_a_file_that_is_no_video_has_failed(watcher: Watcher, tmp_path: Path) -> None:
    path = tmp_path / "notes.mp4"
    path.write_text("no pictures here\n" * 50)
    with source_process(uri=path, backend="pyav", wait_for_subscriber_s=0.0) as process:
        watcher.spin_until(lambda: watcher.state() == StateMsg.FAILED)
        assert "cannot be played as a video" in watcher.got["source_state"][-1].detail
        assert stop(process, signal.SIGTERM) < 4.0


def test_a_missing_camera_is_looked_for_again(watcher: Watcher) -> None:
    with source_process(uri="/dev/video97", backend="pyav", reconnect_first_s=0.05) as process:
        watcher.spin_until(lambda: watcher.state() == StateMsg.RECONNECTING)
        assert "no such camera; cameras on this machine" in watcher.got["source_state"][-1].detail
        assert stop(process, signal.SIGINT) < 4.0


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"uri": "/nowhere/clip.mp4"}, "/nowhere/clip.mp4: no such file"),
        ({}, "source.uri is empty"),
        ({"uri": "test://", "encoding": "bmp"}, "source.encoding: expected one of raw, jpeg, both"),
    ],
)
def test_an_impossible_configuration_ends_in_one_line(parameters: dict[str, str], says: str) -> None:
    with source_process(**parameters) as process:
        errors, _ = process.communicate(timeout=20)
    assert process.returncode == EXIT_CONFIG
    lines = errors.strip().splitlines()
    assert len(lines) == 1, errors
    assert says in lines[0]
