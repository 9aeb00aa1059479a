"""Action units of each face by ANFL, the network behind ECPA's AU-level prompts, from the pixels of the face."""

from __future__ import annotations

from typing import Final

import numpy as np

from emo_models.labels import anfl_outputs
from emo_perception.config import ActionUnitConfig
from emo_perception.stages.action_units import FacesWithEmotions
from emo_perception.stages.learned import FaceNetwork
from emo_perception.stages.smoothing import TrackSmoother
from emo_perception.types import ActionUnits, FaceActionUnits, Side

KIND: Final = "anfl"
SIDES: Final = {"": Side.BOTH, "L": Side.LEFT, "R": Side.RIGHT}
#: Names among the embeddings of a face: node features [K, D], scores [K] of the K action units, pooled feature [D].
NODES, SCORES, POOLED = "au_nodes", "au_scores", "au_pooled"


class LearnedActionUnitStage:
    """Faces and their image -> action units under their FACS numbers, and the features behind them.

    A score is a cosine in [0, 1]; from .5 on ANFL counts a unit as active. It is the population's, so ``calibrated`` is
    never set. What the weights are known to be wrong about (AU11, left and right AU12 of the public ones) is not
    reported. The scores are smoothed over time, the embeddings are not.
    """

    name = "action_unit"

    def __init__(self, config: ActionUnitConfig) -> None:
        self.config = config
        self._network = FaceNetwork("anfl", config)
        self.selection = self._network.selection
        architecture = self._network.manifest.config
        outputs = anfl_outputs(str(architecture["aus"]), str(architecture["side_parents"]))
        self._units = sum(not output.side for output in outputs)
        self._reported = np.array([place for place, output in enumerate(outputs) if output.reliable])
        self._au = tuple(output.number for output in outputs if output.reliable)
        self._side = tuple(SIDES[output.side] for output in outputs if output.reliable)
        self._smooth = TrackSmoother()

    def warmup(self) -> None:
        self._network.warmup()

    def __call__(self, item: FacesWithEmotions) -> ActionUnits:
        self._smooth.forget(item.faces.expired)
        stamp_ns, faces = item.faces.stamp_ns, item.faces.faces
        if not faces:
            return ActionUnits(stamp_ns, item.faces.frame_id)
        out = self._network(item.frame.image, [face.points for face in faces])
        found = []
        for row, face in enumerate(faces):
            scores = np.clip(out["scores"][row], 0, 1).astype(np.float32)
            intensity = self._smooth(face.track_id, stamp_ns, scores[self._reported], self.config.smoothing_s)
            embeddings = {
                NODES: out["nodes"][row].astype(np.float32),
                SCORES: out["scores"][row, : self._units].astype(np.float32),
                POOLED: out["pooled"][row].astype(np.float32),
            }
            found.append(FaceActionUnits(face.track_id, KIND, self._au, self._side, intensity, embeddings=embeddings))
        return ActionUnits(stamp_ns, item.faces.frame_id, tuple(found))

    def reset(self) -> None:
        self._smooth.clear()

    def close(self) -> None:
        self._network.close()
