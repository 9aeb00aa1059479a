"""Whose face it is, in every image of a clip: the run-time face stage, or exact points where they are known.

The *subject* of a clip is the face that is largest for longest: the track with the greatest sum of box areas over all
images of the clip; of equals the one seen first. Data sets of films cut to the person they describe, and a passer-by is
small or brief. Where that is wrong (two people of like size), only an annotation could tell.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from emo_models.weights import card
from emo_perception.config import FaceConfig, PerceptionConfig
from emo_perception.perception import Observation
from emo_perception.stages.detected_faces import DetectedFaceStage
from emo_perception.stages.detectors import Detector
from emo_perception.stages.face import FaceStage, make_face_stage
from emo_perception.stages.learned import manifest_of
from emo_perception.streaming.scheduler import OfflineScheduler, Step
from training.datasets.record import Record
from training.prepare.video import Video

Float = NDArray[np.float32]


@dataclass
class FaceTrack:
    """One person over a clip. ``points``: number of the image -> float32 [5, 2] px, as ``types.FaceTrack``.

    ``area``: sum of the areas of the face's boxes in px.
    """

    points: dict[int, Float] = field(default_factory=dict)
    area: float = 0.0


class FaceFinder(Protocol):
    """Finds the people of a clip."""

    @property
    def producer(self) -> Mapping[str, str]:
        """What shapes the result: names of weights and settings -> hashes and values, for the feature store."""

    def __call__(self, record: Record, video: Video) -> list[FaceTrack]:
        """Everybody in the video, the subject first; empty when there is no face.

        Raises :class:`training.prepare.video.UnreadableVideo`.
        """

    def close(self) -> None:
        """Free the engines."""


class StageFaces:
    """The run-time face stage over every image, nothing dropped: what the robot would see.

    The stage is loaded when first used. Raises what :func:`emo_perception.stages.face.make_face_stage` raises.
    """

    def __init__(self, config: FaceConfig | None = None) -> None:
        self._config = config or FaceConfig()

    @cached_property
    def _stage(self) -> FaceStage | DetectedFaceStage:
        return make_face_stage(self._config)

    @property
    def producer(self) -> Mapping[str, str]:
        ignored = {"threads", "publish_landmarks"}
        settings = {k: v for k, v in dataclasses.asdict(self._config).items() if k not in ignored}
        stage = self._stage
        if isinstance(stage, FaceStage):
            networks = {"face_detector": detector_version(stage.detector), "face_mesh": card("face_mesh").sha256}
        else:
            networks = {"face_detector": f"scrfd {manifest_of(stage.selection).key}"}
        return {"faces": "face stage", **networks, "face_settings": json.dumps(settings, sort_keys=True)}

    def __call__(self, record: Record, video: Video) -> list[FaceTrack]:  # noqa: ARG002 - pixels say it all
        stage = self._stage
        stage.reset()  # a new clip: nobody is known

        def find(seen: Observation) -> Observation:
            return replace(seen, faces=stage(seen.frame))

        step = Step("face", find, stage.reset, jump_back_s=PerceptionConfig().jump_back_s)
        tracks: dict[int, FaceTrack] = {}
        seen = OfflineScheduler([step]).run(Observation(frame) for frame in video.frames())
        for number, observation in enumerate(seen):
            assert observation.faces is not None
            for face in observation.faces.faces:
                track = tracks.setdefault(face.track_id, FaceTrack())
                track.points[number] = face.points
                track.area += float(np.prod(face.box_xywh[2:]))
        return sorted(tracks.values(), key=lambda track: -track.area)  # stable: of equals the lower id, seen first

    def close(self) -> None:
        if "_stage" in self.__dict__:
            self._stage.close()
            del self._stage


def detector_version(detector: Detector) -> str:
    """Name of a detector with what decides its results: the hash of its weights, or the version that carries them."""
    near = detector.name == "blazeface"
    return f"{detector.name} {card('face_detector_near').sha256 if near else importlib.metadata.version(detector.name)}"


class KnownFaces:
    """Points that are known beforehand, as those of a drawn world: no network, no error.

    ``tracks``: clip id -> the people of the clip, the subject first, points in pixels of the images of :class:`Video`.
    ``version`` stands for their content in the feature store. Raises ``KeyError`` naming a clip that is not known.
    """

    def __init__(self, tracks: Mapping[str, list[FaceTrack]], version: str) -> None:
        self._tracks = tracks
        self._version = version

    @property
    def producer(self) -> Mapping[str, str]:
        return {"faces": "known", "face_points": self._version}

    def __call__(self, record: Record, video: Video) -> list[FaceTrack]:  # noqa: ARG002 - nothing is looked at
        if record.clip_id not in self._tracks:
            raise KeyError(f"no face points are known for clip {record.clip_id!r}")
        return self._tracks[record.clip_id]

    def close(self) -> None:
        """Nothing to free."""


MakeFinder = Callable[[], FaceFinder]
"""Makes a finder in the process that uses it: engines cannot be sent from one to another."""
