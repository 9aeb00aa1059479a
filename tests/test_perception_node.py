"""The perception process itself, over DDS: what it gives, what it says to bad input, how it lives and ends."""

from __future__ import annotations

import shutil
import signal
import subprocess
from array import array
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from graph_peer import Peer, end, peer, start
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image

from emo_models import weights
from emo_models.fetch import pull
from emo_msgs.msg import ActionUnits, AudioChunk, EmotionFeatures, Emotions, Faces, SourceState
from emo_perception import from_msg
from emo_perception.config import EXIT_CONFIG
from emo_perception.nodes import convert, qos
from emo_perception.nodes.source_output import image_msg, jpeg_msg
from emo_perception.types import NS_PER_S, Frame

START_NS = 1_700_000_000 * NS_PER_S
STEP_NS = NS_PER_S // 10
STATUS = "perception: perception"


@pytest.fixture(scope="module", autouse=True)
def _weights() -> None:
    for name in weights.profiles()["start"]:
        pull(name)


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(pull("astronaut"))), cv2.COLOR_BGR2RGB)


class Camera(Peer):
    """Publishes images and hears the results."""

    def __init__(self) -> None:
        super().__init__()
        self.raw = self.node.create_publisher(Image, "image_raw", qos.IMAGE_PUB)
        self.features: list[EmotionFeatures] = self.hear(EmotionFeatures, "emotion_features", qos.RESULT)

    def connect(self) -> None:
        self.until(self.raw.get_subscription_count, "perception subscribes to image_raw")

    def see(self, message: Image) -> EmotionFeatures:
        """Publish until this image has been perceived: best effort may lose one."""

        def found() -> list[EmotionFeatures]:
            return [f for f in self.features if f.header.stamp == message.header.stamp]

        self.until(found, "emotion_features of an image", again=lambda: self.raw.publish(message))
        return found()[0]

    def complain(self, message: Image, key: str = "bad_images") -> None:
        """Publish a bad message until it has been counted."""
        before = self.value(STATUS, key) or "0"
        self.raw.publish(message)
        self.until(lambda: int(self.value(STATUS, key) or 0) > int(before), f"{key} grows")


@pytest.fixture
def camera() -> Iterator[Camera]:
    made = Camera()
    yield made
    made.close()


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    made = start("perception")
    yield made
    end(made)


def image(portrait: np.ndarray, index: int) -> Image:
    return image_msg(Frame(START_NS + index * STEP_NS, portrait, "cam"))


def test_every_topic_carries_the_stamp_and_frame_of_the_image(camera: Camera, process, portrait: np.ndarray) -> None:
    heard = {
        kind: camera.hear(kind, topic, qos.RESULT)
        for kind, topic in ((Faces, "faces"), (ActionUnits, "action_units"), (Emotions, "emotions"))
    }
    camera.connect()
    for i in range(5):
        features = camera.see(image(portrait, i))
        assert features.header.frame_id == "cam"
        assert from_msg.stamp_ns(features.header.stamp) == START_NS + i * STEP_NS
    (face,) = features.faces
    assert (features.image_width, features.image_height) == (512, 512)
    assert face.action_units.intensity[list(face.action_units.au).index(12)] > 0.8
    assert face.emotion.probabilities[face.emotion.labels.index("happy")] > 0.8
    for kind, messages in heard.items():
        camera.until(lambda messages=messages: messages, f"{kind.__name__} are published")
        assert messages[-1].faces[0].track_id == face.track.track_id
    camera.until(lambda: camera.value("face: face", "processed") == "5", "diagnostics of the face stage")
    assert camera.value("face: face", "backend") == "openvino"
    camera.until(lambda: camera.value(STATUS, "image_topic") == "/image_raw", "the topic in the diagnostics")


def test_bad_images_are_named_and_counted_and_good_ones_go_on(camera: Camera, process, portrait: np.ndarray) -> None:
    camera.connect()
    camera.see(image(portrait, 0))
    bad = {"encoding": "rgb7", "step": 7, "width": 0, "data": array("B", bytes(100))}
    for field, value in bad.items():
        message = image(portrait, 1)
        setattr(message, field, value)
        camera.complain(message)
    unstamped = image(portrait, 1)
    unstamped.header.stamp.sec = unstamped.header.stamp.nanosec = 0
    camera.complain(unstamped)
    small = image_msg(Frame(START_NS + 2 * STEP_NS, np.ascontiguousarray(portrait[::2, ::2]), "cam"))
    assert camera.see(small).image_width == 256
    log = end(process)
    assert process.returncode == 0
    assert "encoding 'rgb7' is not supported; supported: " in log
    assert "step does not fit: rgb8, 512 pixels need at least 1536 bytes a row, got step 7" in log
    assert "empty image: 0x512" in log
    assert "expected 786432 bytes, got 100" in log
    assert "header.stamp is zero" in log
    assert "Traceback" not in log


