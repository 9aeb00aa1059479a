"""The messages and the action, as built: all there, and the same after a way through DDS."""

from __future__ import annotations

import re
from array import array
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
import rclpy
from rclpy.action import ActionClient, ActionServer
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile

from emo_msgs import action, msg

SOURCES = Path(__file__).parents[1] / "emo_msgs"
MESSAGES = sorted(p.stem for p in SOURCES.glob("msg/*.msg"))
FIELD = re.compile(r"^\s*[A-Za-z]\w*(?:/\w+)?(?:\[\d*\])?\s+([a-z]\w*)\s*(?:#.*)?$", re.MULTILINE)
SOMEBODY = [1.5, -2.0, 30.0, 40.25]


@pytest.fixture
def executor():
    """An executor whose nodes and whose context end with the test."""
    context = rclpy.Context()
    rclpy.init(context=context)
    spinner = SingleThreadedExecutor(context=context)
    spinner.context_of_test = context
    yield spinner
    for node in spinner.get_nodes():
        node.destroy_node()
    spinner.shutdown()
    context.try_shutdown()


def node_of(executor, name):
    node = rclpy.create_node(name, context=executor.context_of_test)
    executor.add_node(node)
    return node


@pytest.mark.parametrize("name", MESSAGES)
def test_built_message_is_the_one_in_the_sources(name):
    """An older build of emo_msgs would differ here; build it again."""
    declared = FIELD.findall((SOURCES / "msg" / f"{name}.msg").read_text())
    built = getattr(msg, name).get_fields_and_field_types()
    assert list(built) == declared


def features():
    track = msg.FaceTrack(track_id=7, confidence=0.75, landmarks=array("f", range(6)))
    track.x, track.y, track.width, track.height = SOMEBODY
    track.points = list(range(10))
    units = msg.FaceActionUnits(track_id=7, kind="blendshape", au=[4, 12], side=[0, 2], intensity=[0.5, 1.0])
    emotion = msg.FaceEmotion(track_id=7, vocabulary="fer7", labels=["happy", "sad"], probabilities=[0.75, 0.25])
    tensor = msg.Tensor(name="au_prompt", dtype="float32", shape=[1, 2], data=array("B", range(8)))
    face = msg.FaceFeatures(track=track, action_units=units, emotion=emotion, embeddings=[tensor])
    message = msg.EmotionFeatures(image_width=640, image_height=480, faces=[face], expired=[3])
    message.header.stamp.sec, message.header.stamp.nanosec, message.header.frame_id = 12, 345, "camera_optical_frame"
    return message


def test_features_come_through_dds_unchanged(executor, wait_for):
    sender, receiver = node_of(executor, "sender"), node_of(executor, "receiver")
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    got = []
    publisher = sender.create_publisher(msg.EmotionFeatures, "emotion_features", latched)
    publisher.publish(features())
    receiver.create_subscription(msg.EmotionFeatures, "emotion_features", got.append, latched)
    wait_for(lambda: got, "the message", step=lambda: executor.spin_once(timeout_sec=0.05))
    assert got == [features()]
    face = got[0].faces[0]
    assert [face.track.x, face.track.y, face.track.width, face.track.height] == SOMEBODY


def test_action_streams_words_and_answers(executor, wait_for):
    """One goal: its target arrives, the words come as feedback, the cause as the result."""
    words, asked = [], []

    def explain(goal):
        asked.append((goal.request.target, goal.request.track_id))
        for text in ("She", "She smiles"):
            goal.publish_feedback(action.ExplainEmotion.Feedback(text=text))
        goal.succeed()
        cause = msg.EmotionCause(text="She smiles at a joke.", evidence=[msg.CauseEvidence(kind="utterance", au=12)])
        return action.ExplainEmotion.Result(cause=cause)

    def spin():
        executor.spin_once(timeout_sec=0.05)

    server = ActionServer(node_of(executor, "explainer"), action.ExplainEmotion, "explain_emotion", explain)
    client = ActionClient(node_of(executor, "asker"), action.ExplainEmotion, "explain_emotion")
    wait_for(client.server_is_ready, "the action server", step=spin)
    goal = action.ExplainEmotion.Goal(target=action.ExplainEmotion.Goal.PERSON, track_id=7)
    accepted = client.send_goal_async(goal, feedback_callback=lambda m: words.append(m.feedback.text))
    wait_for(accepted.done, "the acceptance", step=spin)
    answer = accepted.result().get_result_async()
    wait_for(lambda: answer.done() and len(words) == 2, "the answer and its words", step=spin)
    assert asked == [(action.ExplainEmotion.Goal.PERSON, 7)]
    assert words == ["She", "She smiles"]
    cause = answer.result().result.cause
    assert (cause.text, cause.evidence[0].au) == ("She smiles at a joke.", 12)
    client.destroy()
    server.destroy()
