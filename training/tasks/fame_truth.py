"""What a toy world knows of its dialogues: who is where on the clips, and which words name the cause of an emotion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from emo_models.weights import sha256_of
from training.datasets.record import DatasetError, Record
from training.prepare.faces import FaceFinder, FaceTrack, StageFaces
from training.prepare.truth import tracks, truth_of
from training.prepare.video import Video
from training.toyworld.truth import FILE, ClipTruth

FacesOf = Literal["stage", "truth", "points"]
#: Record -> the people's names in the order of the finder's tracks; shorter where they are not known.
Names = Callable[[Record], Sequence[str]]


@dataclass(frozen=True)
class Causes:
    """By clip: ``evidence``: phrases any of which names the true cause; ``others``: those of what happened besides;
    ``kinds``: ``visible``, ``face`` or ``words``; ``references``: all right explanations."""

    evidence: Mapping[str, Sequence[str]]
    others: Mapping[str, Sequence[str]]
    kinds: Mapping[str, str]
    references: Mapping[str, tuple[str, ...]]


class NamedFaces:
    """Where the people of a toy world are and what they are called; never what they feel."""

    def __init__(self, root: Path) -> None:
        self._clips = truth_of(root)
        self.producer: Mapping[str, str] = {"faces": "named", "face_points": sha256_of(root / FILE)}

    def __call__(self, record: Record, video: Video) -> list[FaceTrack]:  # noqa: ARG002 - nothing is looked at
        return tracks(self._clip(record))

    def names(self, record: Record) -> Sequence[str]:
        """As the tracks are ordered."""
        return [face.name for face in self._clip(record).faces]

    def close(self) -> None:
        """Nothing to free."""

    def _clip(self, record: Record) -> ClipTruth:
        if record.clip_id not in self._clips:
            raise KeyError(f"no face points are known for clip {record.clip_id!r}")
        return self._clips[record.clip_id]


def nobody(record: Record) -> Sequence[str]:  # noqa: ARG001 - whoever is asked for
    """Names where none is known."""
    return ()


def faces_of(kind: FacesOf, root: Path) -> tuple[FaceFinder, Names]:
    """Who finds the people of a clip, and what they are called. Raises :class:`DatasetError` for a truth without a world."""
    if kind == "stage":
        return StageFaces(), nobody
    if not (root / FILE).is_file():
        raise DatasetError(f"options.faces: {kind} is for a toy world, there is no {FILE} in {root}; choose stage")
    named = NamedFaces(root)
    return named, named.names if kind == "truth" else nobody


def causes_of(root: Path) -> Causes | None:
    """The causes of a toy world, None for other data."""
    if not (root / FILE).is_file():
        return None
    clips = {clip_id: clip for clip_id, clip in truth_of(root).items() if clip.cause is not None}
    known = {clip_id: clip.cause for clip_id, clip in clips.items() if clip.cause is not None}
    return Causes(
        {clip_id: cause.evidence for clip_id, cause in known.items()},
        {clip_id: cause.others for clip_id, cause in known.items()},
        {clip_id: cause.kind for clip_id, cause in known.items()},
        {clip_id: tuple(caption.text for caption in clip.captions) for clip_id, clip in clips.items()},
    )
