"""How an emotion shows: noisy prototypes of action units, as data (``data/prototypes.yaml``)."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any, Final

import numpy as np
import yaml

from emo_models.labels import VOCABULARIES
from training.toyworld.units import BLINK, COLUMN, Activation, at_rest

EMOTIONS: Final = VOCABULARIES["mafw11"]
#: Chance that a unit of the prototype does not show, and that one that has nothing to do with the emotion does.
#: With these some 88 % of the emotions can be told from the units at the apex.
DROP, STRAY = 0.2, 0.4


@cache
def table(name: str) -> Any:
    """Content of ``data/NAME.yaml``."""
    text = resources.files("training.toyworld").joinpath("data", f"{name}.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def express(rng: np.random.Generator, emotion: str) -> Activation:
    """Action units [2, U] at the apex of an emotion of MAFW's vocabulary: one of its prototypes, varied."""
    prototypes = table("prototypes")[emotion]
    chosen = prototypes[rng.integers(len(prototypes))]
    apex = at_rest()
    for unit, strength in chosen.items():
        if rng.random() < DROP and len(chosen) > 1:
            continue
        name = str(unit)
        rows = {"R": [0], "L": [1]}.get(name[0], [0, 1])
        value = np.clip(strength * rng.uniform(0.75, 1.15), 0, 1)
        apex[rows, COLUMN[int(name.lstrip("LR"))]] = value
    if rng.random() < STRAY:
        stray = int(rng.integers(BLINK))
        apex[:, stray] = np.maximum(apex[:, stray], rng.uniform(0.3, 0.6))
    return apex


def blend(first: Activation, second: Activation) -> Activation:
    """Two emotions at once, the first one stronger."""
    return np.maximum(first, 0.75 * second)
