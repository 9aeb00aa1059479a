"""``emo bag process``: every image through the stages, the same bytes each time, and what is said of bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import pytest
from bag_files import (
    JPEG,
    START_NS,
    STEP_NS,
    STRING,
    copy,
    cut,
    header,
    jpeg,
    message,
    raw,
    text,
    write_images,
    write_texts,
)
from graph_peer import ROOT
from media_files import write_clip

from emo_models import weights
from emo_models.fetch import pull
from emo_perception import bag_input
from emo_perception.bags import Bag, BagError, BagWriter
from emo_perception.config import EXIT_CONFIG, SourceConfig
from emo_perception.sources import open_source
from emo_perception.tools import bag as command
from emo_perception.types import NS_PER_S, AudioChunk


@pytest.fixture(scope="module", autouse=True)
def _weights() -> None:
    for name in weights.profiles()["start"]:
        pull(name)


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return cv2.resize(cv2.imread(str(pull("astronaut"))), (256, 256), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def film(portrait: np.ndarray) -> list[np.ndarray]:
    """A face that comes closer."""
    return [np.ascontiguousarray(portrait[i : 256 - i, i : 256 - i]) for i in range(30)]


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_two_runs_write_the_same_bytes_and_drop_nothing(tmp_path: Path, film: list[np.ndarray]) -> None:
    bag = write_images(tmp_path / "bag", film)
    for name in ("one", "two"):  # processes of their own: nothing is left over from the first
        done = subprocess.run(
            [sys.executable, "-m", "emo_perception.tools.bag", "process", str(bag), "--out", str(tmp_path / name)],
            cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("30 images (2.9 s) in ")
    for name in ("features.jsonl", "captions.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    engines = json.loads((tmp_path / "one" / "engines.json").read_text(encoding="utf-8"))
    assert engines["emotion"] == {
        "engine": "fer7", "backend": "openvino", "backend_version": version("openvino"), "precision": "fp32",
        "device": "cpu", "threads": 1,
    }  # fmt: skip
    assert set(engines) == {"face", "emotion", "action_unit", "cause"}  # no sound, so nobody listens
    features = lines(tmp_path / "one" / "features.jsonl")
    assert [f["stamp_ns"] for f in features] == [START_NS + i * STEP_NS for i in range(30)]
    assert all(len(f["faces"]) == 1 for f in features)
    captions = lines(tmp_path / "one" / "captions.jsonl")
    assert any("smile" in c["text"] for c in captions), captions
    latencies = lines(tmp_path / "one" / "latencies.jsonl")
    assert [entry["stamp_ns"] for entry in latencies] == [f["stamp_ns"] for f in features]
    assert all(entry["ms"] > 0 for entry in latencies)


def test_the_sound_of_a_bag_is_understood_the_same_each_time(tmp_path: Path) -> None:
    items = list(open_source(SourceConfig(uri=str(pull("ravdess_angry")), realtime=False, width=320, fps=5.0)))
    writer = BagWriter(tmp_path / "bag")
    for item in items:
        now_ns = START_NS + item.stamp_ns
        if isinstance(item, AudioChunk):
            fields = {"sample_rate": item.sample_rate_hz, "channels": 1, "data": item.samples}
            writer.write(
                "/audio", bag_input.SOUND[0], now_ns, message(bag_input.SOUND[0], header=header(now_ns), **fields)
            )
        else:
            image = np.ascontiguousarray(item.image[..., ::-1])
            writer.write("/image_raw", bag_input.IMAGE, now_ns, raw(now_ns, image))
    writer.close()
    for name in ("one", "two"):
        assert command.main(["process", str(tmp_path / "bag"), "--out", str(tmp_path / name)]) == 0
    for name in ("features.jsonl", "captions.jsonl", "utterances.jsonl", "causes.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    (utterance,) = lines(tmp_path / "one" / "utterances.jsonl")
    assert "dogs" in utterance["text"].lower(), utterance
    assert START_NS < utterance["start_ns"] < utterance["end_ns"] < START_NS + 5 * NS_PER_S


def test_words_of_the_bag_are_taken_where_there_is_no_sound(tmp_path: Path, portrait: np.ndarray, capsys) -> None:
    writer = BagWriter(tmp_path / "bag")
    for i in range(12):
        now_ns = START_NS + i * STEP_NS
        writer.write("/image_raw", bag_input.IMAGE, now_ns, raw(now_ns, portrait))
        if i % 5 == 4:  # two utterances
            head = header(now_ns + 1)
            fields = {"id": f"u{i}", "speaker": "Eva", "track_id": 0, "start": header(now_ns - STEP_NS).stamp}
            fields |= {"end": head.stamp, "text": "We lost.", "language": "en", "confidence": 1.0, "words": []}
            writer.write("/said", bag_input.WORDS, now_ns + 1, message(bag_input.WORDS, header=head, **fields))
    writer.close()
    assert command.main(["process", str(tmp_path / "bag"), "--out", str(tmp_path / "out")]) == 0
    assert "words of /said" in capsys.readouterr().out
    assert [u["id"] for u in lines(tmp_path / "out" / "utterances.jsonl")] == ["u4", "u9"]
    engines = json.loads((tmp_path / "out" / "engines.json").read_text(encoding="utf-8"))
    assert "speech" not in engines


def test_sound_that_is_none_is_named(tmp_path: Path, portrait: np.ndarray, capsys) -> None:
    writer = BagWriter(tmp_path / "bag")
    writer.write("/image_raw", bag_input.IMAGE, START_NS, raw(START_NS, portrait))
    fields = {"sample_rate": 3, "channels": 1, "data": np.zeros(9, np.int16)}
    writer.write("/mic", bag_input.SOUND[0], START_NS, message(bag_input.SOUND[0], header=header(START_NS), **fields))
    writer.close()
    assert command.main(["process", str(tmp_path / "bag"), "--out", str(tmp_path / "out")]) == command.EXIT_DAMAGED
    assert "1 messages refused: expected a sample rate of" in capsys.readouterr().err
    with Bag(tmp_path / "bag") as bag:
        assert bag_input.sound_topic(bag) == bag_input.sound_topic(bag, "mic") == "/mic"
        with pytest.raises(BagError, match="no sound on /audio; sound is on: /mic"):
            bag_input.sound_topic(bag, "/audio")


def test_a_video_is_processed_without_a_bag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = write_clip(tmp_path / "clip.mp4", frames=25)
    assert command.main(["process", str(clip), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.startswith("25 images (1.0 s)")
    assert len(lines(tmp_path / "out" / "features.jsonl")) == 25
    assert all(c["abstained"] for c in lines(tmp_path / "out" / "captions.jsonl"))


def test_stamps_that_jump_start_anew_and_those_out_of_order_are_counted(
    tmp_path: Path, portrait: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    tenths = [0, 1, 2, 1, 3, 600, 601, 5, 6]  # one step back, a minute forward, a minute back
    stamps = [START_NS + t * STEP_NS for t in tenths]
    bag = write_images(tmp_path / "bag", [portrait] * len(stamps), stamps)
    assert command.main(["process", str(bag), "--out", str(tmp_path / "out")]) == 0
    features = lines(tmp_path / "out" / "features.jsonl")
    assert [(f["stamp_ns"] - START_NS) // STEP_NS for f in features] == [0, 1, 2, 3, 600, 601, 5, 6]
    before, after = features[5]["faces"][0]["track"], features[6]["faces"][0]["track"]
    assert before["track_id"] != after["track_id"]
    assert "1 images out of order: a newer one was before them" in capsys.readouterr().err


def test_images_that_are_none_are_named_and_the_others_processed(
    tmp_path: Path, portrait: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = jpeg(START_NS, portrait)
    writer = BagWriter(tmp_path / "bag")
    for i, cdr in enumerate((whole, whole[:4000], jpeg(0, portrait), jpeg(START_NS + STEP_NS, portrait))):
        writer.write("/image_raw/compressed", JPEG, START_NS + i * STEP_NS, cdr)
    writer.close()
    assert command.main(["process", str(tmp_path / "bag"), "--out", str(tmp_path / "out")]) == command.EXIT_DAMAGED
    assert len(lines(tmp_path / "out" / "features.jsonl")) == 2
    error = capsys.readouterr().err
    assert "1 messages refused: /image_raw/compressed: 4000 bytes are no sensor_msgs/msg/CompressedImage" in error
    assert "1 messages refused: header.stamp is zero" in error


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_bag_that_is_cut_off_is_processed_up_to_there(
    tmp_path: Path, portrait: np.ndarray, storage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)  # half a megabyte as JPEG
    whole = write_images(tmp_path / "bag", [noise] * 8, storage=storage)
    bag = cut(copy(whole, tmp_path / "cut"), 0.6)
    (bag / "metadata.yaml").unlink()
    assert command.main(["process", str(bag), "--out", str(tmp_path / "out")]) == command.EXIT_DAMAGED
    count = len(lines(tmp_path / "out" / "features.jsonl"))
    assert 2 <= count < 8
    error = capsys.readouterr().err
    assert "has no metadata.yaml" in error
    assert "cut off" in error
    assert "what could be read was processed" in error


def refuse(error: Exception) -> None:
    raise error


def bag_of(folder: Path, *topics: str) -> Path:
    """One small image on each topic, raw where the name does not end in compressed."""
    writer = BagWriter(folder)
    image = np.zeros((8, 8, 3), np.uint8)
    for topic in topics:
        if topic.endswith("compressed"):
            writer.write(topic, JPEG, START_NS, jpeg(START_NS, image))
        else:
            writer.write(topic, bag_input.IMAGE, START_NS, raw(START_NS, image))
    writer.write("/words", STRING, START_NS, text("no image"))
    writer.close()
    return folder


@pytest.mark.parametrize(
    ("topics", "wanted", "chosen"),
    [
        (("/image_raw/compressed", "/overlay/compressed"), "", "/image_raw/compressed"),
        (("/image_raw/compressed", "/image_raw"), "", "/image_raw"),
        (("/left/image", "/right/image/compressed"), "right/image/compressed", "/right/image/compressed"),
        (("/image_raw", "/robot/overlay/compressed"), "/robot/overlay/compressed", "/robot/overlay/compressed"),
    ],
)
def test_the_images_of_the_camera_are_found(tmp_path: Path, topics, wanted: str, chosen: str) -> None:
    with Bag(bag_of(tmp_path / "bag", *topics)) as bag:
        assert bag_input.image_topic(bag, wanted) == chosen
        (frame,) = bag_input.bag_items(bag, bag_input.Inputs(chosen), refuse)
        assert frame.stamp_ns == START_NS
        assert frame.image.shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("topics", "wanted", "said"),
    [
        ((), "", "has no camera images.*expected a topic of type sensor_msgs/msg/Image or .*it has /words"),
        (("/overlay/compressed",), "", "has no camera images"),
        (
            ("/l/image", "/r/image"),
            "",
            r"several cameras; choose one with --image-topic: /l/image \(1\), /r/image \(1\)",
        ),
        (("/l/image",), "/words", r"no images on /words; images are on: /l/image \(1\)"),
    ],
)
def test_a_camera_that_cannot_be_told_is_asked_for(tmp_path: Path, topics, wanted: str, said: str) -> None:
    with Bag(bag_of(tmp_path / "bag", *topics)) as bag, pytest.raises(BagError, match=said):
        bag_input.image_topic(bag, wanted)


def test_a_bag_without_images_leaves_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = write_texts(tmp_path / "bag", "mcap", 3)
    assert command.main(["process", str(bag), "--out", str(tmp_path / "out")]) == EXIT_CONFIG
    assert "has no camera images" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_missing_weights_are_named(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("EMO_CACHE", str(tmp_path))
    bag = bag_of(tmp_path / "bag", "/image_raw")
    assert command.main(["process", str(bag), "--out", str(tmp_path / "out")]) == EXIT_CONFIG
    assert "emo weights pull" in capsys.readouterr().err


def test_own_parameters_go_on_top_of_the_profile(tmp_path: Path, film: list[np.ndarray]) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("caption:\n  ros__parameters: {stride_s: 0.5}\nperception:\n  ros__parameters: {max_width: 160}\n")
    bag = write_images(tmp_path / "bag", film[:8])
    assert command.main(["process", str(bag), "--out", str(tmp_path / "out"), "--params-file", str(mine)]) == 0
    assert lines(tmp_path / "out" / "features.jsonl")[0]["image_width"] == 160
    captions = lines(tmp_path / "out" / "captions.jsonl")
    assert captions[0]["stamp_ns"] - START_NS < NS_PER_S
