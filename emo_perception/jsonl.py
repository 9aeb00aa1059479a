"""One line of JSON per result: the fields of the messages, stamps as integer nanoseconds, tensors as shape and hash.

The offline run and the recorder write the same lines, so that two runs can be compared byte by byte.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emo_perception import types as t

Json = dict[str, Any]
DECIMALS = 6


def line(item: object) -> str:
    """``to_json(item)`` as one line with its newline; equal items give equal lines."""
    return json.dumps(to_json(item), ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"


@singledispatch
def to_json(item: object) -> Json:
    """The fields of a result as plain JSON values; NaN becomes null. Raises ``TypeError`` for what is no result."""
    raise TypeError(
        f"no JSON form for {type(item).__name__}; known: Faces, ActionUnits, Emotions, EmotionFeatures, "
        "VisualContext, Caption, Utterance, Cause"
    )


@to_json.register
def _(item: t.Faces) -> Json:
    return _head(item) | _size(item) | {"faces": [_track(face) for face in item.faces], "expired": list(item.expired)}


@to_json.register
def _(item: t.ActionUnits) -> Json:
    return _head(item) | {"faces": [_action_units(face) for face in item.faces]}


@to_json.register
def _(item: t.Emotions) -> Json:
    return _head(item) | {"faces": [_emotion(face) for face in item.faces]}


@to_json.register
def _(item: t.EmotionFeatures) -> Json:
    faces = [
        {
            "track": _track(face.track),
            "action_units": _action_units(face.action_units),
            "emotion": _emotion(face.emotion),
            "embeddings": _tensors(face.embeddings),
        }
        for face in item.faces
    ]
    return _head(item) | _size(item) | {"faces": faces, "expired": list(item.expired)}


@to_json.register
def _(item: t.VisualContext) -> Json:
    return _head(item) | {
        "window_start_ns": item.window_start_ns,
        "window_end_ns": item.window_end_ns,
        "utterance_id": item.utterance_id,
        "model": item.model,
        "tensors": _tensors(item.tensors),
    }


@to_json.register
def _(item: t.Caption) -> Json:
    return _head(item) | {
        "text": item.text,
        "window_start_ns": item.window_start_ns,
        "window_end_ns": item.window_end_ns,
        "track_ids": list(item.track_ids),
        "emotion": item.emotion,
        "confidence": _number(item.confidence),
        "evidence": [_evidence(evidence) for evidence in item.evidence],
        "model": item.model,
        "grounded": item.grounded,
        "abstained": item.abstained,
        "abstain_reason": item.abstain_reason,
    }


@to_json.register
def _(item: t.Utterance) -> Json:
    return _head(item) | {
        "id": item.id,
        "speaker": item.speaker,
        "track_id": item.track_id,
        "start_ns": item.start_ns,
        "end_ns": item.end_ns,
        "text": item.text,
        "language": item.language,
        "confidence": _number(item.confidence),
        "words": [dataclasses.asdict(word) | {"confidence": _number(word.confidence)} for word in item.words],
    }


@to_json.register
def _(item: t.Cause) -> Json:
    evidence = [dataclasses.asdict(one) | {"score": _number(one.score)} for one in item.evidence]
    return dataclasses.asdict(item) | {"confidence": _number(item.confidence), "evidence": evidence}


def tensor_json(values: NDArray[Any]) -> Json:
    """Type, shape and SHA-256 of an array's bytes (C order, little endian)."""
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return {
        "dtype": values.dtype.name,
        "shape": list(values.shape),
        "sha256": hashlib.sha256(little.tobytes()).hexdigest(),
    }


def _tensors(tensors: Mapping[str, NDArray[Any]]) -> list[Json]:
    return [{"name": name} | tensor_json(values) for name, values in tensors.items()]


def _head(
    item: t.Faces | t.ActionUnits | t.Emotions | t.EmotionFeatures | t.VisualContext | t.Caption | t.Utterance,
) -> Json:
    return {"stamp_ns": item.stamp_ns, "frame_id": item.frame_id}


def _size(item: t.Faces | t.EmotionFeatures) -> Json:
    return {"image_width": item.size_wh[0], "image_height": item.size_wh[1]}


def _number(value: float) -> float | None:
    return round(float(value), DECIMALS) if math.isfinite(value) else None


def _numbers(values: NDArray[np.float32]) -> list[float | None]:
    return [_number(value) for value in values.ravel().tolist()]


def _track(face: t.FaceTrack) -> Json:
    box = dict(zip(("x", "y", "width", "height"), _numbers(face.box_xywh), strict=True))
    pose = dict(zip(("yaw", "pitch", "roll"), _numbers(face.pose_ypr), strict=True))
    return {
        "track_id": face.track_id,
        "confidence": _number(face.confidence),
        "first_seen_ns": face.first_seen_ns,
        **box,
        "points": _numbers(face.points),
        **pose,
        "landmarks": None if face.landmarks is None else tensor_json(face.landmarks),
    }


def _action_units(face: t.FaceActionUnits) -> Json:
    return {
        "track_id": face.track_id,
        "kind": face.kind,
        "au": list(face.au),
        "side": [int(side) for side in face.side],
        "intensity": _numbers(face.intensity),
        "calibrated": face.calibrated,
    }


def _emotion(face: t.FaceEmotion) -> Json:
    return {
        "track_id": face.track_id,
        "vocabulary": face.vocabulary,
        "labels": list(face.labels),
        "probabilities": _numbers(face.probabilities),
    }


def _evidence(evidence: t.WordEvidence) -> Json:
    return {
        "start": evidence.start,
        "end": evidence.end,
        "track_id": evidence.track_id,
        "au": evidence.au,
        "side": int(evidence.side),
        "emotion": evidence.emotion,
        "intensity": _number(evidence.intensity),
        "similarity": _number(evidence.similarity),
        "frames_ns": list(evidence.frames_ns),
    }
