"""Hearing: when somebody speaks (voice), what is said (recogniser), and who says it (speaker)."""

from emo_perception.stages.speech.speaker import MouthWatch
from emo_perception.stages.speech.stage import SpeechStage, sound_s
from emo_perception.stages.speech.voice import Segment

__all__ = ["MouthWatch", "Segment", "SpeechStage", "sound_s"]
