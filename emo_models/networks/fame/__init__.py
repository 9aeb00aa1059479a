"""FAME-Net: pooling and g, the prompt, the language model, and the same over a video that still runs."""

from emo_models.networks.fame.config import FameConfig
from emo_models.networks.fame.model import FAME

__all__ = ["FAME", "FameConfig"]
