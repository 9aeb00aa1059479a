"""Where a head points, from five points of its face."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]

#: Both eyes, nose tip and mouth corners of a head that looks into the camera, in distances between the eyes, as seen in
#: the image: x right, y down, z away from the camera. Medians of the start profile's meshes on its sample pictures.
HEAD: Final = np.array(
    [[-0.5, 0, 0], [0.5, 0, 0], [0, 0.55, -0.7], [-0.48, 1.07, -0.1], [0.48, 1.07, -0.1]], np.float64
)
_CENTRED: Final = HEAD - HEAD.mean(0)
_SOLVER: Final = np.linalg.pinv(_CENTRED)


def pose_ypr(points: NDArray[np.floating]) -> Float:
    """Yaw, pitch and roll float32 [3] in radians, signed as in :class:`emo_perception.types.FaceTrack`, of points [5, 2].

    The head :data:`HEAD` under scaled orthographic projection: the affine map that fits the points best in the sense of
    least squares, and the rotation nearest to it. Perspective is neglected, and so is the shape of the person's own
    head: some degrees in yaw and roll, more in pitch, for which the height of the nose is all there is to go by.
    """
    affine = (_SOLVER @ (points - points.mean(0))).T  # [2, 3]
    left, _, right = np.linalg.svd(affine, full_matrices=False)
    rows = left @ right
    rotation = np.vstack([rows, np.cross(rows[0], rows[1])])
    across, up = rotation[:, 0], -rotation[:, 1]
    yaw = math.atan2(across[2], math.hypot(across[0], across[1]))
    pitch = math.atan2(up[2], math.hypot(up[0], up[1]))
    return np.array([yaw, pitch, math.atan2(-across[1], across[0])], np.float32)
