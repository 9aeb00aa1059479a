"""Action units of each face from the blendshapes of its mesh, relative to the face's own neutral state.

Faces differ at rest: one person's brows lie lower than another's frown. What counts is the movement away from the
person's neutral face, so each track learns its own. Which frames are neutral is what the expression network says;
without that, a person who is angry from the first frame on would be taken as the norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emo_models import blendshapes
from emo_models.engines.select import open_card
from emo_models.labels import NEUTRAL
from emo_perception.config import ActionUnitConfig
from emo_perception.stages.smoothing import TrackSmoother
from emo_perception.types import NS_PER_S, ActionUnits, Emotions, FaceActionUnits, Faces, Frame, Side

if TYPE_CHECKING:
    from emo_perception.stages.learned_action_units import LearnedActionUnitStage

Float = NDArray[np.float32]

KIND = "blendshape"
SIDES = (Side.BOTH,) * len(blendshapes.ACTION_UNITS)

SURELY_NEUTRAL = 0.7
"""From this neutral probability on a frame counts fully towards the baseline ..."""
MAYBE_NEUTRAL = 0.35
"""... below this not at all."""
PRIOR_S = 0.25
"""The population's neutral face weighs as much as this many seconds of the person's own."""

_NEUTRAL = np.array([s.neutral for s in blendshapes.SOURCES], np.float32)
_SPREAD = np.array([s.spread for s in blendshapes.SOURCES], np.float32)
_FULL = np.array([s.full for s in blendshapes.SOURCES], np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class FacesWithEmotions:
    """Faces, the very image they were found in, and the expression of each."""

    frame: Frame
    faces: Faces
    emotions: Emotions


class Baseline:
    """A track's neutral face: the population's at first, the person's own as neutral seconds come in.

    Mean and standard error of a normal prior (mean and spread over people) updated by the neutral frames. What is
    within one standard error of neutral is not called a movement: unknown faces are judged more cautiously.
    """

    def __init__(self) -> None:
        self.neutral_s = 0.0
        self._sum = np.zeros_like(_NEUTRAL)

    def learn(self, raw: Float, weight_s: float) -> None:
        """A frame of raw values [A] that was neutral for ``weight_s`` seconds."""
        self.neutral_s += weight_s
        self._sum += raw * np.float32(weight_s)

    def intensity(self, raw: Float) -> Float:
        """Raw values [A] -> intensity [A] in [0, 1]: 0 at the neutral face, 1 at the strongest expression known."""
        known_s = PRIOR_S + self.neutral_s
        neutral = (_NEUTRAL * PRIOR_S + self._sum) / known_s
        floor = neutral + _SPREAD * np.sqrt(PRIOR_S / known_s)
        # A face that rests high has less way to go, but never less than half of what is usual.
        span = np.maximum(_FULL - floor, (_FULL - _NEUTRAL) / 2)
        return np.asarray(np.clip((raw - floor) / span, 0, 1), np.float32)


class ActionUnitStage:
    """Meshes and expressions -> action units under their FACS numbers."""

    name = "action_unit"

    def __init__(self, config: ActionUnitConfig) -> None:
        self.config = config
        self.selection = open_card("face_blendshapes", threads=config.threads)
        self.engine = self.selection.engine
        self._smooth = TrackSmoother()
        self._baselines: dict[int, Baseline] = {}
        self._seen_ns: dict[int, int] = {}

    def warmup(self) -> None:
        self.engine.warmup()

    def __call__(self, item: FacesWithEmotions) -> ActionUnits:
        self._forget(item.faces.expired)
        stamp_ns = item.faces.stamp_ns
        neutral = {e.track_id: float(e.probabilities[e.labels.index(NEUTRAL)]) for e in item.emotions.faces}
        found = []
        for face in item.faces.faces:
            if face.landmarks is None:
                raise ValueError(f"{self.name}: track {face.track_id} has no mesh; expected landmarks [478, 3]")
            raw = self.raw(face.landmarks)
            baseline = self._learned(face.track_id, stamp_ns, raw, neutral.get(face.track_id, 0.0))
            intensity = self._smooth(face.track_id, stamp_ns, baseline.intensity(raw), self.config.smoothing_s)
            calibrated = baseline.neutral_s >= self.config.baseline_s
            found.append(FaceActionUnits(face.track_id, KIND, blendshapes.ACTION_UNITS, SIDES, intensity, calibrated))
        return ActionUnits(stamp_ns, item.faces.frame_id, tuple(found))

    def reset(self) -> None:
        self._smooth.clear()
        self._baselines.clear()
        self._seen_ns.clear()

    def close(self) -> None:
        self.engine.close()

    def raw(self, landmarks: Float) -> Float:
        """Mesh [478, 3] -> values [A] before calibration, in the order of ``blendshapes.SOURCES``."""
        points = np.ascontiguousarray(landmarks[blendshapes.MESH_POINTS, :2])[None]
        coefficients = self.engine({"points": points})["coefficients"].reshape(-1)
        return blendshapes.raw_action_units(coefficients)

    def _learned(self, track_id: int, stamp_ns: int, raw: Float, neutral: float) -> Baseline:
        """The track's baseline after this frame."""
        baseline = self._baselines.setdefault(track_id, Baseline())
        passed_s = (stamp_ns - self._seen_ns.get(track_id, stamp_ns)) / NS_PER_S
        self._seen_ns[track_id] = stamp_ns
        share = (neutral - MAYBE_NEUTRAL) / (SURELY_NEUTRAL - MAYBE_NEUTRAL)
        baseline.learn(raw, min(max(share, 0.0), 1.0) * min(passed_s, 0.2))
        return baseline

    def _forget(self, track_ids: tuple[int, ...]) -> None:
        self._smooth.forget(track_ids)
        for track_id in track_ids:
            self._baselines.pop(track_id, None)
            self._seen_ns.pop(track_id, None)


def make_action_unit_stage(config: ActionUnitConfig) -> ActionUnitStage | LearnedActionUnitStage:
    """The stage of the configured network. Raises as its engine."""
    if config.network == "blendshapes":
        return ActionUnitStage(config)
    from emo_perception.stages.learned_action_units import LearnedActionUnitStage

    return LearnedActionUnitStage(config)
