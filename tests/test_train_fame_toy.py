"""FAME-Net's toy world: lessons out of scripts, people by name, what their faces show utterance by utterance, causes."""

from __future__ import annotations

import csv
import dataclasses
import re

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("accelerate", reason="the trainer runs on accelerate")

from fame_toys import recipe, write_ecem  # noqa: E402

import emo_models  # noqa: E402
from emo_models.preprocess import TRANSFORMS  # noqa: E402
from training.datasets import read_dataset  # noqa: E402
from training.datasets.record import Dialogue, Span, Utterance  # noqa: E402
from training.metrics.causes import mentions  # noqa: E402
from training.prepare.faces import FaceTrack, KnownFaces  # noqa: E402
from training.prepare.video import Video  # noqa: E402
from training.tasks.fame_data import FaceReader, periods  # noqa: E402
from training.tasks.fame_truth import causes_of, faces_of, nobody  # noqa: E402
from training.tasks.toy_lessons import QUIET, toy_lessons  # noqa: E402
from training.toyworld.pictures import SCENES, TABLE, write_faces, write_scenes  # noqa: E402
from training.toyworld.script import TO_MAFW  # noqa: E402
from training.toyworld.things import THINGS  # noqa: E402
from training.toyworld.truth import CaptionTruth, CauseTruth, ClipTruth, FaceTruth, write_truth  # noqa: E402
from training.toyworld.units import UNITS  # noqa: E402
from training.trainer.task import create_task  # noqa: E402

torch.set_num_threads(1)

POINTS = np.array([[25, 25], [40, 25], [32, 33], [27, 42], [38, 42]], np.float32)
SAID = (
    Utterance("Bob", "What now", start_s=10.0, end_s=10.5, clip_id="a"),
    Utterance("Ann", "Look at that", "joy", start_s=10.5, end_s=11.2, clip_id="b"),
)


def face(name, frames=12, first=0):
    there = np.arange(frames) >= first
    return FaceTruth(
        f"p{name}", name, "", np.full((frames, 4), 20, np.float32), np.tile(POINTS, (frames, 1, 1)),
        np.zeros((frames, 2, len(UNITS)), np.float32), np.zeros((frames, 3), np.float32), there, np.zeros(frames, bool),
    )  # fmt: skip


def clip(clip_id, **changes):
    values = {
        "clip_id": clip_id, "split": "train", "fps": 10, "size_wh": (64, 64), "emotions": ("joy",), "action": "fall",
        "thing": "mug", "place": "park", "light": 1.0, "occlusion": "", "faces": (face("Bob"), face("Ann", first=4)),
        "captions": (CaptionTruth("Ann feels joy because the mug fell."), CaptionTruth("The mug fell and so Ann is happy.")),
        "speaking": np.zeros(12, np.int64), "cause": CauseTruth("visible", "a", ("mug",), ("book",)),
    }  # fmt: skip
    return ClipTruth(**{**values, **changes})


def test_lessons_come_out_of_scripts_the_same_each_time_and_hold_their_cause():
    made = toy_lessons(3, 40, "affectnet8", 2)
    assert toy_lessons(3, 40, "affectnet8", 2) == made
    assert toy_lessons(4, 40, "affectnet8", 2) != made
    assert len(made["train"]) > 30
    assert made["val"]
    kinds = set()
    for lesson in made["train"]:
        names = {lesson.query.target.speaker, *(line.speaker for line in lesson.query.history)}
        assert lesson.query.target.speaker in lesson.answer
        assert len(lesson.query.faces) in (4, 6)
        if "looked" in lesson.answer or "face of" in lesson.answer:
            kinds.add("face")
        elif re.search("said that|told that", lesson.answer):
            kinds.add("words")
        else:
            kinds.add("visible")
            thing = next(m for m in lesson.moments if m != QUIET).split()[0]
            assert names
            assert any(moment.split()[0] in lesson.answer for moment in lesson.moments if moment != QUIET), thing
    assert kinds == {"face", "words", "visible"}


def test_a_language_model_can_be_taught_by_scripts(tmp_path):
    values = recipe("language", tmp_path, ("toy_scripts", tmp_path)).to_dict()
    values["data"] = {"name": "toy_scripts", "root": "none", "options": {"seed": 1, "dialogues": 12}}
    from training.trainer.recipe import from_dict

    task = create_task(from_dict(values))
    data = task.dataset("train")
    batch = task.collate([data[i] for i in range(4)])
    total, _ = task.loss(batch)
    total.backward()
    assert torch.isfinite(total)


