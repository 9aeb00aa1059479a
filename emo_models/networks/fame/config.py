"""Options of FAME-Net."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from emo_models.labels import VOCABULARIES
from emo_models.networks.config import NetworkConfig


@dataclass(frozen=True)
class FameConfig(NetworkConfig):
    """Everything that :class:`~emo_models.networks.fame.model.FAME` can be told.

    ``clip``: preset of the CLIP tower; ``frames``: T, most frames of a clip; ``pad_to_frames``: rows of zeros where a
    clip has fewer, as Video-ChatGPT; ``projector``: ``linear`` (the paper) or ``mlp2x_gelu`` (LLaVA 1.5).

    ``emotion_tokens``: E_cls as ``words``, or as ``learned`` tokens trained with g, one for each class of
    ``vocabulary``.

    The language model is a LLaMA of ``width``, ``layers``, ``heads`` (``kv_heads`` of keys), ``feed_forward``,
    ``words`` and ``positions``, unless another is handed over. ``max_length``: tokens of a prompt; ``max_new_tokens``:
    of an answer.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "video_chatgpt": {"clip": "video_chatgpt", "pad_to_frames": True},
        "llava15": {"projector": "mlp2x_gelu"},
        "fast": {"clip": "fast", "width": 2048, "layers": 22, "kv_heads": 4, "feed_forward": 5632},
        "toy": {
            "clip": "toy", "frames": 8, "width": 64, "layers": 2, "heads": 4, "kv_heads": 4, "feed_forward": 128,
            "words": 320, "positions": 640, "max_length": 512,
        },
    }  # fmt: skip

    clip: str = "paper"
    frames: int = 100
    pad_to_frames: bool = False
    projector: str = "linear"
    emotion_tokens: str = "words"
    vocabulary: str = "affectnet8"
    width: int = 4096
    layers: int = 32
    heads: int = 32
    kv_heads: int = 32
    feed_forward: int = 11008
    words: int = 32000
    positions: int = 4096
    max_length: int = 2048
    max_new_tokens: int = 64

    def __post_init__(self) -> None:
        self._require("projector", ("linear", "mlp2x_gelu"))
        self._require("emotion_tokens", ("words", "learned"))
        self._require("vocabulary", tuple(VOCABULARIES))
        if self.max_length + self.max_new_tokens > self.positions:
            raise ValueError(
                f"FameConfig: a prompt of {self.max_length} and an answer of {self.max_new_tokens} tokens do not fit "
                f"into {self.positions} positions; lower max_length"
            )
