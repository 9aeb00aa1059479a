"""Visual tokens of the scene: clips for learned captions, the dialogue so far for learned causes."""

from emo_perception.stages.visual.encoders import CLIPS, FRAMES
from emo_perception.stages.visual.stage import Due, VisualStage, make_visual_stage

__all__ = ["CLIPS", "FRAMES", "Due", "VisualStage", "make_visual_stage"]
