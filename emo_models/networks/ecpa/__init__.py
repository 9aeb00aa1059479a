"""ECPA (Wang et al.), part by part: ``vep`` and ``tep`` prompt, ``eca`` and ``losses`` align, ``decode`` writes."""

from emo_models.networks.ecpa.config import EcpaConfig
from emo_models.networks.ecpa.model import ECPA

__all__ = ["ECPA", "EcpaConfig"]
