"""Drawing a head: skin, hair, eyes, mouth, and the wrinkles that action units make."""

from __future__ import annotations

from typing import Final

import numpy as np

from training.toyworld.head import Head
from training.toyworld.identity import Identity
from training.toyworld.pen import Colour, Image, disc, fill, line, mix, oval
from training.toyworld.units import COLUMN, Activation

#: A part of the face is not drawn where it points further away than this (cosine).
_EDGE: Final = 0.12
WHITE: Final[Colour] = (246, 246, 242)
MOUTH: Final[Colour] = (74, 16, 22)
TONGUE: Final[Colour] = (190, 84, 88)


def draw_head(image: Image, who: Identity, head: Head, activation: Activation) -> None:
    """Draw a head as :func:`~training.toyworld.head.shape_head` placed it, over what is there."""
    parts, scale = head.parts, head.pose.scale
    _behind(image, who, head)
    fill(image, parts["outline"], who.skin)
    line(image, parts["outline"], mix(who.skin, (60, 30, 20), 0.35), closed=True)
    if head.facing > _EDGE:
        if who.beard:
            _beard(image, who, head)
        _wrinkles(image, who, head, activation)
        for side in (0, 1):
            if _seen(head, side):
                _eye(image, who, head, side, activation[side, COLUMN[45]])
        line(image, parts["nose_line"][2:], who.shade, scale / 22)
        for x, y in parts["nostrils"]:
            disc(image, x, y, scale * 0.035, mix(who.shade, (0, 0, 0), 0.4))
        _mouth(image, who, head)
    _hair(image, who, head)
    if head.facing > _EDGE:
        for side in (0, 1):
            if _seen(head, side):
                line(image, parts[f"brow{side}"], who.brow_colour, scale * 0.1 * who.brow_width)
        if who.glasses:
            _glasses(image, head)


def _seen(head: Head, side: int) -> bool:
    """Whether the eye of that side is before the edge of the head."""
    turn = np.sin(np.radians(head.pose.yaw)) * (2 * side - 1)
    return head.facing - 0.55 * float(turn) > _EDGE


def _eye(image: Image, who: Identity, head: Head, side: int, shut: float) -> None:
    eye, scale = head.parts[f"eye{side}"], head.pose.scale
    half = len(eye) // 2
    if shut < 0.6:
        fill(image, eye, WHITE)
        fill(image, head.parts[f"iris{side}"], mix(who.iris, (10, 8, 8), 0.45))
        line(image, eye[half:], mix(who.skin, who.shade, 0.7))
    line(image, eye[:half], (34, 20, 18), scale / 18)


def _wrinkles(image: Image, who: Identity, head: Head, activation: Activation) -> None:
    """Lines whose contrast is the strength of the unit that makes them."""
    parts, width = head.parts, head.pose.scale / 24
    for side in (0, 1):
        au = {number: float(activation[side, column]) for number, column in COLUMN.items()}
        apple = parts[f"apple{side}"][0]
        if au[6] > 0.1:
            oval(
                image,
                apple[0],
                apple[1],
                head.pose.scale * 0.2,
                head.pose.scale * 0.13,
                mix(who.skin, (226, 92, 80), 0.38 * au[6]),
            )
        strength = {
            "cheek": 0.8 * au[6], "lid": 0.8 * au[7], "forehead_inner": au[1], "forehead_outer": au[2],
            "glabella": au[4], "fold": max(0.8 * au[12], au[10], 0.5 * au[9]), "dimple": 1.2 * au[14],
            "droop": 1.1 * au[15], "stretch": 0.9 * au[20],
        }  # fmt: skip
        for name, share in strength.items():
            _crease(image, who, parts[f"{name}{side}"], share, width)
        crow = parts[f"crow{side}"]
        for start in (0, 2, 4):
            _crease(image, who, crow[start : start + 2], au[6], width)
    nose, chin = float(activation[0, COLUMN[9]]), float(activation[0, COLUMN[17]])
    for name in ("wrinkle_a", "wrinkle_b", "wrinkle_c"):
        _crease(image, who, parts[name], nose, width)
    for name in ("chin", "chin_low"):
        _crease(image, who, parts[name], chin, width)


def _crease(image: Image, who: Identity, points: np.ndarray, share: float, width: float) -> None:
    if share > 0.12:
        line(image, points, mix(who.skin, who.shade, share), width)


