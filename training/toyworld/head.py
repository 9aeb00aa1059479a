"""Shape of a head: where the parts of a face are, how action units move them, and how they look from the camera.

Coordinates of the head: the unit is half of its width, x to the right of the image, y down, z to the camera, origin in
the middle. Angles in degrees: yaw > 0 turns the face to the right of the image, pitch > 0 lowers it, roll > 0 tilts it
clockwise. Projection is parallel. Shifts per action unit follow FACS' descriptions, larger than life, for a face is
some 50 pixels high.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.toyworld.identity import Identity
from training.toyworld.pen import Points
from training.toyworld.units import COLUMN, Activation

#: Places along an eye or a lip, from one corner to the other.
_ALONG: Final = np.linspace(-1, 1, 9)
_ARCH: Final = 1 - _ALONG**2
_CIRCLE: Final = np.stack([np.cos(np.linspace(0, 2 * np.pi, 13)[:-1]), np.sin(np.linspace(0, 2 * np.pi, 13)[:-1])], 1)
EYE_Y: Final = -0.12
MOUTH_Y: Final = 0.66


@dataclass(frozen=True)
class Pose:
    """Where a head is: its middle and half width in pixels, its angles in degrees."""

    x: float
    y: float
    scale: float
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0


@dataclass(frozen=True)
class Head:
    """Parts of a face in the image, each float64 [n, 2] in pixels, and how far it faces the camera (1 to -1)."""

    parts: dict[str, Points]
    facing: float
    pose: Pose

    def landmarks(self) -> NDArray[np.float64]:
        """Eyes, nose tip and mouth corners [5, 2], left in the image first, as ``preprocess.ARCFACE_112`` has them."""
        mouth = self.parts["lip_top"]
        return np.stack(
            [self.parts["eye_middle0"][0], self.parts["eye_middle1"][0], self.parts["nose_tip"][0], mouth[0], mouth[-1]]
        )

    def box(self) -> tuple[float, float, float, float]:
        """x, y, width, height of the face from the forehead to the chin, as detectors frame it."""
        outline = self.parts["outline"]
        low, high = outline.min(0), outline.max(0)
        top = low[1] + 0.2 * (high[1] - low[1])
        return float(low[0]), float(top), float(high[0] - low[0]), float(high[1] - top)


def rotation(pose: Pose) -> NDArray[np.float64]:
    """Rotation [3, 3] of a head: yaw first, then pitch, then roll."""
    yaw, pitch, roll = np.radians([pose.yaw, pose.pitch, pose.roll])
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    tilt = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return np.asarray(tilt @ nod @ turn)


def shape_head(who: Identity, activation: Activation, pose: Pose, *, talk: float = 0.0, gaze: float = 0.0) -> Head:
    """The parts of a person's face with the given action units [2, U].

    ``talk`` 0 to 1 opens the mouth as speech does, besides AU25 and AU26; ``gaze`` -1 to 1 moves the eyes sideways.
    """
    flat = _outline(who, activation, talk)
    for side in (0, 1):
        flat |= _upper_face(who, activation[side], side, gaze)
    flat |= _nose(who, activation) | _mouth(who, activation, talk)
    names, shapes = list(flat), list(flat.values())
    points = np.concatenate(shapes)
    turned = (
        _on_the_head(points, np.repeat([n == "nose_tip" for n in names], [len(s) for s in shapes])) @ rotation(pose).T
    )
    image = turned[:, :2] * pose.scale + (pose.x, pose.y)
    parts = dict(zip(names, np.split(image, np.cumsum([len(s) for s in shapes])[:-1]), strict=True))
    parts["outline"] = _seen_outline(flat["outline"], pose)
    return Head(parts, float(rotation(pose)[2, 2]), pose)


def _on_the_head(points: Points, tip: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Points [n, 2] of the front of a face on its curved surface: [n, 3]."""
    depth = np.sqrt(np.maximum(0.02, 1 - 0.72 * points[:, 0] ** 2 - 0.28 * points[:, 1] ** 2)) * 0.95
    return np.column_stack([points, depth + 0.3 * tip])


def _seen_outline(outline: Points, pose: Pose) -> Points:
    """A head is about as deep as wide: turning leaves its outline, but for the chin, which goes with the face."""
    yaw, pitch, roll = np.radians([pose.yaw, pose.pitch, pose.roll])
    low = np.clip(outline[:, 1], 0, None)
    x = outline[:, 0] + 0.3 * np.sin(yaw) * low
    y = outline[:, 1] * (1 - 0.12 * abs(np.sin(pitch))) + 0.12 * np.sin(pitch)
    cos, sin = np.cos(roll), np.sin(roll)
    return np.column_stack([x * cos - y * sin, x * sin + y * cos]) * pose.scale + (pose.x, pose.y)


