"""Faces by the built detector: found, followed past each other and out of sight, and where their heads point."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="engines are built with torch")

from emo_models.engines import TensorSpec
from emo_models.preprocess import ARCFACE_112
from emo_perception.config import FaceConfig
from emo_perception.stages.face import make_face_stage
from emo_perception.stages.head_pose import HEAD, pose_ypr
from emo_perception.types import Faces, Frame

MS = 1_000_000
RANDOM: dict[str, Any] = {"preset": "toy", "weights": "random", "threads": 1}
WIDTH, HEIGHT = 320, 240


@pytest.fixture(autouse=True)
def _engines(toy_engines: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMO_CACHE", str(toy_engines("detector")))


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
