"""The doctor on a real graph: publishers that do not fit, cameras that lose images, stamps that cannot be."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from graph_peer import Peer, end, start
from graph_peer import peer as another_peer
from plain_camera import topic
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from emo_msgs.msg import EmotionFeatures, SourceState
from emo_perception.nodes import qos
from emo_perception.tools.doctor.finding import Context, Finding, Level
from emo_perception.tools.doctor.graph import graph
from emo_perception.tools.doctor.middleware import export_profile
from emo_perception.transport import PROFILE_VARIABLES

BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
SHORT = Context(measure_s=0.5, calm_s=1.5)
ATTEMPTS = 4
"""The first announcement of a process may get lost on a busy machine."""


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.close()


def look(context: Context = SHORT) -> list[Finding]:
    return list(graph(context))


def look_for(*words: str, context: Context = SHORT) -> list[Finding]:
    """One finding for each of ``words``, which stands in it; looks again while some are not there."""
    for _ in range(ATTEMPTS):
        found = look(context)
        told = [f for word in words for f in found if word in f.what]
        if len(told) == len(words):
            return told
    raise AssertionError(f"not found: {words}; but {[f.what for f in found]}")


def bad(findings: list[Finding]) -> list[Finding]:
    return [f for f in findings if f.level >= Level.WARN]


@contextmanager
def camera(*stamps: str, size: tuple[int, int] = (64, 48), profile: bool = True) -> Iterator[None]:
    """The plain camera, with or without our shared-memory profile."""
    environment = {k: v for k, v in os.environ.items() if profile or k not in PROFILE_VARIABLES}
    script = str(Path(__file__).with_name("plain_camera.py"))
    command = [sys.executable, script, *map(str, size), *stamps]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        with another_peer() as waiting:
            waiting.until(lambda: all(waiting.node.count_publishers(topic(s)) for s in stamps), "the camera")
        yield
    finally:
        end(process)


def test_an_empty_graph_is_told_about_without_alarm() -> None:
    found = look()
    assert not bad(found)
    assert found[0].what.startswith(f"ROS domain {os.environ['ROS_DOMAIN_ID']}: ")
    assert found[1].what == "nobody publishes images on any topic"


def test_publishers_that_our_nodes_make_fit(peer) -> None:
    peer.node.create_publisher(EmotionFeatures, "emotion_features", qos.RESULT)
    peer.node.create_publisher(SourceState, "source_state", qos.STATE)
    peer.node.create_publisher(Image, "image_raw", qos.IMAGE_PUB)
    look_for("/image_raw: somebody publishes it, but nothing arrived in 0.5 s: paused, or all of it is lost")
    assert len(bad(look())) <= 1


def test_the_command_against_an_unfitting_publisher_mends_it(peer, tmp_path) -> None:
    """A best-effort bridge to a node that wants reliable features: the parameter file makes that node ask for less."""
    features = peer.node.create_publisher(EmotionFeatures, "emotion_features", BEST_EFFORT)
    process = start("caption")
    try:
        peer.until(lambda: peer.node.count_subscribers("emotion_features"), "the caption node")
        (finding,) = look_for("/emotion_features: nothing reaches /caption from /peer: ")
    finally:
        end(process)
    assert finding.level is Level.ERROR
    assert "reliable subscription" in finding.what
    write, _, run = finding.command.partition(" && ")
    subprocess.run(["bash", "-ec", write], cwd=tmp_path, check=True)
    assert run == "emo run --params-file mine.yaml"
    process = start("caption", "--params-file", str(tmp_path / "mine.yaml"))
    try:
        peer.until(features.get_subscription_count, "the caption node hears the bridge")
        assert not bad(look())
    finally:
        end(process)


def test_a_state_that_is_not_latched_is_for_its_publisher_to_mend(peer) -> None:
    profile = QoSProfile(depth=1, durability=DurabilityPolicy.VOLATILE)
    peer.node.create_publisher(SourceState, "source_state", profile)
    (finding,) = look_for("/source_state: nothing reaches caption from /peer")
    assert finding.command.endswith("-p qos_overrides./source_state.publisher.durability:=transient_local")


def test_two_cameras_on_a_topic_and_two_types_on_another(peer) -> None:
    peer.node.create_publisher(CompressedImage, "image_raw/compressed", qos.IMAGE_PUB)
    peer.node.create_publisher(EmotionFeatures, "emotion_features", qos.RESULT)
    with another_peer() as other:
        other.node.create_publisher(CompressedImage, "image_raw/compressed", qos.IMAGE_PUB)
        other.node.create_publisher(String, "emotion_features", 1)
        look_for(
            "/image_raw/compressed has 2 publishers (/peer, /peer)",
            "/emotion_features has several types (emo_msgs/msg/EmotionFeatures, std_msgs/msg/String)",
        )


def losses() -> tuple[float, Finding]:
    """Part of the camera's images that is lost, and the finding that tells it."""
    (finding,) = look_for("are lost", context=Context(measure_s=2.0, image_topic=topic("fresh"), calm_s=1.5))
    lost, of = map(int, re.search(r"(\d+) of (\d+) are lost", finding.what).groups())
    return lost / of, finding


def test_the_silent_loss_of_raw_images_is_measured_explained_and_mended() -> None:
    with camera("fresh", size=(640, 480), profile=False):
        part, finding = losses()
    assert part > 0.05
    assert finding.level in (Level.WARN, Level.ERROR)
    assert "do not fit into the 512 kB of shared memory" in finding.what
    assert finding.command.startswith(export_profile())
    with camera("fresh", size=(640, 480)):  # the tests' own environment has what the command sets
        mended, finding = losses()
    assert mended < part / 2
    assert re.search(r"age -?\d+ ms", finding.what)


def test_stamps_that_cannot_be() -> None:
    words = {
        "/unstamped/image_raw: ": "images have no stamp and are refused",
        "/late/image_raw: stamps are 5": "s old: the clocks differ",
        "/ahead/image_raw: stamps are ": "s in the future: the clocks differ",
        "/yesterday/image_raw: stamps are 8640": "s old: a bag is played",
    }
    with camera("unstamped", "late", "ahead", "yesterday"):
        found = look_for(*words.values())
    for finding, (begin, end_) in zip(found, words.items(), strict=True):
        assert finding.what.startswith(begin)
        assert finding.level is (Level.ERROR if "no stamp" in end_ else Level.WARN)


def test_of_many_cameras_four_are_measured_and_the_others_named() -> None:
    with camera("unstamped", "late", "ahead", "yesterday", "fresh"):
        (finding,) = look_for("not measured, there are many")
    assert finding.command == "emo doctor --image-topic /yesterday/image_raw"


def test_a_topic_that_nobody_publishes_is_named() -> None:
    assert look(Context(image_topic="/nowhere", calm_s=0.2))[-1].what == "nobody publishes images on /nowhere"
