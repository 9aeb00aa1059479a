"""The caption process itself, over DDS: sentences, abstentions, the end of the source, bad input, exit codes."""

from __future__ import annotations

import signal
from contextlib import contextmanager

import graph_peer
import numpy as np
import pytest
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from std_msgs.msg import String

from emo_msgs.msg import EmotionCaption, EmotionFeatures, SourceState, Tensor
from emo_perception import from_msg
from emo_perception import types as t
from emo_perception.config import EXIT_CONFIG
from emo_perception.nodes import convert, qos

FRAME_NS = 33_333_333
START_NS = 1_700_000_000 * t.NS_PER_S


class Peer(graph_peer.Peer):
    """The rest of the graph: publishes features and states, hears what the caption process says."""

    def __init__(self):
        super().__init__()
        self.features = self.node.create_publisher(EmotionFeatures, "emotion_features", qos.RESULT)
        self.state = self.node.create_publisher(SourceState, "source_state", qos.STATE)
        self.captions: list[EmotionCaption] = self.hear(EmotionCaption, "emotion_caption", qos.CAPTION)
        self.texts: list[String] = self.hear(String, "emotion_caption/text", qos.CAPTION)

    def send(self, first, count, face=True, skip=(), **values):
        """Publish the features of frames ``first`` .. ``first + count``, but not those in ``skip``."""
        for i in range(first, first + count):
            if i not in skip:
                self.features.publish(convert.frame_msgs(frame(i, face, **values)).features)
                self.executor.spin_once(timeout_sec=0.004)  # a burst deeper than the queue would not be kept

    def own(self, key):
        """A value of the newest diagnostics of the caption process."""
        return self.value("caption: caption", key)


def frame(index, face, smile=0.9, happy=0.9):
    """The features of a frame: one person in the middle who smiles, or nobody."""
    stamp = START_NS + index * FRAME_NS
    track = t.FaceTrack(
        1, 0.99, START_NS, np.array([270, 150, 100, 130], np.float32), np.zeros((5, 2), np.float32), np.zeros(3, np.float32)
    )  # fmt: skip
    units = t.FaceActionUnits(
        1, "blendshape", (6, 12), (t.Side.BOTH, t.Side.BOTH), np.array([smile, smile], np.float32), True
    )
    emotion = t.FaceEmotion(1, "fer7", ("happy", "neutral"), np.array([happy, 1 - happy], np.float32))
    faces = (t.FaceFeatures(track, units, emotion),) if face else ()
    return t.EmotionFeatures(stamp, "camera_optical_frame", (640, 480), faces)


@contextmanager
def running(*arguments):
    """A caption process that is connected to a peer; ended by SIGTERM."""
    peer, process = Peer(), graph_peer.start("caption", *arguments)
    try:
        peer.until(
            lambda: (
                peer.features.get_subscription_count() == peer.state.get_subscription_count() == 1
                and peer.node.count_publishers("emotion_caption")
                == peer.node.count_publishers("emotion_caption/text")
                == 1
                and peer.diagnostics
            ),
            "the caption process joins the graph",
        )
        yield peer, process
    finally:
        graph_peer.end(process)
        peer.close()


def test_a_smile_becomes_a_sentence_with_its_evidence_and_the_same_text():
    with running() as (peer, _):
        peer.send(0, 20, smile=0.0, happy=0.0)
        peer.send(20, 60)
        peer.until(lambda: any("smil" in c.text for c in peer.captions) and peer.texts, "a sentence about the smile")
        said = [c for c in peer.captions if not c.abstained]
        peer.until(lambda: len(peer.texts) == len(said), "text for each caption")
        assert [c.text for c in said] == [text.data for text in peer.texts]
        caption = next(c for c in said if "smil" in c.text)
        assert caption.header.frame_id == "camera_optical_frame"
        assert (from_msg.stamp_ns(caption.header.stamp) - START_NS) % FRAME_NS == 0
        assert caption.grounded
        smile = next(e for e in caption.evidence if e.au == 12)
        assert "smil" in caption.text[smile.start : smile.end]
        assert smile.intensity == pytest.approx(0.9, abs=0.05)


