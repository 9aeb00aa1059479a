"""Sentences about faces: composed of measured evidence, or written by a network and checked against it.

``writer`` is the door. The start writer: ``evidence`` keeps what was measured, ``content`` decides what is worth saying,
``lexicon`` has the words, ``realiser`` writes the sentence, ``stage`` watches the clock of the stamps and never says a
thing twice. ECPA: ``ring`` keeps faces, ``ecpa`` waits for clips and their deadline, ``wording`` checks what was written.
"""

from emo_perception.stages.caption.stage import CaptionStage
from emo_perception.stages.caption.writer import CaptionWriter, EvidenceWriter, make_writer

__all__ = ["CaptionStage", "CaptionWriter", "EvidenceWriter", "make_writer"]
