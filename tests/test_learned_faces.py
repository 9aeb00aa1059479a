"""The papers' networks on each frame: fed as in training, labelled, followed; by engines of random weights."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="engines are built with torch")

from media_files import write_clip  # noqa: E402

from emo_models import create  # noqa: E402
from emo_models.checkpoints import NetworkCard, save_weights  # noqa: E402
from emo_models.engines import EngineError, TensorSpec  # noqa: E402
from emo_models.labels import VOCABULARIES  # noqa: E402
from emo_models.preprocess import ARCFACE_112, align_face  # noqa: E402
from emo_perception.config import (  # noqa: E402
    ActionUnitConfig,
    EmotionConfig,
    FaceConfig,
    LearnedConfig,
    PerceptionConfig,
    SpeechConfig,
)
from emo_perception.perception import Chain  # noqa: E402
from emo_perception.stages.action_units import FacesWithEmotions, make_action_unit_stage  # noqa: E402
from emo_perception.stages.emotion import FacesInFrame, make_emotion_stage  # noqa: E402
from emo_perception.stages.face import make_face_stage  # noqa: E402
from emo_perception.stages.head_pose import HEAD, pose_ypr  # noqa: E402
from emo_perception.stages.learned import FaceNetwork  # noqa: E402
from emo_perception.types import Emotions, Faces, FaceTrack, Frame, Side  # noqa: E402
from training.datasets.record import Record, Span  # noqa: E402
from training.prepare import faces as known  # noqa: E402
from training.prepare.clips import PreparedClip, prepare_clip  # noqa: E402
from training.prepare.video import Video  # noqa: E402
from training.tasks.pictures import form_of  # noqa: E402

MS = 1_000_000
RANDOM: dict[str, Any] = {"preset": "toy", "weights": "random", "threads": 1}
NETWORKS = ("anfl", "er_resnet", "ddamfn")
WIDTH, HEIGHT = 320, 240


@pytest.fixture(autouse=True)
def _engines(toy_engines: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMO_CACHE", str(toy_engines("detector", *NETWORKS)))


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def five(x: float, y: float, side: float = 60, turn: float = 0.0) -> np.ndarray:
    """Five points of a face about (x, y)."""
    cos, sin = math.cos(turn), math.sin(turn)
    around = (ARCFACE_112 - 56) * side / 112 @ np.array([[cos, sin], [-sin, cos]])
    return (np.array([x, y]) + around).astype(np.float32)


def faces(*points: np.ndarray, stamp_ns: int = 0, expired: tuple[int, ...] = ()) -> Faces:
    zero = np.zeros(3, np.float32)
    boxes = [np.concatenate([p.min(0) - 10, np.ptp(p, axis=0) + 20]) for p in points]
    tracks = (FaceTrack(i, 0.9, 0, box, p, zero) for i, (box, p) in enumerate(zip(boxes, points, strict=True), 1))
    return Faces(stamp_ns, "cam", (WIDTH, HEIGHT), tuple(tracks), expired)


class Watched:
    """An engine, and what it was fed."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.fed: list[np.ndarray] = []

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.fed += [value.copy() for value in inputs.values()]
        return dict(self.engine(inputs))


# The heart: what a network is fed


@pytest.mark.parametrize("name", NETWORKS)
def test_a_face_is_fed_as_training_prepares_it(name: str, tmp_path: Path) -> None:
    """Every frame of a clip, by known points: the engine's input equals the prepared face, to the bit."""
    network = FaceNetwork(name, LearnedConfig(**RANDOM))
    transform = network.transform
    watched = network.engine = Watched(network.engine)
    record = Record("clip", "mafw", "test", Span(write_clip(tmp_path / "clip.mp4", frames=6, sound_s=None)))
    points = {number: five(150 + 5 * number, 110, 50 + number, 0.1 * number) for number in range(6)}
    prepared: PreparedClip = prepare_clip(
        record, frames=6, image_size=32, face_size=transform.size, alignment=transform.alignment,
        faces=known.KnownFaces({"clip": [known.FaceTrack(points)]}, "1"),
    )  # fmt: skip
    form = form_of(transform.normalisation, transform.size)
    for number, frame in enumerate(Video.of(record).frames()):
        network(frame.image, [points[number]])
        np.testing.assert_array_equal(watched.fed[number][0], form(prepared.faces[number]))
    assert len(watched.fed) == 6


