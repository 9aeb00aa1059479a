"""What REP-155 (ROS4HRI) says of a face or a voice: plain values only; ``nodes/`` makes messages of them.

Source: REP-155 and the messages of ``hri_msgs`` 2.x. What is not measured is said with confidence 0, never guessed.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emo_models.labels import REP155_EXPRESSIONS
from emo_perception import from_msg
from emo_perception.types import FaceActionUnits, FaceEmotion, FaceFeatures, Utterance

FACS = 99
"""Length of the arrays of ``FacialActionUnits``: index = FACS number."""

NOT_MEASURED = math.nan
"""Valence and arousal: our networks have classes, no dimensions."""

VOICES = "/humans/voices"
UNKNOWN_VOICE = "voice_unknown"
OWN_VOICES = f"{VOICES}/voice_"
"""How the topics of all voices begin that :func:`voice_id` names."""


class Region(NamedTuple):
    """Box of a face in parts of the image, each in [0, 1]."""

    xmin: float
    ymin: float
    xmax: float
    ymax: float


class Facs(NamedTuple):
    """``intensity`` and ``confidence``, float32 [99], indexed by FACS number."""

    intensity: NDArray[np.float32]
    confidence: NDArray[np.float32]


class Expression(NamedTuple):
    """The strongest expression (REP-155 name) and its probability; without one: empty and 0."""

    expression: str
    confidence: float


def face_id(track_id: int) -> str:
    """The id of a face as REP-155 uses it in topic names, where no part may begin with a digit."""
    return f"face_{track_id}"


def voice_id(track_id: int) -> str:
    """The id of the voice of a face; one id for everybody whose face is not known (track 0)."""
    return f"voice_{track_id}" if track_id else UNKNOWN_VOICE


def voice_of(topic: str) -> str:
    """The id in ``/humans/voices/<id>/...``; empty for another topic, and for a voice that is nobody's."""
    parts = topic.split("/")
    voice = parts[3] if topic.startswith(f"{VOICES}/") and len(parts) > 4 else ""
    return "" if voice == UNKNOWN_VOICE else voice


def heard(speech: Any, topic: str) -> Utterance | None:
    """An utterance of a ``LiveSpeech`` on ``topic``; None while it is not final.

    The message has one time only: the utterance begins and ends with it. ``locale`` (en_GB) is how Humble and later
    name the language; ``language`` stands beside it in some releases. Raises ``ValueError`` without a stamp.
    """
    text = speech.final.strip()
    if not text:
        return None
    stamp_ns = from_msg.stamp_ns(speech.header.stamp)
    if stamp_ns <= 0:
        raise ValueError(
            f"{topic}: expected header.stamp, the time of what was said, got 0: fill it in where the LiveSpeech is published"
        )
    locale = getattr(speech, "locale", "") or getattr(speech, "language", "")
    confidence = float(speech.confidence)
    return Utterance(
        id=f"u{stamp_ns}_{topic.strip('/').replace('/', '_')}",
        start_ns=stamp_ns,
        end_ns=stamp_ns,
        text=text,
        speaker=voice_of(topic),
        language=locale.replace("-", "_").partition("_")[0].lower(),
        confidence=0.0 if math.isnan(confidence) else _clip(confidence),
        frame_id=speech.header.frame_id,
    )


def region(face: FaceFeatures, size_wh: tuple[int, int]) -> Region:
    """The part of the box that lies in the image; ``size_wh`` in pixels. A face outside has an empty region at the edge."""
    x, y, width, height = (float(value) for value in face.track.box_xywh)
    image_width, image_height = size_wh
    return Region(
        _clip(x / image_width), _clip(y / image_height),
        _clip((x + width) / image_width), _clip((y + height) / image_height),
    )  # fmt: skip


def facs(units: FaceActionUnits, confidence: float) -> Facs:
    """All action units, each with the face's ``confidence`` where it was measured.

    The array has no sides: an action unit of one side counts as much as that side shows (the stronger of the two), so
    that a smile of one corner is not halved.
    """
    intensities, confidences = np.zeros(FACS, np.float32), np.zeros(FACS, np.float32)
    for au, intensity in zip(units.au, units.intensity, strict=True):
        if 0 <= au < FACS:
            intensities[au] = max(intensities[au], float(intensity))
            confidences[au] = confidence
    return Facs(intensities, confidences)


def expression(emotion: FaceEmotion) -> Expression:
    """The strongest expression of a face, unless REP-155 has no name for it (contempt)."""
    best = int(np.argmax(emotion.probabilities)) if emotion.labels else 0
    if not emotion.labels or emotion.labels[best] not in REP155_EXPRESSIONS:
        return Expression("", 0.0)
    return Expression(emotion.labels[best], float(emotion.probabilities[best]))


def _clip(part: float) -> float:
    return min(1.0, max(0.0, part))
