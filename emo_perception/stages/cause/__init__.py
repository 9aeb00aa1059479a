"""Why somebody shows an emotion: what is explained, what may have caused it, which it was, and one sentence of it.

``encoder`` and ``words`` read sentences, ``targets`` finds what is worth explaining, ``features`` and ``ranker`` compare
the candidates, ``realiser`` writes the sentence of the likeliest. ``expressions`` keeps what the faces showed, ``video`` lets
the video of an utterance find it. ``stage`` watches the stamps and makes a ``case`` of all that; one of the ``explainers``
words it, and ``grounding`` holds it to the evidence.
"""

from emo_perception.stages.cause.case import About, Case, Question
from emo_perception.stages.cause.stage import CauseStage, make_cause_stage

__all__ = ["About", "Case", "CauseStage", "Question", "make_cause_stage"]
