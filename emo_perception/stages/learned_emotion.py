"""Expression of each face by a built network: ECPA's ResNet (``er_resnet``) or FAME-Net's DDAMFN (``ddamfn``)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emo_models.labels import reported_names
from emo_perception.config import EmotionConfig
from emo_perception.stages.emotion import FacesInFrame
from emo_perception.stages.learned import FaceNetwork
from emo_perception.stages.smoothing import TrackSmoother
from emo_perception.types import Emotions, FaceEmotion

Float = NDArray[np.float32]

EMBEDDING = "er"
"""Name of the pooled features among the embeddings of a face."""


class LearnedEmotionStage:
    """Faces and their image -> expression probabilities under REP-155 names, and the features behind them.

    Classes without a REP-155 name keep their own, and classes that share one are added up: see
    :func:`emo_models.labels.reported_names`. The probabilities are smoothed over time, the features are not.
    """

    name = "emotion"

    def __init__(self, config: EmotionConfig) -> None:
        self.config = config
        self._network = FaceNetwork(config.network, config)
        self.selection = self._network.selection
        manifest = self._network.manifest
        self.vocabulary = str(manifest.config["vocabulary"])
        self.labels, places = reported_names(manifest.labels)
        self._joined = np.eye(len(self.labels), dtype=np.float32)[list(places)]
        self._smooth = TrackSmoother()

    def warmup(self) -> None:
        self._network.warmup()

    def __call__(self, item: FacesInFrame) -> Emotions:
        self._smooth.forget(item.faces.expired)
        stamp_ns, faces = item.faces.stamp_ns, item.faces.faces
        if not faces:
            return Emotions(stamp_ns, item.faces.frame_id)
        out = self._network(item.frame.image, [face.points for face in faces])
        found = []
        for face, raw, features in zip(faces, self._reported(out["logits"]), out["features"], strict=True):
            smooth = self._smooth(face.track_id, stamp_ns, raw, self.config.smoothing_s)
            embeddings = {EMBEDDING: features.astype(np.float32)}
            found.append(FaceEmotion(face.track_id, self.vocabulary, self.labels, smooth / smooth.sum(), embeddings))
        return Emotions(stamp_ns, item.faces.frame_id, tuple(found))

    def reset(self) -> None:
        self._smooth.clear()

    def close(self) -> None:
        self._network.close()

    def _reported(self, logits: Float) -> Float:
        """Logits [N, C] -> probabilities [N, labels]."""
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return np.asarray(powers / powers.sum(1, keepdims=True) @ self._joined, np.float32)
