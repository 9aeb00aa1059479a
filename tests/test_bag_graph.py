"""``emo bag record`` and ``replay`` as processes on real DDS: what is heard, when, and what bad input leads to."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from bag_files import START_NS, STEP_NS, STRING, text, write_images, write_texts
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from graph_peer import ROOT, Peer, end, peer, start
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import String

from emo_models import weights
from emo_models.fetch import pull
from emo_msgs.msg import EmotionCaption, EmotionFeatures, SourceState
from emo_perception import from_msg
from emo_perception.bags import Bag, BagWriter, deserialize
from emo_perception.config import EXIT_CONFIG
from emo_perception.nodes import qos
from emo_perception.nodes.loading import LOADING
from emo_perception.tools.bag import node_command
from emo_perception.types import NS_PER_S

LATCHED = qos.STATE
RELIABLE = qos.RESULT
WAIT = ("--wait", "20")


@contextmanager
def emo_bag(*arguments: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """``emo bag`` as a process; ended at the end, if it has not by itself."""
    command = [sys.executable, "-m", "emo_perception.tools.bag", *map(str, arguments)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **{"env": os.environ, **options}
    )
    try:
        yield process
    finally:
        if not process.stdout.closed:
            print(end(process))  # pytest shows it where the test failed


def ended(process: subprocess.Popen[str], code: int = 0, spinning: Peer | None = None) -> str:
    """Everything that a process printed that ends by itself; ``spinning`` listens until then."""
    if spinning is not None:
        spinning.until(lambda: process.poll() is not None, "the end of the process")
    output, _ = process.communicate(timeout=30)
    assert process.returncode == code, output
    assert "Traceback" not in output
    return output


def contents(bag: Path) -> dict[str, list[Any]]:
    """Topic -> the data of its messages; the bytes themselves may end with padding."""
    with Bag(bag) as opened:
        assert opened.troubles == []
        found: dict[str, list[Any]] = {topic.name: [] for topic in opened.topics}
        for raw in opened.messages():
            data = getattr(deserialize(raw), "data", None)
            found[raw.topic].append(data if isinstance(data, str | None) else bytes(data))
    return found


def values(heard: list[Any]) -> list[str]:
    return [m.data.strip() for m in heard]


@pytest.fixture
def listener() -> Iterator[Peer]:
    with peer() as made:
        yield made


# Recording


def test_everything_is_recorded_whatever_its_qos_and_ctrl_c_ends_the_bag(listener: Peer, tmp_path: Path) -> None:
    plain = listener.node.create_publisher(String, "/words", RELIABLE)
    hasty = listener.node.create_publisher(String, "/hasty", qos.IMAGE_SUB)  # best effort
    early = listener.node.create_publisher(String, "/early", LATCHED)
    pixels = listener.node.create_publisher(Image, "/camera/image_raw", qos.IMAGE_PUB)
    early.publish(String(data="before anybody listened"))
    with emo_bag("record", "--all", "--out", tmp_path / "bag", "--storage", "sqlite3") as process:
        listener.until(lambda: plain.get_subscription_count() and hasty.get_subscription_count(), "the recorder")
        listener.until(early.get_subscription_count, "the recorder of the latched topic")
        for i in range(50):
            plain.publish(String(data=str(i)))
        sent = [0]

        def send() -> None:
            sent[0] += 1
            hasty.publish(String(data="hasty"))

        listener.until(lambda: sent[0] >= 3, "some best-effort messages", again=send)
        listener.until(plain.wait_for_all_acked, "receipt")
        assert not pixels.get_subscription_count()
        log = end(process, signal.SIGINT)
        assert process.returncode == 0, log
    assert "/camera/image_raw: raw images are left out; --raw-images records them too" in log
    found = contents(tmp_path / "bag")
    assert found["/words"] == [str(i) for i in range(50)]
    assert found["/early"] == ["before anybody listened"]
    assert found["/hasty"]
    assert "/camera/image_raw" not in found
    with Bag(tmp_path / "bag") as bag:
        assert bag.storage == "sqlite3"
        assert {t.name for t in bag.topics if t.latched} >= {"/early"}
        assert not next(t for t in bag.topics if t.name == "/words").latched


def test_topics_are_chosen_by_name_and_regex_and_remapped(listener: Peer, tmp_path: Path) -> None:
    topics = ("/a/words", "/b/words", "/b/other", "/robot/pixels")
    kinds = dict.fromkeys(topics, String) | {"/robot/pixels": Image}
    publishers = {name: listener.node.create_publisher(kinds[name], name, RELIABLE) for name in topics}
    chosen = ("record", "pixels", "/never", "--regex", "^/b/w", "--remap", "pixels:=/robot/pixels")
    with emo_bag(*chosen, "--out", tmp_path / "bag") as process:
        for name in ("/b/words", "/robot/pixels"):
            listener.until(publishers[name].get_subscription_count, f"the recorder of {name}")
        publishers["/b/words"].publish(String(data="b"))
        publishers["/robot/pixels"].publish(Image(height=1, width=1, encoding="mono8", step=1, data=b"\7"))
        for name in ("/b/words", "/robot/pixels"):
            listener.until(publishers[name].wait_for_all_acked, f"receipt of {name}")
        assert not publishers["/a/words"].get_subscription_count()
        assert not publishers["/b/other"].get_subscription_count()
        log = end(process, signal.SIGINT)
    assert "/never never had a publisher: nothing of it was recorded" in log
    found = contents(tmp_path / "bag")
    assert found["/b/words"] == ["b"]
    assert sorted(found) == ["/b/words", "/robot/pixels"]
    assert len(found["/robot/pixels"]) == 1  # named singly, so its being raw is no reason to leave it out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--out", "{taken}"), "exists already: choose another folder"),
        (("--out", "{taken}/file/bag"), "cannot be made"),
        (("--regex", "(", "--out", "{taken}/new"), "'(' is no regular expression"),
    ],
)
def test_a_recording_that_cannot_be_is_refused(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    (tmp_path / "file").touch()
    with emo_bag("record", *(a.format(taken=tmp_path) for a in arguments)) as process:
        assert said in ended(process, EXIT_CONFIG)


# Replaying


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_replayed_bag_arrives_complete_in_order_and_in_its_own_time(
    listener: Peer, tmp_path: Path, storage: str
) -> None:
    bag = write_texts(tmp_path / "bag", storage, 11)  # one second
    heard = listener.hear(String, "/other/words", RELIABLE)
    with emo_bag("replay", bag, "--remap", "/words:=/other/words", *WAIT) as process:
        listener.until(lambda: heard, "the first message")
        first = time.monotonic()
        listener.until(lambda: len(heard) == 11, "the last message")
        took_s = time.monotonic() - first
        log = ended(process)
    assert values(heard) == [str(i) for i in range(11)]
    assert took_s > 0.8  # never ahead of its time; how far behind depends on the machine
    assert "played 11 messages" in log


def test_rate_offset_topics_and_loop(listener: Peer, tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    writer = BagWriter(bag)
    for i in range(5):
        writer.write("/words", STRING, START_NS + i * 10 * NS_PER_S, text(str(i)))
        writer.write("/others", STRING, START_NS + i * 10 * NS_PER_S, text("x"))
    writer.close()
    heard, others = (listener.hear(String, name, RELIABLE) for name in ("/words", "/others"))
    chosen = ("--topics", "words", "--offset", "15", "--rate", "50", "--loop")
    with emo_bag(
        "replay", bag, *chosen, *WAIT
    ) as process:  # 25 s in half a second, where real time would take the test down
        listener.until(lambda: len(heard) >= 7, "the third round")
        log = end(process, signal.SIGINT)
        assert process.returncode == 0
    assert values(heard)[:7] == ["2", "3", "4", "2", "3", "4", "2"]
    assert others == []
    assert "playing again from the start" in log


def test_a_player_waits_for_nodes_that_load_and_tells_how_far_it_is(listener: Peer, tmp_path: Path) -> None:
    bag = write_texts(tmp_path / "bag", "mcap", 3)
    heard, states = listener.hear(String, "/words", RELIABLE), listener.hear(SourceState, "/source_state", LATCHED)
    diagnostics = listener.node.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)

    def tell(**values: str) -> None:
        told = [KeyValue(key=key, value=value) for key, value in values.items()]
        diagnostics.publish(DiagnosticArray(status=[DiagnosticStatus(name="robot/caption: caption", values=told)]))

    command = node_command("player", {"bag": str(bag), "wait_s": 60.0, "wait_for": "caption", "state": True})
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        listener.until(diagnostics.get_subscription_count, "the player")
        told = [0]

        def loading() -> None:
            told[0] += 1
            tell()

        listener.until(lambda: told[0] > 1, "two reports of a node that is still loading", again=loading)
        assert not heard
        listener.until(lambda: heard, "the first message", again=lambda: tell(processed="0"))
        log = ended(process, spinning=listener)
    finally:
        if process.poll() is None:
            end(process)
    assert values(heard) == ["0", "1", "2"]
    assert [state.state for state in states] == [SourceState.PLAYING, SourceState.ENDED]
    assert "not loaded yet" not in log


def test_a_latched_topic_reaches_who_comes_late(listener: Peer, tmp_path: Path) -> None:
    writer = BagWriter(tmp_path / "bag")
    writer.add("/state", STRING, latched=True)
    writer.write("/state", STRING, START_NS, text("known"))
    writer.write("/words", STRING, START_NS, text("first"))
    writer.write("/words", STRING, START_NS + 600 * NS_PER_S, text("far away"))
    writer.close()
    words, early = (listener.hear(String, name, RELIABLE) for name in ("/words", "/state"))
    with emo_bag("replay", tmp_path / "bag", *WAIT):
        listener.until(lambda: words and early, "the beginning")
        late = listener.hear(String, "/state", LATCHED)
        listener.until(lambda: late, "the latched message")
    assert values(late) == ["known"]


def on_a_terminal(*arguments: object) -> tuple[list[str], dict[str, Any], int]:
    """The command line and options that start ``emo bag`` in the foreground of a terminal, and our end of that."""
    ours, theirs = os.openpty()
    code = (
        "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        "os.execv(sys.executable, [sys.executable, '-m', 'emo_perception.tools.bag', *sys.argv[1:]])"
    )
    return [sys.executable, "-c", code, *map(str, arguments)], {"stdin": theirs, "start_new_session": True}, ours


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo terminals here")
def test_the_space_key_goes_on_and_pauses(listener: Peer, tmp_path: Path) -> None:
    bag = write_texts(tmp_path / "bag", "mcap", 5, step_ns=600 * NS_PER_S)
    heard = listener.hear(String, "/words", RELIABLE)
    clock = listener.hear(Clock, "/clock", RELIABLE)
    command, options, terminal = on_a_terminal("replay", bag, "--paused", "--clock", "--rate", "100", "--wait", "20")
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ, **options
    )
    try:
        listener.until(lambda: len(clock) > 20, "the clock, which goes on while the bag is paused")
        assert {from_msg.stamp_ns(c.clock) for c in clock} == {START_NS}
        assert heard == []
        os.write(terminal, b"x ")
        listener.until(lambda: heard and from_msg.stamp_ns(clock[-1].clock) > START_NS, "the clock to run")
        os.write(terminal, b" ")
        listener.until(lambda: len(clock) > 5 and clock[-1] == clock[-5], "the clock to stand")
        assert values(heard) == ["0"]
        os.write(terminal, b"\x03")  # Ctrl-C still ends it
        output, _ = process.communicate(timeout=20)
    finally:
        if process.poll() is None:
            end(process)
        os.close(terminal)
        os.close(options["stdin"])
    assert process.returncode == 0, output
    assert "the space key pauses and goes on" in output


def test_a_parameter_pauses_where_there_is_no_terminal(listener: Peer, tmp_path: Path) -> None:
    bag = write_texts(tmp_path / "bag", "mcap", 3)
    heard = listener.hear(String, "/words", RELIABLE)
    client = listener.node.create_client(SetParameters, "/player/set_parameters")
    with emo_bag("replay", bag, "--paused", *WAIT, stdin=subprocess.DEVNULL) as process:
        listener.until(client.service_is_ready, "the parameters of the player")
        listener.until(lambda: listener.node.count_publishers("/words"), "the player")
        assert heard == []
        request = SetParameters.Request(parameters=[Parameter("paused", value=False).to_parameter_msg()])
        client.call_async(request)
        listener.until(lambda: len(heard) == 3, "the messages")
        ended(process)


def test_perception_lives_in_the_time_of_the_bag(listener: Peer, tmp_path: Path) -> None:
    for name in weights.profiles()["start"]:
        pull(name)
    portrait = cv2.imread(str(pull("astronaut")))
    bag = write_images(tmp_path / "bag", [portrait] * 15, topic="/camera/image/compressed")
    features = listener.hear(EmotionFeatures, "emotion_features", RELIABLE)
    status = listener.hear(DiagnosticArray, "/diagnostics", RELIABLE)
    remap = ("--remap", "/camera/image/compressed:=/image_raw/compressed")
    perception = start("perception", "-p", "use_sim_time:=true")
    try:
        # Perception listens to images once they have a publisher, so to wait for it is to wait for all.
        with emo_bag("replay", bag, *remap, "--clock", "--rate", "0.5", "--wait", "25") as process:
            listener.until(lambda: any(f.faces for f in features), "a face")
            ended(process, spinning=listener)
    finally:
        log = end(perception)
    assert "Traceback" not in log
    sent = {START_NS + i * STEP_NS for i in range(15)}
    assert {from_msg.stamp_ns(f.header.stamp) for f in features} <= sent
    assert len(features) > 3  # the newest image wins, so on a busy machine not all
    times = [from_msg.stamp_ns(s.header.stamp) for s in status]
    assert all(t == 0 or START_NS <= t <= max(sent) for t in times)
    assert any(times)


def test_types_that_are_unknown_here_are_named_and_the_rest_is_played(
    listener: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = tmp_path / "share" / "vendor_msgs" / "msg" / "Thing.msg"
    definition.parent.mkdir(parents=True)
    definition.write_text("float32 x\n")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    writer = BagWriter(tmp_path / "bag")
    writer.write("/thing", "vendor_msgs/msg/Thing", START_NS, b"\0\1\0\0\0\0\0\0")
    writer.write("/words", STRING, START_NS, text("known"))
    writer.close()
    monkeypatch.undo()
    heard = listener.hear(String, "/words", RELIABLE)
    with emo_bag("replay", tmp_path / "bag", *WAIT) as process:
        listener.until(lambda: heard, "the known topic")
        log = ended(process)
    assert "/thing (1 messages) is not played: no vendor_msgs/msg/Thing here" in log
    with emo_bag("replay", tmp_path / "bag", "--topics", "/thing") as process:
        assert "nothing to play: no topic of" in ended(process, EXIT_CONFIG)


def test_a_damaged_bag_is_played_up_to_there(listener: Peer, tmp_path: Path) -> None:
    bag = write_texts(tmp_path / "bag", "mcap", 300, step_ns=NS_PER_S // 1000, size=10_000)
    with (bag / "bag.mcap").open("r+b") as file:  # its index is whole: only reading shows it
        file.seek(2_000_000)
        file.write(b"\xff" * 50_000)
    heard = listener.hear(String, "/words", RELIABLE)
    with emo_bag("replay", bag, "--rate", "0.1", *WAIT) as process:
        log = ended(process, spinning=listener)
    assert heard
    read = int(re.search(r"bag.mcap is damaged after (\d+) messages", log)[1])
    assert 50 < read < 300
    assert f"played {read} messages" in log


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("{folder}/absent",), "absent: not a readable bag"),
        (("{folder}/bag", "--topics", "/nothing"), "/nothing is not in the bag; it has /words"),
        (("{folder}/bag", "--offset", "60"), "player.offset_s: expected less than the bag's 0.2 s, got 60"),
        (("{folder}/bag", "--rate", "0"), "player.rate: expected a value in [0.01, 100], got 0.0"),
        (("{folder}/bag", "--regex", "("), "'(' is no regular expression"),
    ],
)
def test_a_replay_that_cannot_be_is_refused(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    write_texts(tmp_path / "bag", "mcap", 3)
    with emo_bag("replay", *(a.format(folder=tmp_path) for a in arguments)) as process:
        assert said in ended(process, EXIT_CONFIG)


def test_what_is_replayed_can_be_recorded_again(listener: Peer, tmp_path: Path) -> None:
    noise = [np.random.default_rng(i).integers(0, 256, (48, 64, 3), np.uint8) for i in range(5)]
    bag = write_images(tmp_path / "bag", noise, storage="sqlite3")
    with (
        emo_bag("record", "/image_raw/compressed", "--out", tmp_path / "again") as recorder,
        emo_bag("replay", bag, "--rate", "0.2", "--wait", "2") as player,
    ):
        ended(player, spinning=listener)
        end(recorder, signal.SIGINT)
    first, second = contents(bag)["/image_raw/compressed"], contents(tmp_path / "again")["/image_raw/compressed"]
    # The recorder finds the player's topic within a fifth of a second, or the two that the player waits.
    assert second == first[len(first) - len(second) :]
    assert len(second) >= 3
    with Bag(bag) as opened:
        assert deserialize(next(opened.messages())).format == "jpeg"


def test_a_recorder_waits_for_nodes_that_still_load_when_the_source_has_ended(listener: Peer, tmp_path: Path) -> None:
    """A short file has ended before large networks are there, and is captioned all the same."""
    states = listener.node.create_publisher(SourceState, "source_state", qos.STATE)
    diagnostics = listener.node.create_publisher(DiagnosticArray, "/diagnostics", qos.RESULT)
    captions = listener.node.create_publisher(EmotionCaption, "emotion_caption", qos.CAPTION)
    given = (f"folder:={tmp_path / 'bag'}", "until_end:=true", "quiet_s:=0.5")
    process = start("recorder", *(word for value in given for word in ("-p", value)))
    loading = DiagnosticArray(status=[DiagnosticStatus(name="caption: caption", message=f"{LOADING} the network")])

    def load() -> None:
        """Longer than the silence after which it would end."""
        diagnostics.publish(loading)
        listener.executor.spin_once(timeout_sec=0.1)

    try:
        listener.until(lambda: captions.get_subscription_count() == 1, "the recorder listens")
        states.publish(SourceState(state=SourceState.ENDED))
        begin = time.monotonic()
        listener.until(lambda: load() or time.monotonic() - begin > 2.0, "loading")
        assert process.poll() is None
        captions.publish(EmotionCaption(text="at last"))
        ended(process, spinning=listener)
    finally:
        end(process)
    with Bag(tmp_path / "bag") as bag:
        assert [deserialize(raw).text for raw in bag.messages({"/emotion_caption"})] == ["at last"]
