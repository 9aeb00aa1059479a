"""What networks for faces learn from a toy world: where faces are, and how strong their action units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from emo_models.labels import AUOutput, opengraphau_outputs
from emo_models.preprocess import uniform_frames
from training.datasets import DatasetError, Record
from training.losses.action_units import UNKNOWN
from training.prepare.faces import MakeFinder
from training.prepare.truth import truth_faces, truth_of
from training.prepare.video import Video
from training.tasks.scenes import Scene
from training.toyworld.truth import FILE, FaceTruth

#: A unit is active from this strength on, and inactive up to the lower one; between them nobody could tell.
ACTIVE: Final = 0.35
INACTIVE: Final = 0.15


def finder(root: Path) -> MakeFinder:
    """Faces by their exact points, the one that a clip is about first."""
    if not (root / FILE).is_file():
        raise DatasetError(f"exact faces are for a toy world, there is no {FILE} in {root}; choose stage")
    return truth_faces(root)


def unit_labels(root: Path, outputs: Sequence[AUOutput]) -> Callable[[str, int], NDArray[np.int8]]:
    """``labels(clip id, number of the image)``: 1, 0 or unknown for each output, of the clip's first face."""
    order = {(output.number, output.side): place for place, output in enumerate(opengraphau_outputs(upstream=False))}
    columns = [order[output.number, output.side] for output in outputs]
    scores = {clip_id: clip.faces[0].scores[:, columns] for clip_id, clip in truth_of(root).items()}

    def labels(clip_id: str, number: int) -> NDArray[np.int8]:
        score = scores[clip_id][number]
        return np.where(score >= ACTIVE, 1, np.where(score <= INACTIVE, 0, UNKNOWN)).astype(np.int8)

    return labels


def scenes(root: Path, records: Sequence[Record], frames: int) -> list[Scene]:
    """``frames`` evenly spread images of each clip with all visible faces, decoded now."""
    truth, found = truth_of(root), []
    for record in records:
        video, clip = Video.of(record), truth[record.clip_id]
        wanted = set(uniform_frames(clip.frames, frames).tolist())
        for number, frame in enumerate(video.frames()):
            if number in wanted:
                seen = [face for face in clip.faces if face.visible[number]]
                found.append(Scene(frame.image.copy(), _boxes(seen, number), _points(seen, number)))
    return found


def _boxes(faces: Sequence[FaceTruth], number: int) -> NDArray[np.float32]:
    return np.array([face.boxes_xywh[number] for face in faces], np.float32).reshape(-1, 4)


def _points(faces: Sequence[FaceTruth], number: int) -> NDArray[np.float32]:
    return np.array([face.points[number] for face in faces], np.float32).reshape(-1, 5, 2)
