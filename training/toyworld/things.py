"""Things that people hold, drop and show, and places that they are in, as simple drawings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from training.toyworld.pen import Image, box, disc, fill, line, oval

Draw = Callable[[Image, float, float, float], None]


def _mug(image: Image, x: float, y: float, r: float) -> None:
    oval(image, x + 0.75 * r, y, 0.4 * r, 0.45 * r, (150, 30, 30))
    oval(image, x + 0.75 * r, y, 0.2 * r, 0.25 * r, (235, 225, 215))
    box(image, x - 0.7 * r, y - 0.85 * r, 1.4 * r, 1.7 * r, (206, 48, 40))
    box(image, x - 0.7 * r, y - 0.85 * r, 1.4 * r, 0.3 * r, (250, 240, 230))


def _phone(image: Image, x: float, y: float, r: float) -> None:
    box(image, x - 0.5 * r, y - r, r, 2 * r, (24, 24, 30))
    box(image, x - 0.38 * r, y - 0.8 * r, 0.76 * r, 1.5 * r, (90, 200, 240))


def _ball(image: Image, x: float, y: float, r: float) -> None:
    disc(image, x, y, r, (240, 120, 20))
    line(image, np.array([[x - r, y], [x + r, y]]), (60, 30, 10))
    line(image, np.array([[x, y - r], [x, y + r]]), (60, 30, 10))


def _book(image: Image, x: float, y: float, r: float) -> None:
    for sign, colour in ((-1, (40, 80, 190)), (1, (56, 100, 214))):
        fill(
            image,
            np.array([[x, y - 0.75 * r], [x + sign * 1.2 * r, y - r], [x + sign * 1.2 * r, y + 0.8 * r], [x, y + r]]),
            colour,
        )
        box(image, x + sign * 0.6 * r - 0.35 * r, y - 0.4 * r, 0.7 * r, 0.25 * r, (240, 240, 230))


def _cake(image: Image, x: float, y: float, r: float) -> None:
    box(image, x - r, y - 0.2 * r, 2 * r, 1.1 * r, (240, 190, 130))
    box(image, x - r, y - 0.45 * r, 2 * r, 0.4 * r, (250, 150, 190))
    for shift in (-0.5, 0.0, 0.5):
        box(image, x + shift * r - 0.07 * r, y - 0.95 * r, 0.14 * r, 0.5 * r, (250, 250, 120))


def _flower(image: Image, x: float, y: float, r: float) -> None:
    line(image, np.array([[x, y], [x, y + 1.3 * r]]), (40, 130, 50), 3)
    for angle in np.arange(5) * 2 * np.pi / 5:
        disc(image, x + 0.45 * r * np.sin(angle), y - 0.3 * r + 0.45 * r * np.cos(angle), 0.38 * r, (226, 60, 160))
    disc(image, x, y - 0.3 * r, 0.3 * r, (250, 220, 60))


def _gift(image: Image, x: float, y: float, r: float) -> None:
    box(image, x - 0.9 * r, y - 0.8 * r, 1.8 * r, 1.6 * r, (40, 160, 90))
    box(image, x - 0.15 * r, y - 0.8 * r, 0.3 * r, 1.6 * r, (250, 220, 70))
    box(image, x - 0.9 * r, y - 0.15 * r, 1.8 * r, 0.3 * r, (250, 220, 70))


def _fish(image: Image, x: float, y: float, r: float) -> None:
    fill(image, np.array([[x + 0.6 * r, y], [x + 1.3 * r, y - 0.6 * r], [x + 1.3 * r, y + 0.6 * r]]), (120, 150, 175))
    oval(image, x, y, r, 0.5 * r, (150, 180, 205))
    disc(image, x - 0.6 * r, y - 0.1 * r, 0.12 * r, (10, 10, 10))


def _dog(image: Image, x: float, y: float, r: float) -> None:
    coat = (150, 96, 50)
    oval(image, x, y, 1.2 * r, 0.6 * r, coat)
    for shift in (-0.8, -0.4, 0.5, 0.9):
        box(image, x + shift * r - 0.12 * r, y + 0.3 * r, 0.24 * r, 0.9 * r, coat)
    line(image, np.array([[x + 1.1 * r, y - 0.2 * r], [x + 1.6 * r, y - 0.8 * r]]), coat, 0.25 * r)
    disc(image, x - 1.2 * r, y - 0.6 * r, 0.5 * r, coat)
    oval(image, x - 1.0 * r, y - 0.7 * r, 0.18 * r, 0.42 * r, (84, 50, 24))
    disc(image, x - 1.65 * r, y - 0.5 * r, 0.13 * r, (16, 12, 12))


THINGS: Final[dict[str, Draw]] = {
    "mug": _mug, "phone": _phone, "ball": _ball, "book": _book, "cake": _cake, "flower": _flower, "gift": _gift,
    "fish": _fish, "dog": _dog,
}  # fmt: skip


def _room(image: Image, rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    wall = tuple(int(v) for v in rng.integers((150, 150, 140), (226, 222, 215)))
    image[:] = wall
    box(image, 0, height * 0.78, width, height, (140, 104, 74))
    x = float(rng.uniform(0, width * 0.8))
    box(image, x, height * 0.1, width * 0.2, height * 0.3, (250, 250, 250))
    box(image, x + 4, height * 0.1 + 4, width * 0.2 - 8, height * 0.3 - 8, (160, 206, 240))
    x = float(rng.uniform(0, width * 0.9))
    box(image, x, height * 0.45, width * 0.12, height * 0.33, (96, 62, 42))


def _kitchen(image: Image, rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    image[:] = (222, 228, 228)
    for x in range(0, width, 20):
        line(image, np.array([[x, 0.0], [x, height * 0.7]]), (200, 208, 208))
    for y in range(0, int(height * 0.7), 20):
        line(image, np.array([[0.0, y], [width, y]]), (200, 208, 208))
    box(image, 0, height * 0.68, width, height, (120, 126, 136))
    box(image, 0, height * 0.68, width, 8, (76, 70, 66))
    box(image, float(rng.uniform(0, width * 0.8)), 0, width * 0.25, height * 0.22, (176, 130, 84))


def _street(image: Image, rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    image[:] = (176, 204, 230)
    x = 0.0
    while x < width:
        w, h = rng.uniform(0.15, 0.3) * width, rng.uniform(0.3, 0.7) * height
        tone = int(rng.integers(110, 190))
        box(image, x, height * 0.8 - h, w, h, (tone, tone - 20, tone - 34))
        for wy in np.arange(height * 0.8 - h + 8, height * 0.72, 22):
            for wx in np.arange(x + 8, x + w - 12, 20):
                box(image, wx, wy, 9, 11, (70, 84, 104))
        x += w
    box(image, 0, height * 0.8, width, height, (98, 98, 104))


def _park(image: Image, rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    image[:] = (150, 200, 240)
    box(image, 0, height * 0.55, width, height, (96, 160, 74))
    for _ in range(5):
        x, r = float(rng.uniform(0, width)), float(rng.uniform(18, 34))
        box(image, x - 4, height * 0.4, 8, height * 0.22, (96, 66, 40))
        disc(image, x, height * 0.34, r, (40 + int(rng.integers(40)), 120, 52))


_PLACES: Final = {"room": _room, "kitchen": _kitchen, "street": _street, "park": _park}
PLACES: Final = tuple(_PLACES)


def draw_place(image: Image, place: str, rng: np.random.Generator) -> None:
    """Fill the image with a place (of :data:`PLACES`), varied by chance."""
    _PLACES[place](image, rng)


def draw_thing(image: Image, name: str, x: float, y: float, radius: float) -> None:
    """A thing (of :data:`THINGS`) about a point."""
    THINGS[name](image, x, y, radius)
