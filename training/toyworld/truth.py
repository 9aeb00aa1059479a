"""What is true of every clip of a toy world, frame by frame: ``truth.jsonl`` beside each of its data sets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.datasets.record import DatasetError
from training.toyworld.units import UNITS, network_scores

FILE: Final = "truth.jsonl"
#: How the cause of an emotion can be known: seen in the scene, seen in another's face, or heard.
CAUSE_KINDS: Final = ("visible", "face", "words")

Float = NDArray[np.float32]


@dataclass(frozen=True)
class PhraseTruth:
    """``text[start:end]`` of a caption names the units ``aus``; ``held_out``: in a wording that training lacks."""

    start: int
    end: int
    aus: tuple[int, ...]
    held_out: bool


@dataclass(frozen=True)
class CaptionTruth:
    """A right caption and its phrases, in order."""

    text: str
    phrases: tuple[PhraseTruth, ...] = ()


@dataclass(frozen=True, eq=False)
class FaceTruth:
    """One person over T frames; the first of a clip is whom it is about.

    ``boxes_xywh`` [T, 4] and ``points`` [T, 5, 2] in pixels of the clip, points ordered as in ``types.FaceTrack``;
    ``activations`` [T, 2, U]: action units ``toyworld.units.UNITS`` on the person's right and left; ``pose`` [T, 3]:
    yaw, pitch, roll in degrees as in ``toyworld.head``; ``visible`` bool [T]: the face is in the image and turned to
    the camera; ``covered``: bool [T], a hand or thing is before it.
    """

    person: str
    name: str
    emotion: str
    boxes_xywh: Float
    points: Float
    activations: Float
    pose: Float
    visible: NDArray[np.bool_]
    covered: NDArray[np.bool_]

    @property
    def scores(self) -> Float:
        """Targets of an AU network: [T, 41], ordered as ``labels.opengraphau_outputs``."""
        return network_scores(self.activations)


@dataclass(frozen=True)
class CauseTruth:
    """Why the target feels as it does. ``kind``: one of :data:`CAUSE_KINDS`; ``utterance``: clip id of the utterance
    in which it happens; ``evidence``: phrases any of which names the cause; ``others``: phrases for what happened besides.
    """

    kind: str
    utterance: str
    evidence: tuple[str, ...]
    others: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class ClipTruth:
    """Everything about a clip. ``thing``: what is held or falls, or empty; ``light``: overall brightness, 1 is normal.

    ``captions``: all right captions (or explanations) of it, of which the data set may hold the first only;
    ``speaking`` [T]: place in ``faces`` of who speaks, -1 for nobody.
    """

    clip_id: str
    split: str
    fps: int
    size_wh: tuple[int, int]
    emotions: tuple[str, ...]
    action: str
    thing: str
    place: str
    light: float
    occlusion: str
    faces: tuple[FaceTruth, ...]
    captions: tuple[CaptionTruth, ...]
    speaking: NDArray[np.int64]
    cause: CauseTruth | None = None

    @property
    def frames(self) -> int:
        """T."""
        return len(self.speaking)


def load_truth(folder: Path) -> dict[str, ClipTruth]:
    """Clip id -> truth of the data set in ``folder``. Raises :class:`DatasetError` when it has none or a broken one."""
    file = folder / FILE
    if not file.is_file():
        raise DatasetError(
            f"{folder}: expected {FILE} of a toy world, there is none; make one: emo toy world --out DIR"
        )
    found = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            clip = _clip(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(
                f"{file}:{number}: expected a clip of a toy world, got {line[:60]!r} ({error!r}); make it again: "
                "emo toy world --out DIR"
            ) from error
        found[clip.clip_id] = clip
    return found


def write_truth(folder: Path, clips: Iterable[ClipTruth]) -> None:
    """Write ``truth.jsonl``, one line a clip."""
    with (folder / FILE).open("w", encoding="utf-8", newline="\n") as file:
        for clip in clips:
            file.write(json.dumps(_plain(clip), ensure_ascii=False, separators=(",", ":")) + "\n")


def _plain(clip: ClipTruth) -> dict[str, Any]:
    return {
        "clip_id": clip.clip_id, "split": clip.split, "fps": clip.fps, "size_wh": list(clip.size_wh),
        "emotions": list(clip.emotions), "action": clip.action, "thing": clip.thing, "place": clip.place,
        "light": round(clip.light, 3), "occlusion": clip.occlusion, "units": list(UNITS),
        "faces": [
            {
                "person": face.person, "name": face.name, "emotion": face.emotion,
                "boxes_xywh": _numbers(face.boxes_xywh, 1), "points": _numbers(face.points, 1),
                "activations": _numbers(face.activations, 2), "pose": _numbers(face.pose, 1),
                "visible": face.visible.astype(int).tolist(), "covered": face.covered.astype(int).tolist(),
            }
            for face in clip.faces
        ],
        "captions": [
            {"text": c.text, "phrases": [[p.start, p.end, list(p.aus), p.held_out] for p in c.phrases]}
            for c in clip.captions
        ],
        "speaking": clip.speaking.tolist(),
        "cause": None if clip.cause is None else {
            "kind": clip.cause.kind, "utterance": clip.cause.utterance, "evidence": list(clip.cause.evidence),
            "others": list(clip.cause.others),
        },
    }  # fmt: skip


def _numbers(values: Float, decimals: int) -> Any:
    return [[round(float(v), decimals) for v in row] for row in values.reshape(len(values), -1)]


def _clip(item: Mapping[str, Any]) -> ClipTruth:
    if item["units"] != list(UNITS):
        raise ValueError(f"made by another version: units {item['units']}, expected {list(UNITS)}")
    cause = item["cause"]
    return ClipTruth(
        clip_id=item["clip_id"], split=item["split"], fps=item["fps"], size_wh=(item["size_wh"][0], item["size_wh"][1]),
        emotions=tuple(item["emotions"]), action=item["action"], thing=item["thing"], place=item["place"],
        light=item["light"], occlusion=item["occlusion"], faces=tuple(map(_face, item["faces"])),
        captions=tuple(
            CaptionTruth(c["text"], tuple(PhraseTruth(p[0], p[1], tuple(p[2]), p[3]) for p in c["phrases"]))
            for c in item["captions"]
        ),
        speaking=np.array(item["speaking"], np.int64),
        cause=None if cause is None else CauseTruth(
            cause["kind"], cause["utterance"], tuple(cause["evidence"]), tuple(cause["others"])
        ),
    )  # fmt: skip


def _face(item: Mapping[str, Any]) -> FaceTruth:
    arrays = {name: np.array(item[name], np.float32) for name in ("boxes_xywh", "points", "activations", "pose")}
    frames = len(item["visible"])
    return FaceTruth(
        item["person"], item["name"], item["emotion"], arrays["boxes_xywh"].reshape(frames, 4),
        arrays["points"].reshape(frames, 5, 2), arrays["activations"].reshape(frames, 2, len(UNITS)),
        arrays["pose"].reshape(frames, 3), np.array(item["visible"], bool), np.array(item["covered"], bool),
    )  # fmt: skip