def test_nobody_in_view_is_an_abstention_that_is_never_spoken():
    with running() as (peer, _):
        peer.send(0, 60, face=False)
        peer.until(lambda: peer.captions, "an abstention")
        peer.send(60, 60)
        peer.until(lambda: peer.texts, "a sentence")
        first = peer.captions[0]
        assert (first.abstained, first.text) == (True, "")
        assert first.abstain_reason
        assert all(text.data for text in peer.texts)


def test_abstentions_may_be_kept_quiet():
    with running("-p", "publish_abstentions:=false") as (peer, _):
        peer.send(0, 60, face=False)
        peer.until(lambda: int(peer.own("abstentions") or 0) > 0, "an abstention in the diagnostics")
        peer.send(60, 60)
        peer.until(lambda: peer.texts, "a sentence")
        assert not any(c.abstained for c in peer.captions)


def test_the_end_of_the_source_says_what_was_not_said_yet():
    with running("-p", "stride_s:=60.0") as (peer, _):
        peer.send(0, 45)
        peer.until(lambda: peer.own("processed") == "45", "all features taken")
        assert not peer.captions
        peer.state.publish(SourceState(state=SourceState.PLAYING))
        peer.state.publish(SourceState(state=SourceState.ENDED))
        peer.until(lambda: any("smil" in c.text for c in peer.captions), "the last sentence")


def test_gaps_and_jumps_of_the_stamps_are_counted_and_bad_features_cost_only_themselves():
    with running() as (peer, process):
        peer.send(0, 30, skip=(20, 21, 22))
        peer.until(lambda: peer.own("processed") == "27", "all features taken")
        assert (peer.own("stamp_gaps"), peer.own("frames_missing"), peer.own("dropped")) == ("1", "3", "0")
        bad = convert.frame_msgs(frame(30, True)).features
        bad.faces[0].embeddings = [Tensor(name="prompt", dtype="float32", shape=[4], data=[0] * 3)]
        peer.features.publish(bad)
        peer.until(lambda: peer.own("failed") == "1", "the failure in the diagnostics")
        peer.send(-60, 10)
        peer.until(lambda: peer.own("restarts") == "1" and peer.own("processed") == "37", "the jump back")
        assert process.poll() is None


def test_parameters_are_set_while_running_and_wrong_ones_refused():
    with running("-p", "stride_s:=60.0") as (peer, _):
        client = peer.node.create_client(SetParameters, "/caption/set_parameters")
        peer.until(client.service_is_ready, "the parameter service")

        def result_of(name, value):
            future = client.call_async(
                SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
            )
            peer.until(future.done, "an answer")
            return future.result().results[0]

        peer.send(0, 45)
        assert "stride_s out of range" in result_of("stride_s", 0.0).reason
        assert result_of("stride_s", "often").reason == "caption.stride_s: expected float, got str 'often'"
        assert result_of("stride_s", 1).successful
        peer.send(45, 45)
        peer.until(lambda: peer.texts, "a sentence after the new stride")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process_cleanly(number):
    with running() as (peer, process):
        peer.send(0, 10)
        process.send_signal(number)
        output, _ = process.communicate(timeout=graph_peer.DEADLINE_S)
        assert process.returncode == 0
        assert "Traceback" not in output


def refused(*arguments):
    process = graph_peer.start("caption", *arguments)
    output, _ = process.communicate(timeout=graph_peer.DEADLINE_S)
    assert process.returncode == EXIT_CONFIG, output
    assert "Traceback" not in output
    return output.strip()


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("stride_s:=0.0", "caption.stride_s: expected a value in [0.1, 60], got 0.0"),
        ("max_people:=many", "caption.max_people: expected int, got str 'many'"),
        ("qos_overrides./emotion_caption.publisher.depth:=-1", "expected a depth > 0, got -1"),
        ("qos_overrides./emotion_caption.publisher.reliability:=some", "override for policy `reliability`: `some`"),
    ],
)
def test_a_wrong_parameter_is_one_line_and_exit_code_78(argument, text):
    output = refused("-p", argument)
    assert text in output
    assert len(output.splitlines()) == 1


def test_a_wrong_value_in_a_file_and_a_missing_file_are_refused(tmp_path):
    file = tmp_path / "profile.yaml"
    file.write_text("caption:\n  ros__parameters:\n    min_confidence: 3\n", encoding="utf-8")
    assert "caption.min_confidence: expected a value in [0, 1], got 3" in refused("--params-file", str(file))
    assert "absent.yaml" in refused("--params-file", str(tmp_path / "absent.yaml"))