def test_each_network_has_its_alignment_size_and_normalisation() -> None:
    found = {name: FaceNetwork(name, LearnedConfig(**RANDOM)).transform for name in NETWORKS}
    assert {name: (t.alignment, t.size, t.normalisation) for name, t in found.items()} == {
        "anfl": ("arcface", 64, "opengraphau224"),
        "er_resnet": ("arcface", 64, "imagenet224"),
        "ddamfn": ("poses", 112, "ddamfn112"),
    }


def test_weights_that_learned_from_other_faces_are_not_built(tmp_path: Path) -> None:
    from emo_models.engines.source import network

    ddamfn = create("ddamfn", "toy")
    card = NetworkCard(
        "ddamfn",
        ddamfn.config.to_dict(),
        (),
        {"faces": "ddamfn112", "size": 112, "alignment": "arcface"},
        "CC0",
        ("x",),
    )
    save_weights(ddamfn, tmp_path / "ddamfn.safetensors", card)
    with pytest.raises(EngineError, match=r"these weights learned from faces with \{'alignment': 'arcface'\}; train"):
        network("ddamfn", "toy", tmp_path / "work", [tmp_path])


def test_faces_go_in_one_batch_and_beyond_it_in_several() -> None:
    network = FaceNetwork("er_resnet", LearnedConfig(**RANDOM))
    watched = network.engine = Watched(network.engine)
    points = [five(40 + 20 * i, 60 + 10 * i, 40 + i) for i in range(11)]
    together = network(image(), points)
    assert [len(batch) for batch in watched.fed] == [8, 3]
    alone = [network(image(), [each]) for each in points]
    for name, values in together.items():
        np.testing.assert_allclose(values, np.concatenate([one[name] for one in alone]), rtol=1e-4, atol=1e-5)


# Emotions


@pytest.mark.parametrize(("name", "vocabulary"), [("er_resnet", "mafw11"), ("ddamfn", "affectnet8")])
def test_emotions_under_rep155_names_and_the_features_behind_them(name: str, vocabulary: str) -> None:
    stage = make_emotion_stage(EmotionConfig(network=name, smoothing_s=0.0, **RANDOM))
    points = [five(100, 100), five(220, 120, 70)]
    found = stage(FacesInFrame(Frame(0, image(), "cam"), faces(*points)))
    out = FaceNetwork(name, LearnedConfig(**RANDOM))(image(), points)
    for row, face in enumerate(found.faces):
        assert face.vocabulary == vocabulary
        assert len(set(face.labels)) == len(face.labels)
        assert face.probabilities.sum() == pytest.approx(1, abs=1e-6)
        powers = torch.softmax(torch.from_numpy(out["logits"][row]), 0).numpy()
        classes = dict(zip(VOCABULARIES[vocabulary], powers, strict=True))
        said = dict(zip(face.labels, face.probabilities, strict=True))
        assert said["contempt"] == pytest.approx(classes["contempt"], abs=1e-6)  # has no name in REP-155
        assert said["scared"] == pytest.approx(classes["fear"] + classes.get("anxiety", 0), abs=1e-6)
        np.testing.assert_allclose(face.embeddings["er"], out["features"][row], rtol=1e-5, atol=1e-6)
        assert face.embeddings["er"].dtype == np.float32
    assert stage.selection.random


