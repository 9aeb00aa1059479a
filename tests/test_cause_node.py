"""The cause process itself, over DDS: explanations, questions, a restart, the chat server, bad input, exit codes."""

from __future__ import annotations

import signal
from contextlib import contextmanager

import graph_peer
import pytest
from action_msgs.msg import GoalStatus
from cause_scenes import START_NS, at, frames, says
from chat_server import chat_server
from fame_cache import ANSWER, public_files, video, write_fame
from rclpy.action import ActionClient
from std_msgs.msg import String

from emo_models import weights
from emo_models.fetch import Puller
from emo_msgs.action import ExplainEmotion
from emo_msgs.msg import EmotionCause, EmotionFeatures, SourceState, Tensor, Utterance, VisualContext
from emo_perception import from_msg, jsonl
from emo_perception.config import EXIT_CONFIG
from emo_perception.nodes import convert, qos

OWN = "cause: cause"
DOOR, FEAR = "I left the front door open.", "Oh no, she will be run over by a car!"


@pytest.fixture(scope="module", autouse=True)
def _weights():
    with Puller() as puller:
        for name in ("minilm", "minilm_tokenizer"):
            puller.pull(weights.card(name))


class Peer(graph_peer.Peer):
    """The rest of the graph: publishes features and utterances, hears the explanations, asks."""

    def __init__(self):
        super().__init__()
        self.features = self.node.create_publisher(EmotionFeatures, "emotion_features", qos.RESULT)
        self.utterances = self.node.create_publisher(Utterance, "utterances", qos.RESULT)
        self.video = self.node.create_publisher(VisualContext, "visual_context", qos.RESULT)
        self.state = self.node.create_publisher(SourceState, "source_state", qos.STATE)
        self.causes: list[EmotionCause] = self.hear(EmotionCause, "emotion_cause", qos.CAPTION)
        self.texts: list[String] = self.hear(String, "emotion_cause/text", qos.CAPTION)
        self.client = ActionClient(self.node, ExplainEmotion, "explain_emotion", feedback_sub_qos_profile=qos.RESULT)
        self.feedback: list[str] = []

    def send(self, *items):
        for item in items:
            if hasattr(item, "faces"):
                self.features.publish(convert.frame_msgs(item).features)
            elif hasattr(item, "tensors"):
                self.video.publish(convert.visual_context_msg(item))
            else:
                self.utterances.publish(convert.utterance_msg(item))
            self.executor.spin_once(timeout_sec=0.005)

    def tell(self, *items):
        """Send and wait until it was taken in: topics keep no order among each other, and speech comes later anyway."""
        before = int(self.own("processed") or 0)
        self.send(*items)
        self.until(lambda: int(self.own("processed") or 0) >= before + len(items), "the scene is taken in")

    def own(self, key):
        return self.value(OWN, key)

    def ask(self, **goal):
        """Send a question; returns its goal handle once it is decided."""
        future = self.client.send_goal_async(
            ExplainEmotion.Goal(**goal), feedback_callback=lambda m: self.feedback.append(m.feedback.text)
        )
        self.until(future.done, "the question is taken or refused")
        return future.result()

    def answer(self, handle):
        future = handle.get_result_async()
        self.until(future.done, "an answer")
        return future.result()


@contextmanager
def running(*arguments, persist=False, **environment):
    """A cause process that is loaded and connected to a peer; ended by SIGTERM."""
    given = ("-p", f"persist:={str(persist).lower()}", *arguments)
    peer, process = Peer(), graph_peer.start("cause", *given, **environment)
    try:
        peer.until(
            lambda: (
                peer.features.get_subscription_count() == peer.utterances.get_subscription_count() == 1
                and peer.state.get_subscription_count() == 1
                and peer.node.count_publishers("emotion_cause") == peer.node.count_publishers("emotion_cause/text") == 1
                and peer.client.server_is_ready()
                and peer.own("backend")
            ),
            "the cause process joins the graph with its engine loaded",
        )
        yield peer, process
    finally:
        peer.output = graph_peer.end(process)
        peer.client.destroy()
        peer.close()


