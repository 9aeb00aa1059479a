"""What an engine is compared and calibrated on: random inputs, and the sample pictures where these are in the cache."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from emo_models import weights
from emo_models.engines.parts import Part
from emo_models.engines.protocol import EngineError
from emo_models.preprocess import TRANSFORMS, cut_square, fit_into, normalise, square_around
from emo_models.weights import WeightsError

log = logging.getLogger(__name__)

Inputs = dict[str, NDArray[Any]]
Image = NDArray[np.uint8]

RANDOM_SEED: Final = 7
#: Random samples; the last one has the largest batch.
RANDOM_SAMPLES: Final = 4
#: How much larger than the box of a face the crop around it is.
WIDEN: Final = 1.2

#: Sample picture -> boxes x, y, width, height of its faces, in pixels.
FACES: Final[Mapping[str, tuple[tuple[int, int, int, int], ...]]] = {
    "astronaut": ((178, 63, 89, 112),),
    "group_photo": (
        (465, 266, 102, 144), (748, 352, 99, 122), (1125, 272, 95, 123), (906, 58, 99, 143), (60, 268, 107, 128),
        (266, 151, 105, 126),
    ),
}  # fmt: skip


def golden_inputs(part: Part) -> list[Inputs]:
    """Random inputs of the smallest and the largest batch, then real ones where the input is a picture."""
    generator = np.random.default_rng(RANDOM_SEED)
    sizes = (high for port in part.inputs for low, high in zip(port.min, port.max, strict=True) if low != high)
    largest = max(sizes, default=1)
    found = [part.sample(generator, 1) for _ in range(RANDOM_SAMPLES - 1)]
    return [*found, part.sample(generator, largest), *real_inputs(part)]


def real_inputs(part: Part) -> Iterator[Inputs]:
    """An input for each face or picture of the samples; none where the input is no picture or the cache lacks them."""
    if len(part.inputs) != 1 or not part.normalisation:
        return
    (port,) = part.inputs
    for name, boxes in FACES.items():
        try:
            picture = read_picture(weights.path(name))
        except WeightsError as error:
            log.debug("no real input: %s", error)
            continue
        if port.name == "faces":
            for box in boxes:
                yield {port.name: picture_input(part, cut_square(picture, square_around(*box, WIDEN), port.max[-1]))}
        else:
            yield {port.name: picture_input(part, picture)}


def read_picture(file: Path) -> Image:
    """A picture as RGB uint8 [H, W, 3]. Raises :class:`EngineError`."""
    picture = cv2.imread(str(file))
    if picture is None:
        raise EngineError(f"{file}: not a picture that OpenCV can read")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def picture_input(part: Part, picture: Image) -> NDArray[np.float32]:
    """A picture as the only input of a part, batch 1: a face, a frame, a whole image, or a clip that moves over it."""
    (port,) = part.inputs
    height, width = port.max[-2:]
    if part.normalisation == "fit_into":
        return fit_into(picture, (height, width))[0][None]
    transform = TRANSFORMS[part.normalisation]

    def normal(image: Image) -> NDArray[np.float32]:
        small = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        return normalise(small, transform.mean, transform.std)

    if port.layout != "NCTHW":
        return normal(picture)[None]
    frames = port.max[2]
    return np.stack([normal(picture[:, 4 * t : picture.shape[1] - 4 * (frames - t)]) for t in range(frames)], 1)[None]


def calibration_inputs(part: Part, folder: Path | None = None) -> list[Inputs]:
    """What the ranges of int8 are measured on, and labels are compared on.

    ``folder``: pictures (aligned faces for networks of faces). Without one: the real inputs, each also mirrored and
    darker, or random ones where there are none. Raises :class:`EngineError` for a folder without pictures, or for a
    part whose input is no picture.
    """
    if folder is not None:
        if len(part.inputs) != 1 or not part.normalisation:
            raise EngineError(f"--calibration: {', '.join(p.name for p in part.inputs)} are no pictures")
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
        if not files:
            raise EngineError(f"--calibration {folder}: no .png or .jpg there")
        return [{part.inputs[0].name: picture_input(part, read_picture(file))} for file in files]
    real = list(real_inputs(part))
    if real:
        mirrored = [{name: np.ascontiguousarray(x[..., ::-1]) for name, x in sample.items()} for sample in real]
        darker = [{name: x * np.float32(0.7) for name, x in sample.items()} for sample in real]
        return [*real, *mirrored, *darker]
    generator = np.random.default_rng(RANDOM_SEED + 1)
    return [part.sample(generator, 1) for _ in range(16)]