def _drop(activation: Activation, talk: float) -> float:
    """How far the jaw is down."""
    return max(float(activation[0, COLUMN[26]]), 0.45 * talk)


def _outline(who: Identity, activation: Activation, talk: float) -> dict[str, Points]:
    angle = np.linspace(0, 2 * np.pi, 29)[:-1]
    x, y = np.sin(angle), -np.cos(angle)
    low = np.clip(y, 0, None)
    x = x * who.wide * (1 - (0.34 - 0.25 * (who.jaw - 1)) * low**2)
    y = y * 1.27 * who.tall + low**3 * 0.2 * _drop(activation, talk)
    return {"outline": np.column_stack([x, y])}


def _upper_face(who: Identity, au: NDArray[np.float64], side: int, gaze: float) -> dict[str, Points]:
    """Brow, eye and the wrinkles about them of one side; written for the right of the image, mirrored for the left."""
    sign = 2 * side - 1
    a = {number: float(au[column]) for number, column in COLUMN.items()}
    centre = 0.43 * who.eye_distance
    raise_, lower = 0.2 * a[1], 0.15 * a[4] + 0.07 * a[9]
    brow_x = np.array([-0.27, -0.09, 0.1, 0.29]) + centre
    brow_x[:2] -= np.array([0.09, 0.04]) * a[4]
    brow_y = np.array([-0.47, -0.53, -0.54, -0.46]) + (
        np.array([-1, -0.5, -0.1, 0.05]) * raise_
        + np.array([-0.15, -0.6, -1, -0.9]) * 0.2 * a[2]
        + np.array([1, 0.8, 0.35, -0.05]) * lower
    )
    half, up, down = 0.235 * who.eyes, 0.115 * who.eyes, 0.075 * who.eyes
    shut = 1 - a[45]
    up = (up + 0.095 * a[5] - 0.06 * a[7] - 0.015 * a[6] - 0.02 * a[9]) * shut
    down = (down + 0.01 * a[5] - 0.05 * a[7] - 0.04 * a[6]) * shut - 0.04 * a[45]
    eye_x = centre + half * _ALONG
    top, bottom = EYE_Y - up * _ARCH, EYE_Y + down * _ARCH + 0.012
    iris = _CIRCLE * 0.1 + (centre + 0.09 * gaze * sign, EYE_Y - 0.01)
    iris[:, 1] = np.clip(iris[:, 1], np.interp(iris[:, 0], eye_x, top), np.interp(iris[:, 0], eye_x, bottom))
    outer = centre + half
    parts = {
        "brow": np.column_stack([brow_x, brow_y]),
        "eye": np.column_stack([np.append(eye_x, eye_x[::-1]), np.append(top, bottom[::-1])]),
        "iris": iris,
        "eye_middle": np.array([[centre, EYE_Y]]),
        "crow": np.array([[outer + 0.05, EYE_Y - 0.02], [outer + 0.16, EYE_Y - 0.09], [outer + 0.05, EYE_Y + 0.03],
                          [outer + 0.17, EYE_Y + 0.03], [outer + 0.03, EYE_Y + 0.08], [outer + 0.14, EYE_Y + 0.14]]),
        "cheek": np.column_stack([centre + 0.26 * _ALONG, EYE_Y + 0.2 - 0.04 * a[6] + 0.07 * _ARCH]),
        "apple": np.array([[centre + 0.12, 0.26 - 0.06 * a[6] - 0.03 * a[12]]]),
        "lid": np.array([[centre - half, EYE_Y + 0.1], [centre, EYE_Y + 0.14], [centre + half * 0.9, EYE_Y + 0.08]]),
        "forehead_inner": np.column_stack([np.linspace(0.02, 0.3, 4), -0.74 - np.array([0.05, 0.03, 0, -0.03])]),
        "forehead_outer": np.column_stack([np.linspace(0.3, 0.66, 4), -0.7 - np.array([0, 0.04, 0.03, -0.04])]),
        "glabella": np.array([[0.075, -0.52], [0.055, -0.3]]),
    }  # fmt: skip
    return {f"{name}{side}": points * (sign, 1) for name, points in parts.items()}


