"""``emo bag export``: recordings become clips and dialogues that the readers of MAFW, MELD and ECEM read."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import av
import bag_files
import numpy as np
import pytest
from bag_files import START_NS
from dataset_files import write
from media_files import count_of, counted

from emo_perception.bags import BagWriter, typestore
from emo_perception.tools import bag as bag_command
from emo_perception.types import NS_PER_S
from training.datasets import read_dataset
from training.datasets.command import main as data
from training.recordings.command import main
from training.recordings.cuts import emotion_in

RATE_HZ, FPS, SECONDS = 16_000, 10, 12


def time_at(second: float) -> Any:
    sec, nanosec = divmod(START_NS + round(second * NS_PER_S), NS_PER_S)
    return typestore().types["builtin_interfaces/msg/Time"](sec=sec, nanosec=nanosec)


def stamped(second: float) -> Any:
    return bag_files.header(START_NS + round(second * NS_PER_S), "cam")


def utterance(begin: float, end: float, text: str, *, key: str, speaker: str = "", track: int = 0) -> bytes:
    return bag_files.message(
        "emo_msgs/msg/Utterance", header=stamped(end), id=key, speaker=speaker, track_id=track, start=time_at(begin),
        end=time_at(end), text=text, language="en", confidence=1.0, words=[],
    )  # fmt: skip


def caption(begin: float, end: float, text: str, emotion: str, *, abstained: bool = False) -> bytes:
    return bag_files.message(
        "emo_msgs/msg/EmotionCaption", header=stamped(end), text=text, window_start=time_at(begin), window_end=time_at(end),
        track_ids=np.array([1], np.uint32), emotion=emotion, confidence=0.9, evidence=[], model="m", grounded=True,
        abstained=abstained, abstain_reason="",
    )  # fmt: skip


def cause(second: float, target: str, text: str, emotion: str) -> bytes:
    return bag_files.message(
        "emo_msgs/msg/EmotionCause", header=stamped(second), text=text, emotion=emotion, track_id=1, speaker="Anna",
        target_utterance=target, evidence_utterances=[], evidence=[], confidence=0.8, model="m", grounded=True,
        abstained=False, abstain_reason="",
    )  # fmt: skip


def tone(second: float, count: int) -> bytes:
    """A sine whose loudness says which tenth of a second it is."""
    wave = np.sin(np.arange(count) * 2 * np.pi * 500 / RATE_HZ) * 1000 * (1 + round(second * 10) % 20)
    return bag_files.message(
        "emo_msgs/msg/AudioChunk", header=stamped(second), sample_rate=RATE_HZ, channels=1, data=wave.astype(np.int16),
    )  # fmt: skip


@pytest.fixture(scope="module", params=["mcap", "sqlite3"])
def recording(request, tmp_path_factory) -> Path:
    """Twelve seconds: a counter in the pictures, a tone, three utterances of two dialogues, captions, a cause."""
    folder = tmp_path_factory.mktemp("bags") / f"lab_{request.param}"
    writer = BagWriter(folder, request.param)
    raw = request.param == "sqlite3"
    topic, kind = ("/image_raw", "sensor_msgs/msg/Image") if raw else ("/image_raw/compressed", bag_files.JPEG)
    said = [
        (1.0, 2.0, "Hello you.", "u1", "Anna", 0), (2.2, 3.0, "Hi!", "u2", "", 7), (3.5, 4.0, "...", "u3", "", 0),
        (20.0, 21.0, "After the pictures.", "u4", "Anna", 0),
    ]  # fmt: skip
    for begin, end, text, key, speaker, track in said:
        at = START_NS + round(end * NS_PER_S)
        writer.write(
            "/utterances",
            "emo_msgs/msg/Utterance",
            at,
            utterance(begin, end, text, key=key, speaker=speaker, track=track),
        )
    windows = [
        (0, 1, "He only begins.", "sad"),
        (0, 3, "A man smiles.", "happy"),
        (1, 4, "He overlaps.", "sad"),
        (3, 6, "He frowns.", "angry"),
    ]
    for begin, end, text, emotion in windows:
        at = START_NS + end * NS_PER_S
        writer.write("/emotion_caption", "emo_msgs/msg/EmotionCaption", at, caption(begin, end, text, emotion))
        writer.write("/emotion_caption/partial", "emo_msgs/msg/EmotionCaption", at, caption(begin, end, "A", emotion))
    writer.write("/emotion_caption", "emo_msgs/msg/EmotionCaption", at, caption(7, 9, "", "", abstained=True))
    writer.write(
        "/emotion_cause", "emo_msgs/msg/EmotionCause", at, cause(3.1, "u2", "Anna said hello to her.", "happy")
    )
    for i in range(SECONDS * FPS):
        at = START_NS + i * NS_PER_S // FPS
        image = counted(i, 128, 96)
        writer.write(topic, kind, at, bag_files.raw(at, image) if raw else bag_files.jpeg(at, image))
        # Sound arrives half a second late, as from a driver with a large buffer.
        if i >= 5:
            writer.write("/audio", "emo_msgs/msg/AudioChunk", at, tone((i - 5) / FPS, RATE_HZ // FPS))
    writer.close()
    return folder


def frames(file: Path) -> list[tuple[int, float]]:
    """What the counter says, and the time, of each picture of a clip."""
    with av.open(str(file)) as container:
        return [(count_of(f.to_ndarray(format="rgb24")), float(f.pts * f.time_base)) for f in container.decode(video=0)]


def sound(file: Path) -> np.ndarray:
    with av.open(str(file)) as container:
        parts = [f.to_ndarray().ravel() for f in container.decode(audio=0)]
    return np.concatenate(parts)


def export(recording: Path, out: Path, *options: str) -> int:
    return main([str(recording), "--out", str(out), *options])


def test_clips_by_captions_in_the_layout_of_mafw(recording, tmp_path, capsys):
    out = tmp_path / "mine"
    assert export(recording, out, "--to", "mafw", "--draft") == 0
    assert "2 clips (6.0 s) of 1 recordings" in capsys.readouterr().out
    dataset = read_dataset("mafw", out)
    assert [(r.clip_id, r.captions, r.emotions) for r in dataset.split("train")] == [
        ("00001", ("A man smiles.",), ("happiness",)), ("00002", ("He frowns.",), ("anger",)),
    ]  # fmt: skip
    assert not dataset.quarantined
    second = frames(dataset.records[1].source.file)
    assert [number for number, _ in second] == list(range(30, 60))
    assert second[-1][1] == pytest.approx(2.9, abs=0.01)
    loud = sound(dataset.records[1].source.file)
    assert len(loud) == pytest.approx(3 * RATE_HZ, abs=2100)  # AAC comes in blocks, the first of them silent
    steps = [np.abs(loud[round((t + 0.02) * RATE_HZ) : round((t + 0.08) * RATE_HZ)]).max() for t in (0.5, 0.9, 1.5)]
    assert [round(step * 32.768) for step in steps] == pytest.approx([16, 20, 6], abs=1.5)  # tenths 35, 39, 45


def test_without_a_draft_nothing_is_annotated(recording, tmp_path):
    out = tmp_path / "mine"
    assert export(recording, out, "--to", "mafw", "--by", "stride", "--stride-s", "4") == 0
    assert read_dataset("mafw", out).records == ()
    assert len(list((out / "data/clips").glob("*.mp4"))) == 3


def test_the_sheets_are_blind_and_in_orders_of_their_own(recording, tmp_path):
    out = tmp_path / "mine"
    export(recording, out, "--to", "mafw", "--by", "stride", "--stride-s", "1", "--draft")
    sheets = []
    for number in (1, 2):
        with (out / f"annotation/annotator_{number}.csv").open(newline="") as stream:
            sheets.append(list(csv.DictReader(stream)))
    orders = [[row["clip"] for row in rows] for rows in sheets]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == [f"data/clips/{n:05d}.mp4" for n in range(1, 13)]
    assert all(row["emotion"] == row["text"] == "" for rows in sheets for row in rows)
    assert all((out / clip).is_file() for clip in orders[0])


def test_dialogues_in_the_layout_of_meld_and_the_whole_way_of_annotation(recording, tmp_path, capsys):
    out = tmp_path / "mine"
    assert export(recording, out, "--to", "meld", "--gap-s", "5") == 1
    said, warned = capsys.readouterr()
    assert "2 clips (1.8 s) of 1 recordings, 2 dialogues" in said
    assert "cuts without a picture" in warned
    dataset = read_dataset("meld", out)
    records = {r.clip_id: r for r in dataset.records}
    assert list(records) == ["train_dia0_utt0", "train_dia0_utt1", "train_dia1_utt0"]
    assert not dataset.quarantined  # "..." is nothing that was said: it was not cut
    second = records["train_dia0_utt1"]
    assert (second.subject, second.emotions, second.dialogue.history[0].text) == ("person 7", (), "Hello you.")
    assert second.dialogue.target.start_s == pytest.approx(1.2)
    assert [number for number, _ in frames(second.source.file)] == list(range(22, 30))
    assert records["train_dia1_utt0"].source is None

    agreed = write(
        tmp_path / "agreed.csv",
        "clip,emotion,text\ntrain_splits/dia0_utt1.mp4,joy,Anna has greeted her first.\n"
        "train_splits/dia0_utt0.mp4,rage,x\nelsewhere.mp4,joy,x\ntrain_splits/dia0_utt0.mp4,,\nlonely\n",
    )
    assert data(["label", str(out), str(agreed)]) == 1
    said, warned = capsys.readouterr()
    assert said == f"1 of 2 clips annotated in {out}\n"
    for text in (
        "line 6: expected 3 fields, got 1",
        "line 3, train_splits/dia0_utt0.mp4: expected an emotion of",
        "line 4: expected a clip",
        "line 5",
    ):
        assert text in warned
    labelled = {r.clip_id: r for r in read_dataset("meld", out).records}
    assert labelled["train_dia0_utt1"].emotions == ("joy",)
    (explained,) = read_dataset("ecem", out).records
    assert (explained.clip_id, explained.captions) == ("0_1", ("Anna has greeted her first.",))
    assert [u.text for u in explained.dialogue.history] == ["Hello you."]
    assert explained.dialogue.dialogue_id == "train_dia0"


def test_drafts_of_causes_and_a_recording_for_the_test_part(recording, tmp_path):
    out = tmp_path / "mine"
    assert export(recording, out, "--to", "meld", "--draft", "--test", str(recording)) == 1
    assert {r.split for r in read_dataset("meld", out).records} == {"train", "test"}
    assert [(r.split, r.captions) for r in read_dataset("ecem", out).records] == [
        ("train", ("Anna said hello to her.",)), ("test", ("Anna said hello to her.",)),
    ]  # fmt: skip
    numbers = {r.dialogue.dialogue_id for r in read_dataset("meld", out).records}
    assert numbers == {"train_dia0", "test_dia1"}


def test_results_of_processing_stand_in_for_what_a_bag_lacks(recording, tmp_path, capsys):
    silent = bag_files.write_images(tmp_path / "silent", [counted(i, 64, 48) for i in range(30)])
    assert export(silent, tmp_path / "out", "--to", "meld") == 78
    assert f"type: emo bag process {silent} --out results, then export again with --results" in capsys.readouterr().err
    row = {
        "id": "1",
        "start_ns": START_NS,
        "end_ns": START_NS + NS_PER_S,
        "text": "Good day.",
        "speaker": "Ben",
        "track_id": 0,
    }
    write(tmp_path / "results/utterances.jsonl", json.dumps(row) + "\n")
    write(tmp_path / "results/captions.jsonl", "")
    write(tmp_path / "results/causes.jsonl", "")
    assert export(silent, tmp_path / "out", "--to", "meld", "--results", str(tmp_path / "results")) == 0
    (record,) = read_dataset("meld", tmp_path / "out").records
    assert record.dialogue.target.text == "Good day."
    assert [number for number, _ in frames(record.source.file)] == list(range(10))
    write(tmp_path / "results/causes.jsonl", "{")
    assert export(silent, tmp_path / "b", "--to", "mafw", "--results", str(tmp_path / "results")) == 78
    assert "causes.jsonl, line 1: expected JSON" in capsys.readouterr().err


def test_a_cut_off_recording_gives_what_it_has_and_says_so(recording, tmp_path, capsys):
    damaged = bag_files.cut(bag_files.copy(recording, tmp_path / "damaged"), 0.6)
    assert export(damaged, tmp_path / "out", "--to", "mafw", "--by", "stride") in (1, 78)
    assert "damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--to", "mafw", "--image-topic", "nowhere"], "no images on /nowhere"),
        (["--to", "mafw", "--results", "a", "--results", "b"], "expected one folder per recording (1), got 2"),
        (["--to", "mafw", "--out", "/proc/none"], "/proc/none"),
    ],
)
def test_errors_are_one_line(recording, tmp_path, capsys, options, said):
    assert main([str(recording), "--out", str(tmp_path / "x"), *options]) == 78
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("old", "new"), [("meld,", "other,"), (",train,", ",dev,"), (str(START_NS)[:5], "x")])
def test_an_edited_list_of_clips_is_refused_with_its_line(recording, tmp_path, capsys, old, new):
    out = tmp_path / "mine"
    export(recording, out, "--to", "meld")
    clips = out / "clips.csv"
    clips.write_text(clips.read_text().replace(old, new, 1))
    assert data(["label", str(out), str(write(tmp_path / "a.csv", "clip,emotion,text\n"))]) == 78
    assert re.search(r"clips\.csv, line 2: .*expected", capsys.readouterr().err)


def test_a_folder_that_is_in_use_is_left_alone(recording, tmp_path, capsys):
    write(tmp_path / "out/precious", "x")
    assert export(recording, tmp_path / "out", "--to", "mafw") == 78
    assert "is not empty: choose another folder" in capsys.readouterr().err


def test_emo_bag_finds_the_action_and_names_it_in_its_help(capsys):
    assert bag_command.main(["export", "nowhere", "--to", "mafw", "--out", "x"]) == 78
    assert "emo bag export: nowhere: not a readable bag" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        bag_command.main(["--help"])
    assert "export    cut recordings into clips" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("vocabulary", "name", "ours"),
    [("mafw11", "happy", "happiness"), ("meld7", "happy", "joy"), ("meld7", "vulnerable", "")],
)
def test_drafted_emotions_in_the_words_of_the_data_set(vocabulary, name, ours):
    assert emotion_in(vocabulary, name) == ours
