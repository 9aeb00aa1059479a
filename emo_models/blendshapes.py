"""The blendshape network's interface, and what its outputs say about action units.

The network (Google, Face Blendshape V2, part of face_landmarker.task) takes 146 of the mesh's 478 points in pixels and
gives 52 coefficients named as Apple's ARKit names them. The correspondence of coefficients and FACS action units is
that of ARKit's and FACS's own descriptions. Not every coefficient works: cheekSquint (AU6), noseSneer (AU9) and
cheekPuff stay at zero and mouthFrown (AU15) barely moves, so those action units are not reported at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]

#: Mesh points that the network reads, in its input order.
MESH_POINTS: Final = np.array(
    [
        0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70, 78, 80,
        81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149, 150, 152, 153,
        154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191, 195, 197, 234, 246, 249,
        251, 263, 267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312, 314,
        317, 318, 321, 323, 324, 332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382,
        384, 385, 386, 387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466, 468, 469, 470, 471, 472, 473,
        474, 475, 476, 477,
    ]
)  # fmt: skip

#: Names of the 52 coefficients, in the network's output order.
NAMES: Final = (
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ActionUnitSource:
    """How one action unit is read.

    ``coefficients`` are averaged; ``neutral`` and ``spread`` are mean and standard deviation of that average over
    neutral faces of different people (``emo neutral`` measures them); ``full`` is its value at the strongest
    expression seen.
    """

    au: int
    coefficients: tuple[str, ...]
    neutral: float
    spread: float
    full: float


SOURCES: Final = (
    ActionUnitSource(1, ("browInnerUp",), 0.05, 0.08, 0.75),
    ActionUnitSource(2, ("browOuterUpLeft", "browOuterUpRight"), 0.08, 0.10, 0.70),
    ActionUnitSource(4, ("browDownLeft", "browDownRight"), 0.20, 0.22, 0.90),
    ActionUnitSource(5, ("eyeWideLeft", "eyeWideRight"), 0.02, 0.04, 0.45),
    ActionUnitSource(7, ("eyeSquintLeft", "eyeSquintRight"), 0.35, 0.20, 0.95),
    ActionUnitSource(10, ("mouthUpperUpLeft", "mouthUpperUpRight"), 0.02, 0.05, 0.60),
    ActionUnitSource(12, ("mouthSmileLeft", "mouthSmileRight"), 0.08, 0.12, 0.90),
    ActionUnitSource(17, ("mouthShrugLower",), 0.05, 0.08, 0.60),
    ActionUnitSource(18, ("mouthPucker",), 0.08, 0.12, 0.95),
    ActionUnitSource(20, ("mouthStretchLeft", "mouthStretchRight"), 0.03, 0.05, 0.50),
    ActionUnitSource(24, ("mouthPressLeft", "mouthPressRight"), 0.10, 0.10, 0.60),
    ActionUnitSource(26, ("jawOpen",), 0.03, 0.05, 0.55),
    ActionUnitSource(45, ("eyeBlinkLeft", "eyeBlinkRight"), 0.15, 0.12, 0.85),
)

ACTION_UNITS: Final = tuple(source.au for source in SOURCES)

_MIX: Final = np.array(
    [[(name in source.coefficients) / len(source.coefficients) for name in NAMES] for source in SOURCES], np.float32
)


def raw_action_units(coefficients: Float) -> Float:
    """Coefficients float32 [52] -> one raw value per entry of :data:`SOURCES`, float32 [A], not yet calibrated."""
    return _MIX @ coefficients
