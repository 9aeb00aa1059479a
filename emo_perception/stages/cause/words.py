"""What words tell of emotions: which one the speaker has, and which one the words may cause in somebody else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml
from numpy.typing import NDArray

from emo_models.labels import NEUTRAL
from emo_perception.stages.cause.encoder import SentenceEncoder

_HERE: Final = Path(__file__).parent
#: Sentences of an emotion that count for a new one: the most similar.
NEAREST: Final = 2
#: Makes probabilities of differences of cosines.
TEMPERATURE: Final = 0.05

#: What the estimate whether words are emotional at all looks at; its weights are learned (weights.yaml, ``emotional``).
CUES: Final = ("bias", "margin", "strength", "length", "exclamation")


@lru_cache(maxsize=1)
def learned() -> dict[str, Any]:
    """The learned weights: ``emotional`` and ``cause``, each name -> weight."""
    document: dict[str, Any] = yaml.safe_load((_HERE / "weights.yaml").read_text(encoding="utf-8"))
    return document


@dataclass(frozen=True, eq=False)
class Reading:
    """What a text tells: ``emotional`` is the probability that it is not neutral, ``says`` of the emotions then;
    ``hears``: cosine with what causes each emotion in who hears it; ``stirring``: how much more than small talk."""

    vector: NDArray[np.float32]
    cues: NDArray[np.float64]
    emotional: float
    says: Mapping[str, float]
    hears: Mapping[str, float]
    stirring: float

    def affinity(self, emotion: str) -> float:
        """How much rather than other emotions the text causes this one in who hears it, about -0.3 to 0.5."""
        others = [value for name, value in self.hears.items() if name != emotion]
        return self.hears.get(emotion, min(others)) - float(np.mean(others))


class WordReader:
    """Text -> :class:`Reading`. Raises as :class:`SentenceEncoder`. Not thread safe."""

    def __init__(self, encoder: SentenceEncoder) -> None:
        self._encoder = encoder
        groups = yaml.safe_load((_HERE / "sentences.yaml").read_text(encoding="utf-8"))
        self._says = {emotion: encoder(texts) for emotion, texts in groups["says"].items()}
        self._hears = {emotion: encoder(texts) for emotion, texts in groups["hears"].items()}
        self._read = lru_cache(maxsize=256)(self._reading)

    def __call__(self, text: str) -> Reading:
        return self._read(text)

    def _reading(self, text: str) -> Reading:
        vector = self._encoder([text])[0]
        says = {emotion: _nearest(vector, examples) for emotion, examples in self._says.items()}
        hears = {emotion: _nearest(vector, examples) for emotion, examples in self._hears.items()}
        neutral = says.pop(NEUTRAL)
        best = max(says.values())
        cues = np.array([1.0, 5 * (best - neutral), 2 * best, len(text.split()) / 10, float("!" in text)])
        weights = learned()["emotional"]
        emotional = 1 / (1 + np.exp(-sum(weights[name] * cue for name, cue in zip(CUES, cues, strict=True))))
        powers = np.exp((np.array(list(says.values())) - best) / TEMPERATURE)
        shares = dict(zip(says, (powers / powers.sum()).tolist(), strict=True))
        return Reading(vector, cues, float(emotional), shares, hears, max(hears.values()) - neutral)


def _nearest(vector: NDArray[np.float32], examples: NDArray[np.float32]) -> float:
    return float(np.sort(examples @ vector)[-NEAREST:].mean())


def is_question(text: str) -> bool:
    """Whether the words ask."""
    return text.rstrip().endswith("?")


def addresses(text: str) -> bool:
    """Whether the words are about who hears them."""
    return re.search(r"\b(you|your|yours|you're|you've)\b", text, re.IGNORECASE) is not None
