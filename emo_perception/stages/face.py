"""Faces: the mesh follows each one from frame to frame; the detector only looks for new ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emo_models.engines import Engine
from emo_models.engines.select import open_card
from emo_models.preprocess import Square, cut_square, unit_range
from emo_perception.config import FaceConfig
from emo_perception.stages.detectors import Detector, make_detector
from emo_perception.streaming.tracks import Box, TrackBook, iou
from emo_perception.types import NS_PER_S, Faces, FaceTrack, Frame

if TYPE_CHECKING:
    from emo_perception.stages.detected_faces import DetectedFaceStage

Float = NDArray[np.float32]

MESH_SIZE = 256
MESH_POINTS = 478
CROP = 1.5
"""The mesh network wants the face box widened by this factor."""
SAME_FACE = 0.5
"""Boxes that overlap more than this show the same face."""
SEARCH_LOST_S = 0.1
"""While a face is lost the detector looks this often, to find it again before its id expires."""

# Points of the mesh. "Right" is the subject's right, on the left of the image.
FOREHEAD, CHIN, NOSE_TIP, MOUTH_RIGHT, MOUTH_LEFT = 10, 152, 1, 61, 291
EYE_RIGHT_OUTER, EYE_RIGHT_INNER, EYE_LEFT_INNER, EYE_LEFT_OUTER = 33, 133, 362, 263


@dataclass(frozen=True, eq=False)
class Mesh:
    """One face found by the mesh network: ``points`` float32 [478, 3] px, ``presence`` in [0, 1]."""

    points: Float
    presence: float

    @cached_property
    def box_xywh(self) -> Box:
        """The smallest upright box around the points."""
        low, high = self.points[:, :2].min(0), self.points[:, :2].max(0)
        return np.concatenate([low, high - low]).astype(np.float32)

    def square(self) -> Square:
        """Where to look for this face in the next frame: upright along the line of its eyes."""
        right, left = self.points[EYE_RIGHT_OUTER, :2], self.points[EYE_LEFT_OUTER, :2]
        angle = math.atan2(left[1] - right[1], left[0] - right[0])
        cos, sin = math.cos(angle), math.sin(angle)
        turn = np.array([[cos, -sin], [sin, cos]], np.float32)  # image -> upright, on row vectors
        upright = self.points[:, :2] @ turn
        low, high = upright.min(0), upright.max(0)
        centre = (low + high) / 2 @ turn.T
        return Square(float(centre[0]), float(centre[1]), float((high - low).max()) * CROP, angle)

    def five_points(self) -> Float:
        """float32 [5, 2]: the points of :class:`emo_perception.types.FaceTrack`."""
        p = self.points[:, :2]
        right = (p[EYE_RIGHT_OUTER] + p[EYE_RIGHT_INNER]) / 2
        left = (p[EYE_LEFT_OUTER] + p[EYE_LEFT_INNER]) / 2
        return np.stack([right, left, p[NOSE_TIP], p[MOUTH_RIGHT], p[MOUTH_LEFT]])

    def pose_ypr(self) -> Float:
        """float32 [3]: yaw, pitch, roll in radians, from the lines between the eyes and from chin to forehead."""
        across = self.points[EYE_LEFT_OUTER] - self.points[EYE_RIGHT_OUTER]
        up = self.points[FOREHEAD] - self.points[CHIN]
        yaw = math.atan2(across[2], math.hypot(across[0], across[1]))
        pitch = math.atan2(up[2], math.hypot(up[0], up[1]))
        roll = math.atan2(-across[1], across[0])
        return np.array([yaw, pitch, roll], np.float32)


class MeshNetwork:
    """Google's face mesh V2: uint8 crops -> 478 points each, several faces in one run."""

    def __init__(self, engine: Engine, max_faces: int) -> None:
        self.engine = engine
        self._input = np.zeros((max_faces, MESH_SIZE, MESH_SIZE, 3), np.float32)

    def __call__(self, image: NDArray[np.uint8], squares: list[Square]) -> list[Mesh]:
        """One mesh per square, in pixels of the image."""
        if not squares:
            return []
        for i, square in enumerate(squares):
            unit_range(cut_square(image, square, MESH_SIZE), self._input[i])
        out = self.engine({"crops": self._input[: len(squares)]})
        points = out["points"].reshape(-1, MESH_POINTS, 3)
        presence = 1 / (1 + np.exp(-out["presence"].reshape(-1)))
        return [Mesh(_to_image(points[i], square), float(presence[i])) for i, square in enumerate(squares)]


def _to_image(points: Float, square: Square) -> Float:
    """Points in pixels of the crop -> pixels of the image; depth scales alike. Returns a new array."""
    affine = square.to_image(MESH_SIZE)
    moved = np.empty_like(points)
    moved[:, :2] = points[:, :2] @ affine[:, :2].T + affine[:, 2]
    moved[:, 2] = points[:, 2] * (square.side / MESH_SIZE)
    return moved