def _mouth(image: Image, who: Identity, head: Head) -> None:
    parts, scale = head.parts, head.pose.scale
    fill(image, parts["lips"], who.lip_colour)
    opening = parts["opening"]
    half = len(opening) // 2
    gap = float((opening[half:][::-1] - opening[:half])[:, 1].max())
    if gap > 0.045 * scale:
        fill(image, opening, MOUTH)
        if gap > 0.26 * scale:
            x, y = parts["tongue"][0]
            oval(image, x, y, scale * 0.13, scale * 0.06, TONGUE)
        fill(image, parts["teeth"], WHITE)
    else:
        line(image, parts["seam"], mix(who.lip_colour, (30, 4, 4), 0.75), scale / 20)


def _behind(image: Image, who: Identity, head: Head) -> None:
    """Hair behind the head, and the ears."""
    pose = head.pose
    s, lean = pose.scale, np.radians(pose.roll)
    if who.style == "long":
        oval(image, pose.x - 0.1 * s, pose.y + 0.25 * s, 1.2 * s, 1.5 * s, who.hair_colour, pose.roll)
    if who.style == "bun":
        disc(image, pose.x + 1.35 * s * np.sin(lean), pose.y - 1.35 * s * np.cos(lean), 0.42 * s, who.hair_colour)
    turn = np.sin(np.radians(pose.yaw))
    for sign in (-1, 1):
        x = sign * (0.98 * who.wide - 0.12 * abs(turn)) - 0.25 * turn * (sign * turn < 0)
        oval(
            image, pose.x + s * (x * np.cos(lean)), pose.y + s * (x * np.sin(lean)), 0.16 * s, 0.26 * s,
            mix(who.skin, who.shade, 0.2), pose.roll,
        )  # fmt: skip


def _hair(image: Image, who: Identity, head: Head) -> None:
    """The cap of hair from the outline of the skull down to the hairline; the whole head from behind."""
    if who.style == "bald" and head.facing > 0:
        return
    outline, pose = head.parts["outline"], head.pose
    middle = np.array([pose.x, pose.y])
    swollen = middle + (outline - middle) * 1.06
    if head.facing <= _EDGE:
        fill(image, swollen, who.hair_colour if who.style != "bald" else who.skin)
        return
    count = len(outline)
    upper = np.concatenate([swollen[-count // 4 :], swollen[: count // 4 + 1]])
    yaw, roll = np.radians([pose.yaw, pose.roll])
    drop = {"fringe": -0.66, "short": -0.86, "long": -0.8, "bun": -0.9}.get(who.style, -0.86)
    along = np.linspace(1, -1, 7)
    x = along * 0.86 * who.wide + 0.55 * np.sin(yaw)
    y = drop + 0.3 * along**2 * (1 if who.style != "fringe" else 0.4) + 0.12 * np.sin(np.radians(pose.pitch))
    cos, sin = np.cos(roll), np.sin(roll)
    hairline = np.column_stack([x * cos - y * sin, x * sin + y * cos]) * pose.scale + middle
    fill(image, np.concatenate([upper, hairline]), who.hair_colour)


def _beard(image: Image, who: Identity, head: Head) -> None:
    outline = head.parts["outline"]
    count = len(outline)
    lower = outline[round(count * 0.3) : round(count * 0.7) + 1]
    fold = np.stack(
        [
            head.parts["fold0"][2],
            head.parts["nostrils"].mean(0) + np.array([0, 0.1 * head.pose.scale]),
            head.parts["fold1"][2],
        ]
    )
    fill(image, np.concatenate([lower, fold]), mix(who.hair_colour, who.skin, 0.45))


def _glasses(image: Image, head: Head) -> None:
    scale = head.pose.scale
    rims = []
    for side in (0, 1):
        x, y = head.parts[f"eye_middle{side}"][0]
        angle = np.linspace(0, 2 * np.pi, 11)[:-1]
        width = 0.33 * scale * max(0.3, abs(np.cos(np.radians(head.pose.yaw))))
        rims.append(np.column_stack([x + width * np.cos(angle), y + 0.02 * scale + 0.27 * scale * np.sin(angle)]))
        line(image, rims[-1], (40, 36, 44), scale / 22, closed=True)
    line(image, np.stack([rims[0][0], rims[1][5]]), (40, 36, 44), scale / 22)
