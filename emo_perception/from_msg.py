"""Results out of messages, whoever made them: rclpy on a topic, or rosbags out of a file. ROS-free: only fields are read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emo_perception import types as t
from emo_perception.types import NS_PER_S


def stamp_ns(time: Any) -> int:
    """Integer nanoseconds of a ``builtin_interfaces/Time``, exactly."""
    return int(time.sec) * NS_PER_S + int(time.nanosec)


def audio(message: Any) -> t.AudioChunk:
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


def track(message: Any) -> t.FaceTrack:
    """One face; ``landmarks`` is None where the message has none."""
    points = np.frombuffer(message.landmarks, np.float32).reshape(-1, 3) if len(message.landmarks) else None
    return t.FaceTrack(
        track_id=message.track_id,
        confidence=message.confidence,
        first_seen_ns=stamp_ns(message.first_seen),
        box_xywh=np.array((message.x, message.y, message.width, message.height), np.float32),
        points=np.asarray(message.points, np.float32).reshape(5, 2),
        pose_ypr=np.array((message.yaw, message.pitch, message.roll), np.float32),
        landmarks=points,
    )


def action_units(message: Any) -> t.FaceActionUnits:
    """Action units of one face. Raises ``ValueError`` for an unknown side."""
    return t.FaceActionUnits(
        track_id=message.track_id,
        kind=message.kind,
        au=tuple(int(au) for au in message.au),
        side=tuple(t.Side(int(side)) for side in message.side),
        intensity=np.frombuffer(message.intensity, np.float32),
        calibrated=message.calibrated,
    )


def emotion(message: Any) -> t.FaceEmotion:
    """Expression of one face."""
    return t.FaceEmotion(
        track_id=message.track_id,
        vocabulary=message.vocabulary,
        labels=tuple(message.labels),
        probabilities=np.frombuffer(message.probabilities, np.float32),
    )


def tensors(messages: Iterable[Any]) -> dict[str, NDArray[Any]]:
    """Named arrays, views onto the messages. Raises ``ValueError`` where bytes and shape do not agree."""
    found = {}
    for message in messages:
        dtype, shape = np.dtype(message.dtype).newbyteorder("<"), tuple(int(n) for n in message.shape)
        expected = int(np.prod(shape)) * dtype.itemsize
        if len(message.data) != expected:
            raise ValueError(
                f"tensor {message.name} {message.dtype} {list(shape)}: expected {expected} bytes, got {len(message.data)}"
            )
        found[message.name] = np.frombuffer(message.data, dtype).reshape(shape)
    return found


def features(message: Any) -> t.EmotionFeatures:
    """The features of one frame. Raises ``ValueError`` for an unknown side or a tensor that does not fit its shape."""
    faces = tuple(
        t.FaceFeatures(track(f.track), action_units(f.action_units), emotion(f.emotion), tensors(f.embeddings))
        for f in message.faces
    )
    return t.EmotionFeatures(
        stamp_ns=stamp_ns(message.header.stamp),
        frame_id=message.header.frame_id,
        size_wh=(message.image_width, message.image_height),
        faces=faces,
        expired=tuple(int(i) for i in message.expired),
    )


def visual_context(message: Any) -> t.VisualContext:
    """Visual tokens. Raises ``ValueError`` for a tensor that does not fit its shape."""
    return t.VisualContext(
        stamp_ns=stamp_ns(message.header.stamp),
        frame_id=message.header.frame_id,
        window_start_ns=stamp_ns(message.window_start),
        window_end_ns=stamp_ns(message.window_end),
        model=message.model,
        tensors=tensors(message.tensors),
        utterance_id=message.utterance_id,
    )


def evidence(message: Any) -> t.WordEvidence:
    """The proof of one phrase."""
    return t.WordEvidence(
        start=message.start, end=message.end, track_id=message.track_id, au=message.au, side=t.Side(message.side),
        emotion=message.emotion, intensity=message.intensity, similarity=message.similarity,
        frames_ns=tuple(stamp_ns(frame) for frame in message.frames),
    )  # fmt: skip


def caption(message: Any) -> t.Caption:
    """A caption or abstention."""
    return t.Caption(
        stamp_ns=stamp_ns(message.header.stamp),
        frame_id=message.header.frame_id,
        window_start_ns=stamp_ns(message.window_start),
        window_end_ns=stamp_ns(message.window_end),
        text=message.text,
        track_ids=tuple(int(i) for i in message.track_ids),
        emotion=message.emotion,
        confidence=message.confidence,
        evidence=tuple(evidence(e) for e in message.evidence),
        model=message.model,
        grounded=message.grounded,
        abstained=message.abstained,
        abstain_reason=message.abstain_reason,
    )


def word(message: Any) -> t.Word:
    """One word of an utterance."""
    return t.Word(message.text, stamp_ns(message.start), stamp_ns(message.end), message.confidence)


def utterance(message: Any) -> t.Utterance:
    """What somebody said."""
    return t.Utterance(
        id=message.id,
        start_ns=stamp_ns(message.start),
        end_ns=stamp_ns(message.end),
        text=message.text,
        speaker=message.speaker,
        track_id=message.track_id,
        language=message.language,
        confidence=message.confidence,
        words=tuple(word(w) for w in message.words),
        frame_id=message.header.frame_id,
    )


def cause_evidence(message: Any) -> t.CauseEvidence:
    """One item that supports an explanation."""
    return t.CauseEvidence(
        kind=message.kind, text=message.text, utterance_id=message.utterance_id, track_id=message.track_id,
        au=message.au, score=message.score, start_ns=stamp_ns(message.start), end_ns=stamp_ns(message.end),
    )  # fmt: skip


def cause(message: Any) -> t.Cause:
    """An explanation or abstention."""
    return t.Cause(
        stamp_ns=stamp_ns(message.header.stamp),
        frame_id=message.header.frame_id,
        text=message.text,
        emotion=message.emotion,
        track_id=message.track_id,
        speaker=message.speaker,
        target_utterance=message.target_utterance,
        evidence_utterances=tuple(message.evidence_utterances),
        evidence=tuple(cause_evidence(e) for e in message.evidence),
        confidence=message.confidence,
        model=message.model,
        grounded=message.grounded,
        abstained=message.abstained,
        abstain_reason=message.abstain_reason,
    )
