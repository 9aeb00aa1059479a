"""Expression of each face: a small FER network on the face's grey crop, smoothed over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emo_models.engines.select import open_card
from emo_models.labels import rep155_labels
from emo_models.preprocess import Square, cut_square, gray, limit_width, symmetric_range
from emo_perception.config import EmotionConfig
from emo_perception.stages.smoothing import TrackSmoother
from emo_perception.streaming.tracks import Box
from emo_perception.types import Emotions, FaceEmotion, Faces, Frame

if TYPE_CHECKING:
    from emo_perception.stages.learned_emotion import LearnedEmotionStage

VOCABULARY = "fer7"
LABELS = rep155_labels(VOCABULARY)
SIZE = 64


@dataclass(frozen=True, slots=True, eq=False)
class FacesInFrame:
    """Faces and the very image they were found in."""

    frame: Frame
    faces: Faces


class EmotionStage:
    """Faces and their image -> expression probabilities under REP-155 names."""

    name = "emotion"

    def __init__(self, config: EmotionConfig) -> None:
        self.config = config
        self.selection = open_card(VOCABULARY, threads=config.threads)
        self.engine = self.selection.engine
        self._input = np.zeros((1, SIZE, SIZE, 1), np.float32)
        self._smooth = TrackSmoother()

    def warmup(self) -> None:
        self.engine.warmup()

    def __call__(self, item: FacesInFrame) -> Emotions:
        self._smooth.forget(item.faces.expired)
        stamp_ns = item.faces.stamp_ns
        found = []
        for face in item.faces.faces:
            raw = self._classify(item.frame.image, face.box_xywh)
            smooth = self._smooth(face.track_id, stamp_ns, raw, self.config.smoothing_s)
            found.append(FaceEmotion(face.track_id, VOCABULARY, LABELS, smooth / smooth.sum()))
        return Emotions(stamp_ns, item.faces.frame_id, tuple(found))

    def reset(self) -> None:
        self._smooth.clear()

    def close(self) -> None:
        self.engine.close()

    def _classify(self, image: NDArray[np.uint8], box: Box) -> NDArray[np.float32]:
        """Probabilities float32 [7] of the face in the box."""
        x, y, width, height = (float(v) for v in box)
        square = Square(x + width / 2, y + height / 2, max(width, height) * (1 + self.config.crop_margin))
        # Cut at twice the size and halve: one bilinear step from a large face would alias.
        crop = gray(cut_square(image, square, 2 * SIZE))
        halved, _ = limit_width(crop, SIZE)
        symmetric_range(halved, self._input[0, :, :, 0])
        return np.array(self.engine({"face": self._input})["probabilities"][0], np.float32)


def make_emotion_stage(config: EmotionConfig) -> EmotionStage | LearnedEmotionStage:
    """The stage of the configured network. Raises as its engine."""
    if config.network == VOCABULARY:
        return EmotionStage(config)
    from emo_perception.stages.learned_emotion import LearnedEmotionStage

    return LearnedEmotionStage(config)
