"""Faces of the clips of a data set, found as at run time and kept: what networks for faces are trained on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from emo_models.weights import cache_dir
from training.datasets.record import DatasetError, Record
from training.prepare.clips import ClipForm, PreparedClip
from training.prepare.faces import MakeFinder, StageFaces
from training.prepare.run import prepare_clips
from training.prepare.store import FeatureStore, store_folder

log = logging.getLogger(__name__)

#: The store also keeps the whole images, which are not needed here; this is as small as they get.
SMALLEST_IMAGE = 8


@dataclass(frozen=True)
class ClipFacesOptions:
    """``frames`` of each clip, spread evenly; ``finder``: the run-time face stage, or the exact points of a toy world.

    ``alignment``: empty for the one that the network's engine is fed at run time;
    ``store``: folder that keeps the faces, empty for one in the cache of weights; ``workers``: processes that cut them.
    """

    frames: int = 8
    finder: Literal["stage", "truth"] = "stage"
    alignment: Literal["", "arcface", "poses"] = ""
    store: str = ""
    workers: int = 1


@dataclass(frozen=True, eq=False)
class ClipFace:
    """The subject's face in one image of a clip: uint8 [s, s, 3]; ``number``: of the image."""

    record: Record
    number: int
    image: NDArray[np.uint8]


def clip_faces(records: Sequence[Record], root: Path, size: int, options: ClipFacesOptions) -> list[ClipFace]:
    """Every face found in the chosen images of the clips; what is not in the store yet is cut out now.

    Clips that cannot be read are told and left out. Raises :class:`DatasetError` when no face is found at all.
    """
    form = ClipForm(options.frames, SMALLEST_IMAGE, size, alignment=options.alignment)
    make_finder = _finder(options, root)
    with_clip = [record for record in records if record.source is not None]
    store = _store(form, make_finder, options)
    found = prepare_clips(with_clip, store, form, make_finder, workers=options.workers)
    for row in found.quarantined:
        log.warning("clip %s is left out: %s", row.row, row.detail)
    unreadable = {str(row.row) for row in found.quarantined}
    faces = []
    for record in with_clip:
        if record.clip_id not in unreadable:
            clip = PreparedClip.of(store.get(record.clip_id))
            seen = dict(zip(clip.numbers.tolist(), range(len(clip.numbers)), strict=True))  # short clips repeat images
            faces += [ClipFace(record, n, clip.faces[i]) for n, i in seen.items() if clip.face_valid[i]]
    if not faces:
        raise DatasetError(f"{root}: no face in {len(with_clip)} clips with a video; see: emo data check")
    return faces


def _finder(options: ClipFacesOptions, root: Path) -> MakeFinder:
    if options.finder == "stage":
        return StageFaces
    from training.tasks.toy_truth import finder

    return finder(root)


def _store(form: ClipForm, make_finder: MakeFinder, options: ClipFacesOptions) -> FeatureStore:
    faces = make_finder()
    producer = form.producer(faces)
    faces.close()
    folder = Path(options.store) if options.store else cache_dir() / "features"
    return FeatureStore(store_folder(folder, "faces", producer), producer)
