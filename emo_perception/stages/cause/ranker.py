"""Which candidate it was, or none of them: a conditional logit over the candidates (McFadden, 1974)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from emo_perception.memory import Item
from emo_perception.stages.cause.features import FEATURES, Target, candidates, describe
from emo_perception.stages.cause.words import WordReader, learned

#: The weight of the choice "none of them".
NONE: Final = "none"


@dataclass(frozen=True, eq=False)
class Ranking:
    """Candidates, the likeliest first, with their probabilities; with ``none`` these sum to 1."""

    items: tuple[Item, ...]
    probabilities: tuple[float, ...]
    none: float

    @property
    def abstains(self) -> bool:
        """Whether "none of them" is likelier than each of them."""
        return not self.items or self.none >= self.probabilities[0]


def probabilities(numbers: NDArray[np.float64], weights: Mapping[str, float]) -> NDArray[np.float64]:
    """Probabilities [candidates + 1] of numbers [candidates, features]; the last one is "none of them"."""
    scores = np.append(numbers @ np.array([weights[name] for name in FEATURES]), weights[NONE])
    powers = np.exp(scores - scores.max())
    return np.asarray(powers / powers.sum(), np.float64)


class Ranker:
    """Ranks what may have caused a target by the learned weights."""

    def __init__(self, reader: WordReader) -> None:
        self.reader = reader
        self._weights: Mapping[str, float] = learned()["cause"]

    def __call__(self, target: Target, items: Sequence[Item], names: dict[int, str], window_ns: int) -> Ranking:
        """Rank the remembered ``items`` that lie in the window before the target."""
        options = candidates(target, items, names, window_ns)
        chances = probabilities(describe(target, options, items, names, self.reader), self._weights)
        order = np.argsort(-chances[:-1], kind="stable")
        return Ranking(
            tuple(options[i] for i in order), tuple(float(chances[i]) for i in order), none=float(chances[-1])
        )
