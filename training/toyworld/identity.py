"""Who is drawn: skin, shape of the face, hair, glasses, beard and clothes of a person, drawn by chance from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from training.toyworld.pen import Colour, mix

SKINS: Final[tuple[Colour, ...]] = (
    (250, 218, 190), (238, 196, 160), (222, 176, 136), (196, 146, 104), (164, 114, 78), (126, 84, 58),
)  # fmt: skip
HAIRS: Final[dict[str, Colour]] = {
    "black": (32, 26, 26), "brown": (92, 58, 34), "blond": (222, 186, 96), "gray": (158, 158, 160), "red": (168, 70, 30),
}  # fmt: skip
SHIRTS: Final[dict[str, Colour]] = {
    "red": (200, 44, 44), "blue": (44, 82, 190), "green": (40, 140, 70), "yellow": (228, 196, 50),
    "white": (236, 236, 232), "black": (44, 44, 50),
}  # fmt: skip
#: Identities from this number on are never in training.
FIRST_HELD_OUT: Final = 1000


@dataclass(frozen=True)
class Identity:
    """A person's looks. Lengths of the face are factors about 1."""

    number: int
    woman: bool
    skin: Colour
    hair: str
    #: "short", "long", "bun", "fringe" or "bald".
    style: str
    shirt: str
    glasses: bool
    beard: bool
    wide: float
    tall: float
    jaw: float
    eyes: float
    eye_distance: float
    brow_width: float
    mouth_width: float
    lips: float
    nose: float
    iris: Colour

    @property
    def name(self) -> str:
        """``p0007``."""
        return f"p{self.number:04d}"

    @property
    def held_out(self) -> bool:
        """Whether the person is kept out of training."""
        return self.number >= FIRST_HELD_OUT

    @property
    def hair_colour(self) -> Colour:
        """Colour of the hair."""
        return HAIRS[self.hair]

    @property
    def brow_colour(self) -> Colour:
        """Colour of the brows: darker than hair and skin, as it must be to be seen."""
        return mix(mix(self.hair_colour, self.skin, 0.1), (20, 12, 10), 0.55)

    @property
    def shade(self) -> Colour:
        """Colour of wrinkles and folds."""
        return mix(self.skin, (50, 14, 6), 0.62)

    @property
    def lip_colour(self) -> Colour:
        """Colour of the lips."""
        return mix(self.skin, (176, 34, 44), 0.62 if self.woman else 0.42)


def make_identity(seed: int, number: int) -> Identity:
    """Person ``number`` of the world ``seed``."""
    rng = np.random.default_rng([seed, 1, number])
    woman = bool(rng.random() < 0.5)
    styles = ("long", "bun", "fringe", "short") if woman else ("short", "short", "fringe", "bald")
    chances = (0.45, 0.2, 0.2, 0.15) if woman else (0.4, 0.3, 0.15, 0.15)
    return Identity(
        number=number,
        woman=woman,
        skin=SKINS[rng.integers(len(SKINS))],
        hair=tuple(HAIRS)[rng.choice(len(HAIRS), p=(0.3, 0.3, 0.2, 0.1, 0.1))],
        style=str(rng.choice(styles, p=chances)),
        shirt=tuple(SHIRTS)[rng.integers(len(SHIRTS))],
        glasses=bool(rng.random() < 0.22),
        beard=bool(not woman and rng.random() < 0.3),
        wide=_vary(rng, 0.08),
        tall=_vary(rng, 0.06),
        jaw=_vary(rng, 0.12),
        eyes=_vary(rng, 0.12),
        eye_distance=_vary(rng, 0.07),
        brow_width=_vary(rng, 0.3),
        mouth_width=_vary(rng, 0.1),
        lips=_vary(rng, 0.25),
        nose=_vary(rng, 0.15),
        iris=((70, 44, 24), (54, 92, 140), (58, 108, 66))[rng.choice(3, p=(0.6, 0.25, 0.15))],
    )


def _vary(rng: np.random.Generator, spread: float) -> float:
    return float(1 + rng.uniform(-spread, spread))
