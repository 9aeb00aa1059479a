"""The exact faces of a drawn world, in place of a detector: what is measured then is the network behind it alone."""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path

from emo_models.weights import sha256_of
from training.prepare.faces import FaceTrack, KnownFaces, MakeFinder
from training.toyworld.truth import FILE, ClipTruth, FaceTruth, load_truth


@lru_cache(maxsize=4)
def truth_of(folder: Path) -> dict[str, ClipTruth]:
    """Clip id -> truth, read once. Raises :class:`training.datasets.record.DatasetError` for what is no toy world."""
    return load_truth(folder)


def truth_faces(folder: Path) -> MakeFinder:
    """Makes finders that know every face of the data set in ``folder``, which has a ``truth.jsonl``.

    Making one raises :class:`training.datasets.record.DatasetError` for a folder without it.
    """
    return partial(_known, folder)


def tracks(clip: ClipTruth) -> list[FaceTrack]:
    """The people of a clip, whom it is about first, in the images in which their face can be seen."""
    return [_track(face) for face in clip.faces]


def _known(folder: Path) -> KnownFaces:
    known = {clip_id: tracks(clip) for clip_id, clip in truth_of(folder).items()}
    return KnownFaces(known, sha256_of(folder / FILE))


def _track(face: FaceTruth) -> FaceTrack:
    points = {number: face.points[number] for number in face.visible.nonzero()[0].tolist()}
    return FaceTrack(points, float(face.boxes_xywh[face.visible, 2:].prod(1).sum()))
