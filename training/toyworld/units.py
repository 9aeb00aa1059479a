"""Which action units the faces of the toy world have, and how they move in time.

An *activation* is float64 [2, U]: row 0 is the person's right side (left in the image), row 1 the left; column u is
:data:`UNITS` [u]; 0 is at rest and 1 the strongest. Units that FACS scores on the whole face have equal rows.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from emo_models.labels import OPENGRAPHAU_SIDES, opengraphau_outputs

#: FACS numbers that are drawn. 45 is the blink, which the AU networks do not report; the other 17 they do.
UNITS: Final = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 18, 20, 24, 25, 26, 45)
COLUMN: Final = {number: column for column, number in enumerate(UNITS)}
BLINK: Final = COLUMN[45]
#: Columns whose two rows may differ.
SIDED: Final = tuple(COLUMN[number] for number in OPENGRAPHAU_SIDES)

Activation = NDArray[np.float64]


def at_rest() -> Activation:
    """Zeros [2, U]."""
    return np.zeros((2, len(UNITS)))


def whole_face(activation: Activation) -> Activation:
    """The same with equal rows for the units without sides: the stronger one."""
    result = activation.copy()
    for column in range(len(UNITS)):
        if column not in SIDED:
            result[:, column] = activation[:, column].max()
    return result


def network_scores(activations: NDArray[np.floating]) -> NDArray[np.float32]:
    """Activations [T, 2, U] as targets of an AU network: float32 [T, 41], ordered as ``labels.opengraphau_outputs``.

    A unit's own score is that of its stronger side; units that are never drawn are 0.
    """
    outputs = opengraphau_outputs()
    scores = np.zeros((len(activations), len(outputs)), np.float32)
    for place, output in enumerate(outputs):
        column = COLUMN.get(output.number)
        if column is not None:
            sides = {"": (0, 1), "R": (0,), "L": (1,)}[output.side]
            scores[:, place] = activations[:, sides, column].max(1)
    return scores


def envelope(rng: np.random.Generator, frames: int) -> NDArray[np.float64]:
    """Onset, apex and, in half of the clips, offset of an expression: float64 [frames] in 0 to 1."""
    position = (np.arange(frames) + 0.5) / frames
    start, length = rng.uniform(0, 0.2), rng.uniform(0.12, 0.3)
    rise = _ramp(position, start, length)
    if rng.random() < 0.5:
        return rise
    fall = _ramp(position, rng.uniform(0.7, 0.85), rng.uniform(0.12, 0.3))
    return rise * (1 - rng.uniform(0.5, 0.9) * fall)


def _ramp(position: NDArray[np.float64], start: float, length: float) -> NDArray[np.float64]:
    """0 before ``start``, 1 ``length`` later, a half cosine between."""
    return np.asarray(0.5 - 0.5 * np.cos(np.pi * np.clip((position - start) / length, 0, 1)))


def movement(
    rng: np.random.Generator, apex: Activation, profile: NDArray[np.floating], *, tremor: float = 0.03
) -> NDArray[np.float64]:
    """Activations [T, 2, U] of an expression with that apex: its profile [T], slow noise and now and then a blink."""
    frames = len(profile)
    noise = rng.normal(0, tremor, (frames + 2, len(UNITS)))
    noise = (noise[:-2] + noise[1:-1] + noise[2:]) / 1.7
    moving = profile[:, None, None] * apex + noise[:, None, :] * (apex > 0.05)
    moving[..., BLINK] = 0
    if frames > 4 and rng.random() < 0.4:
        moving[rng.integers(1, frames - 2), :, BLINK] = 1
    return np.clip(moving, 0, 1)
