"""Faces by a built detector (SCRFD) that looks at every frame: boxes and five points, no mesh."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from emo_models.detection import FacesFound, decode
from emo_models.preprocess import ARCFACE_112, fit_into
from emo_perception.config import FaceConfig
from emo_perception.stages.head_pose import pose_ypr
from emo_perception.stages.learned import engine_of, manifest_of
from emo_perception.streaming.follow import Follower
from emo_perception.types import Faces, FaceTrack, Frame

SURE: Final = (0.001, 0.999)
"""The decoder takes confidences between these."""


class DetectedFaceStage:
    """Frame -> tracked faces. A new face needs ``detect_confidence``, one that is followed only ``presence``.

    A detector of random weights, which finds nobody, runs too; one face in the middle of the image, with confidence 0,
    then gives the stages behind it the work that is to be measured.
    """

    name = "face"

    def __init__(self, config: FaceConfig) -> None:
        self.config = config
        self.selection = engine_of(config.scrfd_engine, config)
        self.engine = self.selection.engine
        (port,) = manifest_of(self.selection).inputs
        self._input = np.zeros(port.max, np.float32)
        self._follower = Follower(config.keep_lost_s)
        self._stamp_ns: int | None = None
        self._ended: tuple[int, ...] = ()

    def warmup(self) -> None:
        self.engine.warmup()

    def __call__(self, frame: Frame) -> Faces:
        if self._stamp_ns is not None and frame.stamp_ns - self._stamp_ns > self._follower.book.keep_lost_ns:
            self.reset()  # nobody was watched for so long that whoever is there now may be somebody else
        self._stamp_ns = frame.stamp_ns
        found = self._detect(frame.image)
        boxes = [box[:4] for box in found.boxes]
        sure = (found.boxes[:, 4] >= self.config.detect_confidence) | self.selection.random
        new = sure & _at_least(found, self.config.min_face_px)
        ids = self._follower(frame.stamp_ns, boxes, new.tolist(), self.config.max_faces)
        ended, self._ended = self._ended + self._follower.expire(frame.stamp_ns), ()
        faces = tuple(self._face(ids[i], found, i) for i in sorted(ids, key=ids.__getitem__))
        height, width = frame.image.shape[:2]
        return Faces(frame.stamp_ns, frame.frame_id, (width, height), faces, ended)

    def reset(self) -> None:
        self._ended += self._follower.clear()
        self._stamp_ns = None

    def close(self) -> None:
        self.engine.close()

    def _detect(self, image: NDArray[np.uint8]) -> FacesFound:
        """All that may be faces, largest first."""
        height, width = self._input.shape[2:]
        _, factor = fit_into(image, (height, width), self._input[0])
        least = float(np.clip(min(self.config.presence, self.config.detect_confidence), *SURE))
        maps = self.engine({"image": self._input})
        if self.selection.random:
            return _stand_in(*image.shape[:2])
        found = decode(maps, (height, width), scale=factor, least_score=least)
        # Five points that are one point show no face, and nothing could be aligned by them.
        kept = np.flatnonzero(_at_least(found, self.config.min_face_px / 2) & (np.ptp(found.points, 1).max(1) > 1))
        order = kept[np.argsort(-found.boxes[kept, 2:4].prod(1), kind="stable")]
        return FacesFound(found.boxes[order], found.points[order])

    def _face(self, track_id: int, found: FacesFound, index: int) -> FaceTrack:
        track, points = self._follower.book.active[track_id], found.points[index]
        confidence = float(found.boxes[index, 4])
        return FaceTrack(track_id, confidence, track.first_seen_ns, track.box_xywh, points, pose_ypr(points))


def _stand_in(height: int, width: int) -> FacesFound:
    """A face as high as half of the image, of nobody."""
    side = min(height, width) / 2
    corner = np.array([(width - side) / 2, (height - side) / 2])
    points = ARCFACE_112 * (side / 112) + corner
    return FacesFound(np.array([[*corner, side, side, 0]], np.float32), points.astype(np.float32)[None])


def _at_least(found: FacesFound, pixels: float) -> NDArray[np.bool_]:
    return np.asarray(found.boxes[:, 2:4].min(1) >= pixels)
