"""Preprocessing against values computed by hand, by definition, or recorded from the reference program."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from emo_models import preprocess as pp


def picture(height=6, width=7):
    y, x = np.mgrid[:height, :width]
    return np.stack([37 * x + 11 * y * y, 91 * y + 5 * x * x, 13 * x * y + 60], -1).astype(np.uint8)


def test_similarity_recovers_rotation_scale_and_shift():
    points = np.array([[0, 0], [4, 0], [0, 2], [3, 5], [-1, 2]], float)
    angle, scale, shift = 0.7, 1.9, np.array([11.0, -3.0])
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = pp.similarity(points, scale * points @ rotation.T + shift)
    np.testing.assert_allclose(matrix, np.column_stack([scale * rotation, shift]), atol=1e-12)


def test_similarity_is_least_squares_and_never_mirrors():
    rng = np.random.default_rng(0)
    points, targets = rng.normal(size=(2, 5, 2))

    def error(matrix):
        return ((points @ matrix[:, :2].T + matrix[:, 2] - targets) ** 2).sum()

    best = pp.similarity(points, targets)
    for a, b, x, y in rng.normal(scale=0.05, size=(50, 4)):
        nearby = best + np.array([[a, -b, x], [b, a, y]])
        assert error(nearby) > error(best)
    mirrored = pp.similarity(points, points * [-1, 1])
    assert np.linalg.det(mirrored[:, :2]) > 0
    with pytest.raises(ValueError, match=r"must differ, got \[2\.0, 3\.0\] for each; drop the detection"):
        pp.similarity(np.tile([2.0, 3.0], (5, 1)), points)


@pytest.mark.parametrize("size", [112, 224])
def test_aligned_points_lie_on_the_template(size):
    """A bright dot at each of the five points of a turned, scaled face comes out where the template has the point."""
    angle, scale = -0.4, 2.5
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    points = (pp.ARCFACE_112 - 56) @ turn.T + [230.0, 260.0]
    for point, wanted in zip(points, pp.ARCFACE_112 * size / 112, strict=True):
        image = np.zeros((520, 480, 3), np.uint8)
        y, x = np.mgrid[:520, :480]
        image[np.hypot(x - point[0], y - point[1]) < 6] = 255
        face = pp.align_face(image, points, size)
        assert face.shape == (size, size, 3)
        found = np.argwhere(face[..., 0] > 127)[:, ::-1].mean(0)
        assert np.abs(found - wanted).max() < 0.6


def test_alignment_takes_the_pose_that_fits():
    image = np.zeros((300, 300, 3), np.uint8)
    cv2.circle(image, (150, 140), 30, (200, 100, 50), -1)
    for number, pose in enumerate(pp.POSES_112):
        points = pose * 1.5 + 60
        best = pp.align_face(image, points, templates=pp.POSES_112)
        np.testing.assert_array_equal(best, pp.align_face(image, points, templates=pose))
        for other in np.delete(pp.POSES_112, number, axis=0):
            assert (best != pp.align_face(image, points, templates=other)).any()
    with pytest.raises(ValueError, match=r"five points \[5, 2\] of a face, got \[4, 2\]"):
        pp.align_face(image, np.zeros((4, 2)))


def test_square_around_a_box():
    assert pp.square_around(10, 20, 30, 50, 1.5) == pp.Square(25, 45, 75)


@pytest.mark.parametrize(
    ("count", "wanted", "frames"),
    [
        (100, 8, [0, 14, 28, 42, 56, 70, 84, 99]),
        (8, 8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (5, 8, [0, 0, 1, 1, 2, 2, 3, 4]),
        (1, 3, [0, 0, 0]),
        (30, 1, [0]),
    ],
)
def test_uniform_frames(count, wanted, frames):
    assert pp.uniform_frames(count, wanted).tolist() == frames


def test_uniform_frames_are_exact_for_every_length():
    from fractions import Fraction

    for count in range(1, 400):
        for wanted in (8, 32):
            expected = [math.floor(Fraction(i * (count - 1), wanted - 1)) for i in range(wanted)]
            assert pp.uniform_frames(count, wanted).tolist() == expected


@pytest.mark.parametrize(
    ("count", "wanted", "frames"),
    [
        # Segments of 9.9 frames: borders round(9.9 i) = 0 10 20 30 40 50 59 69 79 89 99.
        (100, 10, [5, 15, 25, 35, 45, 54, 64, 74, 84, 94]),
        (11, 5, [1, 3, 5, 7, 9]),
        (3, 100, [0, 1, 2]),
        (10, 10, list(range(10))),
        (1, 100, [0]),
    ],
)
def test_middle_frames(count, wanted, frames):
    assert pp.middle_frames(count, wanted).tolist() == frames


@pytest.mark.parametrize("choose", [pp.uniform_frames, pp.middle_frames])
def test_no_frames_to_choose_from(choose):
    with pytest.raises(ValueError, match="cannot choose 8 of 0 frames"):
        choose(0, 8)
    assert choose(250, 100).dtype == np.int64


def test_normalisation_by_hand():
    image = np.array([[[0, 128, 255]]], np.uint8)
    got = pp.TRANSFORMS["imagenet224"].mean, pp.TRANSFORMS["imagenet224"].std
    assert got == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    values = pp.normalise(image, *got).ravel()
    np.testing.assert_allclose(values, [-2.117904, 0.205182, 2.64], atol=1e-6)
    clip = pp.TRANSFORMS["clip336"]
    values = pp.normalise(image, clip.mean, clip.std).ravel()
    np.testing.assert_allclose(values, [-1.792263, 0.168897, 2.145897], atol=1e-6)


#: Green channel of ``picture()`` resampled by Pillow 10.4.
RECORDED = {
    ("bilinear", (3, 4)): [[68, 89, 118, 123], [103, 124, 110, 122], [137, 158, 134, 119]],
    ("bilinear", (4, 9)): [
        [34, 37, 46, 60, 79, 106, 139, 145, 118],
        [133, 136, 145, 159, 178, 95, 96, 106, 86],
        [66, 69, 78, 92, 111, 116, 142, 152, 132],
        [165, 168, 177, 191, 210, 113, 110, 116, 89],
    ],
    ("bicubic", (3, 4)): [[63, 86, 121, 123], [101, 125, 107, 122], [138, 163, 139, 116]],
    ("bicubic", (4, 9)): [
        [28, 30, 38, 53, 73, 108, 150, 152, 116],
        [144, 146, 154, 172, 189, 84, 86, 104, 79],
        [55, 57, 65, 80, 100, 116, 152, 162, 137],
        [171, 173, 181, 199, 216, 105, 107, 119, 82],
    ],
}


@pytest.mark.parametrize(("kernel", "size"), RECORDED)
def test_resize_equals_pillow(kernel, size):
    np.testing.assert_array_equal(pp.resize(picture(), size, kernel)[..., 1], RECORDED[kernel, size])


def test_resize_by_hand():
    image = np.array([[[10], [20], [40], [80]]], np.uint8)
    # Halving with a triangle of two pixels half width: weights 3/7 3/7 1/7 at the border.
    wanted = [round((3 * 10 + 3 * 20 + 40) / 7), round((20 + 3 * 40 + 3 * 80) / 7)]
    assert pp.resize(image, (1, 2))[0, :, 0].tolist() == wanted
    np.testing.assert_array_equal(pp.resize(image, (1, 4), "bicubic"), image)
    with pytest.raises(ValueError, match="unknown kernel 'nearest'; choose one of: bilinear, bicubic"):
        pp.resize(image, (1, 2), "nearest")


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
def test_window_is_part_of_the_whole(kernel):
    image = picture(50, 80)
    whole = pp.resize(image, (20, 33), kernel)
    np.testing.assert_array_equal(pp.resize(image, (20, 33), kernel, (3, 10, 12, 20)), whole[3:15, 10:30])


@pytest.mark.parametrize(
    ("height", "width", "size", "top", "left"),
    [(50, 83, (20, 33), 0, 6), (83, 50, (33, 20), 6, 0), (20, 20, (20, 20), 0, 0)],
)
def test_short_edge_and_centre_crop(height, width, size, top, left):
    image = picture(height, width)
    wanted = pp.resize(image, size, "bicubic")[top : top + 20, left : left + 20]
    np.testing.assert_array_equal(pp.short_edge_crop(image, 20, 20, "bicubic"), wanted)
    with pytest.raises(ValueError, match="cannot cut 21 pixels out of a short edge of 20"):
        pp.short_edge_crop(image, 20, 21)


def test_transforms_of_the_networks():
    image = picture(300, 400)
    for name, crop in (
        ("imagenet224", 224),
        ("opengraphau224", 224),
        ("ddamfn112", 112),
        ("clip336", 336),
        ("clip224", 224),
    ):
        transform = pp.TRANSFORMS[name]
        result = transform(image)
        assert (result.shape, result.dtype) == ((3, crop, crop), np.float32)
        cut = pp.short_edge_crop(image, transform.resize, crop, transform.kernel)
        wanted = (cut / 255 - transform.mean) / transform.std
        np.testing.assert_allclose(result, wanted.transpose(2, 0, 1), atol=2e-6)
        assert transform.kernel == ("bicubic" if name.startswith("clip") else "bilinear")
    assert pp.TRANSFORMS["opengraphau224"].resize == 256


def test_aligned_face_is_not_resampled_and_clip_equals_frames():
    transform = pp.TRANSFORMS["ddamfn112"]
    frames = [picture(112, 112), picture(200, 160)]
    np.testing.assert_array_equal(transform(frames[0]), pp.normalise(frames[0], transform.mean, transform.std))
    clip = transform.clip(frames)
    assert clip.shape == (2, 3, 112, 112)
    for frame, got in zip(frames, clip, strict=True):
        np.testing.assert_array_equal(got, transform(frame))


def test_mel_filters_by_hand():
    filters = pp.mel_filters()
    assert filters.shape == (80, 201)
    # Below 1 kHz the scale is linear: 82 edges over 45.2456 mel of 66.67 Hz each, 37.2390 Hz apart.
    top = 15 + 27 * math.log(8) / math.log(6.4)
    step = top / 81 * 200 / 3
    assert filters[0, 1] == pytest.approx((2 * step - 40) / step * 2 / (2 * step))
    assert filters[1, 2] == pytest.approx((3 * step - 80) / step * 2 / (2 * step))
    assert filters[:, 0].max() == 0
    # Equal area: each wide triangle, sampled every 40 Hz, sums to about 1 / 40.
    np.testing.assert_allclose(filters[50:].sum(1), 1 / 40, rtol=0.02)


def test_log_mel_of_a_tone_peaks_in_its_band():
    t = np.arange(pp.SAMPLE_RATE_HZ) / pp.SAMPLE_RATE_HZ
    mel = pp.log_mel(np.sin(2 * np.pi * 1000 * t).astype(np.float32))
    assert (mel.shape, mel.dtype) == ((80, 100), np.float32)
    # A full-scale sine on a bin: its Hann-windowed power is (400 / 4)² there and a quarter of it beside.
    power = 100.0**2 * (pp.mel_filters()[:, 25] + (pp.mel_filters()[:, 24] + pp.mel_filters()[:, 26]) / 4)
    band = int(power.argmax())
    assert mel[:, 50].argmax() == band
    assert mel[band, 50] == pytest.approx((math.log10(power[band]) + 4) / 4, abs=1e-5)
    assert mel.min() == pytest.approx(mel.max() - 2.0, abs=1e-6)


def test_log_mel_pads_and_cuts():
    samples = np.random.default_rng(0).normal(scale=0.1, size=24_000).astype(np.float32)
    assert pp.log_mel(samples).shape == (80, 150)
    assert pp.log_mel(samples, 30.0).shape == (80, 3000)
    np.testing.assert_array_equal(pp.log_mel(samples, 1.0), pp.log_mel(samples[:16_000]))
    np.testing.assert_allclose(pp.log_mel(np.zeros(16_000, np.float32)), (math.log10(1e-10) + 4) / 4)
    with pytest.raises(ValueError, match=r"one channel of samples \[n\], got \[2, 100\]"):
        pp.log_mel(np.zeros((2, 100), np.float32))
    with pytest.raises(ValueError, match="100 samples are too few"):
        pp.log_mel(np.zeros(100, np.float32))


def test_log_mel_equals_transformers():
    transformers = pytest.importorskip("transformers", reason="compared with transformers' Whisper")
    samples = np.random.default_rng(1).normal(scale=0.1, size=40_000).astype(np.float32)
    wanted = transformers.WhisperFeatureExtractor()(samples, sampling_rate=16_000, return_tensors="np").input_features[
        0
    ]
    np.testing.assert_allclose(pp.log_mel(samples, 30.0), wanted, atol=1e-5)
