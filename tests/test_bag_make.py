"""``emo bag make``: what a data set shows and says is in the bags, to the pixel, with what is right about it beside."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from dataset_files import write

from emo_perception import bags, from_msg, pcm
from emo_perception.images import frame_from_msg
from emo_perception.tools import bag as command
from emo_perception.types import NS_PER_S
from training.datasets import DatasetError, read_dataset
from training.prepare.cumulative import CumulativeVideos, pieces
from training.prepare.video import Video
from training.recordings.make import main
from training.recordings.references import FILE, Reference, read_references
from training.recordings.staging import START_NS
from training.toyworld.clips import ClipOptions
from training.toyworld.truth import load_truth
from training.toyworld.world import make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("world")
    make_world(root, seed=4, clips=10, dialogues=4, options=ClipOptions(size_wh=(160, 120)))
    return root


@pytest.fixture(scope="module")
def made(world: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("bags") / "toy"
    assert command.main(["make", "--dataset", "toy", "--data", str(world), "--out", str(out)]) == 0
    return out


def messages(bag: Path, topic: str) -> list[bags.Recorded]:
    return list(bags.read(bag, [topic]))


def test_a_clip_is_in_its_bag_to_the_pixel(world: Path, made: Path) -> None:
    records = [r for r in read_dataset("mafw", world / "mafw").split("test") if r.captions]
    assert records
    for record in records:
        bag = made / f"mafw_{record.clip_id}"
        shown = [frame_from_msg(item.message) for item in messages(bag, "/image_raw")]
        expected = list(Video.of(record).frames())
        assert [f.stamp_ns - START_NS for f in shown] == [f.stamp_ns for f in expected]
        assert all(np.array_equal(a.image, b.image) for a, b in zip(shown, expected, strict=True))
        (reference,) = read_references(bag / FILE)
        assert reference == Reference(
            "caption", record.clip_id, START_NS, shown[-1].stamp_ns, record.captions, record.emotions[0]
        )


def test_a_dialogue_is_one_bag_with_its_words_between_the_images(world: Path, made: Path) -> None:
    assert sorted(p.name for p in made.iterdir() if not p.name.startswith("mafw")) == ["ecem_test_dia0"]
    bag = made / "ecem_test_dia0"
    records = list(read_dataset("meld", world / "meld").split("test"))
    said = [from_msg.utterance(item.message) for item in messages(bag, "/utterances")]
    assert [(u.id, u.speaker, u.text) for u in said] == [
        (r.clip_id, r.dialogue.target.speaker, r.dialogue.target.text) for r in records
    ]
    video = CumulativeVideos(pieces(records)).plan(records[-1]).video()
    shown = [frame_from_msg(item.message) for item in messages(bag, "/image_raw")]
    assert [f.stamp_ns - START_NS for f in shown] == video.stamps().tolist()
    # Words come after the images that they were said over, and before all others.
    order = [(item.topic, item.received_ns) for item in bags.read(bag, ["/image_raw", "/utterances"])]
    heard = [i for i, (topic, _) in enumerate(order) if topic == "/utterances"]
    counts = [sum(1 for topic, _ in order[:i] if topic == "/image_raw") for i in heard]
    assert counts == np.cumsum([Video.of(r).count() for r in records]).tolist()
    for utterance, after in zip(said, [*said[1:], None], strict=True):
        assert utterance.start_ns < utterance.end_ns < (after.start_ns if after else np.inf)
    assert said[-1].end_ns == shown[-1].stamp_ns  # so that all of it has been seen when the recording ends


def test_what_a_drawn_world_knows_of_causes_is_kept(world: Path, made: Path) -> None:
    bag = made / "ecem_test_dia0"
    truths = {
        f"test_{k.replace('t_', 'dia', 1).replace('_', '_utt')}": t for k, t in load_truth(world / "ecem").items()
    }
    references = read_references(bag / FILE)
    assert references
    said = {u.id: u for u in (from_msg.utterance(item.message) for item in messages(bag, "/utterances"))}
    for reference in references:
        truth = truths[reference.id]
        assert reference.kind == "cause"
        assert reference.texts == (truth.captions[0].text,)
        assert (reference.cause_kind, reference.cause_phrases) == (truth.cause.kind, truth.cause.evidence)
        heard = said[reference.id]
        assert (reference.speaker, reference.start_ns, reference.end_ns) == (
            heard.speaker,
            heard.start_ns,
            heard.end_ns,
        )


def test_sound_lasts_as_long_as_the_images(made: Path) -> None:
    chunks = [pcm.sound(item.message) for item in messages(made / "ecem_test_dia0", "/audio")]
    shown = [from_msg.stamp_ns(item.message.header.stamp) for item in messages(made / "ecem_test_dia0", "/image_raw")]
    assert {c.sample_rate_hz for c in chunks} == {16_000}
    assert all(after.stamp_ns >= before.end_ns - 1 for before, after in pairwise(chunks))
    length_s = sum(len(c.samples) for c in chunks) / 16_000
    assert length_s == pytest.approx((shown[-1] - shown[0]) / NS_PER_S, abs=0.25)
    assert chunks[-1].end_ns <= shown[-1] + NS_PER_S // 10


@pytest.mark.parametrize(("form", "exact"), [("jpeg", False), ("png", True)])
def test_compressed_images_and_the_other_storage(
    world: Path, made: Path, tmp_path: Path, form: str, exact: bool
) -> None:
    given = [
        "--dataset",
        "mafw",
        "--data",
        str(world / "mafw"),
        "--limit",
        "1",
        "--images",
        form,
        "--storage",
        "sqlite3",
    ]
    assert main([*given, "--out", str(tmp_path / "bags")]) == 0
    (bag,) = (tmp_path / "bags").iterdir()
    assert list(bag.glob("*.db3"))
    raw = [frame_from_msg(i.message).image for i in messages(made / bag.name, "/image_raw")]
    here = [frame_from_msg(i.message).image for i in messages(bag, "/image_raw/compressed")]
    assert len(raw) == len(here)
    assert all(np.array_equal(a, b) for a, b in zip(raw, here, strict=True)) == exact
    assert all(np.abs(a.astype(int) - b).mean() < 4 for a, b in zip(raw, here, strict=True))


def test_only_bags_are_in_the_folder_and_it_must_be_new(world: Path, made: Path, capsys) -> None:
    assert all((entry / FILE).is_file() and (entry / "metadata.yaml").is_file() for entry in made.iterdir())
    assert main(["--dataset", "toy", "--data", str(world), "--out", str(made)]) == 78
    assert "is not empty: choose another folder" in capsys.readouterr().err


def test_the_same_world_gives_the_same_bytes(world: Path, made: Path, tmp_path: Path) -> None:
    given = ["--dataset", "toy", "--data", str(world), "--limit", "1", "--out", str(tmp_path / "again")]
    assert main(given) == 0
    for bag in (tmp_path / "again").iterdir():
        for file in bag.iterdir():
            assert file.read_bytes() == (made / bag.name / file.name).read_bytes(), file


def test_a_world_is_drawn_where_none_is_given(tmp_path: Path, monkeypatch, capsys) -> None:
    drawn = {}

    def small(root: Path, *, seed: int, clips: int, dialogues: int) -> None:
        drawn.update(seed=seed, clips=clips, dialogues=dialogues)
        make_world(root, seed=seed, clips=clips, dialogues=0, options=ClipOptions(size_wh=(160, 120)))

    monkeypatch.setattr("training.toyworld.world.make_world", small)
    assert main(["--dataset", "toy", "--limit", "2", "--seed", "9", "--out", str(tmp_path / "bags")]) == 0
    assert drawn["seed"] == 9
    assert drawn["dialogues"] == 10
    assert len(list((tmp_path / "bags").iterdir())) == 2
    assert "2 bags in" in capsys.readouterr().out


def test_what_cannot_be_made_is_named(world: Path, tmp_path: Path, capsys) -> None:
    out = str(tmp_path / "bags")
    for given, said in (
        (["--dataset", "mafv"], "did you mean 'mafw'"),
        (["--dataset", "mafw"], "expected the folder of mafw; name it with --data DIR"),
        (["--dataset", "toy", "--data", str(tmp_path)], "expected a drawn world with mafw or ecem"),
        (["--dataset", "mafw", "--data", str(world / "mafw"), "--split", "val"], "of 0 records there is none"),
        (["--dataset", "toy", "--data", str(world), "--option", "fold=2"], "has none, got 'fold=2'"),
    ):
        assert main([*given, "--out", out]) == 78
        assert said in capsys.readouterr().err
    assert not Path(out).exists()


def test_a_clip_that_cannot_be_decoded_is_named_and_the_others_made(world: Path, tmp_path: Path, capsys) -> None:
    root = tmp_path / "mafw"
    names = [r.clip_id for r in read_dataset("mafw", world / "mafw").split("test") if r.captions]
    captions = "".join(f"{name}.mp4\t1\t\tA man smiles.\n" for name in (*names, "00009"))
    write(root / "Train & Test Set/single/with_caption/set_1/test.txt", captions)
    write(root / "data/clips/00009.mp4", "no video")
    for name in names:
        (root / f"data/clips/{name}.mp4").write_bytes((world / f"mafw/data/clips/{name}.mp4").read_bytes())
    assert main(["--dataset", "mafw", "--data", str(root), "--out", str(tmp_path / "bags")]) == 1
    error = capsys.readouterr().err
    assert "mafw_00009" in error
    assert sorted(p.name for p in (tmp_path / "bags").iterdir()) == [f"mafw_{name}" for name in names]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "JSONDecodeError"),
        ('{"kind": "poem", "id": "1", "start_ns": 0, "end_ns": 1}', "expected kind caption or cause"),
        ('{"kind": "cause", "id": "1", "start_ns": 5, "end_ns": 1}', "start_ns <= end_ns"),
        ('{"kind": "cause", "id": "1", "start_ns": 0.5, "end_ns": 1}', "whole nanoseconds"),
        ('{"kind": "cause", "id": "1", "start_ns": 0, "end_ns": 1, "texts": "a"}', "a list of texts"),
    ],
)
def test_references_that_are_none_are_named_by_line(tmp_path: Path, line: str, said: str) -> None:
    good = json.dumps({"kind": "caption", "id": "a", "start_ns": 0, "end_ns": 1, "texts": ["b"], "note": "mine"})
    (tmp_path / FILE).write_text(f"{good}\n\n{line}\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=f"line 3.*{said}"):
        read_references(tmp_path / FILE)


def test_references_stand_once(tmp_path: Path) -> None:
    line = json.dumps({"kind": "caption", "id": "a", "start_ns": 0, "end_ns": 1, "texts": ["b"]})
    (tmp_path / FILE).write_text(f"{line}\n{line}\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="line 2: caption 'a' is there twice"):
        read_references(tmp_path / FILE)
