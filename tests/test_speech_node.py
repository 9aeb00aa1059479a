"""Hearing in the perception process itself, over DDS."""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
from array import array
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from graph_peer import Peer, end, peer, start
from rcl_interfaces.msg import Log
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from std_msgs.msg import String

from emo_models import weights
from emo_models.fetch import pull
from emo_msgs.msg import AudioChunk, EmotionFeatures, SourceState, Utterance
from emo_perception import from_msg
from emo_perception.config import EXIT_CONFIG, SourceConfig
from emo_perception.nodes import convert, qos
from emo_perception.sources import open_source
from emo_perception.types import NS_PER_S
from emo_perception.types import AudioChunk as Sound

START_NS = 1_700_000_000 * NS_PER_S
STATUS = "speech: speech"
RATE_HZ = 48_000


@pytest.fixture(scope="module", autouse=True)
def _weights() -> None:
    for name in weights.profiles()["start"]:
        pull(name)


@pytest.fixture
def running() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the perception process; what a failed test leaves running is ended."""
    processes: list[subprocess.Popen[str]] = []

    def run(*parameters: str) -> subprocess.Popen[str]:
        processes.append(start("perception", *itertools.chain(*(("-p", parameter) for parameter in parameters))))
        return processes[-1]

    yield run
    for process in processes:
        if process.stdout is not None and not process.stdout.closed:
            end(process)


def stereo(name: str) -> np.ndarray:
    """The sound of a clip at 48 kHz, the voice in the left channel only; int16 [2 * n]."""
    items = open_source(SourceConfig(uri=str(pull(name)), realtime=False))
    mono = np.concatenate([item.samples for item in items if isinstance(item, Sound)])
    left = np.interp(np.arange(3 * len(mono)) / 3, np.arange(len(mono)), mono).astype(np.int16)
    return np.stack((left, np.zeros_like(left)), axis=1).reshape(-1)


class Microphone:
    """Publishes a clip and a pause after it; each time at a later time."""

    def __init__(self, graph: Peer, name: str) -> None:
        self._graph, self._samples = graph, np.concatenate((stereo(name), np.zeros(2 * RATE_HZ, np.int16)))
        self._publisher = graph.node.create_publisher(AudioChunk, "audio", qos.AUDIO_PUB)
        self._times = itertools.count()
        graph.until(self._publisher.get_subscription_count, "perception listens")

    def speak(self) -> int:
        """Returns when it began, nanoseconds."""
        start_ns = START_NS + next(self._times) * 20 * NS_PER_S
        size = 2 * RATE_HZ // 10
        for i in range(0, len(self._samples), size):
            stamp_ns = start_ns + i // 2 * NS_PER_S // RATE_HZ
            message = AudioChunk(header=convert.header(stamp_ns, "mic"), sample_rate=RATE_HZ, channels=2)
            message.data = array("h", self._samples[i : i + size].tobytes())
            self._publisher.publish(message)
            self._graph.executor.spin_once(timeout_sec=0.005)
        return start_ns


def test_words_of_a_microphone_come_out_and_its_absence_is_shown(
    running: Callable[..., subprocess.Popen[str]],
) -> None:
    process = running()
    with peer() as graph:
        utterances = graph.hear(Utterance, "utterances", qos.RESULT)
        graph.until(
            lambda: "no publisher on the audio topic" in getattr(graph.diagnostics.get(STATUS), "message", ""),
            "the missing microphone in the diagnostics",
        )
        microphone = Microphone(graph, "ravdess_angry")
        began = []
        graph.until(lambda: utterances, "an utterance", again=lambda: began or began.append(microphone.speak()))
        said = from_msg.utterance(utterances[0])
        assert said.text[:-1] == "Dogs are sitting by the door"
        assert said.start_ns - began[0] == pytest.approx(1.1 * NS_PER_S, abs=0.2 * NS_PER_S)
        assert said.end_ns - began[0] == pytest.approx(3.1 * NS_PER_S, abs=0.3 * NS_PER_S)
        assert from_msg.stamp_ns(utterances[0].header.stamp) == said.end_ns
        assert (said.frame_id, said.track_id, said.language) == ("mic", 0, "en")
        assert [word.text for word in said.words] == said.text.split()
        graph.until(lambda: graph.value(STATUS, "utterances") == "1", "the utterance in the diagnostics")

        client = graph.node.create_client(SetParameters, "/speech/set_parameters")
        graph.until(client.service_is_ready, "the parameter service")
        sure = Parameter("min_confidence", value=1.0).to_parameter_msg()
        future = client.call_async(SetParameters.Request(parameters=[sure]))
        graph.until(future.done, "an answer")
        microphone.speak()
        graph.until(lambda: graph.value(STATUS, "noises") == "1", "the uncertain utterance is withheld, counted")
        assert len(utterances) == 1
    log = end(process)
    assert process.returncode == 0
    assert "somebody says: Dogs are sitting by the door" in log
    assert "Traceback" not in log


def test_another_kind_of_message_on_the_topic_is_named(running: Callable[..., subprocess.Popen[str]]) -> None:
    running()
    with peer() as graph:
        logged = graph.hear(Log, "/rosout", 50)
        graph.node.create_publisher(String, "audio", 1)
        said = (
            "/audio carries std_msgs/msg/String: expected emo_msgs/msg/AudioChunk or audio_common_msgs/msg/AudioStamped"
        )
        graph.until(lambda: any(said in message.msg for message in logged), "what is expected")


def test_a_source_inside_is_heard_and_the_speaker_is_seen(running: Callable[..., subprocess.Popen[str]]) -> None:
    """Camera and microphone opened by perception: words with a face leave it, sound and pictures do not."""
    with peer() as graph:
        utterances = graph.hear(Utterance, "utterances", qos.RESULT)
        features = graph.hear(EmotionFeatures, "emotion_features", qos.RESULT)
        states = graph.hear(SourceState, "source_state", qos.STATE)
        process = running(
            "perception:source_inside:=true", "overlay:enabled:=false", f"source:uri:={pull('ravdess_neutral_woman')}"
        )
        graph.until(lambda: states and states[-1].state == SourceState.ENDED, "the end of the clip")
        graph.until(lambda: utterances, "the utterance")
        assert utterances[0].text == "Kids are talking by the door."
        assert utterances[0].track_id in {face.track.track_id for f in features for face in f.faces}
        if importlib.util.find_spec("hri_msgs") is None:
            assert not [name for name, _ in graph.node.get_topic_names_and_types() if name.startswith("/humans")]
        kinds = {kind for _, each in graph.node.get_topic_names_and_types() for kind in each}
        assert not kinds & {"sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "emo_msgs/msg/AudioChunk"}
        end(process)
        assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["speech:model:=enormous", "speech:enabled:=false"], "switched off"),
        (["speech:model:=enormous"], "speech.model 'enormous': expected tiny.en or a folder"),
    ],
)
def test_a_model_that_is_not_there_is_told_and_speech_can_be_switched_off(
    running: Callable[..., subprocess.Popen[str]], arguments: list[str], said: str
) -> None:
    process = running(*arguments)
    with peer() as graph:
        graph.until(
            lambda: any(said in status.message for status in graph.diagnostics.values()), f"diagnostics say {said!r}"
        )
    end(process)
    assert process.returncode == 0


def test_a_parameter_that_cannot_be_ends_the_process_with_one_line() -> None:
    process = start("perception", "-p", "speech:max_utterance_s:=60.0")
    output, _ = process.communicate(timeout=30)
    assert process.returncode == EXIT_CONFIG
    assert "speech.max_utterance_s: expected a value in [2, 28], got 60.0" in output


@pytest.mark.skipif(importlib.util.find_spec("hri_msgs") is not None, reason="hri_msgs is installed here")
def test_words_of_others_need_their_messages() -> None:
    process = start("perception", "-p", "speech:input:=live_speech")
    output, _ = process.communicate(timeout=30)
    assert process.returncode == EXIT_CONFIG
    assert "speech.input is live_speech: no hri_msgs/msg/LiveSpeech here" in output
    assert "set speech.input to audio" in output
    assert "Traceback" not in output