def test_compressed_images_are_found_by_themselves_and_truncated_ones_refused(process, portrait: np.ndarray) -> None:
    with peer() as camera:
        jpeg = camera.node.create_publisher(CompressedImage, "image_raw/compressed", qos.IMAGE_PUB)
        features = camera.hear(EmotionFeatures, "emotion_features", qos.RESULT)
        camera.until(jpeg.get_subscription_count, "perception subscribes to the compressed images")
        message = jpeg_msg(Frame(START_NS, portrait, "cam"), 90)
        broken = jpeg_msg(Frame(START_NS, portrait, "cam"), 90)
        broken.data = broken.data[:5000]
        jpeg.publish(broken)
        camera.until(lambda: camera.value(STATUS, "bad_images") == "1", "the truncated image is counted")
        jpeg.publish(message)
        camera.until(lambda: features, "features of the JPEG")
        assert len(features[0].faces) == 1
    assert "truncated JPEG: 5000 bytes" in end(process)


def test_a_remapped_camera_is_found(portrait: np.ndarray) -> None:
    with peer() as camera:
        raw = camera.node.create_publisher(Image, "/head/image_color", qos.IMAGE_PUB)
        features = camera.hear(EmotionFeatures, "emotion_features", qos.RESULT)
        process = start("perception", "-r", "image_raw:=/head/image_color")
        camera.until(lambda: features, "features of the remapped camera", lambda: raw.publish(image(portrait, 0)))
        end(process)


def test_stamps_that_jump_back_start_anew(camera: Camera, process, portrait: np.ndarray) -> None:
    camera.connect()
    first = camera.see(image(portrait, 100))
    again = camera.see(image(portrait, 0))
    assert again.faces[0].track.track_id != first.faces[0].track.track_id
    assert list(again.expired) == [first.faces[0].track.track_id]
    camera.until(lambda: camera.value(STATUS, "restarts") == "1", "the restart is counted")
    camera.complain(image(portrait, 0), "frames_late")


def test_sound_goes_into_the_window_and_bad_sound_is_refused(camera: Camera, process, portrait: np.ndarray) -> None:
    camera.connect()
    audio = camera.node.create_publisher(AudioChunk, "audio", qos.AUDIO_PUB)
    camera.until(audio.get_subscription_count, "perception subscribes to audio")
    message = AudioChunk(header=convert.header(START_NS, "mic"), sample_rate=16_000, channels=1)
    message.data = array("h", [7] * 8_000)

    def send() -> None:
        audio.publish(message)

    camera.until(
        lambda: camera.value(STATUS, "window_audio_s") == "0.500", "half a second of sound in the window", send
    )
    message.sample_rate = 44
    camera.until(lambda: int(camera.value(STATUS, "bad_audio") or 0) > 0, "the impossible rate is counted", send)
    assert "expected a sample rate of 4000 to 192000 Hz, got 44 Hz" in end(process)


def test_missing_weights_are_named_and_taken_when_they_come(
    camera: Camera, portrait: np.ndarray, tmp_path: Path
) -> None:
    process = start("perception", EMO_CACHE=str(tmp_path))
    camera.until(
        lambda: STATUS in camera.diagnostics and camera.diagnostics[STATUS].level == b"\x02",
        "an error in the diagnostics",
    )
    assert "emo weights pull face_mesh" in camera.diagnostics[STATUS].message
    for name in weights.profiles()["start"]:
        shutil.copy(weights.path(name), tmp_path)
    camera.connect()
    assert camera.see(image(portrait, 0)).faces
    log = end(process)
    assert log.count("is missing: expected") == 1


def test_corrupt_weights_are_refused(camera: Camera, tmp_path: Path) -> None:
    for name in weights.profiles()["start"]:
        shutil.copy(weights.path(name), tmp_path)
    damaged = tmp_path / weights.card("fer7").file
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\0")
    process = start("perception", EMO_CACHE=str(tmp_path))
    camera.until(
        lambda: STATUS in camera.diagnostics and camera.diagnostics[STATUS].level == b"\x02",
        "an error in the diagnostics",
    )
    assert "expected SHA-256" in camera.diagnostics[STATUS].message
    end(process)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("face:max_faces:=0", r"face.max_faces: expected a value in [1, 64], got 0"),
        (
            "perception:image_transport:=h265",
            "perception.image_transport: expected one of auto, raw, compressed; got 'h265'",
        ),
        ("emotion:crop_margin:=wide", "emotion.crop_margin: expected float, got str 'wide'"),
    ],
)
def test_a_parameter_that_cannot_be_ends_the_process_with_one_line(argument: str, said: str) -> None:
    process = start("perception", "-p", argument)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == EXIT_CONFIG
    assert said in output
    assert "Traceback" not in output


