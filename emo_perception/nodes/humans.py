"""REP-155 (ROS4HRI): ``/humans/faces/...`` where the package ``hri_msgs`` is installed, nothing elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node

from emo_perception import rep155
from emo_perception.nodes import convert, qos
from emo_perception.types import NS_PER_S, EmotionFeatures, FaceFeatures

try:
    from hri_msgs import msg as hri
except ImportError:
    hri = None

ROOT = "/humans/faces"
UNSEEN_NS = 5 * NS_PER_S
"""Topics of a face that was not seen for so long are ended, by the stamps; should it come back, they do too."""


@dataclass(frozen=True)
class _Seen:
    """One face of one frame, with what its messages need besides."""

    header: Any
    size_wh: tuple[int, int]
    face: FaceFeatures


def _roi(seen: _Seen) -> Any:
    box = rep155.region(seen.face, seen.size_wh)
    return hri.NormalizedRegionOfInterest2D(
        header=seen.header, c=float(seen.face.track.confidence), **box._asdict()
    )  # fmt: skip


def _facs(seen: _Seen) -> Any:
    found = rep155.facs(seen.face.action_units, float(seen.face.track.confidence))
    return hri.FacialActionUnits(header=seen.header, intensity=found.intensity, confidence=found.confidence)


def _expression(seen: _Seen) -> Any:
    found = rep155.expression(seen.face.emotion)
    unknown = rep155.NOT_MEASURED
    return hri.Expression(header=seen.header, valence=unknown, arousal=unknown, **found._asdict())


#: Topic below ``/humans/faces/<id>/`` -> name of its message, and what fills it.
TOPICS: Mapping[str, tuple[str, Callable[[_Seen], Any]]] = {
    "roi": ("NormalizedRegionOfInterest2D", _roi),
    "facs": ("FacialActionUnits", _facs),
    "expression": ("Expression", _expression),
}


class Humans:
    """Topics of the faces that are there: made with a track, gone with it. Never a picture, so privacy changes nothing.

    A message is made only for a topic that somebody subscribes to. Used by one thread at a time.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._faces: dict[int, dict[str, Any]] = {}
        self._seen_ns: dict[int, int] = {}
        self._tracked = node.create_publisher(hri.IdsList, f"{ROOT}/tracked", qos.RESULT)

    def publish(self, features: EmotionFeatures) -> None:
        """What was found in one frame."""
        for track_id in self._gone(features):
            self._forget(track_id)
        header = convert.header(features.stamp_ns, features.frame_id)
        for face in features.faces:
            publishers = self._of(face.track.track_id)
            self._seen_ns[face.track.track_id] = features.stamp_ns
            for topic, (_, fill) in TOPICS.items():
                if publishers[topic].get_subscription_count():
                    publishers[topic].publish(fill(_Seen(header, features.size_wh, face)))
        ids = [rep155.face_id(face.track.track_id) for face in features.faces]
        self._tracked.publish(hri.IdsList(header=header, ids=ids))

    def close(self) -> None:
        """End all topics of faces; those that are seen later get new ones."""
        for track_id in tuple(self._faces):
            self._forget(track_id)

    def _gone(self, features: EmotionFeatures) -> set[int]:
        """Faces that expired, and those whose end nobody told because that frame failed or they were another's twin."""
        unseen = {i for i, seen_ns in self._seen_ns.items() if abs(features.stamp_ns - seen_ns) > UNSEEN_NS}
        return unseen.union(features.expired)

    def _of(self, track_id: int) -> dict[str, Any]:
        if track_id not in self._faces:
            base = f"{ROOT}/{rep155.face_id(track_id)}"
            self._faces[track_id] = {
                topic: self._node.create_publisher(getattr(hri, kind), f"{base}/{topic}", qos.RESULT)
                for topic, (kind, _) in TOPICS.items()
            }
        return self._faces[track_id]

    def _forget(self, track_id: int) -> None:
        self._seen_ns.pop(track_id, None)
        for publisher in self._faces.pop(track_id, {}).values():
            self._node.destroy_publisher(publisher)


def make_humans(node: Node) -> Humans | None:
    """The topics of REP-155; None, said once, where ``hri_msgs`` is not installed."""
    if hri is None:
        node.get_logger().debug("no /humans topics: hri_msgs is not installed")
        return None
    node.get_logger().info(f"REP-155: faces on {ROOT} (hri_msgs is installed)")
    return Humans(node)
