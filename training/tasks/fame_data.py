"""What FAME-Net reads of a clip besides words, computed once and kept: R of Eq. 3, and the emotions of the faces.

CLIP and the expression network are frozen, so both are features in a store under the hashes of their weights. The clip
is the cumulative one, on the dyadic grid of :mod:`emo_models.networks.fame.streaming`: the frames that the network has
seen at the end of the utterance, whether it watched or read a file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from emo_models.checkpoints import weights_hash
from emo_models.labels import VOCABULARIES
from emo_models.networks.ddamfn import DDAMFN
from emo_models.networks.fame import FAME
from emo_models.networks.fame.pooling import join, temporal_rows
from emo_models.networks.fame.prompt import FaceExpression, mean_expression
from emo_models.networks.fame.streaming import FrameClock
from emo_models.preprocess import ALIGNMENTS, ImageTransform, align_face
from emo_perception.types import NS_PER_S
from training.datasets.record import Record
from training.prepare.faces import FaceFinder, FaceTrack
from training.prepare.store import FeatureStore, store_folder
from training.prepare.video import UnreadableVideo, Video
from training.tasks.fame_truth import Names
from training.tasks.questions import pack_faces, unpack_faces

log = logging.getLogger(__name__)

Image = NDArray[np.uint8]
#: Raised when the same input gives other values.
VERSION: Final = "1"


@dataclass(frozen=True)
class Evidence:
    """``features``: R float32 [T + N, D]; ``faces``: E_cls of the people."""

    features: torch.Tensor
    faces: tuple[FaceExpression, ...]


@dataclass(frozen=True)
class FaceReader:
    """Who is on the clip and what their faces show.

    ``network``: DDAMFN with its ``transform`` and ``alignment``, a key of :data:`ALIGNMENTS`; ``finder``: finds the people; ``names``: tells who they are, else they are
    ``person 1`` and so on; ``frames``: so many frames of each person, evenly, are looked at; ``utterances``: in each of the
    last so many utterances, 0: in the whole clip.
    """

    network: DDAMFN
    transform: ImageTransform
    alignment: str
    finder: FaceFinder
    names: Names
    frames: int = 16
    utterances: int = 0

    @property
    def producer(self) -> dict[str, str]:
        """What shapes the result."""
        return {
            **self.finder.producer, "face_network": weights_hash(self.network.state_dict()),
            "face_frames": f"{self.frames} {self.utterances}", "face_transform": f"{self.transform} {self.alignment}",
        }  # fmt: skip

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the emotions."""
        return VOCABULARIES[self.network.config.vocabulary]

    def __call__(self, record: Record, video: Video) -> list[FaceExpression]:
        """E_cls of everybody with a face, utterance by utterance, in the order of the finder.

        Raises :class:`UnreadableVideo`.
        """
        tracks = self.finder(record, video)
        names = self.names(record)
        stamps = [frame.stamp_ns / NS_PER_S for frame in video.frames()]
        looks: list[tuple[str, dict[int, Image]]] = []
        for start_s, end_s in periods(record, self.utterances):
            for place, track in enumerate(tracks):
                inside = [n for n in sorted(track.points) if n < len(stamps) and start_s <= stamps[n] < end_s]
                name = names[place] if place < len(names) else f"person {place + 1}"
                looks.append((name, self._crops(video, track, self._chosen(inside))))
        return [self._read(name, list(crops.values())) for name, crops in looks if crops]

    @torch.no_grad()
    def _read(self, name: str, images: Sequence[Image]) -> FaceExpression:
        batch = torch.from_numpy(np.stack([self.transform(image) for image in images]))
        logits = self.network(batch.to(next(self.network.parameters()).device)).logits.cpu()
        valid = torch.ones(len(images), dtype=torch.bool)
        face = mean_expression(logits, valid, self.network.config.vocabulary, name)
        assert face is not None
        return face

    def _crops(self, video: Video, track: FaceTrack, wanted: Collection[int]) -> dict[int, Image]:
        """Aligned faces by number of the frame."""
        found: dict[int, Image] = {}
        if wanted:
            with closing(video.frames()) as frames:
                for number, frame in zip(range(max(wanted) + 1), frames, strict=False):
                    if number in wanted:
                        points = track.points[number]
                        found[number] = align_face(frame.image, points, self.transform.crop, ALIGNMENTS[self.alignment])
        return found

    def _chosen(self, numbers: Sequence[int]) -> set[int]:
        count = min(self.frames, len(numbers))
        return {numbers[i * (len(numbers) - 1) // max(count - 1, 1)] for i in range(count)}


def periods(record: Record, utterances: int) -> list[tuple[float, float]]:
    """Seconds of the cumulative clip from and to which the last utterances reach; all of it for 0 or where times lack."""
    whole = [(0.0, float("inf"))]
    if not utterances or record.dialogue is None:
        return whole
    said = [*record.dialogue.history, record.dialogue.target]
    times = [(line.start_s, line.end_s) for line in said]
    first = times[0][0]
    if first is None or any(start is None or end is None for start, end in times):
        return whole
    return [(start - first, end - first) for start, end in times[-utterances:] if start is not None and end is not None]


class ClipEvidence:
    """Evidence of clips by id, in two stores below ``folder``; call :meth:`prepare` before reading.

    ``video``: what is to be seen of a record; ``rate_hz``: the base rate of the grid; ``data``: which data set, for clip ids
    are not unique beyond one.
    """

    def __init__(
        self, network: FAME, transform: ImageTransform, folder: Path, *, video: Callable[[Record], Video], rate_hz: float,
        faces: FaceReader | None, data: str,
    ) -> None:  # fmt: skip
        self.network, self.transform, self.video, self.rate_hz, self.faces = network, transform, video, rate_hz, faces
        c = network.config
        seen = {
            "fame": VERSION, "data": data, "clip": weights_hash(network.clip.state_dict()), "frames": str(c.frames),
            "rate_hz": str(rate_hz), "transform": str(transform),
        }  # fmt: skip
        self._rows = _store(folder, "fame-r", seen)
        looks = {"fame": VERSION, "data": data, **faces.producer} if faces is not None else None
        self._looks = _store(folder, "fame-faces", looks) if looks is not None else None
        self._kept: dict[str, Evidence] = {}

    def prepare(self, records: Iterable[Record]) -> dict[str, str]:
        """Compute what is missing. Returns clip id -> why, for the clips that cannot be read."""
        records = list(records)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network.clip.to(device)
        if self.faces is not None:
            self.faces.network.to(device)
        bad: dict[str, str] = {}
        by_id = {record.clip_id: record for record in records}
        for store, make in ((self._rows, self._see), (self._looks, self._look)):
            if store is None:
                continue
            with store:
                for clip_id in store.missing(by_id):
                    if clip_id in bad:
                        continue
                    try:
                        store.put(clip_id, make(by_id[clip_id]))
                    except UnreadableVideo as error:
                        bad[clip_id] = str(error)
                        log.warning("clip %s is left out: %s", clip_id, error)
        return bad

    def __getitem__(self, clip_id: str) -> Evidence:
        """Evidence of a prepared clip. Raises ``NotPrepared``."""
        if clip_id not in self._kept:
            faces: tuple[FaceExpression, ...] = ()
            if self._looks is not None and self.faces is not None:
                faces = unpack_faces(self._looks.get(clip_id), self.faces.labels)
            seen = self._rows.get(clip_id)
            rows, patches = (torch.from_numpy(seen[name].astype(np.float32)) for name in ("rows", "patches"))
            self._kept[clip_id] = Evidence(join(rows, patches, self.network.pad_to), faces)
        return self._kept[clip_id]

    def _see(self, record: Record) -> Mapping[str, NDArray[Any]]:
        images = grid_images(self.video(record), self.network.config.frames, self.rate_hz, self.transform)
        batch = torch.from_numpy(np.stack(list(images.values())))
        x = self.network.frame_features(batch.to(next(self.network.clip.parameters()).device))
        parts = {"rows": temporal_rows(x), "patches": x.mean(0)}
        arrays: dict[str, NDArray[Any]] = {k: v.cpu().numpy().astype(np.float16) for k, v in parts.items()}
        return {**arrays, "numbers": np.array(list(images), np.int64)}

    def _look(self, record: Record) -> Mapping[str, NDArray[Any]]:
        assert self.faces is not None
        return pack_faces(self.faces(record, self.video(record)), self.faces.labels)


def grid_images(video: Video, limit: int, rate_hz: float, transform: ImageTransform) -> dict[int, NDArray[np.float32]]:
    """The frames of a clip at rest that :func:`~emo_models.networks.fame.streaming.dyadic_frames` names, at ``rate_hz``.

    Raises :class:`UnreadableVideo`.
    """
    clock, step = FrameClock(rate_hz), 1
    images: dict[int, NDArray[np.float32]] = {}
    with closing(video.frames()) as frames:
        for frame in frames:
            number = clock(frame.stamp_ns)
            if number is None or number % step:
                continue
            images[number] = transform(frame.image)
            while len(images) > limit:
                step *= 2
                images = {n: image for n, image in images.items() if n % step == 0}
    return images


def _store(folder: Path, kind: str, producer: Mapping[str, str]) -> FeatureStore:
    return FeatureStore(store_folder(folder, kind, producer), producer)
