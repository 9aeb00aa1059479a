"""Messages and dataclasses, both ways; pixels out of every encoding; images that cannot be."""

from __future__ import annotations

import json
from array import array

import cv2
import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image

from emo_msgs import msg as m
from emo_perception import from_msg, jsonl
from emo_perception import types as t
from emo_perception.images import ENCODINGS, BadImage, image_from_msg
from emo_perception.nodes import convert

STAMP = 1_700_000_000_123_456_789


def picture(width=64, height=48):
    """A smooth picture with every hue, so that swapped channels and subsampling show: uint8 [H, W, 3] RGB."""
    y, x = np.mgrid[:height, :width]
    planes = (255 * x / width, 255 * y / height, 255 - 255 * x / width)
    return np.stack(planes, axis=-1).astype(np.uint8)


def image_msg(data, encoding, *size_step, bigendian=0):
    width, height, step = size_step
    message = Image(encoding=encoding, width=width, height=height, step=step, is_bigendian=bigendian)
    message.data = array("B", bytes(data))
    return message


def compressed(data, fmt="jpeg"):
    message = CompressedImage(format=fmt)
    message.data = array("B", bytes(data))
    return message


def features(faces=2, landmarks=True, embeddings=True):
    rng = np.random.default_rng(7)

    def f32(*shape):
        return rng.random(shape, dtype=np.float32)

    made = tuple(
        t.FaceFeatures(
            t.FaceTrack(i + 1, 0.5, STAMP - i, f32(4) - 9, f32(5, 2), f32(3), f32(478, 3) if landmarks else None),
            t.FaceActionUnits(i + 1, "blendshape", (1, 4, 12), (t.Side.BOTH, t.Side.LEFT, t.Side.RIGHT), f32(3), True),
            t.FaceEmotion(i + 1, "fer7", ("angry", "happy"), np.array([0.25, 0.75], np.float32)),
            {"prompt": f32(2, 3).astype(np.float16)} if embeddings else {},
        )
        for i in range(faces)
    )
    return t.EmotionFeatures(STAMP, "camera_optical_frame", (640, 480), made, expired=(9, 12))


def over_the_wire(message):
    return deserialize_message(serialize_message(message), type(message))


@pytest.mark.parametrize("stamp", [0, 1, 999_999_999, STAMP, 2**31 * 10**9 - 1])
def test_stamps_survive_exactly(stamp):
    assert from_msg.stamp_ns(over_the_wire(convert.time_msg(stamp))) == stamp


@pytest.mark.parametrize("faces", [0, 1, 6])
def test_features_survive_the_wire(faces):
    before = features(faces)
    after = from_msg.features(over_the_wire(convert.frame_msgs(before, landmarks=True).features))
    assert jsonl.to_json(after) == jsonl.to_json(before)
    for left, right in zip(before.faces, after.faces, strict=True):
        np.testing.assert_array_equal(left.track.landmarks, right.track.landmarks)
        np.testing.assert_array_equal(left.embeddings["prompt"], right.embeddings["prompt"])


def test_the_messages_of_one_frame_agree():
    messages = convert.frame_msgs(features())
    assert {msg.header.stamp.nanosec for msg in messages} == {STAMP % 10**9}
    assert messages.features.faces[1].track == messages.faces.faces[1]
    assert messages.features.faces[1].action_units == messages.action_units.faces[1]
    assert messages.features.faces[1].emotion == messages.emotions.faces[1]
    assert not messages.faces.faces[0].landmarks  # only on request


def test_caption_survives_the_wire():
    evidence = t.WordEvidence(4, 9, 3, au=12, side=t.Side.LEFT, intensity=0.5, frames_ns=(STAMP, STAMP - 1))
    before = t.Caption(STAMP, "cam", STAMP - 9, STAMP, "A face.", (3, 4), "happy", 0.5, (evidence,), "realiser")
    after = from_msg.caption(over_the_wire(convert.caption_msg(before)))
    assert jsonl.to_json(after) == jsonl.to_json(before)