def test_probabilities_are_smoothed_and_features_are_not() -> None:
    smooth = make_emotion_stage(EmotionConfig(network="er_resnet", smoothing_s=1.0, **RANDOM))
    sharp = make_emotion_stage(EmotionConfig(network="er_resnet", smoothing_s=0.0, **RANDOM))

    def both(stamp_ns: int, seed: int, **more: Any) -> tuple[Any, Any]:
        item = FacesInFrame(Frame(stamp_ns, image(seed), "cam"), faces(five(100, 100), stamp_ns=stamp_ns, **more))
        return smooth(item).faces[0], sharp(item).faces[0]

    first, _ = both(0, 0)
    after, raw = both(500 * MS, 1)
    passed = 1 - math.exp(-0.5)
    np.testing.assert_allclose(
        after.probabilities, first.probabilities + passed * (raw.probabilities - first.probabilities), atol=1e-6
    )
    np.testing.assert_array_equal(after.embeddings["er"], raw.embeddings["er"])
    again, raw = both(600 * MS, 0, expired=(1,))
    np.testing.assert_array_equal(again.probabilities, raw.probabilities)
    smooth.reset()
    again, raw = both(700 * MS, 1)
    np.testing.assert_array_equal(again.probabilities, raw.probabilities)
    assert smooth(FacesInFrame(Frame(0, image()), faces())).faces == ()


# Action units


def units_of(*points: np.ndarray, seed: int = 0, **config: Any) -> Any:
    stage = make_action_unit_stage(ActionUnitConfig(network="anfl", **RANDOM, **config))
    item = FacesWithEmotions(Frame(0, image(seed), "cam"), faces(*points), Emotions(0, "cam"))
    return stage(item).faces


