"""Sentences from measured evidence: time series -> events -> content -> one English sentence.

``evidence`` keeps what was measured, ``content`` decides what is worth saying, ``lexicon`` has the words,
``realiser`` writes the sentence, ``stage`` watches the clock of the stamps and never says a thing twice.
"""

from emo_perception.stages.caption.stage import CaptionStage

__all__ = ["CaptionStage"]