class FaceStage:
    """Frame -> tracked faces with their meshes."""

    name = "face"

    def __init__(self, config: FaceConfig) -> None:
        self.config = config
        self.detector: Detector = make_detector(config.detector, config.threads)
        self.selection = open_card("face_mesh", precision=config.precision, threads=config.threads)
        self.engine = self.selection.engine
        self._mesh = MeshNetwork(self.engine, config.max_faces)
        self._book = TrackBook(config.keep_lost_s)
        self._meshes: dict[int, Mesh] = {}
        self._searched_ns: int | None = None
        self._stamp_ns: int | None = None
        self._ended: tuple[int, ...] = ()

    def warmup(self) -> None:
        self.engine.warmup(range(1, self.config.max_faces + 1))
        self.detector(np.zeros((240, 320, 3), np.uint8), self.config.detect_width)

    def __call__(self, frame: Frame) -> Faces:
        if self._stamp_ns is not None and frame.stamp_ns - self._stamp_ns > self._book.keep_lost_ns:
            self.reset()  # nobody was watched for so long that whoever is there now may be somebody else
        self._stamp_ns = frame.stamp_ns
        self._follow(frame)
        if self._search_due(frame.stamp_ns):
            self._search(frame)
        ended = self._ended + self._book.expire(frame.stamp_ns)
        self._ended = ()
        faces = tuple(self._face(track_id) for track_id in sorted(self._meshes))
        height, width = frame.image.shape[:2]
        return Faces(frame.stamp_ns, frame.frame_id, (width, height), faces, ended)

    def reset(self) -> None:
        self._ended += self._book.clear()
        self._meshes.clear()
        self._searched_ns = self._stamp_ns = None

    def close(self) -> None:
        self.detector.close()
        self.engine.close()

    def _follow(self, frame: Frame) -> None:
        """Move each mesh on from where it was; those not found are lost, twins on one face are dropped."""
        ids = sorted(self._meshes)
        meshes = self._mesh(frame.image, [self._meshes[i].square() for i in ids])
        for track_id, mesh in zip(ids, meshes, strict=True):
            if self._is_face(mesh):
                self._meshes[track_id] = mesh
                self._book.update(track_id, frame.stamp_ns, mesh.box_xywh)
            else:
                del self._meshes[track_id]
                self._book.lose(track_id)
        for later in sorted(self._meshes, reverse=True):
            box = self._meshes[later].box_xywh
            if any(iou(box, self._meshes[earlier].box_xywh) > SAME_FACE for earlier in self._meshes if earlier < later):
                del self._meshes[later]
                self._book.drop(later)
                self._ended += (later,)

    def _search_due(self, stamp_ns: int) -> bool:
        if self._searched_ns is None or not self._meshes:
            return True
        wait_s = min(SEARCH_LOST_S, self.config.detect_interval_s) if self._book.lost else self.config.detect_interval_s
        return stamp_ns - self._searched_ns >= wait_s * NS_PER_S

    def _search(self, frame: Frame) -> None:
        """Look for faces that no track follows, largest first, and start tracks on those that the mesh confirms."""
        self._searched_ns = frame.stamp_ns
        room = self.config.max_faces - len(self._meshes)
        if room == 0:
            return
        found = self.detector(frame.image, self.config.detect_width)
        found = found[
            (found[:, 4] >= self.config.detect_confidence) & (found[:, 2:4].min(1) >= self.config.min_face_px)
        ]
        found = found[np.argsort(-found[:, 2] * found[:, 3], kind="stable")]
        known = [mesh.box_xywh for mesh in self._meshes.values()]
        new = [box for box in found[:, :4] if not any(_covers(old, box) for old in known)][:room]
        meshes = [m for m in self._mesh(frame.image, [_square_of(box) for box in new]) if self._is_face(m)]
        fresh: list[Mesh] = []
        for mesh in meshes:
            if not any(iou(mesh.box_xywh, other.box_xywh) > SAME_FACE for other in [*self._meshes.values(), *fresh]):
                fresh.append(mesh)
        tracks = self._book.enter(frame.stamp_ns, [mesh.box_xywh for mesh in fresh])
        self._meshes.update({track.track_id: mesh for track, mesh in zip(tracks, fresh, strict=True)})

    def _is_face(self, mesh: Mesh) -> bool:
        return mesh.presence >= self.config.presence and float(mesh.box_xywh[2:].min()) >= self.config.min_face_px / 2

    def _face(self, track_id: int) -> FaceTrack:
        mesh, track = self._meshes[track_id], self._book.active[track_id]
        return FaceTrack(
            track_id,
            mesh.presence,
            track.first_seen_ns,
            mesh.box_xywh,
            mesh.five_points(),
            mesh.pose_ypr(),
            mesh.points,
        )


def _covers(old: Box, new: Box) -> bool:
    """Whether the centre of a detection lies inside a face that is already followed."""
    centre = new[:2] + new[2:] / 2
    return bool(np.all(centre >= old[:2]) and np.all(centre <= old[:2] + old[2:]))


def _square_of(box: Box) -> Square:
    """A detector's box, widened for the mesh."""
    x, y, width, height = (float(v) for v in box)
    return Square(x + width / 2, y + height / 2, max(width, height) * CROP)


def make_face_stage(config: FaceConfig) -> FaceStage | DetectedFaceStage:
    """The stage of the configured detector. Raises as its engine."""
    if config.detector != "scrfd":
        return FaceStage(config)
    from emo_perception.stages.detected_faces import DetectedFaceStage

    return DetectedFaceStage(config)