def test_audio_survives_the_wire_and_stereo_becomes_mono():
    before = t.AudioChunk(STAMP, np.array([-32768, 0, 32767], np.int16), 16_000, "mic")
    after = from_msg.audio(over_the_wire(convert.audio_msg(before)))
    np.testing.assert_array_equal(after.samples, before.samples)
    assert (after.stamp_ns, after.sample_rate_hz, after.frame_id) == (STAMP, 16_000, "mic")
    stereo = m.AudioChunk(sample_rate=16_000, channels=2, data=[100, 300, -5, 5])
    assert from_msg.audio(stereo).samples.tolist() == [200, 0]
    with pytest.raises(ValueError, match=r"whole samples of all channels.*3 values"):
        from_msg.audio(m.AudioChunk(sample_rate=16_000, channels=2, data=[1, 2, 3]))


def test_a_tensor_that_does_not_fit_its_shape_is_refused():
    message = m.Tensor(name="prompt", dtype="float32", shape=[2, 3], data=[0] * 20)
    with pytest.raises(ValueError, match=r"prompt float32 \[2, 3\]: expected 24 bytes, got 20"):
        from_msg.tensors([message])


def test_json_lines_are_strict_json_with_integer_stamps_and_hashed_tensors():
    item = json.loads(jsonl.line(features(1)))
    assert item["stamp_ns"] == STAMP
    track = item["faces"][0]["track"]
    assert track["landmarks"]["shape"] == [478, 3]
    assert len(track["landmarks"]["sha256"]) == 64
    caption = t.Caption(1, "", 0, 1, "x", (), "", 0.0, (t.WordEvidence(0, 1, 1),), "m")
    assert json.loads(jsonl.line(caption))["evidence"][0]["similarity"] is None
    with pytest.raises(TypeError, match="known: Faces"):
        jsonl.to_json("text")


# Encodings: each is made from the same picture, independently of the code that reads it.


def encode(rgb, encoding):
    """Data [rows, bytes] of a picture in an encoding, by the definition of that encoding."""
    gray = rgb.mean(axis=2).astype(np.uint8)
    flat = {
        "rgb8": rgb, "bgr8": rgb[..., ::-1], "8UC3": rgb[..., ::-1], "mono8": gray, "8UC1": gray,
        "rgba8": np.dstack([rgb, gray]), "bgra8": np.dstack([rgb[..., ::-1], gray]),
        "8UC4": np.dstack([rgb[..., ::-1], gray]),
        "mono16": (gray.astype("<u2") * 256 + 17).view(np.uint8), "16UC1": (gray.astype("<u2") * 256).view(np.uint8),
    }  # fmt: skip
    if encoding in flat:
        return np.ascontiguousarray(flat[encoding]).reshape(rgb.shape[0], -1)
    if encoding.startswith("bayer"):
        order = encoding.removeprefix("bayer_")[:4]
        mosaic = np.empty(rgb.shape[:2], np.uint8)
        for place, colour in enumerate(order):
            row, column = divmod(place, 2)
            mosaic[row::2, column::2] = rgb[row::2, column::2, "rgb".index(colour)]
        return (mosaic.astype("<u2") * 256).view(np.uint8) if encoding.endswith("16") else mosaic
    return encode_yuv(rgb.astype(np.float32), encoding)