def scene():
    return [
        *frames(0, 2, f1="neutral", f2="neutral"),
        says(0, 2, "Ben", DOOR, 2),
        *frames(2, 4, f1="scared", f2="neutral"),
    ]


def spoken():
    return says(2.2, 4, "Ana", FEAR, 1)


def test_an_emotional_utterance_is_explained_with_its_evidence_and_the_same_text():
    with running() as (peer, _):
        peer.tell(*scene())
        peer.send(spoken())
        peer.until(lambda: peer.causes and peer.texts, "an explanation")
        cause = peer.causes[0]
        assert "because Ben said “I left the front door open.”" in cause.text
        assert [cause.text] == [text.data for text in peer.texts]
        assert (cause.emotion, cause.speaker, cause.track_id) == ("scared", "Ana", 1)
        assert cause.evidence_utterances[0] == "Ben@0"
        assert {e.kind for e in cause.evidence} >= {"utterance", "face"}
        assert START_NS <= from_msg.stamp_ns(cause.header.stamp) <= at(4)
        assert convert.cause_msg(from_msg.cause(cause)) == cause
        assert cause.text in jsonl.line(from_msg.cause(cause))


def test_a_changed_face_at_the_end_of_the_source_is_still_explained():
    with running("-p", "settle_s:=30.0") as (peer, _):
        peer.send(*scene())
        peer.until(lambda: peer.own("processed") == "41", "all inputs taken")
        assert not peer.causes
        peer.state.publish(SourceState(state=SourceState.ENDED))
        peer.until(lambda: peer.causes, "the explanation of the changed face")
        assert peer.causes[0].target_utterance == ""


def test_abstentions_are_never_spoken_and_may_be_kept_quiet():
    with running("-p", "publish_abstentions:=false") as (peer, _):
        peer.send(*frames(0, 3, f1="neutral"), *frames(3, 7, f1="happy"))
        peer.until(lambda: peer.own("abstentions") == "1", "an abstention in the diagnostics")
        peer.send(*frames(7, 9, f1="happy", f2="neutral"), says(8, 10, "Ben", DOOR, 2), says(10.2, 12, "Ana", FEAR, 1))
        peer.until(lambda: peer.causes, "an explanation")
        assert not any(cause.abstained for cause in peer.causes)


def test_questions_are_answered_word_by_word_and_in_order():
    with running() as (peer, _):
        peer.tell(*scene())
        peer.send(spoken())
        peer.until(lambda: peer.causes, "an explanation")
        handles = [
            peer.ask(target=ExplainEmotion.Goal.UTTERANCE, utterance_id="Ana@2.2"),
            peer.ask(target=ExplainEmotion.Goal.PERSON, track_id=1),
            peer.ask(target=ExplainEmotion.Goal.MOMENT, moment=convert.time_msg(at(3))),
        ]
        answers = [peer.answer(handle) for handle in handles]
        assert all(answer.status == GoalStatus.STATUS_SUCCEEDED for answer in answers)
        texts = [answer.result.cause.text for answer in answers]
        assert texts[0] == peer.causes[0].text
        # The client stops listening to a question that is answered, so the last words may have come too late for it.
        prefixes = {" ".join(t.split(" ")[:n]) for t in texts for n in range(1, len(t.split(" ")) + 1)}
        assert "Ana" in peer.feedback
        assert len(peer.feedback) > 3
        assert set(peer.feedback) <= prefixes
        unknown = peer.answer(peer.ask(target=ExplainEmotion.Goal.PERSON, track_id=9))
        assert (unknown.status, unknown.result.cause.abstained) == (GoalStatus.STATUS_SUCCEEDED, True)
        assert "no emotion of person 9" in unknown.result.cause.abstain_reason
        wrong = peer.answer(peer.ask(target=7))
        assert wrong.status == GoalStatus.STATUS_ABORTED
        assert "expected 0 (PERSON), 1 (UTTERANCE) or 2 (MOMENT), got 7" in wrong.result.cause.abstain_reason


