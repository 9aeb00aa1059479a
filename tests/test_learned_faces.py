"""The papers' networks on each frame: fed as in training, labelled, followed; by engines of random weights."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="engines are built with torch")

from media_files import write_clip  # noqa: E402

from emo_models import create  # noqa: E402
from emo_models.checkpoints import NetworkCard, save_weights  # noqa: E402
from emo_models.engines import EngineError  # noqa: E402
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
