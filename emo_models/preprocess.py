"""The one image preprocessing, for training and run time alike. Plain numpy and OpenCV.

Images are RGB uint8 [H, W, 3]. A *square* is a rotated square region of an image: centre and side in pixels, angle in
radians, positive clockwise as seen in the image (y points down).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Float = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Square:
    """A rotated square region of an image."""

    centre_x: float
    centre_y: float
    side: float
    angle: float = 0.0

    def to_image(self, size: int) -> Float:
        """Affine float32 [2, 3] from pixels of a ``size`` x ``size`` crop to pixels of the image."""
        scale = self.side / size
        cos, sin = math.cos(self.angle) * scale, math.sin(self.angle) * scale
        half = size / 2
        return np.array(
            [
                [cos, -sin, self.centre_x - (cos - sin) * half],
                [sin, cos, self.centre_y - (sin + cos) * half],
            ],
            np.float32,
        )


def cut_square(image: NDArray[np.uint8], square: Square, size: int) -> Image:
    """The region, upright, as uint8 [size, size, C]; bilinear, black outside the image."""
    return np.asarray(
        cv2.warpAffine(image, square.to_image(size), (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP),
        np.uint8,
    )


def unit_range(image: Image, out: Float | None = None) -> Float:
    """uint8 -> float32 in [0, 1]; ``out`` is filled and returned when given."""
    return np.multiply(image, np.float32(1 / 255), out=out, dtype=np.float32)


def symmetric_range(image: Image, out: Float | None = None) -> Float:
    """uint8 -> float32 in [-1, 1]; ``out`` is filled and returned when given."""
    result = np.multiply(image, np.float32(1 / 127.5), out=out, dtype=np.float32)
    result -= 1
    return result


def gray(image: Image) -> Image:
    """RGB [H, W, 3] -> luma [H, W] (ITU-R BT.601, as OpenCV)."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def limit_width(image: Image, width: int) -> tuple[Image, float]:
    """Scale down to at most ``width`` pixels; returns the image and the factor from its pixels to the original's."""
    height_now, width_now = image.shape[:2]
    if width_now <= width:
        return image, 1.0
    factor = width_now / width
    size = (width, max(1, round(height_now / factor)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8), factor


def fit_into(image: Image, size_hw: tuple[int, int], out: Float | None = None) -> tuple[Float, float]:
    """The whole image in the top left corner of ``size_hw``, black beside it, as SCRFD wants it.

    Returns ``(value - 127.5) / 128`` as float32 [3, height, width], and the factor from its pixels to the image's;
    ``out`` is filled and returned when given.
    """
    height, width = size_hw
    factor = max(image.shape[0] / height, image.shape[1] / width)
    fitted = (max(1, min(width, round(image.shape[1] / factor))), max(1, min(height, round(image.shape[0] / factor))))
    kernel = cv2.INTER_AREA if factor > 1 else cv2.INTER_LINEAR
    small = image if fitted == image.shape[1::-1] else cv2.resize(image, fitted, interpolation=kernel)
    result = np.empty((3, height, width), np.float32) if out is None else out
    result.fill(-127.5 / 128)
    result[:, : fitted[1], : fitted[0]] = (small.transpose(2, 0, 1) - np.float32(127.5)) / np.float32(128)
    return result, factor


#: Five points (left eye, right eye, nose, left and right mouth corner, as seen in the image) of an upright face in a
#: 112 x 112 crop, in pixels: InsightFace's template for recognition.
ARCFACE_112 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float64
)

#: The same five points for faces turned far left, left, ahead, right and far right: DDAMFN takes the best fit of them.
POSES_112 = np.array(
    [
        [[55.550, 49.477], [62.116, 49.339], [38.075, 70.237], [55.017, 92.262], [61.466, 92.979]],
        [[47.241, 48.598], [72.887, 49.540], [40.555, 71.067], [47.423, 93.643], [71.236, 94.353]],
        [[33.566, 40.559], [78.321, 40.559], [55.338, 64.967], [38.479, 90.276], [73.591, 90.276]],
        [[39.516, 49.540], [65.162, 48.598], [71.849, 71.067], [41.167, 94.353], [64.980, 93.643]],
        [[50.225, 49.339], [56.791, 49.477], [74.266, 70.237], [50.875, 92.979], [65.317, 92.262]],
    ],
    np.float64,
)


