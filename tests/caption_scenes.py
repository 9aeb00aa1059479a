"""Synthetic streams of features for the tests of captions: faces, scenes, and what every caption must hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from emo_models.labels import rep155_labels
from emo_perception.config import CaptionConfig
from emo_perception.stages.caption import CaptionStage, lexicon
from emo_perception.types import (
    NS_PER_S,
    Caption,
    EmotionFeatures,
    FaceActionUnits,
    FaceEmotion,
    FaceFeatures,
    FaceTrack,
    Side,
)

FPS = 30
LABELS = rep155_labels("fer7")
Units = Mapping[int | tuple[int, Side], float]
Scene = Callable[[float], Iterable[FaceFeatures]]


def face(
    units: Units,
    emotion: Mapping[str, float],
    *,
    track: int = 1,
    x: float = 300.0,
    size: float = 100.0,
    since: float = 0.0,
) -> FaceFeatures:
    """One face at ``x`` px of a 640x480 picture; what the emotions leave of 1 is neutral."""
    keys = [(key, Side.BOTH) if isinstance(key, int) else key for key in units]
    rest = 1 - sum(emotion.values())
    shares = {**emotion, "neutral": emotion.get("neutral", 0.0) + rest}
    probabilities = np.array([shares.get(label, 0.0) for label in LABELS], np.float32)
    box = np.array([x, 150, size, size], np.float32)
    return FaceFeatures(
        FaceTrack(track, 1.0, ns(since), box, np.zeros((5, 2), np.float32), np.zeros(3, np.float32)),
        FaceActionUnits(
            track, "test", tuple(k[0] for k in keys), tuple(k[1] for k in keys), np.array([*units.values()], np.float32)
        ),
        FaceEmotion(track, "fer7", LABELS, probabilities),
    )


def ns(seconds: float) -> int:
    """Stamps start at 10 s: zero is no special time."""
    return round((10 + seconds) * NS_PER_S)


def frames(scene: Scene, start: float, end: float, fps: float = FPS) -> Iterable[EmotionFeatures]:
    seen: set[int] = set()
    for i in range(round(start * fps), round(end * fps)):
        faces = tuple(scene(i / fps))
        now = {f.track.track_id for f in faces}
        yield EmotionFeatures(ns(i / fps), "camera", (640, 480), faces, tuple(sorted(seen - now)))
        seen = now


def captions(scene: Scene, seconds: float, stage: CaptionStage | None = None, **values: float) -> list[Caption]:
    """All that the stage returns for a scene, with the flush at its end."""
    stage = stage or CaptionStage(CaptionConfig.of(values))
    said = [caption for item in frames(scene, 0, seconds) if (caption := stage(item))]
    last = stage.flush()
    return said + ([last] if last else [])


def texts(said: Iterable[Caption]) -> list[str]:
    return [c.text for c in said if not c.abstained]


def smiling(t: float) -> list[FaceFeatures]:
    return [face({12: 0.6}, {"happy": 0.9})]


def neutral(t: float) -> list[FaceFeatures]:
    return [face({12: 0.02, 4: 0.05}, {})]


def speaking(t: float) -> float:
    return 0.35 + 0.3 * float(np.sin(2 * np.pi * 2.5 * t))


def check_evidence(caption: Caption, threshold: float = 0.25) -> None:
    """Every claim is proven, every span is a phrase, stamps lie in the window, the peak first."""
    assert caption.grounded
    for _, _, proofs in lexicon.claims(caption.text):
        assert any(needed <= {e.au for e in caption.evidence} for needed in proofs)
    spans = {(s, e) for s, e, _ in lexicon.claims(caption.text)}
    for evidence in caption.evidence:
        assert caption.text[evidence.start : evidence.end].strip()
        assert evidence.track_id in caption.track_ids
        assert 0 < len(evidence.frames_ns) <= 5
        if evidence.au:
            assert (evidence.start, evidence.end) in spans
            assert evidence.intensity >= threshold
        if evidence.emotion:
            assert caption.text[evidence.start : evidence.end] == lexicon.emotion_word(evidence.emotion)
        if evidence.au or evidence.emotion:
            assert all(caption.window_start_ns <= f <= caption.window_end_ns for f in evidence.frames_ns)