def test_action_units_with_sides_and_embeddings() -> None:
    points = five(100, 100), five(200, 120)
    found = units_of(*points)
    out = FaceNetwork("anfl", LearnedConfig(**RANDOM))(image(), points)
    for row, face in enumerate(found):
        assert face.kind == "anfl"
        assert not face.calibrated
        assert len(face.au) == len(face.side) == len(face.intensity) == 41
        scores = dict(zip(zip(face.au, face.side, strict=True), face.intensity, strict=True))
        assert scores[12, Side.BOTH] == pytest.approx(out["scores"][row, 9], abs=1e-6)
        assert scores[12, Side.LEFT] == pytest.approx(out["scores"][row, 37], abs=1e-6)
        assert scores[12, Side.RIGHT] == pytest.approx(out["scores"][row, 38], abs=1e-6)
        shapes = {name: value.shape for name, value in face.embeddings.items()}
        assert shapes == {"au_nodes": (27, 128), "au_scores": (27,), "au_pooled": (128,)}
        for name, of in (("au_nodes", "nodes"), ("au_pooled", "pooled")):
            np.testing.assert_allclose(face.embeddings[name], out[of][row], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(face.embeddings["au_scores"], out["scores"][row, :27], atol=1e-6)


def test_what_the_public_weights_are_wrong_about_is_not_reported(
    toy_engines: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    upstream = create("anfl", "toy", side_parents="upstream")
    save_weights(
        upstream, tmp_path / "anfl.safetensors", NetworkCard("anfl", upstream.config.to_dict(), (), {}, "?", ("x",))
    )
    monkeypatch.setenv("EMO_CACHE", str(toy_engines("anfl", weights=tmp_path)))
    (face,) = units_of(five(100, 100))
    said = set(zip(face.au, face.side, strict=True))
    assert len(said) == 41 - 3
    assert not said & {(11, Side.BOTH), (12, Side.LEFT), (12, Side.RIGHT)}
    assert (12, Side.BOTH) in said
    assert face.embeddings["au_scores"].shape == (27,)


# Faces


COLOURS = ((255, 40, 40), (40, 255, 40), (40, 40, 255))


class Painted:
    """A detector that knows people by their colours, and writes SCRFD's maps: whom it sees by half or more."""

    def __init__(self, spec: TensorSpec, side: float, points: float = 1.0) -> None:
        self.spec, self.side, self.points = spec, side, points
        self.score = 0.9

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        (seen,) = inputs["image"] * 128 + 127.5
        height, width = seen.shape[1:]
        maps = {}
        for stride in (8, 16, 32):
            anchors = 2 * (height // stride) * (width // stride)
            maps[f"score_{stride}"] = np.full((1, anchors), -9, np.float32)
            maps[f"box_{stride}"] = np.zeros((1, anchors, 4), np.float32)
            maps[f"points_{stride}"] = np.zeros((1, anchors, 10), np.float32)
        for colour in COLOURS:
            mine = np.abs(seen - np.array(colour)[:, None, None]).max(0) < 60
            y, x = np.nonzero(mine)
            if len(x) >= 0.5 * self.side**2:
                self._write(maps, width, (x.min(), y.min(), x.max() + 1, y.max() + 1))
        return maps

    def _write(self, maps: Mapping[str, np.ndarray], width: int, box: tuple[int, int, int, int]) -> None:
        low, high = np.array(box[:2], float), np.array(box[2:], float)
        column, row = ((low + high) / 2 // 8).astype(int)
        centre, anchor = np.array([column, row]) * 8, 2 * (row * (width // 8) + column)
        points = low + ARCFACE_112 / 112 * (high - low) * self.points
        maps["score_8"][0, anchor] = math.log(self.score / (1 - self.score))
        maps["box_8"][0, anchor] = np.concatenate([centre - low, high - centre]) / 8
        maps["points_8"][0, anchor] = ((points - centre) / 8).reshape(-1)


def face_stage(side: float = 40, points: float = 1.0, **config: Any) -> Any:
    """The face stage whose detector sees painted people of ``side`` pixels in an image of 320 x 240."""
    stage: Any = make_face_stage(FaceConfig(detector="scrfd", **RANDOM, **config))
    (spec,) = stage.engine.inputs
    stage.engine = Painted(spec, side / 2, points)
    manifest = stage.selection.manifest
    trained = replace(manifest, weights=replace(manifest.weights, data=("painted people",)))
    stage.selection = replace(stage.selection, manifest=trained)
    return stage


def paint(number: int, *people: tuple[float, float] | None, side: int = 40, step_ms: int = 100) -> Frame:
    """Squares of ``side`` pixels with these centres; the later ones are in front. None: not there."""
    scene = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for colour, place in zip(COLOURS, people, strict=False):
        if place is not None:
            left, top = (round(v - side / 2) for v in place)
            scene[max(top, 0) : top + side, max(left, 0) : left + side] = colour
    return Frame(number * step_ms * MS, scene, "cam")


def owners(found: Faces, people: Sequence[tuple[float, float]]) -> list[int]:
    """Of each person the id of the face there, 0 where there is none."""
    centres = {f.track_id: f.box_xywh[:2] + f.box_xywh[2:] / 2 for f in found.faces}
    return [next((i for i, c in centres.items() if np.hypot(*(c - p)) < 12), 0) for p in people]


def test_a_face_comes_with_box_points_and_confidence_in_pixels_of_the_image() -> None:
    (face,) = face_stage()(paint(0, (100, 80))).faces
    np.testing.assert_allclose(face.box_xywh, (80, 60, 40, 40), atol=2.5)
    np.testing.assert_allclose(face.points, ARCFACE_112 / 112 * 40 + (80, 60), atol=2.5)
    assert face.confidence == pytest.approx(0.9, abs=1e-3)
    assert face.landmarks is None
    assert np.abs(face.pose_ypr).max() < math.radians(12)


@pytest.mark.parametrize("speed", [6.0, 14.0, 25.0])
def test_two_people_who_swap_places_keep_their_ids(speed: float) -> None:
    """They pass each other, one before the other, who is hidden for some frames."""
    stage = face_stage()
    steps = math.ceil(160 / speed)
    first, hidden = [], 0
    for number in range(steps + 1):
        people = [(80 + speed * number, 100.0), (240 - speed * number, 112.0)]
        found = stage(paint(number, *people))
        hidden += len(found.faces) == 1
        ids = owners(found, people)
        first = first or ids
        if number == steps:
            assert ids == first == [1, 2]
    assert found.expired == ()
    assert hidden >= 1


def test_a_hidden_face_keeps_its_id_and_expires_after_a_long_absence() -> None:
    stage = face_stage(keep_lost_s=0.5)
    there = [True] * 3 + [False] * 3 + [True] * 3 + [False] * 8 + [True] * 2
    seen = [stage(paint(i, (100, 80) if visible else None)) for i, visible in enumerate(there)]
    assert [tuple(f.track_id for f in s.faces) for s in seen] == [(1,)] * 3 + [()] * 3 + [(1,)] * 3 + [()] * 8 + [
        (2,)
    ] * 2
    assert [s.expired for s in seen if s.expired] == [(1,)]
    assert seen[8].faces[0].first_seen_ns == 0


def test_gaps_and_resets_end_the_tracks() -> None:
    stage = face_stage()
    stage(paint(0, (100, 80)))
    later = stage(paint(600, (100, 80)))
    assert (later.faces[0].track_id, later.expired) == (2, (1,))
    stage.reset()
    again = stage(paint(0, (100, 80)))
    assert (again.faces[0].track_id, again.expired) == (3, (2,))


def test_thresholds_of_new_faces_and_of_those_that_are_followed() -> None:
    stage = face_stage(detect_confidence=0.8, presence=0.3)
    stage.engine.score = 0.5
    assert stage(paint(0, (100, 80))).faces == ()
    stage.engine.score = 0.9
    assert len(stage(paint(1, (100, 80))).faces) == 1
    stage.engine.score = 0.4
    assert len(stage(paint(2, (100, 80))).faces) == 1
    stage.engine.score = 0.2
    assert stage(paint(3, (100, 80))).faces == ()
    small = face_stage(min_face_px=60)
    assert small(paint(0, (100, 80))).faces == ()
    for least in (0.0, 1.0):
        face_stage(detect_confidence=least, presence=least)(paint(0, (100, 80)))


def test_no_more_faces_than_asked_and_those_followed_before_new_ones() -> None:
    stage = face_stage(max_faces=2)
    two = stage(paint(0, (60, 80), (260, 80)))
    three = stage(paint(1, (60, 80), (260, 80), (160, 150)))
    assert [f.track_id for f in two.faces] == [f.track_id for f in three.faces] == [1, 2]


def test_points_that_are_one_point_are_no_face() -> None:
    assert face_stage(points=0.0)(paint(0, (100, 80))).faces == ()


def test_the_smaller_engine_is_for_small_widths(toy_engines: Callable[..., Path]) -> None:
    toy_engines("detector_small")
    stage = make_face_stage(FaceConfig(detector="scrfd", detect_width=320, **RANDOM))
    assert stage.selection.facts()["engine"] == "detector_small"


def test_where_a_head_points() -> None:
    """The model's own points, turned: yaw to the subject's left, pitch up and roll to its right are positive."""
    for axis in range(3):
        for degrees in (-25, -10, 0, 10, 25):
            turn = [0.0, 0.0, 0.0]
            turn[axis] = math.radians(degrees)
            found = pose_ypr(turned(*turn)[:, :2] * 40 + 100)
            np.testing.assert_allclose(found, turn, atol=1e-5)


def turned(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Points of the head after turning about one axis; x right, y down, z away from the camera."""
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (math.cos, math.sin))
    about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    about_z = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
    return HEAD @ (about_z @ about_x @ about_y).T


def test_training_prepares_clips_by_the_same_stage(tmp_path: Path) -> None:
    """What finds faces for training may be the built detector: the face that it sees is the one that is cut out."""
    record = Record("clip", "mafw", "test", Span(write_clip(tmp_path / "clip.mp4", frames=4, sound_s=None)))
    finder = known.StageFaces(FaceConfig(detector="scrfd", **RANDOM))
    clip = prepare_clip(record, frames=4, image_size=32, face_size=64, faces=finder)
    stage = make_face_stage(FaceConfig(detector="scrfd", **RANDOM))
    for number, frame in enumerate(Video.of(record).frames()):
        (face,) = stage(frame).faces
        np.testing.assert_array_equal(clip.faces[number], align_face(frame.image, face.points, 64))
    assert clip.face_valid.all()
    manifest = stage.selection.manifest
    assert manifest is not None
    assert finder.producer["face_detector"] == f"scrfd {manifest.key}"
    finder.close()


# Together


def chain(**face: Any) -> Chain:
    return Chain({
        "face": FaceConfig(detector="scrfd", **RANDOM, **face),
        "emotion": EmotionConfig(network="ddamfn", **RANDOM),
        "action_unit": ActionUnitConfig(network="anfl", **RANDOM),
        "speech": SpeechConfig(enabled=False),
        "perception": PerceptionConfig(embeddings=True),
    })  # fmt: skip


def test_a_chain_of_random_weights_has_work_and_says_what_it_is() -> None:
    made = chain()
    made.warmup()
    seen = [f for f in made.offline(Frame(i * 100 * MS, image(i), "cam") for i in range(3)) if hasattr(f, "faces")]
    assert len(seen) == 3
    for features in seen:
        (face,) = features.faces
        assert (face.track.track_id, face.track.confidence) == (1, 0.0)
        assert set(face.embeddings) == {"er", "au_nodes", "au_scores", "au_pooled"}
    assert {facts["weights"] for facts in made.engines().values()} == {"random seed 0"}
    made.close()
    made.close()


def test_without_random_weights_allowed_the_chain_says_what_to_type() -> None:
    with pytest.raises(
        EngineError, match=r"face: no engine 'detector' \(toy, fp32\) .* random numbers .* type: emo engines build"
    ):
        Chain({"face": FaceConfig(detector="scrfd", preset="toy"), "action_unit": ActionUnitConfig(network="anfl")})


WITHOUT_TORCH = """
import sys
import numpy as np
from emo_perception.config import EmotionConfig
from emo_perception.stages import detected_faces, learned_action_units
from emo_perception.stages.emotion import FacesInFrame, make_emotion_stage
from emo_perception.types import Faces, FaceTrack, Frame
stage = make_emotion_stage(EmotionConfig(network="er_resnet", preset="toy", weights="random", threads=1))
points = np.array([[20, 20], [40, 20], [30, 30], [22, 40], [38, 40]], np.float32)
face = FaceTrack(1, 0.9, 0, np.array([10, 10, 40, 40], np.float32), points, np.zeros(3, np.float32))
said = stage(FacesInFrame(Frame(0, np.zeros((60, 60, 3), np.uint8)), Faces(0, "", (60, 60), (face,))))
print(stage.selection.engine.backend, len(said.faces), [name for name in ("torch", "transformers") if name in sys.modules])
"""


def test_built_networks_run_without_torch(toy_engines: Callable[..., Path], tmp_path: Path) -> None:
    """On a robot that has the engines of one backend and no torch."""
    engines = toy_engines("er_resnet", backend="onnxruntime") / "engines"
    (tmp_path / "engines").mkdir()
    (built,) = engines.glob("er_resnet-toy-onnxruntime-*")
    (tmp_path / "engines" / built.name).symlink_to(built)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], env={**os.environ, "EMO_CACHE": str(tmp_path)}, capture_output=True,
        text=True, check=False, timeout=120, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.stdout == "onnxruntime 1 []\n", done.stderr
