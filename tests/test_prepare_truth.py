"""The faces of a drawn world, exactly where they were drawn."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from media_files import write_clip

from emo_models.preprocess import ARCFACE_112
from training.datasets.record import DatasetError, Record, Span
from training.prepare.clips import prepare_clip
from training.prepare.truth import truth_faces
from training.prepare.video import Video
from training.toyworld.truth import ClipTruth, FaceTruth, write_truth
from training.toyworld.units import UNITS


def person(points, visible):
    count = len(visible)
    empty = {field.name: np.zeros(count, bool) for field in dataclasses.fields(FaceTruth)}
    return FaceTruth(**{
        **empty, "person": "p", "name": "", "emotion": "neutral", "visible": np.array(visible),
        "boxes_xywh": np.full((count, 4), 40, np.float32), "points": np.repeat(points[None], count, 0),
        "activations": np.zeros((count, 2, len(UNITS)), np.float32), "pose": np.zeros((count, 3), np.float32),
    })  # fmt: skip


def test_faces_are_cut_out_where_they_were_drawn(tmp_path):
    faces = (person(ARCFACE_112 / 2, [True, True, False]), person(ARCFACE_112 / 4, [True] * 3))
    clip = ClipTruth(
        "a", "train", 25, (96, 96), ("neutral",), "", "", "", 1.0, "", faces, (), np.full(3, -1),
    )  # fmt: skip
    write_truth(tmp_path, [clip])
    file = write_clip(tmp_path / "a.mp4", frames=3, size=(96, 96), sound_s=None)
    record = Record("a", "toy", "train", Span(file))
    finder = truth_faces(tmp_path)()
    made = prepare_clip(record, frames=3, image_size=64, face_size=56, faces=finder)
    assert made.face_valid.tolist() == [True, True, False]
    image = next(Video([Span(file)]).frames()).image
    np.testing.assert_allclose(
        made.faces[0].astype(int), image[:56, :56], atol=12
    )  # points are kept to a part of a pixel
    assert len(finder.producer["face_points"]) == 64
    with pytest.raises(DatasetError, match=r"truth\.jsonl of a toy world, there is none; make one: emo toy world"):
        truth_faces(tmp_path / "none")()
