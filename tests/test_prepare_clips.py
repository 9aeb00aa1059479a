"""Clips become arrays: exact images, the subject's face through the run-time stage, and a reason where that fails."""

from __future__ import annotations

import re

import av
import cv2
import numpy as np
import pytest
from media_files import FPS, count_of, write_clip

from emo_models.fetch import pull
from emo_models.preprocess import ARCFACE_112
from emo_perception.types import Frame
from training.datasets.record import Record, Span
from training.prepare.clips import ClipForm, PreparedClip, prepare_clip
from training.prepare.faces import FaceTrack, KnownFaces, StageFaces
from training.prepare.video import UnreadableVideo, Video

NOBODY = KnownFaces({"a": []}, "1")
SMALL = {"frames": 5, "image_size": 64, "face_size": 56}


def record(file, start_s=0.0, end_s=None, clip_id="a"):
    return Record(clip_id, "made", "train", Span(file, start_s, end_s))


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """64 images, each with its number in the pixels, though the file announces nothing of the kind."""
    return write_clip(tmp_path_factory.mktemp("clips") / "counted.mp4", frames=64, size=(96, 96), sound_s=None)


@pytest.mark.parametrize("wanted", [1, 2, 5, 8, 64, 70])
def test_images_are_those_of_swinbert(counted, wanted):
    clip = prepare_clip(record(counted), **{**SMALL, "frames": wanted}, faces=NOBODY)
    expected = np.floor(np.linspace(0, 63, wanted) + 1e-9).astype(int)
    assert [count_of(image) for image in clip.clip] == expected.tolist()
    assert clip.numbers.tolist() == expected.tolist()
    assert clip.count == 64
    np.testing.assert_allclose(clip.stamps, expected * 1e9 / FPS, atol=1e3)
    assert clip.clip.shape == (wanted, 64, 64, 3)
    assert clip.faces.shape == (wanted, 56, 56, 3)
    assert not clip.face_valid.any()
    assert not clip.faces.any()


def test_a_span_is_cut_out_exactly(counted):
    clip = prepare_clip(record(counted, 10 / FPS, 20 / FPS), **SMALL, faces=NOBODY)
    assert [count_of(image) for image in clip.clip] == [10, 12, 14, 16, 19]  # image 20 begins at the end
    assert clip.stamps[0] == 0
    assert clip.count == 10


def test_middles_of_segments_and_the_whole_width(tmp_path):
    wide = record(write_clip(tmp_path / "wide.mp4", frames=64, size=(128, 96), sound_s=None))
    clip = prepare_clip(wide, **SMALL, faces=NOBODY, sampling="middle", crop=False)
    assert clip.clip.shape == (5, 64, 85, 3)
    assert clip.numbers.tolist() == [6, 19, 31, 44, 56]
    narrow = prepare_clip(wide, **SMALL, faces=NOBODY, sampling="middle")
    np.testing.assert_array_equal(narrow.clip, clip.clip[:, :, 10:74])


def test_frames_of_the_stream_and_of_the_file_are_the_same(counted):
    """The dyadic grid at 5 Hz of a video with 25 images a second."""
    pytest.importorskip("torch")
    form = {**SMALL, "sampling": "dyadic", "rate_hz": 5.0}
    clip = prepare_clip(record(counted), **{**form, "frames": 100}, faces=NOBODY)
    # Images nearest to 0, 0.2, ... s; as the clock rounds, the first that belongs to a number counts.
    assert clip.numbers.tolist() == [0, 3, 8, 13, 18, 23, 28, 33, 38, 43, 48, 53, 58, 63]
    few = prepare_clip(record(counted), **{**form, "frames": 5}, faces=NOBODY)
    assert few.numbers.tolist() == clip.numbers[::4].tolist()


def test_several_spans_make_one_clip(counted):
    video = Video([Span(counted, 0.0, 3 / FPS), Span(counted, 8 / FPS, 11 / FPS)])
    frames = list(video.frames())
    assert [count_of(frame.image) for frame in frames] == [0, 1, 2, 8, 9, 10]
    np.testing.assert_allclose([f.stamp_ns * FPS / 1e9 for f in frames], range(6), atol=1e-3)
    assert video.count() == 6
    clip = prepare_clip(record(counted), **SMALL, faces=NOBODY, video=video)
    assert [count_of(image) for image in clip.clip] == [0, 1, 2, 8, 10]


def test_long_clips_are_decoded_twice_with_the_same_result(counted, monkeypatch):
    kept = prepare_clip(record(counted), **SMALL, faces=NOBODY)
    monkeypatch.setattr("training.prepare.video.KEEP_BYTES", 100_000)
    again = prepare_clip(record(counted), **SMALL, faces=NOBODY)
    for name, array in kept.arrays().items():
        np.testing.assert_array_equal(array, again.arrays()[name])


def test_wide_images_are_scaled_as_perception_does(tmp_path):
    file = write_clip(tmp_path / "wide.mp4", frames=2, size=(640, 240), sound_s=None)
    images = [frame.image.shape for frame in Video([Span(file)], max_width=320).frames()]
    assert images == [(120, 320, 3)] * 2


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("gone.mp4", None, "no such file"),
        ("empty.mp4", b"", "the file is empty"),
        ("words.mp4", b"this is no video\n" * 400, "cannot be opened"),
        ("cut.mp4", "cut", "cannot be opened"),
        ("sound.mp4", "sound", "expected a video, found only sound"),
    ],
)
def test_what_is_no_video_has_a_reason(tmp_path, counted, name, content, told):
    file = tmp_path / name
    if content == "cut":
        file.write_bytes(counted.read_bytes()[:2000])
    elif content == "sound":
        write_clip(file, video=False, sound_s=0.2)
    elif content is not None:
        file.write_bytes(content)
    with pytest.raises(UnreadableVideo, match=f"{re.escape(name)}.*{told}"):
        prepare_clip(record(file), **SMALL, faces=NOBODY)