def similarity(points: NDArray[np.floating], targets: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rotation, uniform scale and shift that bring ``points`` [n, 2] closest to ``targets`` [n, 2], as [2, 3].

    Least squares without reflection (Umeyama, 1991). Raises ``ValueError`` where the points are one point.
    """
    a, b = np.asarray(points, np.float64), np.asarray(targets, np.float64)
    a_mean, b_mean = a.mean(0), b.mean(0)
    # As complex numbers a similarity is one factor: the regression of b on a.
    za, zb = (a - a_mean) @ [1, 1j], (b - b_mean) @ [1, 1j]
    spread = float((za.conj() @ za).real)
    if spread < 1e-9:
        raise ValueError(f"the {len(a)} points of a face must differ, got {a[0].tolist()} for each; drop the detection")
    factor = complex(za.conj() @ zb) / spread
    linear = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return np.column_stack([linear, b_mean - linear @ a_mean])


def align_face(
    image: Image, points: NDArray[np.floating], size: int = 112, templates: NDArray[np.float64] = ARCFACE_112
) -> Image:
    """Cut a face out upright by its five points [5, 2], uint8 [size, size, 3]; bilinear, black outside the image.

    ``templates``: [5, 2], or [n, 5, 2] of which the one is taken that the points fit best (least sum of distances), all
    for 112 pixels. Raises ``ValueError`` for another number of points.
    """
    points = np.asarray(points, np.float64)
    if points.shape != (5, 2):
        raise ValueError(f"expected five points [5, 2] of a face, got {list(points.shape)}")
    best, least = np.empty((2, 3)), math.inf
    for template in templates.reshape(-1, 5, 2) * (size / 112):
        matrix = similarity(points, template)
        distance = np.linalg.norm(points @ matrix[:, :2].T + matrix[:, 2] - template, axis=1).sum()
        if distance < least:
            best, least = matrix, float(distance)
    return np.asarray(cv2.warpAffine(image, best, (size, size), flags=cv2.INTER_LINEAR), np.uint8)


#: Name -> where the five points of a face come to lie, in pixels of a 112 x 112 crop.
ALIGNMENTS = {"arcface": ARCFACE_112, "poses": POSES_112}


def square_around(x: float, y: float, width: float, height: float, widen: float = 1.0) -> Square:
    """The square about the centre of a box (its top left corner and size, in pixels), ``widen`` times its longer side."""
    return Square(x + width / 2, y + height / 2, widen * max(width, height))


def uniform_frames(count: int, wanted: int) -> NDArray[np.int64]:
    """Frames ``floor(linspace(0, count - 1, wanted))``, first and last included, as SwinBERT: int64 [wanted].

    Computed in whole numbers, so that no rounding moves a frame; a clip of fewer frames repeats some.
    """
    _require_frames(count, wanted)
    return np.arange(wanted) * (count - 1) // max(wanted - 1, 1)


def middle_frames(count: int, wanted: int) -> NDArray[np.int64]:
    """Middles of ``wanted`` equal segments, as Video-ChatGPT: int64 [min(count, wanted)].

    A clip of no more frames is taken whole; Video-ChatGPT would show one of its frames twice and another never.
    """
    _require_frames(count, wanted)
    if count <= wanted:
        return np.arange(count)
    borders = np.round(np.arange(wanted + 1) * ((count - 1) / wanted)).astype(np.int64)
    return (borders[:-1] + borders[1:]) // 2


def _require_frames(count: int, wanted: int) -> None:
    if count < 1 or wanted < 1:
        raise ValueError(f"cannot choose {wanted} of {count} frames; both must be at least 1")


@dataclass(frozen=True, slots=True)
class ImageTransform:
    """How an image becomes the input of a network; its fields belong into the network's card.

    The short edge is scaled to ``resize`` and the middle ``crop`` x ``crop`` cut out, unless the image has that size;
    then ``(value / 255 - mean) / std`` per channel, in the order RGB.
    """

    resize: int
    crop: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    #: ``bilinear`` or ``bicubic``, as :func:`resize`.
    kernel: str = "bilinear"

    def __call__(self, image: Image, out: Float | None = None) -> Float:
        """uint8 [H, W, 3] -> float32 [3, crop, crop]; ``out`` is filled and returned when given."""
        if image.shape[:2] != (self.crop, self.crop):
            image = short_edge_crop(image, self.resize, self.crop, self.kernel)
        return normalise(image, self.mean, self.std, out)

    def clip(self, frames: Sequence[Image]) -> Float:
        """Frames -> float32 [T, 3, crop, crop]."""
        result = np.empty((len(frames), 3, self.crop, self.crop), np.float32)
        for frame, out in zip(frames, result, strict=True):
            self(frame, out)
        return result


_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

#: Name -> transform. Video Swin takes ``imagenet224`` with the frames on the third axis, [3, T, 224, 224].
TRANSFORMS = {
    "imagenet224": ImageTransform(224, 224, *_IMAGENET),
    "opengraphau224": ImageTransform(256, 224, *_IMAGENET),
    "ddamfn112": ImageTransform(112, 112, *_IMAGENET),
    "clip336": ImageTransform(336, 336, *_CLIP, "bicubic"),
    "clip224": ImageTransform(224, 224, *_CLIP, "bicubic"),
}


@dataclass(frozen=True, slots=True)
class FaceTransform:
    """How a face in an image becomes the input of a network: aligned by its five points, then normalised.

    ``alignment``: a key of :data:`ALIGNMENTS`; ``size``: side of the aligned face in pixels; ``normalisation``: a key
    of :data:`TRANSFORMS`, of which mean and spread count, for the face is cut out at its size.
    """

    alignment: str
    size: int
    normalisation: str

    def __call__(self, image: Image, points: NDArray[np.floating], out: Float | None = None) -> Float:
        """Image and points [5, 2] -> float32 [3, size, size]; ``out`` is filled and returned when given.

        Raises ``ValueError`` as :func:`align_face`.
        """
        form = TRANSFORMS[self.normalisation]
        return normalise(align_face(image, points, self.size, ALIGNMENTS[self.alignment]), form.mean, form.std, out)


def normalise(image: Image, mean: Sequence[float], std: Sequence[float], out: Float | None = None) -> Float:
    """uint8 [H, W, 3] -> ``(image / 255 - mean) / std``, float32 [3, H, W]; ``out`` is filled and returned when given."""
    scale = (1 / (255 * np.asarray(std))).astype(np.float32)
    shift = (np.asarray(mean) / np.asarray(std)).astype(np.float32)
    result = np.multiply(image.transpose(2, 0, 1), scale[:, None, None], out=out, dtype=np.float32)
    result -= shift[:, None, None]
    return result


def short_edge_crop(image: Image, short: int, crop: int, kernel: str = "bilinear") -> Image:
    """Scale the short edge to ``short`` and cut out the middle ``crop`` x ``crop``: uint8 [crop, crop, 3].

    The long edge becomes ``floor(short * long / short_now)``, an odd pixel is left over at the end, as torchvision and
    transformers do. Raises ``ValueError`` where the crop is larger than the scaled image.
    """
    if crop > short:
        raise ValueError(f"cannot cut {crop} pixels out of a short edge of {short}; make crop at most resize")
    height, width = image.shape[:2]
    edge = min(height, width)
    size = (short * height // edge, short * width // edge)
    top, left = (size[0] - crop) // 2, (size[1] - crop) // 2
    return resize(image, size, kernel, (top, left, crop, crop))


def resize(
    image: Image, size: tuple[int, int], kernel: str = "bilinear", window: tuple[int, int, int, int] | None = None
) -> Image:
    """Resample uint8 [H, W, C] to ``size`` (height, width) as Pillow up to 12, which public networks were trained with.

    Shrinking widens the kernel by the factor, so nothing is skipped (OpenCV's does not, and that changes features).
    Equal to Pillow but for a step of one in less than 1 % of the values, where its fixed-point weights round otherwise.
    ``window`` (top, left, height, width) computes only that part of the result.
    """
    top, left, height, width = window or (0, 0, *size)
    rows, first_row, last_row = _resampling(image.shape[0], size[0], top, height, kernel)
    columns, first_column, last_column = _resampling(image.shape[1], size[1], left, width, kernel)
    part = image[first_row:last_row, first_column:last_column].astype(np.float32)
    # Across, rounded to whole values, then down: Pillow's order.
    part = _whole(np.tensordot(part, columns, axes=(1, 1)))  # [h, C, width]
    part = _whole(np.tensordot(rows, part, axes=(1, 0)))  # [height, C, width]
    return np.ascontiguousarray(part.transpose(0, 2, 1)).astype(np.uint8)


def _whole(values: Float) -> Float:
    return np.asarray(np.clip(np.floor(values + np.float32(0.5)), 0, 255), np.float32)


@lru_cache(maxsize=32)
def _resampling(length: int, wanted: int, start: int, count: int, kernel: str) -> tuple[Float, int, int]:
    """Weights [count, n] of source pixels ``first`` to ``last`` for results ``start`` to ``start + count`` of ``wanted``."""
    if kernel not in _KERNELS:
        raise ValueError(f"unknown kernel {kernel!r}; choose one of: {', '.join(_KERNELS)}")
    function, support = _KERNELS[kernel]
    factor = length / wanted
    scale = max(factor, 1.0)
    centres = (np.arange(start, start + count) + 0.5) * factor
    # Pillow cuts the kernel to whole pixels before it normalises.
    low = np.maximum((centres - support * scale + 0.5).astype(np.int64), 0)
    high = np.minimum((centres + support * scale + 0.5).astype(np.int64), length)
    pixels = np.arange(low.min(), high.max())
    weights = function(np.abs(pixels[None, :] + 0.5 - centres[:, None]) / scale)
    weights[(pixels < low[:, None]) | (pixels >= high[:, None])] = 0.0
    weights /= weights.sum(1, keepdims=True)
    return weights.astype(np.float32), int(low.min()), int(high.max())


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(1.0 - x, 0.0)


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    near, far = (1.5 * x - 2.5) * x * x + 1.0, ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


#: Kernel and its half width in pixels.
_KERNELS = {"bilinear": (_triangle, 1.0), "bicubic": (_cubic, 2.0)}

SAMPLE_RATE_HZ = 16_000
_MEL_WINDOW, _MEL_HOP, _MEL_BANDS = 400, 160, 80


def log_mel(samples: Float, seconds: float | None = None) -> Float:
    """Whisper's log-mel spectrogram of 16 kHz mono in [-1, 1]: float32 [80, n], a column every 10 ms.

    ``seconds``: pad with silence, or cut, to this length first; Whisper's encoder wants 30. Raises ``ValueError`` for
    anything but one channel.
    """
    if samples.ndim != 1:
        raise ValueError(f"expected one channel of samples [n], got {list(samples.shape)}; mix the channels down")
    if seconds is not None:
        wanted = round(seconds * SAMPLE_RATE_HZ)
        samples = np.pad(samples[:wanted], (0, max(0, wanted - len(samples))))
    if len(samples) <= _MEL_WINDOW // 2:
        raise ValueError(f"{len(samples)} samples are too few for a spectrogram; give at least {_MEL_WINDOW // 2 + 1}")
    padded = np.pad(samples.astype(np.float64), _MEL_WINDOW // 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, _MEL_WINDOW)[::_MEL_HOP][:-1]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_MEL_WINDOW) / _MEL_WINDOW)
    power = np.abs(np.fft.rfft(windows * hann, axis=1)) ** 2
    log = np.log10(np.maximum(mel_filters() @ power.T, 1e-10))
    log = np.maximum(log, log.max() - 8.0)
    return np.asarray((log + 4.0) / 4.0, np.float32)


@lru_cache(maxsize=1)
def mel_filters() -> NDArray[np.float64]:
    """Triangular filters of equal area, evenly spaced on Slaney's mel scale from 0 to 8 kHz: [80, 201]."""
    frequencies = np.linspace(0, SAMPLE_RATE_HZ / 2, _MEL_WINDOW // 2 + 1)
    # Slaney's scale: 3 mel per 200 Hz up to 1 kHz, from there 27 mel for a factor of 6.4.
    mels = np.linspace(0, 15 + 27 * math.log(SAMPLE_RATE_HZ / 2 / 1000) / math.log(6.4), _MEL_BANDS + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.minimum((frequencies - low) / (middle - low), (high - frequencies) / (high - middle))
    return np.asarray(np.maximum(triangles, 0) * 2 / (high - low), np.float64)
