"""FAME-Net: pooling and g, the prompt, the language model, and the same over a video that still runs."""

from typing import TYPE_CHECKING, Any

from emo_models.networks.fame.config import FameConfig

if TYPE_CHECKING:
    from emo_models.networks.fame.model import FAME

__all__ = ["FAME", "FameConfig"]


def __getattr__(name: str) -> Any:
    """``FAME``, late: who only pools frames, as the perception process, shall not load a library of language models."""
    if name != "FAME":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from emo_models.networks.fame.model import FAME

    return FAME
