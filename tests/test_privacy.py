"""``emo run --privacy`` with all processes: who hears every topic gets no picture and no sound, but all that was understood."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGINT
from typing import Any

import numpy as np
import pytest
from graph_peer import ROOT, Peer, end
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.rosbag2 import Reader

from emo_models import weights
from emo_models.fetch import pull

MEDIA = ("image", "audio", "video", "sound", "pointcloud")
"""A type with one of these in its name carries pictures or sound: sensor_msgs/Image, emo_msgs/AudioChunk, ..."""
MOST_BYTES = 1000
"""A field as large as 1024 bytes could hold a picture of 32x32 grey pixels, or 64 ms of telephone sound."""
RESULTS = (
    "/emotion_features",
    "/utterances",
    "/emotion_caption",
    "/emotion_caption/text",
    "/diagnostics",
    "/source_state",
)


@pytest.fixture(scope="module")
def clip() -> Path:
    """Somebody who speaks: pictures of a face, and sound."""
    for name in weights.profiles()["start"]:
        pull(name)
    return pull("ravdess_angry")


def message_class(kind: str) -> type[Any]:
    package, folder, name = kind.split("/")
    module = importlib.import_module(f"{package}.{folder}")
    action, _, part = name.partition("_")
    return getattr(getattr(module, action).Impl, part) if part == "FeedbackMessage" else getattr(module, name)


def largest_field(value: Any) -> int:
    """Bytes of the largest string or run of numbers anywhere in a message."""
    if hasattr(value, "get_fields_and_field_types"):
        return max((largest_field(getattr(value, n)) for n in value.get_fields_and_field_types()), default=0)
    if isinstance(value, (str, bytes)):
        return len(value.encode() if isinstance(value, str) else value)
    if isinstance(value, array):
        return len(value) * value.itemsize
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if isinstance(value, (list, tuple)):
        return max((8 * len(value), *(largest_field(item) for item in value)))
    return 0


class Eavesdropper(Peer):
    """Subscribes to every topic as soon as it is there, and keeps count of what it hears."""

    def __init__(self) -> None:
        super().__init__("eavesdropper")
        self.kinds: dict[str, set[str]] = {}
        self.heard: dict[str, int] = {}
        self.sentences: list[str] = []
        self.largest: dict[str, int] = {}
        self.node.create_timer(0.05, self._look)

    def media(self) -> dict[str, set[str]]:
        """Topics that carry pictures or sound by their type."""
        return {t: k for t, k in self.kinds.items() if any(word in kind.lower() for kind in k for word in MEDIA)}

    def large(self) -> dict[str, int]:
        """Topics with a field that could hold a picture or sound, whatever its type says."""
        return {topic: size for topic, size in self.largest.items() if size > MOST_BYTES}

    def _look(self) -> None:
        for topic, kinds in self.node.get_topic_names_and_types():
            for kind in set(kinds) - self.kinds.get(topic, set()):
                publishers = [p.qos_profile for p in self.node.get_publishers_info_by_topic(topic)]
                if publishers:  # a name that is only listened to has nothing to hear yet
                    self._listen(topic, kind, publishers)

    def _listen(self, topic: str, kind: str, publishers: list[QoSProfile]) -> None:
        """With whatever quality all of its publishers offer."""
        reliable = all(p.reliability is ReliabilityPolicy.RELIABLE for p in publishers)
        latched = all(p.durability is DurabilityPolicy.TRANSIENT_LOCAL for p in publishers)
        profile = QoSProfile(
            depth=100,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )
        self.kinds.setdefault(topic, set()).add(kind)
        self.node.create_subscription(message_class(kind), topic, lambda m: self._hear(topic, m), profile)

    def _hear(self, topic: str, message: Any) -> None:
        self.heard[topic] = self.heard.get(topic, 0) + 1
        self.largest[topic] = max(self.largest.get(topic, 0), largest_field(message))
        if topic == "/emotion_caption/text":
            self.sentences.append(message.data)


@contextmanager
def graph(*options: str) -> Iterator[subprocess.Popen[str]]:
    """``emo run`` with its processes."""
    command = [sys.executable, "-m", "emo_perception.tools.cli", "run", *options]
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ.copy(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield process
    finally:
        end(process, SIGINT)


@pytest.fixture
def ear() -> Iterator[Eavesdropper]:
    made = Eavesdropper()
    yield made
    made.close()


def test_privacy_publishes_what_was_understood_and_nothing_that_was_seen_or_heard(clip, tmp_path, ear) -> None:
    bag = tmp_path / "bag"
    with graph("--privacy", "--source", str(clip), "--loop", "--record", str(bag)):
        ear.until(lambda: all(ear.heard.get(topic) for topic in RESULTS), f"something on each of {RESULTS}")
        ear.until(lambda: ear.heard["/emotion_features"] >= 60, "two seconds of features")
        ear.until(lambda: len(ear.sentences) >= 2, "two sentences")
        listening = "perception: perception"
        ear.until(lambda: float(ear.value(listening, "window_audio_s") or 0) > 1, "a second of sound was taken in")
        assert all(ear.sentences)
        services = {k for _, kinds in ear.node.get_service_names_and_types() for k in kinds}
        assert not [kind for kind in services if any(word in kind.lower() for word in MEDIA)]
    assert ear.media() == {}
    assert ear.large() == {}
    with Reader(bag) as recorded:
        kinds = {connection.msgtype for connection in recorded.connections if connection.msgcount}
    assert "emo_msgs/msg/EmotionFeatures" in kinds
    assert not [kind for kind in kinds if any(word in kind.lower() for word in MEDIA)]


def test_without_privacy_the_same_ear_hears_pictures_and_sound(clip, ear) -> None:
    """Proves that the test above could fail."""
    with graph("--source", str(clip), "--loop"):
        wanted = {"/image_raw", "/audio", "/overlay/compressed"}
        ear.until(lambda: wanted <= ear.large().keys(), f"large messages on {wanted}")
    assert wanted <= ear.media().keys()