def test_a_span_behind_the_end_has_a_reason(counted):
    with pytest.raises(UnreadableVideo, match=r"no image between 9 s and 10 s; the last one before is at 2\.52 s"):
        prepare_clip(record(counted, 9.0, 10.0), **SMALL, faces=NOBODY)
    with pytest.raises(UnreadableVideo, match="clip 'b' has no video on this disk"):
        Video.of(Record("b", "made", "train", None, flags=frozenset({"no-video"})))


def test_known_points_are_cut_out_where_they_are(counted):
    """The subject is the first; its points at the template's own places give back the picture itself."""
    places = (ARCFACE_112 / 2).astype(np.float32)
    small = FaceTrack(dict.fromkeys(range(64), places / 2), area=10.0)
    large = FaceTrack({n: places for n in range(64) if n != 31}, area=20.0)
    clip = prepare_clip(record(counted), **SMALL, faces=KnownFaces({"a": [large, small]}, "1"))
    assert clip.face_valid.tolist() == [True, True, False, True, True]
    images = [frame.image for frame in Video([Span(counted)]).frames()]
    for number, crop, valid in zip(clip.numbers, clip.faces, clip.face_valid, strict=True):
        np.testing.assert_array_equal(crop, images[number][:56, :56] * valid)
    with pytest.raises(KeyError, match="no face points are known for clip 'b'"):
        prepare_clip(record(counted, clip_id="b"), **SMALL, faces=NOBODY)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"frames": 0}, "frames: expected at least 1, got 0"),
        ({"face_size": 2}, "face_size: expected at least 8"),
        ({"sampling": "random"}, "sampling: expected one of uniform, middle, dyadic; got 'random'"),
        ({"rate_hz": 0.0}, "rate_hz: expected more than 0, got 0"),
        ({"kernel": "box"}, "kernel: expected one of bilinear, bicubic"),
        ({"alignment": "eyes"}, "alignment: expected one of arcface, poses"),
    ],
)
def test_a_form_that_cannot_be(counted, wrong, told):
    with pytest.raises(ValueError, match=told):
        prepare_clip(record(counted), **{**SMALL, **wrong}, faces=NOBODY)


def test_every_setting_changes_the_producer():
    base = ClipForm()
    changed = [ClipForm(frames=9), ClipForm(image_size=64), ClipForm(face_size=64), ClipForm(sampling="middle")]
    changed += [ClipForm(kernel="bicubic"), ClipForm(crop=False), ClipForm(alignment="poses"), ClipForm(rate_hz=5.0)]
    producers = [form.producer(NOBODY) for form in (base, *changed)] + [base.producer(KnownFaces({}, "2"))]
    assert len({tuple(sorted(p.items())) for p in producers}) == len(changed) + 2


@pytest.fixture(scope="module")
def stage():
    pull("face_mesh")
    faces = StageFaces()
    yield faces
    faces.close()


def test_a_real_face_is_followed(stage):
    real = record(pull("ravdess_surprised"), end_s=1.0)
    clip = prepare_clip(real, frames=4, image_size=224, face_size=112, faces=stage)
    assert clip.face_valid.all()
    assert clip.count == 30
    # The same points again: in a crop that is upright and fills the square the stage finds them at the template.
    wide = np.zeros((224, 224, 3), np.uint8)
    for number in range(4):
        wide[56:168, 56:168] = clip.faces[number]
        stage._stage.reset()
        (found,) = stage._stage(Frame(0, wide)).faces
        assert np.abs(found.points - 56 - ARCFACE_112).max() < 6
    again = prepare_clip(real, frames=4, image_size=224, face_size=112, faces=stage)
    for name, array in clip.arrays().items():
        np.testing.assert_array_equal(array, again.arrays()[name])
    back = PreparedClip.of(clip.arrays())
    assert back.count == 30
    assert stage.producer["face_mesh"]


def test_the_subject_is_largest_for_longest(stage, tmp_path):
    """The woman's portrait in front, small faces of a group far behind: a real picture of both."""
    group = cv2.resize(cv2.cvtColor(cv2.imread(str(pull("group_photo"))), cv2.COLOR_BGR2RGB), (640, 444))
    portrait = cv2.cvtColor(cv2.imread(str(pull("astronaut"))), cv2.COLOR_BGR2RGB)[0:300, 80:380]
    picture = np.concatenate([group[:300], portrait], axis=1)
    file = tmp_path / "two.mp4"
    with av.open(str(file), "w") as out:
        images = out.add_stream("mpeg4", rate=10)
        images.width, images.height, images.pix_fmt, images.bit_rate = 940, 300, "yuv420p", 8_000_000
        for _ in range(3):
            out.mux(images.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(images.encode(None))
    people = stage(record(file), Video([Span(file)]))
    assert len(people) > 1
    assert people[0].points[2][:, 0].min() > 640
    assert [p.area for p in people] == sorted((p.area for p in people), reverse=True)