def test_people_of_a_toy_world_are_known_by_name_and_place_alone(tmp_path):
    write_truth(tmp_path, [clip("0_1")])
    finder, names = faces_of("truth", tmp_path)
    record = dataclasses.replace(
        read_dataset("ecem", write_ecem(tmp_path / "e", train=1, test=1)).records[0], clip_id="0_1"
    )
    tracks = finder(record, Video.of(record))
    assert names(record) == ["Bob", "Ann"]
    assert [min(track.points) for track in tracks] == [0, 4]
    assert np.allclose(tracks[0].points[0], POINTS)
    assert "face_points" in finder.producer
    with pytest.raises(KeyError, match="no face points are known for clip 'other'"):
        finder(dataclasses.replace(record, clip_id="other"), Video.of(record))
    assert nobody(record) == ()


def test_causes_of_a_toy_world_decide_what_counts_as_named(tmp_path):
    assert causes_of(tmp_path) is None
    write_truth(tmp_path, [clip("0_1"), clip("0_0", cause=None)])
    truth = causes_of(tmp_path)
    assert truth.kinds == {"0_1": "visible"}
    assert mentions("Because of a mug.", truth.evidence["0_1"])
    assert truth.others["0_1"] == ("book",)
    assert truth.references["0_1"][1] == "The mug fell and so Ann is happy."


def test_scenes_are_told_without_names_or_faces(tmp_path):
    """As CLIP's task and the start of g read them; the same again with the same seed."""
    count = write_scenes(tmp_path / "a", 3, 12)
    rows = list(csv.DictReader((tmp_path / "a" / TABLE).read_text(encoding="utf-8").splitlines()))
    assert len(rows) >= 12
    assert len({row["caption"] for row in rows}) == count
    told = {SCENES[""], *(SCENES[what].format(thing) for what in ("fall", "show", "come") for thing in THINGS)}
    assert {row["caption"] for row in rows} <= told
    assert all((tmp_path / "a" / row["image"]).is_file() for row in rows)
    write_scenes(tmp_path / "b", 3, 12)
    assert all((tmp_path / "a" / r["image"]).read_bytes() == (tmp_path / "b" / r["image"]).read_bytes() for r in rows)
    network = {"name": "clip", "preset": "toy"}
    task = create_task(recipe("clip", tmp_path / "run", ("table", tmp_path / "a"), network=network))
    assert task.dataset("train")[0]["image"].shape == (3, 56, 56)


def test_faces_are_drawn_into_folders_by_what_they_show(tmp_path):
    counts = write_faces(tmp_path, 3, 12)
    files = list(tmp_path.glob("*/*/*.png"))
    assert sum(counts.values()) == len(files) >= 12
    assert {file.parent.name for file in files} == set(counts)
    assert set(counts) <= {"neutral", *TO_MAFW.values()}


def test_utterances_are_periods_of_the_cumulative_clip(tmp_path):
    record = read_dataset("ecem", write_ecem(tmp_path, train=1, test=1)).records[0]
    record = dataclasses.replace(record, dialogue=Dialogue("d", 1, SAID[:1], SAID[1]))
    assert periods(record, 0) == [(0.0, float("inf"))]
    assert periods(record, 1) == [(0.5, pytest.approx(1.2))]
    assert periods(record, 5) == [(0.0, 0.5), (0.5, pytest.approx(1.2))]
    timeless = dataclasses.replace(SAID[1], start_s=None, end_s=None)
    assert periods(dataclasses.replace(record, dialogue=Dialogue("d", 1, SAID[:1], timeless)), 2) == periods(record, 0)


def test_faces_are_read_utterance_by_utterance(tmp_path):
    record = read_dataset("ecem", write_ecem(tmp_path, train=1, test=1)).records[0]
    assert record.source == Span(tmp_path / "videos" / "0_1.mp4")
    record = dataclasses.replace(record, dialogue=Dialogue("d", 1, SAID[:1], SAID[1]))
    bob, ann = (FaceTrack(dict.fromkeys(range(first, 12), POINTS), area) for first, area in ((0, 2.0), (6, 1.0)))
    finder = KnownFaces({record.clip_id: [bob, ann]}, "test")
    torch.manual_seed(0)
    network = emo_models.create("ddamfn", "toy").freeze()
    reader = FaceReader(network, TRANSFORMS["ddamfn112"], "poses", finder, lambda r: ["Bob"], frames=2, utterances=2)
    found = reader(record, Video.of(record))
    assert [face.name for face in found] == ["Bob", "Bob", "person 2"]
    assert all(face.label in reader.labels and 0 < face.confidence <= 1 for face in found)
    whole = dataclasses.replace(reader, utterances=0)(record, Video.of(record))
    assert [face.name for face in whole] == ["Bob", "person 2"]
    assert reader.producer != dataclasses.replace(reader, utterances=0).producer
