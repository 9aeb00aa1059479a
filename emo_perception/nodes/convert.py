"""The dataclasses of ``emo_perception.types`` as messages of ``emo_msgs``, exactly; ``emo_perception.from_msg`` is the way back.

Sequences travel as ``array.array``: rclpy keeps those as they are, while an ndarray is checked element by element.
Sub-messages are shared between the messages of one frame; whoever publishes does not change them afterwards.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from std_msgs.msg import Header

from emo_msgs import msg as m
from emo_perception import types as t
from emo_perception.types import NS_PER_S


def time_msg(stamp_ns: int) -> Time:
    """ROS time of integer nanoseconds, exactly."""
    sec, nanosec = divmod(stamp_ns, NS_PER_S)
    return Time(sec=sec, nanosec=nanosec)


def header(stamp: int, frame_id: str) -> Header:
    """Header of a stamp in nanoseconds."""
    return Header(stamp=time_msg(stamp), frame_id=frame_id)


def _floats(values: NDArray[Any]) -> array[float]:
    return array("f", np.ascontiguousarray(values, np.float32).tobytes())


# Frames and sound


def audio_msg(chunk: t.AudioChunk) -> m.AudioChunk:
    """Message of a chunk of mono sound."""
    message = m.AudioChunk(header=header(chunk.stamp_ns, chunk.frame_id), sample_rate=chunk.sample_rate_hz, channels=1)
    message.data = array("h", np.ascontiguousarray(chunk.samples, np.int16).tobytes())
    return message


# Faces, action units, emotions


def track_msg(track: t.FaceTrack, *, landmarks: bool = False) -> m.FaceTrack:
    """Message of one face; the mesh points only on request."""
    x, y, width, height = track.box_xywh.tolist()
    yaw, pitch, roll = track.pose_ypr.tolist()
    message = m.FaceTrack(
        track_id=track.track_id, confidence=float(track.confidence), first_seen=time_msg(track.first_seen_ns),
        x=x, y=y, width=width, height=height, yaw=yaw, pitch=pitch, roll=roll,
        points=np.ascontiguousarray(track.points, np.float32).reshape(10),
    )  # fmt: skip
    if landmarks and track.landmarks is not None:
        message.landmarks = _floats(track.landmarks)
    return message


def action_units_msg(face: t.FaceActionUnits) -> m.FaceActionUnits:
    """Message of the action units of one face."""
    message = m.FaceActionUnits(track_id=face.track_id, kind=face.kind, calibrated=face.calibrated)
    message.au = array("B", face.au)
    message.side = array("B", face.side)
    message.intensity = _floats(face.intensity)
    return message


def emotion_msg(face: t.FaceEmotion) -> m.FaceEmotion:
    """Message of the expression of one face."""
    message = m.FaceEmotion(track_id=face.track_id, vocabulary=face.vocabulary, labels=list(face.labels))
    message.probabilities = _floats(face.probabilities)
    return message


def tensor_msgs(tensors: Mapping[str, NDArray[Any]]) -> list[m.Tensor]:
    """Named arrays as messages: C order, little endian."""
    messages = []
    for name, values in tensors.items():
        little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        message = m.Tensor(name=name, dtype=values.dtype.name)
        message.shape = array("I", little.shape)
        message.data = array("B", little.tobytes())
        messages.append(message)
    return messages


class FrameMessages(NamedTuple):
    """The four messages of one frame."""

    faces: m.Faces
    action_units: m.ActionUnits
    emotions: m.Emotions
    features: m.EmotionFeatures


def frame_msgs(features: t.EmotionFeatures, *, landmarks: bool = False) -> FrameMessages:
    """All messages of one frame, made at once because they share their parts."""
    head = header(features.stamp_ns, features.frame_id)
    width, height = features.size_wh
    expired = array("I", features.expired)
    tracks = [track_msg(face.track, landmarks=landmarks) for face in features.faces]
    units = [action_units_msg(face.action_units) for face in features.faces]
    emotions = [emotion_msg(face.emotion) for face in features.faces]
    joined = [
        m.FaceFeatures(track=track, action_units=unit, emotion=emotion, embeddings=tensor_msgs(face.embeddings))
        for face, track, unit, emotion in zip(features.faces, tracks, units, emotions, strict=True)
    ]
    return FrameMessages(
        m.Faces(header=head, image_width=width, image_height=height, faces=tracks, expired=expired),
        m.ActionUnits(header=head, faces=units),
        m.Emotions(header=head, faces=emotions),
        m.EmotionFeatures(header=head, image_width=width, image_height=height, faces=joined, expired=expired),
    )


def visual_context_msg(context: t.VisualContext) -> m.VisualContext:
    """Message of visual tokens."""
    return m.VisualContext(
        header=header(context.stamp_ns, context.frame_id),
        window_start=time_msg(context.window_start_ns),
        window_end=time_msg(context.window_end_ns),
        utterance_id=context.utterance_id,
        model=context.model,
        tensors=tensor_msgs(context.tensors),
    )


# Captions


def evidence_msg(evidence: t.WordEvidence) -> m.WordEvidence:
    """Message of the proof of one phrase."""
    return m.WordEvidence(
        start=evidence.start, end=evidence.end, track_id=evidence.track_id, au=evidence.au, side=int(evidence.side),
        emotion=evidence.emotion, intensity=float(evidence.intensity), similarity=float(evidence.similarity),
        frames=[time_msg(stamp) for stamp in evidence.frames_ns],
    )  # fmt: skip


def caption_msg(caption: t.Caption) -> m.EmotionCaption:
    """Message of a caption or abstention."""
    message = m.EmotionCaption(
        header=header(caption.stamp_ns, caption.frame_id),
        text=caption.text,
        window_start=time_msg(caption.window_start_ns),
        window_end=time_msg(caption.window_end_ns),
        emotion=caption.emotion,
        confidence=float(caption.confidence),
        evidence=[evidence_msg(evidence) for evidence in caption.evidence],
        model=caption.model,
        grounded=caption.grounded,
        abstained=caption.abstained,
        abstain_reason=caption.abstain_reason,
    )
    message.track_ids = array("I", caption.track_ids)
    return message


# Speech


def word_msg(word: t.Word) -> m.Word:
    """Message of one word."""
    return m.Word(
        text=word.text, start=time_msg(word.start_ns), end=time_msg(word.end_ns), confidence=float(word.confidence)
    )


def utterance_msg(utterance: t.Utterance) -> m.Utterance:
    """Message of what somebody said."""
    return m.Utterance(
        header=header(utterance.stamp_ns, utterance.frame_id),
        id=utterance.id,
        speaker=utterance.speaker,
        track_id=utterance.track_id,
        start=time_msg(utterance.start_ns),
        end=time_msg(utterance.end_ns),
        text=utterance.text,
        language=utterance.language,
        confidence=float(utterance.confidence),
        words=[word_msg(word) for word in utterance.words],
    )


# Causes


def cause_evidence_msg(evidence: t.CauseEvidence) -> m.CauseEvidence:
    """Message of one item that supports an explanation."""
    return m.CauseEvidence(
        kind=evidence.kind, text=evidence.text, utterance_id=evidence.utterance_id, track_id=evidence.track_id,
        au=evidence.au, score=float(evidence.score), start=time_msg(evidence.start_ns), end=time_msg(evidence.end_ns),
    )  # fmt: skip


def cause_msg(cause: t.Cause) -> m.EmotionCause:
    """Message of an explanation or abstention."""
    return m.EmotionCause(
        header=header(cause.stamp_ns, cause.frame_id),
        text=cause.text,
        emotion=cause.emotion,
        track_id=cause.track_id,
        speaker=cause.speaker,
        target_utterance=cause.target_utterance,
        evidence_utterances=list(cause.evidence_utterances),
        evidence=[cause_evidence_msg(evidence) for evidence in cause.evidence],
        confidence=float(cause.confidence),
        model=cause.model,
        grounded=cause.grounded,
        abstained=cause.abstained,
        abstain_reason=cause.abstain_reason,
    )