def test_questions_can_be_cancelled_while_they_wait_and_while_they_are_answered_and_too_many_are_refused():
    with chat_server("slow") as server, running(
        "-p", f"chat_url:={server.url}", "-p", "chat_model:=tiny", "-p", "chat_timeout_s:=100.0", "-p", "max_questions:=1"
    ) as (peer, _):  # fmt: skip
        peer.send(*scene())
        peer.until(lambda: peer.own("processed") == "41", "all inputs taken")
        first = peer.ask(target=ExplainEmotion.Goal.PERSON, track_id=1)
        peer.until(lambda: server.asked and peer.feedback, "the first words of a slow answer")
        second = peer.ask(target=ExplainEmotion.Goal.PERSON, track_id=1)
        third = peer.ask(target=ExplainEmotion.Goal.PERSON, track_id=1)
        assert (first.accepted, second.accepted, third.accepted) == (True, True, False)
        for handle in (second, first):
            future = handle.cancel_goal_async()
            peer.until(future.done, "the cancellation is taken")
        assert [peer.answer(h).status for h in (first, second)] == [GoalStatus.STATUS_CANCELED] * 2
        peer.until(lambda: peer.own("questions_refused") == "1", "the refused question in the diagnostics")
        assert len(server.asked) == 1


def test_a_slow_chat_server_delays_no_input_and_its_bad_answer_is_not_used():
    with chat_server(answer=lambda _: "Ana is scared because Doctor Miller shouted.") as server, running(
        "-p", f"chat_url:={server.url}", "-p", "chat_model:=tiny"
    ) as (peer, _):  # fmt: skip
        peer.send(*scene(), spoken())
        peer.until(lambda: peer.own("rephrasing_rejected") == "1" and peer.causes, "a rejected answer")
        assert "because Ben said" in peer.causes[0].text
        assert "doctor" in peer.own("rephrasing_problem")
        server.behaviour = "slow"
        peer.send(says(20, 21, "Ben", DOOR, 2), says(22, 24, "Ana", FEAR, 1))
        peer.until(lambda: len(server.asked) == 2, "the second question to the server")
        peer.send(*frames(24, 30, f1="neutral", f2="neutral"))
        peer.until(lambda: peer.own("processed") == "104", "inputs are taken while the server is slow")
        assert len(peer.causes) == 1


def test_the_memory_survives_a_restart_of_the_node_but_not_a_kill_of_its_file(tmp_path):
    file = tmp_path / "dialogue.json"
    arguments = ("-p", f"memory_file:={file}")
    with running(*arguments, persist=True) as (peer, process):
        peer.send(*scene())
        peer.until(lambda: file.exists() and DOOR in file.read_text(encoding="utf-8"), "the file")
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert f"kept in {file} (no picture, no sound); persist:=false turns that off" in peer.output
    with running(*arguments, persist=True) as (peer, _):
        peer.send(spoken())
        peer.until(lambda: peer.causes, "an explanation out of what was remembered")
        assert peer.causes[0].evidence_utterances[0] == "Ben@0"
    file.write_text("{", encoding="utf-8")
    with running(*arguments, persist=True) as (peer, _):
        assert peer.own("remembered") == "0"
    assert "set aside as dialogue.json.broken" in peer.output


def test_without_persist_nothing_is_written(tmp_path):
    with running(XDG_STATE_HOME=str(tmp_path)) as (peer, _):
        peer.send(*scene(), spoken())
        peer.until(lambda: peer.causes, "an explanation")
        assert peer.own("memory_file") == "none"
    assert not list(tmp_path.rglob("*"))
    assert "nothing of the dialogue is written to a file" in peer.output


def test_bad_input_costs_only_itself(tmp_path):
    blocked = tmp_path / "a_file"
    blocked.write_text("", encoding="utf-8")
    with running("-p", f"memory_file:={blocked}/dialogue.json", persist=True) as (peer, process):
        backwards = convert.utterance_msg(says(5, 6, "Ana", "Help!", 1))
        backwards.start, backwards.end = backwards.end, backwards.start
        peer.utterances.publish(backwards)
        features = convert.frame_msgs(frames(0, 0.1, f1="happy")[0]).features
        features.faces[0].embeddings = [Tensor(name="prompt", dtype="float32", shape=[4], data=[0] * 3)]
        peer.features.publish(features)
        peer.until(lambda: peer.own("failed") == "2", "both failures in the diagnostics")
        peer.send(says(6, 7, "", "  "), *scene(), spoken())
        peer.until(lambda: peer.causes, "an explanation all the same")
        peer.until(lambda: peer.own("not_saved") not in ("", "0"), "the file that cannot be written")
        assert process.poll() is None
    assert peer.output.count("it goes on without") == 1