def encode_yuv(rgb, encoding):
    """BT.601, studio range: the definition of the YUV encodings of cameras."""
    r, g, b = np.moveaxis(rgb, -1, 0)
    y = 16 + (65.738 * r + 129.057 * g + 25.064 * b) / 256
    u = 128 + (-37.945 * r - 74.494 * g + 112.439 * b) / 256
    v = 128 + (112.439 * r - 94.154 * g - 18.285 * b) / 256
    if encoding in ("nv12", "nv21"):
        chroma = (u, v) if encoding == "nv12" else (v, u)
        interleaved = np.stack([plane[::2, ::2] for plane in chroma], axis=-1).reshape(rgb.shape[0] // 2, -1)
        return np.vstack([y, interleaved]).round().astype(np.uint8)
    pairs = [u[:, ::2], y[:, ::2], v[:, ::2], y[:, 1::2]]
    if encoding in ("yuyv", "yuv422_yuy2"):
        pairs = [pairs[1], pairs[0], pairs[3], pairs[2]]
    return np.stack(pairs, axis=-1).reshape(rgb.shape[0], -1).round().astype(np.uint8)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("padding", [0, 5])
def test_every_encoding_gives_the_picture_back(encoding, padding):
    rgb = picture()
    height, width = rgb.shape[:2]
    rows = encode(rgb, encoding)
    step = rows.shape[1] + padding
    data = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
    got = image_from_msg(image_msg(data, encoding, width, height, step))
    assert got.shape == rgb.shape
    assert got.dtype == np.uint8
    gray = encoding in ("mono8", "8UC1", "mono16", "16UC1")
    expected = np.repeat(rgb.mean(axis=2).astype(np.uint8)[..., None], 3, axis=2) if gray else rgb
    inner = np.abs(got.astype(int) - expected)[2:-2, 2:-2]
    exact = gray or encoding.startswith(("rgb", "bgr", "8UC"))
    assert inner.max() <= (0 if exact else 12)  # a pixel of subsampled colour is 8 away


def test_big_endian_sixteen_bit_images():
    data = np.full((4, 6), 0x1234, ">u2").view(np.uint8)
    assert (image_from_msg(image_msg(data, "mono16", 6, 4, 12, bigendian=1)) == 0x12).all()
    assert (image_from_msg(image_msg(data, "mono16", 6, 4, 12, bigendian=0)) == 0x34).all()


def test_an_rgb_image_is_not_copied():
    message = image_msg(picture(), "rgb8", 64, 48, 192)
    assert np.shares_memory(image_from_msg(message), np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (image_msg(bytes(64), "h264", 8, 8, 8), "'h264' is not supported; supported: .*bgr8.*rgb8"),
        (image_msg(bytes(64), "", 8, 8, 8), "'' is not supported"),
        (image_msg(b"", "rgb8", 0, 0, 0), "empty image: 0x0"),
        (image_msg(bytes(48), "rgb8", 8, 2, 8), "8 pixels need at least 24 bytes a row, got step 8"),
        (image_msg(bytes(47), "rgb8", 8, 2, 24), "expected 48 bytes, got 47"),
        (image_msg(bytes(49), "rgb8", 8, 2, 24), "expected 48 bytes, got 49"),
        (image_msg(bytes(28), "yuyv", 7, 2, 14), "expected an even size, got 7x2"),
        (image_msg(bytes(36), "nv12", 8, 3, 8), "expected an even size, got 8x3"),
    ],
)
def test_raw_images_that_cannot_be(message, text):
    with pytest.raises(BadImage, match=text):
        image_from_msg(message)


def jpeg(rgb):
    return cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def png(rgb):
    return cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()


@pytest.mark.parametrize("tail", [b"", b"\0" * 500])
def test_jpeg_and_png_are_decoded(tail):
    rgb = picture()
    assert np.abs(image_from_msg(compressed(jpeg(rgb) + tail)).astype(int) - rgb).mean() < 4
    np.testing.assert_array_equal(image_from_msg(compressed(png(rgb) + tail, "png")), rgb)


@pytest.mark.parametrize("encoder", [jpeg, png])
@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9, 0.99])
def test_truncated_pictures_are_refused_at_any_length(encoder, keep):
    data = encoder(picture(320, 240))
    with pytest.raises(BadImage, match=r"truncated (JPEG|PNG): \d+ bytes"):
        image_from_msg(compressed(data[: int(len(data) * keep)]))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "empty compressed image"),
        (b"\0\0\0\1gibberish", "format 'jpeg' beginning with bytes 00 00 00 01: expected JPEG or PNG"),
        (b"\xff\xd8" + b"gibberish" * 9 + b"\xff\xd9", "cannot be decoded"),
    ],
)
def test_compressed_images_that_cannot_be(data, text):
    with pytest.raises(BadImage, match=text):
        image_from_msg(compressed(data))
