"""Sound from other people's drivers, over DDS, with their messages: both packages called ``audio_common_msgs``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import hri_messages
import numpy as np
import pytest
from graph_peer import end, peer, start
from test_sound import MGONZS, ROS_DRIVERS

from emo_models import weights
from emo_models.fetch import pull
from emo_msgs.msg import Utterance
from emo_perception.config import SourceConfig
from emo_perception.nodes import qos
from emo_perception.sources import open_source
from emo_perception.types import AudioChunk

pytestmark = pytest.mark.slow

#: A driver in a process of its own: says the samples of a file again and again, until it is ended.
DRIVER = """
import array, sys, time
import numpy as np, rclpy
from audio_common_msgs import msg as m
from builtin_interfaces.msg import Time
from rclpy.qos import DurabilityPolicy, QoSProfile
samples = np.load(sys.argv[1])
rclpy.init()
node = rclpy.create_node("driver")
if hasattr(m, "AudioStamped"):
    publisher = node.create_publisher(m.AudioStamped, "audio", 32)
else:
    publisher = node.create_publisher(m.AudioDataStamped, "audio", 32)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    info = node.create_publisher(m.AudioInfo, "audio_info", latched)
    info.publish(m.AudioInfo(channels=1, sample_rate=16000, sample_format="S16LE", coding_format="wave"))
while not publisher.get_subscription_count():
    time.sleep(0.05)
time.sleep(1.0)  # AudioInfo comes on a topic of its own
for index in range(10**6):
    piece = np.take(samples, np.arange(index * 1600, (index + 1) * 1600), mode="wrap")
    stamp = Time(sec=1_700_000_000 + index // 10, nanosec=index % 10 * 100_000_000)
    if hasattr(m, "AudioStamped"):
        message = m.AudioStamped()
        message.audio.info.format, message.audio.info.channels, message.audio.info.rate = 8, 1, 16000
        message.audio.audio_data.int16_data = array.array("h", piece.tobytes())
    else:
        message = m.AudioDataStamped()
        message.audio.data = array.array("B", piece.tobytes())
    message.header.stamp, message.header.frame_id = stamp, "mic"
    publisher.publish(message)
    time.sleep(0.05)
"""


@pytest.mark.parametrize("definitions", [ROS_DRIVERS, MGONZS], ids=["ros-drivers", "mgonzs13"])
def test_a_driver_is_understood_and_without_its_messages_they_are_named(
    tmp_path: Path, definitions: dict[str, str]
) -> None:
    for name in weights.profiles()["start"]:
        pull(name)
    environment = hri_messages.build(tmp_path, "audio_common_msgs", definitions)
    environment["PYTHONPATH"] = os.pathsep.join([environment["PYTHONPATH"], str(hri_messages.ROOT)])
    items = open_source(SourceConfig(uri=str(pull("ravdess_angry")), realtime=False))
    samples = np.concatenate([item.samples for item in items if isinstance(item, AudioChunk)])
    np.save(tmp_path / "samples.npy", samples)
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path / "samples.npy")], env={**os.environ, **environment}
    )
    with_messages = start("perception", **environment)
    without = start("perception", "-r", "__ns:=/other", "-r", "audio:=/audio")
    try:
        with peer() as graph:
            utterances = graph.hear(Utterance, "utterances", qos.RESULT)
            graph.until(lambda: utterances, "the driver's words")
            assert utterances[0].text[:-1] == "Dogs are sitting by the door"
            assert utterances[0].header.frame_id == "mic"
    finally:
        driver.terminate()
        driver.wait(10)
        logs = end(with_messages), end(without)
    assert "sound from /audio (audio_common_msgs/msg/Audio" in logs[0]
    assert "which is not installed here: install the package audio_common_msgs" in logs[1]
