"""Shows a portrait to the perception process, then nothing; prints as JSON what ``/humans`` said. Needs ``hri_msgs``.

A program of its own, for ``hri_msgs`` is built by the test and must be on the path when Python starts.
"""

from __future__ import annotations

import json
import sys

import cv2
import numpy as np
from graph_peer import Peer, end, start
from hri_msgs import msg as hri
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from emo_msgs.msg import EmotionFeatures
from emo_perception.nodes import qos
from emo_perception.nodes.source_output import image_msg
from emo_perception.types import NS_PER_S, Frame

START_NS = 1_700_000_000 * NS_PER_S
STEP_NS = NS_PER_S // 5


def fields(message: object) -> dict[str, object]:
    """A message as JSON knows it, its header as the stamp."""
    names = [name for name in message.get_fields_and_field_types() if name != "header"]
    values = {name: getattr(message, name) for name in names}
    plain = {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in values.items()}
    return {
        **plain,
        "stamp": [message.header.stamp.sec, message.header.stamp.nanosec],
        "frame": message.header.frame_id,
    }


class Watcher(Peer):
    """Shows images, hears the results and the topics of the faces."""

    def __init__(self) -> None:
        super().__init__()
        self.camera = self.node.create_publisher(Image, "image_raw", qos.IMAGE_PUB)
        self.features = self.hear(EmotionFeatures, "emotion_features", qos.RESULT)
        self.tracked = self.hear(hri.IdsList, "/humans/faces/tracked", QoSProfile(depth=100))
        self.shown = 0

    def show(self, image: np.ndarray) -> None:
        """One image, repeated until it has been perceived."""
        message = image_msg(Frame(START_NS + self.shown * STEP_NS, image, "cam"))
        self.shown += 1
        stamp = message.header.stamp
        self.until(
            lambda: any(f.header.stamp == stamp for f in self.features),
            "an image is perceived",
            again=lambda: self.camera.publish(message),
        )

    def face_topics(self) -> list[str]:
        """Topics below ``/humans/faces`` that somebody publishes now."""
        topics = [name for name, _ in self.node.get_topic_names_and_types() if name.startswith("/humans/faces/")]
        return sorted(name for name in topics if self.node.count_publishers(name))


def main(portrait_file: str) -> dict[str, object]:
    """What was heard while the face was there, and what remained when it had gone."""
    portrait = cv2.cvtColor(cv2.imread(portrait_file), cv2.COLOR_BGR2RGB)
    process, watcher = start("perception"), Watcher()
    try:
        watcher.until(watcher.camera.get_subscription_count, "perception listens")
        watcher.show(portrait)
        watcher.until(lambda: len(watcher.face_topics()) == 4, "the topics of a face")
        while_there = watcher.face_topics()
        face = f"/humans/faces/{watcher.tracked[-1].ids[0]}"
        heard = {
            "roi": watcher.hear(hri.NormalizedRegionOfInterest2D, f"{face}/roi", 10),
            "facs": watcher.hear(hri.FacialActionUnits, f"{face}/facs", 10),
            "expression": watcher.hear(hri.Expression, f"{face}/expression", 10),
        }
        watcher.until(lambda: all(watcher.node.count_subscribers(f"{face}/{t}") for t in heard), "discovery")
        watcher.until(lambda: all(heard.values()), "the face is told about", again=lambda: watcher.show(portrait))
        while watcher.tracked[-1].ids or len(watcher.face_topics()) > 1:
            watcher.show(np.zeros_like(portrait))
            watcher.until(lambda: watcher.tracked, "ids")
            assert watcher.shown < 60, f"topics stay: {watcher.face_topics()}"
        track = watcher.features[0].faces[0].track
        return {
            "track": track.track_id,
            "box": [track.x, track.y, track.width, track.height],
            "size": list(portrait.shape[1::-1]),
            "while_there": while_there,
            "afterwards": watcher.face_topics(),
            **{topic: fields(messages[-1]) for topic, messages in heard.items()},
        }
    finally:
        watcher.close()
        log = end(process)
        assert "Traceback" not in log, log


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
