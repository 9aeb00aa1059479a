"""The whole graph as a user starts it: ``emo demo`` on real clips, and what it leaves behind."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from graph_peer import ROOT

from emo_models.fetch import pull
from emo_perception import bags
from emo_perception.config import EXIT_CONFIG
from emo_perception.report import load_run
from emo_perception.types import NS_PER_S

FPS = 15


def write_clip(path: Path, images: list[np.ndarray]) -> Path:
    """BGR images as H.264, without sound."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=FPS, options={"preset": "ultrafast", "crf": "18"})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode())
    return path


def demo(source: Path | str, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "emo_perception.tools.cli",
        "demo",
        "--source",
        str(source),
        "--out",
        str(out),
        *more,
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a demo on two seconds of an angry man, every second frame, small."""
    folder = tmp_path_factory.mktemp("demo")
    video = cv2.VideoCapture(str(pull("ravdess_angry")))
    images = [cv2.resize(video.read()[1], (480, 270), interpolation=cv2.INTER_AREA) for _ in range(80)][20::2]
    done = demo(write_clip(folder / "clip.mp4", images), folder / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "log.txt").write_text(done.stdout, encoding="utf-8")
    return folder


def test_the_demo_leaves_everything_it_promises(finished: Path) -> None:
    out = finished / "out"
    names = {"overlay.mp4", "summary.md", "bag"}
    names |= {f"{name}.jsonl" for name in ("features", "captions", "utterances", "causes")}
    assert {path.name for path in out.iterdir()} == names
    features = lines(out / "features.jsonl")
    assert len(features) > 15
    assert all(isinstance(f["stamp_ns"], int) for f in features)
    assert all(len(f["faces"]) == 1 for f in features)
    captions = [c for c in lines(out / "captions.jsonl") if not c["abstained"]]
    assert any("angry" in c["text"] for c in captions)
    for caption in captions:
        assert caption["grounded"]
        assert all(caption["text"][e["start"] : e["end"]].strip() for e in caption["evidence"])
    assert all(caption["text"] in (finished / "log.txt").read_text(encoding="utf-8") for caption in captions)
    page = (out / "summary.md").read_text(encoding="utf-8")
    assert captions[0]["text"] in page
    assert "30 frames sent" in page
    assert "Apache-2.0" in page


def test_the_overlay_video_plays_at_the_speed_of_the_clip(finished: Path) -> None:
    with av.open(str(finished / "out" / "overlay.mp4")) as container:
        frames = list(container.decode(video=0))
    assert len(frames) > 10
    assert abs(float(frames[-1].time - frames[0].time) - 29 / FPS) < 0.5
    assert frames[0].width >= 900


def test_the_bag_can_be_read_again(finished: Path) -> None:
    bag = finished / "out" / "bag"
    run = load_run(bag)
    assert run.source_state == "ENDED"
    assert len(run.features) == len(lines(finished / "out" / "features.jsonl"))
    topics = {item.topic for item in bags.read(bag)}
    assert {"/image_raw/compressed", "/emotion_features", "/emotion_caption", "/source_state", "/diagnostics"} <= topics
    assert "/image_raw" not in topics
    stamps = [f.stamp_ns for f in run.features]
    assert stamps == sorted(stamps)
    assert (stamps[-1] - stamps[0]) / NS_PER_S < 2.5
    assert list(bags.read(bag, ["/nothing"])) == []


def test_a_clip_without_a_face_is_a_normal_run(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 240, 320, 3), np.uint8)
    done = demo(write_clip(tmp_path / "noise.mp4", list(noise)), tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    features = lines(tmp_path / "out" / "features.jsonl")
    assert features
    assert not any(f["faces"] for f in features)
    assert all(c["abstained"] and not c["text"] for c in lines(tmp_path / "out" / "captions.jsonl"))
    assert "Nobody was seen." in (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")


def test_an_endless_source_ends_after_the_seconds_asked_for(tmp_path: Path) -> None:
    done = demo("test://", tmp_path / "out", "--seconds", "1.5")
    assert done.returncode == 0, done.stdout + done.stderr
    run = load_run(tmp_path / "out" / "bag")
    assert run.features
    assert run.source_state == "PLAYING"
    sent = re.search(r"(\d+) frames sent", (tmp_path / "out" / "summary.md").read_text(encoding="utf-8"))
    assert sent
    assert int(sent[1]) > 0


def test_a_folder_that_is_no_bag_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "out" / "bag" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine", encoding="utf-8")
    done = demo("test://", tmp_path / "out", "--seconds", "1")
    assert done.returncode == EXIT_CONFIG
    assert mine.read_text(encoding="utf-8") == "mine"
    assert "exists already" in done.stdout


def test_a_source_that_cannot_be_is_named(tmp_path: Path) -> None:
    done = demo(tmp_path / "absent.mp4", tmp_path / "out")
    assert done.returncode == EXIT_CONFIG
    assert "absent.mp4" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_bag_errors_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "bag").mkdir()
    with pytest.raises(bags.BagError, match="exists already: choose another folder"):
        bags.BagWriter(tmp_path / "bag")
    with pytest.raises(bags.BagError, match="expected one of mcap, sqlite3; got 'zip'"):
        bags.BagWriter(tmp_path / "new", "zip")
    with pytest.raises(bags.BagError, match="not a readable bag"):
        list(bags.read(tmp_path / "bag"))
