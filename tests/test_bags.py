"""Bags on disk: written by us or by ros2 bag, whole, cut off or without metadata; what ``emo bag info`` says of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bag_files import START_NS, STEP_NS, STRING, copy, cut, killed, text, write_like_humble, write_texts
from graph_peer import ROOT

from emo_perception import bags
from emo_perception.bags import Bag, BagError, BagWriter, deserialize, learn
from emo_perception.config import EXIT_CONFIG
from emo_perception.tools import bag as command

STORAGES = ("mcap", "sqlite3")


def words(bag: Path) -> tuple[list[str], list[str]]:
    """The texts that can be read, and what is said about the rest."""
    with Bag(bag) as opened:
        return [deserialize(m).data.strip() for m in opened.messages()], opened.troubles


@pytest.fixture(scope="module", params=STORAGES)
def long(request, tmp_path_factory) -> Path:
    """A bag of several MCAP chunks, or several hundred pages."""
    return write_texts(tmp_path_factory.mktemp("long") / "bag", request.param, 400, size=10_000)


@pytest.mark.parametrize("storage", STORAGES)
def test_what_is_written_is_read(tmp_path: Path, storage: str) -> None:
    writer = BagWriter(tmp_path / "bag", storage)
    writer.add("/latched", STRING, latched=True)
    writer.write("/latched", STRING, START_NS + 1, text("b"))
    writer.write("/plain", STRING, START_NS, text("a"))
    writer.close()
    with Bag(tmp_path / "bag") as bag:
        assert [(t.name, t.kind, t.count, t.latched) for t in bag.topics] == [
            ("/latched", STRING, 1, True),
            ("/plain", STRING, 1, False),
        ]
        assert (bag.storage, bag.start_ns, bag.end_ns, bag.count) == (storage, START_NS, START_NS + 1, 2)
        assert [(m.topic, m.received_ns, m.cdr) for m in bag.messages()] == [
            ("/plain", START_NS, text("a")),
            ("/latched", START_NS + 1, text("b")),
        ]
        assert [m.topic for m in bag.messages({"/latched"})] == ["/latched"]
        assert list(bag.messages({"/nothing"})) == []
        assert bag.troubles == []


def test_bags_of_ros2_bag_in_several_files_are_read(tmp_path: Path) -> None:
    bag = write_like_humble(tmp_path / "bag", [str(i) for i in range(10)])
    assert words(bag) == ([str(i) for i in range(10)], [])
    with Bag(bag) as opened:
        assert (opened.start_ns, opened.end_ns) == (START_NS, START_NS + 9 * STEP_NS)
        assert opened.topics[0].latched
    (bag / "metadata.yaml").unlink()
    found, troubles = words(bag)
    assert found == [str(i) for i in range(10)]
    assert troubles == [f"{bag} has no metadata.yaml: its recorder did not end in order"]
    assert words(bag / "x_1.db3") == ([str(i) for i in range(5, 10)], [])


def test_a_bag_that_is_cut_off_is_read_up_to_there(long: Path, tmp_path: Path) -> None:
    counts = []
    for share in (0.9, 0.5):
        bag = cut(copy(long, tmp_path / str(share)), share)
        found, troubles = words(bag)
        assert found == [str(i) for i in range(len(found))]
        assert any("cut off" in trouble for trouble in troubles), troubles
        counts.append(len(found))
    # Of an MCAP file the chunk that is cut is lost: a megabyte, a quarter of this bag.
    assert 400 > counts[0] >= 400 * 0.9 - 110
    assert counts[0] > counts[1] >= 400 * 0.5 - 110


def test_a_bag_whose_recorder_was_killed_is_read_up_to_there(long: Path, tmp_path: Path) -> None:
    found, troubles = words(killed(copy(long, tmp_path / "bag")))
    assert found == [str(i) for i in range(len(found))]
    assert len(found) >= 290
    assert "has no metadata.yaml" in troubles[0]


def test_bytes_that_changed_within_a_file_end_the_reading_there(long: Path, tmp_path: Path) -> None:
    bag = copy(long, tmp_path / "bag")
    (file,) = (f for f in bag.iterdir() if f.suffix != ".yaml")
    with file.open("r+b") as stream:
        stream.seek(file.stat().st_size // 2)
        stream.write(b"\xff" * 50_000)
    with Bag(bag) as opened:
        read = [m.cdr for m in opened.messages()]
    assert read == [text(str(i).ljust(10_000)) for i in range(len(read))]
    assert 100 < len(read) < 400
    assert any(f"damaged after {len(read)} messages" in trouble for trouble in opened.troubles), opened.troubles


def test_a_killed_sqlite3_recorder_loses_a_second_at_the_most(tmp_path: Path) -> None:
    writer = BagWriter(tmp_path / "bag", "sqlite3")
    for i in range(40):
        writer.write("/words", STRING, START_NS + i * STEP_NS, text(str(i)))
    killed_then = copy(tmp_path / "bag", tmp_path / "killed")  # with the journal of what was not committed
    writer.close()
    found, _ = words(killed_then)
    assert found == [str(i) for i in range(len(found))]
    assert len(found) >= 40 - 11


@pytest.mark.parametrize("content", ["nothing", "empty.mcap", "noise.mcap", "empty.db3", "noise.db3", "notes.txt"])
def test_what_is_no_bag_is_refused_with_what_was_expected(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "bag"
    folder.mkdir()
    if content != "nothing":
        (folder / content).write_bytes(b"" if "empty" in content else b"noise" * 1000)
    with pytest.raises(
        BagError, match=r"not a readable bag .*expected a folder with metadata\.yaml and \.mcap or \.db3"
    ):
        Bag(folder)
    if content != "nothing":
        with pytest.raises(BagError, match="not a readable bag"):
            Bag(folder / content)


def test_types_of_other_packages_are_learnt_from_their_installed_definitions(tmp_path: Path, monkeypatch) -> None:
    for name, content in (
        ("Inner", "float32 x\n"),
        ("Outer", "std_msgs/Header header\nInner[] parts\nInner[2] pair\n"),
    ):
        file = tmp_path / "share" / "vendor_msgs" / "msg" / f"{name}.msg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    assert not learn("vendor_msgs/msg/Outer")
    writer = BagWriter(tmp_path / "bag")
    with pytest.raises(BagError, match="/v: no definition of vendor_msgs/msg/Outer here; install or source"):
        writer.add("/v", "vendor_msgs/msg/Outer")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    writer.add("/v", "vendor_msgs/msg/Outer")
    writer.close()
    assert {"vendor_msgs/msg/Inner", "vendor_msgs/msg/Outer"} <= bags.typestore().fielddefs.keys()


def test_types_that_are_not_installed_are_read_as_the_bag_defines_them(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "share" / "gone_msgs" / "msg" / "Thing.msg"
    file.parent.mkdir(parents=True)
    file.write_text("float32 x\n")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    writer = BagWriter(tmp_path / "bag")
    writer.write("/thing", "gone_msgs/msg/Thing", START_NS, b"\0\1\0\0\0\0\x80\x3f")
    writer.close()
    monkeypatch.undo()
    script = (
        "import sys; from pathlib import Path; from emo_perception import bags; "
        "print([m.message.x for m in bags.read(Path(sys.argv[1]))])"
    )  # in a process that has never heard of the type
    command_line = [sys.executable, "-c", script, str(tmp_path / "bag")]
    done = subprocess.run(command_line, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[1.0]\n"


def test_a_message_recorded_with_another_definition_is_recognised(tmp_path: Path) -> None:
    kind = "emo_msgs/msg/SourceState"
    writer = BagWriter(tmp_path / "bag")
    writer.add("/state", kind)
    writer.add("/text", STRING)
    writer.close()
    with Bag(tmp_path / "bag") as bag:
        assert [bags.differs(topic) for topic in bag.topics] == [False, False]
    old = bags.Topic("/state", kind, 1, definition="std_msgs/Header header\nuint8 state\n" + HEADER)
    assert bags.differs(old)


HEADER = """\
================================================================================
MSG: std_msgs/Header
builtin_interfaces/Time stamp
string frame_id
================================================================================
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec
"""


def test_bytes_that_are_no_message_are_named(tmp_path: Path) -> None:
    with pytest.raises(BagError, match=r"/words: 3 bytes are no std_msgs/msg/String"):
        deserialize(bags.Raw("/words", STRING, 0, b"\0\1\0"))


def test_info_tells_people_and_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = write_texts(tmp_path / "bag", "sqlite3", 21)
    assert command.main(["info", str(bag)]) == 0
    page = capsys.readouterr().out
    assert "sqlite3" in page
    assert "2023-11-14 22:13:20 UTC" in page
    assert "2.000 s" in page
    assert "      21  /words  std_msgs/msg/String" in page
    assert command.main(["info", "--json", str(bag)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["topics"] == [{"name": "/words", "type": STRING, "messages": 21, "latched": False}]
    assert (facts["messages"], facts["start_ns"], facts["end_ns"]) == (21, START_NS, START_NS + 20 * STEP_NS)
    assert facts["size_bytes"] == sum(f.stat().st_size for f in bag.iterdir())
    (bag / "metadata.yaml").unlink()
    assert command.main(["info", str(bag)]) == command.EXIT_DAMAGED
    assert "has no metadata.yaml" in capsys.readouterr().out


def test_an_empty_bag_is_a_bag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    BagWriter(tmp_path / "bag").close()
    assert command.main(["info", str(tmp_path / "bag")]) == 0
    assert "messages  0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["info", "nowhere"], "emo bag info: nowhere: not a readable bag"),
        (["process", "nowhere", "--out", "out"], "emo bag process: "),
        (["process", "nowhere", "--out", "out", "--profile", "none"], "expected a profile out of: "),
    ],
)
def test_errors_are_one_line_with_what_was_expected(tmp_path, monkeypatch, capsys, arguments, said) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.main(arguments) == EXIT_CONFIG
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["play"], ["replay", "x", "--remap", "a"], ["record", "--storage", "zip"]])
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(arguments)
    assert "usage: emo bag" in capsys.readouterr().err
