"""Actions of the toy world: where head, hands and things are while somebody waves, drinks or sits down.

Positions are relative to the head's middle in units of half its width, x > 0 towards the right of the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

Place = tuple[float, float]
REST: Final[tuple[Place, Place]] = ((-1.75, 4.6), (1.75, 4.6))


@dataclass(frozen=True)
class Stance:
    """A moment of an action: shift of the head, added angles in degrees, both hands (left in the image first), and where
    the thing is (``size``: its radius), if there is one."""

    shift: Place = (0.0, 0.0)
    yaw: float = 0.0
    pitch: float = 0.0
    hands: tuple[Place, Place] = REST
    thing: Place | None = None
    size: float = 0.8


def _between(a: Place, b: Place, share: float) -> Place:
    share = float(np.clip(share, 0, 1))
    share = share * share * (3 - 2 * share)
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share


def _right(hand: Place) -> tuple[Place, Place]:
    return REST[0], hand


def _wave(u: float) -> Stance:
    return Stance(hands=_right((2.2 + 0.6 * np.sin(2 * np.pi * 2.5 * u), -0.7)))


def _drink(u: float) -> Stance:
    near = np.sin(np.pi * np.clip((u - 0.1) / 0.8, 0, 1)) ** 0.6
    hand = _between((1.7, 2.9), (0.65, 1.1), float(near))
    return Stance(hands=_right(hand), thing=(hand[0] - 0.35, hand[1] - 0.15), size=0.55, pitch=-8 * float(near > 0.9))


def _call(u: float) -> Stance:
    hand = _between((1.6, 2.8), (1.22, 0.45), u * 4)
    return Stance(hands=_right(hand), thing=(hand[0] - 0.1, hand[1] - 0.35), size=0.6)


def _show(u: float) -> Stance:
    hand = _between((1.9, 3.6), (2.3, 1.1), u * 2.5)
    return Stance(hands=_right(hand), thing=(hand[0], hand[1] - 0.9), size=1.0)


def _walk_in(u: float) -> Stance:
    way = min(1.0, u / 0.7)
    swing = 0.5 * np.sin(2 * np.pi * 3 * way)
    hands = ((-1.75 + swing, 4.4), (1.75 + swing, 4.4))
    return Stance(shift=(-7 * (1 - way), 0.12 * abs(np.sin(2 * np.pi * 3 * way))), hands=hands, yaw=18 * (1 - way))


def _turn_away(u: float) -> Stance:
    return Stance(yaw=75 * float(np.clip((u - 0.6) / 0.25, 0, 1)))


def _sit_down(u: float) -> Stance:
    return Stance(shift=_between((0, -2.0), (0, 0), u / 0.6), hands=((-1.3, 4.0), (1.3, 4.0)))


def _nod(u: float) -> Stance:
    return Stance(pitch=16 * float(np.sin(2 * np.pi * 2 * u)))


def _shake(u: float) -> Stance:
    return Stance(yaw=24 * float(np.sin(2 * np.pi * 2 * u)))


def _clap(u: float) -> Stance:
    gap = 0.2 + 0.75 * abs(np.sin(2 * np.pi * 2.2 * u))
    return Stance(hands=((-gap, 2.5), (gap, 2.5)))


def _point(u: float) -> Stance:
    return Stance(hands=_right(_between(REST[1], (4.0, 1.5), u * 3)))


def _throw(u: float) -> Stance:
    phase = (u * 2) % 1
    return Stance(hands=_right((2.1, 2.2)), thing=(2.1, 1.6 - 9 * phase * (1 - phase)), size=0.7)


def _drop(u: float) -> Stance:
    fall = float(np.clip((u - 0.35) / 0.3, 0, 1))
    return Stance(hands=_right((2.1, 2.0)), thing=(2.2, 1.4 + 4.6 * fall**2), size=0.9)


def _read(u: float) -> Stance:
    return Stance(hands=((-0.9, 2.9), (0.9, 2.9)), thing=(0.0, 2.5), size=0.9, pitch=10 + 2 * float(np.sin(6 * u)))


def _pet(u: float) -> Stance:
    return Stance(hands=_right((2.3 + 0.5 * np.sin(2 * np.pi * 2 * u), 3.2)), thing=(2.9, 4.1), size=1.15)


ACTIONS: Final[dict[str, Callable[[float], Stance]]] = {
    "wave": _wave, "drink": _drink, "call": _call, "show": _show, "walk_in": _walk_in, "turn_away": _turn_away,
    "sit_down": _sit_down, "nod": _nod, "shake": _shake, "clap": _clap, "point": _point, "throw": _throw,
    "drop": _drop, "read": _read, "pet": _pet,
}  # fmt: skip
#: Action -> things it can be done with; the others need none.
NEEDED: Final[dict[str, tuple[str, ...]]] = {
    "drink": ("mug",), "call": ("phone",), "throw": ("ball",), "read": ("book",), "pet": ("dog",),
    "show": ("ball", "book", "cake", "flower", "gift", "fish", "mug"), "drop": ("ball", "book", "cake", "flower", "gift", "mug"),
}  # fmt: skip


def stance(action: str, moment: float) -> Stance:
    """The action at ``moment`` 0 to 1 of the clip; ``""`` is to stand still."""
    return ACTIONS[action](moment) if action else Stance()