def test_parameters_are_checked_when_set_and_take_effect(camera: Camera, process, portrait: np.ndarray) -> None:
    camera.connect()
    client = camera.node.create_client(SetParameters, "/face/set_parameters")
    camera.until(client.service_is_ready, "the parameter service")

    def set_to(name: str, value: object) -> tuple[bool, str]:
        future = client.call_async(SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()]))
        camera.until(future.done, "an answer")
        return future.result().results[0].successful, future.result().results[0].reason

    accepted, reason = set_to("presence", 1.5)
    assert not accepted
    assert "range" in reason or "expected a value in [0, 1]" in reason  # rclpy's own check of the range comes first
    assert len(camera.see(image(portrait, 0)).faces) == 1
    assert set_to("min_face_px", 400)[0]
    assert len(camera.see(image(portrait, 1)).faces) == 0
    assert set_to("publish_landmarks", True)[0]
    assert set_to("min_face_px", 24)[0]
    faces = camera.hear(Faces, "faces", qos.RESULT)
    camera.until(lambda: camera.node.count_publishers("faces"), "the faces topic")
    camera.see(image(portrait, 20))
    camera.until(lambda: faces and faces[-1].faces, "faces")
    assert len(faces[-1].faces[0].landmarks) == 478 * 3


def test_the_lifecycle_can_be_driven_from_outside(camera: Camera, portrait: np.ndarray) -> None:
    process = start("perception", "-p", "perception:autostart:=false")
    change = camera.node.create_client(ChangeState, "/perception/change_state")
    get = camera.node.create_client(GetState, "/perception/get_state")
    camera.until(lambda: change.service_is_ready() and get.service_is_ready(), "the lifecycle services")

    def go(transition: int) -> int:
        future = change.call_async(ChangeState.Request(transition=Transition(id=transition)))
        camera.until(future.done, "the transition")
        assert future.result().success
        state = get.call_async(GetState.Request())
        camera.until(state.done, "the state")
        return int(state.result().current_state.id)

    assert go(Transition.TRANSITION_CONFIGURE) == State.PRIMARY_STATE_INACTIVE
    assert go(Transition.TRANSITION_ACTIVATE) == State.PRIMARY_STATE_ACTIVE
    camera.connect()
    assert camera.see(image(portrait, 0)).faces
    assert go(Transition.TRANSITION_DEACTIVATE) == State.PRIMARY_STATE_INACTIVE
    camera.until(lambda: not camera.raw.get_subscription_count(), "perception no longer listens")
    assert go(Transition.TRANSITION_CLEANUP) == State.PRIMARY_STATE_UNCONFIGURED
    assert go(Transition.TRANSITION_CONFIGURE) == State.PRIMARY_STATE_INACTIVE
    assert go(Transition.TRANSITION_ACTIVATE) == State.PRIMARY_STATE_ACTIVE
    camera.connect()
    assert camera.see(image(portrait, 1)).faces
    end(process)
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_cleanly(camera: Camera, number: signal.Signals) -> None:
    process = start("perception")
    camera.connect()
    log = end(process, number)
    assert process.returncode == 0
    assert "Traceback" not in log


def test_a_source_inside_publishes_no_image_and_no_sound() -> None:
    with peer() as listener:
        features = listener.hear(EmotionFeatures, "emotion_features", qos.RESULT)
        states = listener.hear(SourceState, "source_state", qos.STATE)
        process = start(
            "perception", "-p", "perception:source_inside:=true", "-p", "overlay:enabled:=false",
            "-p", f"source:uri:={pull('astronaut')}", "-p", "source:picture_s:=1.0",
        )  # fmt: skip
        listener.until(lambda: states and states[-1].state == SourceState.ENDED, "the end of the picture")
        listener.until(lambda: any(f.faces for f in features), "features")
        kinds = {kind for _, each in listener.node.get_topic_names_and_types() for kind in each}
        assert not kinds & {"sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "emo_msgs/msg/AudioChunk"}
        end(process)
        assert process.returncode == 0