def _nose(who: Identity, activation: Activation) -> dict[str, Points]:
    wrinkle = float(activation[0, COLUMN[9]])
    lift = 0.07 * wrinkle + 0.03 * activation[:, COLUMN[10]]
    wing = 0.15 * who.nose * (1 + 0.2 * wrinkle)
    return {
        "nose_tip": np.array([[0.0, 0.27 - 0.03 * wrinkle]]),
        "nose_line": np.array([[0.06, -0.2], [0.08, 0.05], [wing, 0.27 - lift[1]], [0.06, 0.35], [0, 0.36],
                               [-0.06, 0.35], [-wing, 0.27 - lift[0]]]),
        "nostrils": np.array([[-0.075, 0.33 - lift[0]], [0.075, 0.33 - lift[1]]]),
        "wrinkle_a": np.array([[-0.13, -0.17], [0, -0.1], [0.13, -0.17]]),
        "wrinkle_b": np.array([[-0.14, -0.07], [0, 0.0], [0.14, -0.07]]),
        "wrinkle_c": np.array([[-0.15, 0.03], [-0.02, 0.08], [0.02, 0.08], [0.15, 0.03]]),
    }  # fmt: skip


def _mouth(who: Identity, activation: Activation, talk: float) -> dict[str, Points]:
    """Lips, the opening between them, folds and chin."""
    a = {number: activation[:, column] for number, column in COLUMN.items()}
    one = {number: float(values[0]) for number, values in a.items()}
    drop = _drop(activation, talk)
    pucker = max(one[18], 0.25 * talk)
    half = 0.34 * who.mouth_width * (1 - 0.45 * pucker) * (1 - 0.22 * one[26])
    reach = half + 0.13 * a[12] + 0.14 * one[20] - 0.02 * a[14]
    corner = MOUTH_Y - 0.15 * a[12] + 0.17 * a[15] - 0.04 * a[14] + 0.05 * one[20] + 0.06 * drop - 0.01
    middle = MOUTH_Y + 0.03 * float(a[12].mean()) - 0.09 * one[17] - 0.03 * float(a[15].mean())
    opening = max(0.12 * one[25], 0.16 * talk) + 0.27 * drop
    opening *= 1 - 0.9 * one[24]
    thick = 0.075 * who.lips * (1 - 0.85 * one[24]) * (1 - 0.35 * one[20]) * (1 + 0.7 * pucker) * (1 + 0.15 * one[17])
    lift = 0.13 * a[10] + 0.05 * one[9]
    x = np.where(_ALONG < 0, _ALONG * reach[0], _ALONG * reach[1])
    side_lift = np.where(_ALONG < 0, lift[0], lift[1]) * _ARCH
    away = np.abs(_ALONG) ** 1.7
    line = middle + (np.where(_ALONG < 0, corner[0], corner[1]) - middle) * away
    belly = np.sqrt(_ARCH)
    inner_top = line - 0.25 * opening * belly - side_lift * (0.5 + 0.5 * min(1.0, opening * 12))
    inner_bottom = line + 0.75 * opening * belly
    top = inner_top - thick * belly * (0.95 - 0.25 * np.exp(-((_ALONG / 0.18) ** 2)))
    bottom = inner_bottom + thick * belly * 1.25
    parts = {
        "lip_top": np.column_stack([x, top]),
        "lips": np.column_stack([np.append(x, x[::-1]), np.append(top, bottom[::-1])]),
        "seam": np.column_stack([x, (inner_top + inner_bottom) / 2]),
        "opening": np.column_stack([np.append(x, x[::-1]), np.append(inner_top, inner_bottom[::-1])]),
        "teeth": np.column_stack([
            np.append(x, x[::-1]) * 0.86,
            np.append(inner_top, np.minimum(inner_top + 0.085, inner_bottom)[::-1]),
        ]),
        "tongue": np.array([[0, middle + 0.6 * opening]]),
        "chin": np.column_stack([0.16 * _ALONG, 1.0 - 0.05 * one[17] - 0.05 * _ARCH + 0.2 * drop]),
        "chin_low": np.column_stack([0.1 * _ALONG, 1.09 - 0.03 * _ARCH + 0.2 * drop]),
    }  # fmt: skip
    for side, sign in ((0, -1), (1, 1)):
        parts |= _folds(float(reach[side]), float(corner[side]), sign, side, float(a[12][side]))
    return parts


def _folds(reach: float, corner: float, sign: int, side: int, smile: float) -> dict[str, Points]:
    fold_x = np.array([0.19, 0.3 + 0.04 * smile, reach + 0.1, reach + 0.12])
    return {
        f"fold{side}": np.column_stack([fold_x * sign, np.array([0.22, 0.36, corner - 0.08, corner + 0.05])]),
        f"dimple{side}": np.array([[reach + 0.05, corner - 0.1], [reach + 0.1, corner], [reach + 0.05, corner + 0.1]])
        * (sign, 1),
        f"droop{side}": np.array([[reach + 0.03, corner + 0.03], [reach + 0.06, corner + 0.17]]) * (sign, 1),
        f"stretch{side}": np.array([[reach + 0.07, corner - 0.06], [reach + 0.09, corner + 0.1]]) * (sign, 1),
    }
