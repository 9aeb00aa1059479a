"""Between the dataclasses of ``emo_perception.types`` and the messages of ``emo_msgs``, both ways, exactly.

Sequences travel as ``array.array``: rclpy keeps those as they are, while an ndarray is checked element by element.
Sub-messages are shared between the messages of one frame; whoever publishes does not change them afterwards.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from std_msgs.msg import Header

from emo_msgs import msg as m
from emo_perception import types as t
from emo_perception.nodes.images import BadImage, image_from_msg
from emo_perception.types import NS_PER_S

__all__ = ["BadImage", "image_from_msg"]


def time_msg(stamp_ns: int) -> Time:
    """ROS time of integer nanoseconds, exactly."""
    sec, nanosec = divmod(stamp_ns, NS_PER_S)
    return Time(sec=sec, nanosec=nanosec)


def stamp_ns(time: Time) -> int:
    """Integer nanoseconds of a ROS time, exactly."""
    return int(time.sec) * NS_PER_S + int(time.nanosec)


def header(stamp: int, frame_id: str) -> Header:
    """Header of a stamp in nanoseconds."""
    return Header(stamp=time_msg(stamp), frame_id=frame_id)


def _floats(values: NDArray[Any]) -> array[float]:
    return array("f", np.ascontiguousarray(values, np.float32).tobytes())


def _array_f32(values: Iterable[float]) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)


# Frames and sound


def frame_from_msg(message: Any) -> t.Frame:
    """A frame out of an Image or CompressedImage. Raises :class:`BadImage`."""
    return t.Frame(stamp_ns(message.header.stamp), image_from_msg(message), message.header.frame_id)


def audio_msg(chunk: t.AudioChunk) -> m.AudioChunk:
    """Message of a chunk of mono sound."""
    message = m.AudioChunk(header=header(chunk.stamp_ns, chunk.frame_id), sample_rate=chunk.sample_rate_hz, channels=1)
    message.data = array("h", np.ascontiguousarray(chunk.samples, np.int16).tobytes())
    return message


def audio_from_msg(message: m.AudioChunk) -> t.AudioChunk:
    """A chunk of sound; several channels are averaged to mono. Raises ``ValueError`` for a rate or size that cannot be."""
    channels, count = message.channels, len(message.data)
    if message.sample_rate < 1 or channels < 1 or count % channels:
        raise ValueError(
            "audio: expected a sample rate > 0, channels > 0 and whole samples of all channels; "
            f"got {message.sample_rate} Hz, {channels} channels, {count} values"
        )
    samples = np.frombuffer(message.data, np.int16)
    if channels > 1:
        samples = samples.reshape(-1, channels).mean(axis=1).astype(np.int16)
    return t.AudioChunk(stamp_ns(message.header.stamp), samples, message.sample_rate, message.header.frame_id)


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


def track_from_msg(message: m.FaceTrack) -> t.FaceTrack:
    """One face; ``landmarks`` is None where the message has none."""
    points = np.frombuffer(message.landmarks, np.float32).reshape(-1, 3) if message.landmarks else None
    return t.FaceTrack(
        track_id=message.track_id,
        confidence=message.confidence,
        first_seen_ns=stamp_ns(message.first_seen),
        box_xywh=_array_f32((message.x, message.y, message.width, message.height)),
        points=_array_f32(message.points).reshape(5, 2),
        pose_ypr=_array_f32((message.yaw, message.pitch, message.roll)),
        landmarks=points,
    )


def action_units_msg(face: t.FaceActionUnits) -> m.FaceActionUnits:
    """Message of the action units of one face."""
    message = m.FaceActionUnits(track_id=face.track_id, kind=face.kind, calibrated=face.calibrated)
    message.au = array("B", face.au)
    message.side = array("B", face.side)
    message.intensity = _floats(face.intensity)
    return message


def action_units_from_msg(message: m.FaceActionUnits) -> t.FaceActionUnits:
    """Action units of one face."""
    return t.FaceActionUnits(
        track_id=message.track_id,
        kind=message.kind,
        au=tuple(message.au),
        side=tuple(t.Side(side) for side in message.side),
        intensity=np.frombuffer(message.intensity, np.float32),
        calibrated=message.calibrated,
    )


def emotion_msg(face: t.FaceEmotion) -> m.FaceEmotion:
    """Message of the expression of one face."""
    message = m.FaceEmotion(track_id=face.track_id, vocabulary=face.vocabulary, labels=list(face.labels))
    message.probabilities = _floats(face.probabilities)
    return message


def emotion_from_msg(message: m.FaceEmotion) -> t.FaceEmotion:
    """Expression of one face."""
    return t.FaceEmotion(
        track_id=message.track_id,
        vocabulary=message.vocabulary,
        labels=tuple(message.labels),
        probabilities=np.frombuffer(message.probabilities, np.float32),
    )


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


def tensors_from_msgs(messages: Iterable[m.Tensor]) -> dict[str, NDArray[Any]]:
    """Named arrays, views onto the messages. Raises ``ValueError`` where bytes and shape do not agree."""
    tensors = {}
    for message in messages:
        dtype, shape = np.dtype(message.dtype).newbyteorder("<"), tuple(message.shape)
        expected = int(np.prod(shape)) * dtype.itemsize
        if len(message.data) != expected:
            raise ValueError(
                f"tensor {message.name} {message.dtype} {list(shape)}: expected {expected} bytes, got {len(message.data)}"
            )
        tensors[message.name] = np.frombuffer(message.data, dtype).reshape(shape)
    return tensors


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


def features_from_msg(message: m.EmotionFeatures) -> t.EmotionFeatures:
    """The features of one frame. Raises ``ValueError`` for an unknown side or a tensor that does not fit its shape."""
    faces = tuple(
        t.FaceFeatures(
            track=track_from_msg(face.track),
            action_units=action_units_from_msg(face.action_units),
            emotion=emotion_from_msg(face.emotion),
            embeddings=tensors_from_msgs(face.embeddings),
        )
        for face in message.faces
    )
    return t.EmotionFeatures(
        stamp_ns=stamp_ns(message.header.stamp),
        frame_id=message.header.frame_id,
        size_wh=(message.image_width, message.image_height),
        faces=faces,
        expired=tuple(message.expired),
    )


# Captions


def evidence_msg(evidence: t.WordEvidence) -> m.WordEvidence:
    """Message of the proof of one phrase."""
    return m.WordEvidence(
        start=evidence.start, end=evidence.end, track_id=evidence.track_id, au=evidence.au, side=int(evidence.side),
        emotion=evidence.emotion, intensity=float(evidence.intensity), similarity=float(evidence.similarity),
        frames=[time_msg(stamp) for stamp in evidence.frames_ns],
    )  # fmt: skip


def evidence_from_msg(message: m.WordEvidence) -> t.WordEvidence:
    """The proof of one phrase."""
    return t.WordEvidence(
        start=message.start, end=message.end, track_id=message.track_id, au=message.au, side=t.Side(message.side),
        emotion=message.emotion, intensity=message.intensity, similarity=message.similarity,
        frames_ns=tuple(stamp_ns(frame) for frame in message.frames),
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


def caption_from_msg(message: m.EmotionCaption) -> t.Caption:
    """A caption or abstention."""
    return t.Caption(
        stamp_ns=stamp_ns(message.header.stamp),
        frame_id=message.header.frame_id,
        window_start_ns=stamp_ns(message.window_start),
        window_end_ns=stamp_ns(message.window_end),
        text=message.text,
        track_ids=tuple(message.track_ids),
        emotion=message.emotion,
        confidence=message.confidence,
        evidence=tuple(evidence_from_msg(evidence) for evidence in message.evidence),
        model=message.model,
        grounded=message.grounded,
        abstained=message.abstained,
        abstain_reason=message.abstain_reason,
    )
