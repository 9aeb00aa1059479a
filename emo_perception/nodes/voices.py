"""REP-155 (ROS4HRI): ``/humans/voices/...`` where the package ``hri_msgs`` is installed, nothing elsewhere."""

from __future__ import annotations

import threading
import time
from typing import Any, NamedTuple

from rclpy.node import Node
from std_msgs.msg import Bool

from emo_perception import rep155
from emo_perception.nodes import convert, qos
from emo_perception.types import Utterance

try:
    from hri_msgs import msg as hri
except ImportError:
    hri = None

QUIET_S = 60.0
"""Topics of a voice that was not heard for so long are ended; should it come back, they do too."""


class _Topics(NamedTuple):
    is_speaking: Any
    speech: Any


class Voices:
    """Topics of the voices that were heard lately: what they say, and which of them speaks now. Never their sound.

    A voice is that of a face, by the lips; all others are one. Used by several threads.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._topics: dict[str, _Topics] = {}
        self._heard_s: dict[str, float] = {}
        self._speaking = ""
        self._stamp_ns = 0
        self._tracked = node.create_publisher(hri.IdsList, f"{rep155.VOICES}/tracked", qos.RESULT)

    def update(self, track_id: int | None, stamp_ns: int) -> None:
        """Who speaks at ``stamp_ns``: a track, 0 for somebody, None for nobody."""
        voice = "" if track_id is None else rep155.voice_id(track_id)
        with self._lock:
            self._stamp_ns = stamp_ns
            if voice != self._speaking:
                if self._speaking in self._topics:
                    self._topics[self._speaking].is_speaking.publish(Bool(data=False))
                if voice:
                    self._of(voice).is_speaking.publish(Bool(data=True))
                self._speaking = voice
            if voice:
                self._heard_s[voice] = time.monotonic()
            for quiet in [v for v, at_s in self._heard_s.items() if time.monotonic() - at_s > QUIET_S]:
                self._forget(quiet)
            if stamp_ns:
                self._tell()

    def say(self, utterance: Utterance) -> None:
        """What somebody said, final."""
        message = hri.LiveSpeech(
            header=convert.header(utterance.stamp_ns, utterance.frame_id),
            final=utterance.text,
            confidence=float(utterance.confidence),
        )
        for name in ("locale", "language"):  # releases differ
            if hasattr(message, name):
                setattr(message, name, utterance.language)
        with self._lock:
            self._of(rep155.voice_id(utterance.track_id)).speech.publish(message)

    def close(self) -> None:
        """End the topics of all voices; those that are heard later get new ones."""
        with self._lock:
            if not self._topics:
                return
            for voice in tuple(self._topics):
                self._forget(voice)
            self._speaking = ""
            self._tell()

    def _tell(self) -> None:
        header = convert.header(self._stamp_ns, "")
        self._tracked.publish(hri.IdsList(header=header, ids=sorted(self._topics)))

    def _of(self, voice: str) -> _Topics:
        self._heard_s[voice] = time.monotonic()
        if voice not in self._topics:
            base = f"{rep155.VOICES}/{voice}"
            self._topics[voice] = _Topics(
                self._node.create_publisher(Bool, f"{base}/is_speaking", qos.STATE),
                self._node.create_publisher(hri.LiveSpeech, f"{base}/speech", qos.RESULT),
            )
        return self._topics[voice]

    def _forget(self, voice: str) -> None:
        self._heard_s.pop(voice, None)
        for publisher in self._topics.pop(voice, ()):
            self._node.destroy_publisher(publisher)


def make_voices(node: Node) -> Voices | None:
    """The topics of REP-155; None, said once, where ``hri_msgs`` is not installed."""
    if hri is None:
        node.get_logger().debug(f"no {rep155.VOICES} topics: hri_msgs is not installed")
        return None
    node.get_logger().info(f"REP-155: voices on {rep155.VOICES} (hri_msgs is installed)")
    return Voices(node)