def test_missing_weights_are_told_with_the_command_and_looked_for_again(tmp_path):
    peer, process = Peer(), graph_peer.start("cause", "-p", "persist:=false", EMO_CACHE=str(tmp_path))
    try:
        peer.until(lambda: OWN in peer.diagnostics and peer.diagnostics[OWN].level == b"\x02", "an error")
        assert "emo weights pull minilm" in peer.diagnostics[OWN].message
        answer = peer.answer(peer.ask(target=ExplainEmotion.Goal.PERSON, track_id=1))
        assert answer.status == GoalStatus.STATUS_ABORTED
        assert "emo weights pull minilm" in answer.result.cause.abstain_reason
        for name in ("minilm", "minilm_tokenizer"):
            (tmp_path / weights.card(name).file).symlink_to(weights.path(name))
        peer.until(lambda: peer.own("backend"), "the engine is loaded once the weights are there")
    finally:
        graph_peer.end(process)
        peer.client.destroy()
        peer.close()


FAME = ("-p", "explainer:=fame", "-p", "preset:=toy")


def test_fame_explains_over_dds_streams_its_words_and_is_cancelled_between_two_of_them(tmp_path):
    """With a network that goes on for hundreds of words, so that there is something to cancel."""
    pytest.importorskip("transformers")
    write_fame(public_files(tmp_path), endless=True)
    with running(*FAME, EMO_CACHE=str(tmp_path)) as (peer, _):
        peer.until(lambda: peer.video.get_subscription_count() == 1, "the node listens to the video")
        peer.tell(*scene())
        peer.send(video(spoken()), spoken())
        peer.until(lambda: any(c.target_utterance for c in peer.causes), "an explanation")
        cause = next(c for c in peer.causes if c.target_utterance)
        assert cause.text.startswith(ANSWER)
        assert (cause.model, cause.abstained) == ("fame/toy", False)
        assert {e.kind for e in cause.evidence} >= {"utterance", "face"}
        peer.send(video(says(6, 7, "Ben", DOOR, 2), width=1024))
        peer.until(lambda: peer.own("failed") == "1", "video of another network is counted as failed")
        peer.until(lambda: peer.own("answers_cut") == "1", "the answer in the diagnostics")
        assert (peer.own("network"), peer.own("without_video")) == ("fame/toy, fame.safetensors", "0")
        handle = peer.ask(target=ExplainEmotion.Goal.UTTERANCE, utterance_id="Ana@2.2")
        peer.until(lambda: len(peer.feedback) > 2, "the first words of an answer that goes on for long")
        future = handle.cancel_goal_async()
        peer.tell(*frames(4, 4.2, f1="neutral", f2="neutral"))
        peer.until(future.done, "the cancellation is taken")
        assert peer.answer(handle).status == GoalStatus.STATUS_CANCELED
        assert all(ANSWER.startswith(text) or text.startswith(ANSWER) for text in peer.feedback)
    assert "set visual.preset and cause.preset to the same" in peer.output


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("explainer:=server", "cause.chat_url: expected the server that explains"),
        ("window_s:=0.0", "cause.window_s: expected a value in [1, 600], got 0.0"),
        ("chat_url:=localhost", "cause.chat_url: expected a base URL"),
        ("memory_tokens:=many", "cause.memory_tokens: expected int, got str 'many'"),
    ],
)
def test_a_wrong_parameter_is_one_line_and_exit_code_78(argument, text):
    process = graph_peer.start("cause", "-p", argument)
    output, _ = process.communicate(timeout=graph_peer.DEADLINE_S)
    assert process.returncode == EXIT_CONFIG, output
    assert text in output
    assert len(output.strip().splitlines()) == 1
