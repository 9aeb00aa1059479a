"""``emo data prepare`` and its neighbours, from the command line to the files, on real clips and real layouts."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from dataset_files import asked, ecem_item, mafw_split, meld_row, meld_table, touch, write_json
from media_files import FPS, count_of, write_clip

from emo_models.fetch import pull
from training.datasets import read_dataset
from training.datasets.command import main
from training.datasets.record import Span
from training.prepare.cumulative import write_mp4
from training.prepare.splits import read_split
from training.prepare.video import Video


@pytest.fixture(scope="module")
def mafw(tmp_path_factory) -> Path:
    """Two people, an empty scene, a file that is no video and a clip that is not there."""
    root = tmp_path_factory.mktemp("mafw")
    lines = [f"0000{i}.mp4\t4\t\tA man smiles.".encode() for i in range(1, 6)]
    mafw_split(root, lines)
    clips = root / "data" / "clips"
    touch(clips, "00004.mp4")
    for number, name in ((1, "ravdess_angry"), (2, "ravdess_surprised")):
        write_mp4(Video([Span(pull(name), 0.0, 0.6)], max_width=480), clips / f"0000{number}.mp4")
    write_clip(clips / "00003.mp4", frames=10, sound_s=None)
    return root


def test_prepare_fills_a_store_and_goes_on(mafw, tmp_path, capsys):
    pytest.importorskip("safetensors", reason="the feature store needs it: make torch")
    pytest.importorskip("tqdm", reason="the progress bar needs it: make train")
    from training.prepare.clips import PreparedClip
    from training.prepare.store import FeatureStore

    sizes = ["--frames", "3", "--image-size", "64", "--face-size", "56"]
    command = ["prepare", "mafw", str(mafw), "--out", str(tmp_path), *sizes]
    assert main([*command, "--workers", "2", "--part", "train"]) == 1
    assert main([*command, "--workers", "1", "--limit", "3"]) == 0
    out, err = capsys.readouterr()
    (folder,) = (tmp_path / "mafw").iterdir()
    told = out.splitlines()
    assert told[0].startswith(f"{folder}: 3 clips; 3 prepared now (")
    assert told[0].endswith(" a second), 0 before, 1 set aside, 1 without video")
    assert told[1] == f"{folder}: 3 clips; 0 prepared now, 3 before, 0 set aside, 0 without video"
    assert f"why clips were set aside: {folder / 'quarantine.jsonl'}" in err
    store = FeatureStore(folder, None)
    prepared = {clip_id: PreparedClip.of(store.get(clip_id)) for clip_id in store}
    assert {clip_id: clip.face_valid.all() for clip_id, clip in prepared.items()} == {
        "00001": True, "00002": True, "00003": False,
    }  # fmt: skip
    assert prepared["00001"].clip.shape == (3, 64, 64, 3)
    assert prepared["00001"].faces.shape == (3, 56, 56, 3)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["prepare", "{}", "--out", "o", "--frames", "0"], "frames: expected at least 1, got 0"),
        (["prepare", "{}", "--out", "o", "--sampling", "all"], "sampling: expected one of uniform, middle, dyadic"),
        (["prepare", "{}", "--out", "o", "--part", "val"], "nothing to do: there is no such clip"),
        (["prepare", "{}", "--out", "o", "--ids", "none.txt"], "make the list with: emo data clear-face"),
        (["clear-face", "{}", "--out", "o", "--share", "2"], "share: expected a value above 0 and up to 1, got 2.0"),
        (["transcribe", "{}", "--out", "o"], "no clip in which somebody speaks"),
        (["split", "{}", "--out", "o", "--shares", "1", "1", "1"], "expected three shares"),
    ],
)
def test_what_cannot_be_is_told(mafw, here, capsys, arguments, told):
    action, *rest = (text.format(mafw) for text in arguments)
    assert main([action, "mafw", *rest]) == 78
    err = capsys.readouterr().err
    assert err.startswith(f"emo data {action}: ")
    assert told in err
    assert list(here.iterdir()) == []


def test_clear_faces_and_the_clips_of_that_list(mafw, tmp_path, capsys):
    pytest.importorskip("tqdm", reason="the progress bar needs it: make train")
    ids = tmp_path / "ids.txt"
    assert main(["clear-face", "mafw", str(mafw), "--out", str(ids), "--workers", "1"]) == 1
    assert capsys.readouterr().out == f"{ids}: 2 of 3 clips are clear (train 2); 1 unreadable\n"
    assert ids.read_text().splitlines()[-2:] == ["00001", "00002"]
    assert main(["prepare", "mafw", str(mafw), "--out", str(tmp_path), "--ids", str(ids), "--part", "test"]) == 78


def test_a_split_is_made_and_leaks_only_when_meant(tmp_path, capsys):
    meld = tmp_path / "meld"
    meld_table(meld / "train_sent_emo.csv", [meld_row(d, i, f"Line {i}.") for d in range(10) for i in range(4)])
    out = tmp_path / "new" / "split.json"
    command = ["split", "meld", str(meld), "--out", str(out), "--seed", "3"]
    assert main([*command, "--kind", "paper_like"]) == 78
    assert "dialogues (75%) to be tested are in training too" in capsys.readouterr().err
    assert not out.exists()
    assert main([*command, "--kind", "paper_like", "--allow-leakage"]) == 0
    assert read_split(out).kind == "paper_like"
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{out}: train 32, val 4, test 4"
    assert len(read_split(out).apply(read_dataset("meld", meld).records)) == 40


@pytest.fixture
def ecem(tmp_path) -> Path:
    """ECEM over a MELD of one dialogue: three clips out of one film, the second overlapping the first by 8 images."""
    film = write_clip(tmp_path / "film.mp4", frames=64, size=(96, 96), sound_s=None)
    meld = tmp_path / "meld"
    times = (("00:01:00,000", "00:01:00,800"), ("00:01:00,480", "00:01:01,280"), ("00:01:06,000", "00:01:06,800"))
    meld_table(meld / "train_sent_emo.csv", [meld_row(7, i, f"Line {i}.", times=times[i]) for i in range(3)])
    for i, first in enumerate((0, 12, 44)):
        write_mp4(Video([Span(film, first / FPS, (first + 20) / FPS)]), meld / "train_splits" / f"dia7_utt{i}.mp4")
    items = [
        ecem_item(f"7_{i}.mp4", asked("joy", "Anna", f"Line {i}."), "She has won the race today.", i) for i in (1, 2, 3)
    ]
    write_json(tmp_path / "ecem" / "train_data_just_reason.json", items)
    return tmp_path / "ecem"


def shown(file: Path) -> list[int]:
    with av.open(str(file)) as container:
        return [count_of(image.to_ndarray(format="rgb24")) for image in container.decode(video=0)]


def test_cumulative_clips_are_rebuilt_and_found_by_the_reader(ecem, capsys):
    pytest.importorskip("tqdm", reason="the progress bar needs it: make train")
    meld, out = ecem.parent / "meld", ecem / "videos"
    command = ["cumulative", "ecem", str(ecem), "--meld", str(meld), "--out", str(out), "--workers", "1"]
    assert main([*command, "--plan-only"]) == 1
    assert [file.name for file in out.iterdir()] == ["cumulative.jsonl"]
    assert main(command) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[0] == told[1]
    assert told[0].endswith(
        "2 clips; 1 s cut by time stamps, 0 s that came again; 0 lack an earlier utterance, 1 have no clip in MELD's folder, 0 failed"
    )
    assert shown(out / "7_1.mp4") == [*range(32)]
    assert shown(out / "7_2.mp4") == [*range(32), *range(44, 64)]
    plans = [json.loads(line) for line in (out / "cumulative.jsonl").read_text().splitlines()]
    assert [(plan["clip_id"], len(plan["spans"]), plan["overlap_s"]) for plan in plans] == [
        ("7_1", 2, 0.32),
        ("7_2", 3, 0.32),
    ]
    records = {record.clip_id: record for record in read_dataset("ecem", ecem).records}
    assert records["7_2"].source == Span(out / "7_2.mp4")
    before = (out / "7_1.mp4").stat().st_mtime_ns
    (out / "7_2.mp4").unlink()
    assert main(command) == 1  # goes on: what is there is kept
    assert ((out / "7_1.mp4").stat().st_mtime_ns, len(shown(out / "7_2.mp4"))) == (before, 52)


def test_cumulative_clips_are_prepared_without_files_between(ecem, tmp_path):
    pytest.importorskip("safetensors", reason="the feature store needs it: make torch")
    pytest.importorskip("tqdm", reason="the progress bar needs it: make train")
    from training.prepare.store import FeatureStore

    out = tmp_path / "store"
    sizes = ["--frames", "5", "--image-size", "64", "--face-size", "56", "--sampling", "uniform", "--workers", "1"]
    meld = str(ecem.parent / "meld")
    assert main(["prepare", "ecem", str(ecem), "--out", str(out), "--cumulative", meld, *sizes]) == 1
    (folder,) = (out / "ecem").iterdir()
    store = FeatureStore(folder, None)
    assert store.producer["cumulative"]
    images = store.get("7_2")["clip"]
    assert [count_of(image) for image in images] == [0, 12, 25, 50, 63]
    assert np.diff(store.get("7_2")["stamps"]).min() > 0
