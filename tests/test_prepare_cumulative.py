"""Cumulative clips: no image twice, whether the time stamps tell of the overlap or not, and none lost that stands still."""

from __future__ import annotations

import resource

import numpy as np
import pytest
from media_files import FPS, count_of, write_clip

from emo_models.fetch import pull
from training.datasets.record import Dialogue, Record, Span, Utterance
from training.prepare.cumulative import CumulativeVideos, Piece, pieces, repeated, repeated_s, trim, write_mp4
from training.prepare.errors import StoreFull
from training.prepare.rebuild import rebuild
from training.prepare.video import UnreadableVideo, Video

# Three utterances of an episode, of 20 images each: the second overlaps the first by 8, the third is 5 s later.
TIMES = [(100.0, 100.8), (100.48, 101.28), (106.0, 106.8)]


def said(index, dialogue="train_dia7"):
    start_s, end_s = TIMES[index]
    return Utterance("Ross", f"line {index}", "joy", start_s, end_s, f"{dialogue}_utt{index}")


def record(index, source, dialogue="train_dia7"):
    history = tuple(said(i) for i in range(index))
    return Record(
        f"{dialogue}_utt{index}", "meld", "train", source, emotions=("joy",), vocabulary="meld7",
        dialogue=Dialogue(dialogue, index, history, said(index, dialogue)),
        flags=frozenset() if source else frozenset({"no-video"}),
    )  # fmt: skip


@pytest.fixture(scope="module")
def meld(tmp_path_factory):
    """Records whose clips are cut out of one episode, its images numbered."""
    folder = tmp_path_factory.mktemp("meld")
    film = write_clip(folder / "film.mp4", frames=64, size=(96, 96), sound_s=None)
    firsts = (0, 12, 44)
    for i, first in enumerate(firsts):
        write_mp4(Video([Span(film, first / FPS, (first + 20) / FPS)]), folder / f"dia7_utt{i}.mp4")
    return [record(i, Span(folder / f"dia7_utt{i}.mp4")) for i in range(3)]


def test_overlaps_are_cut_by_time_stamps(meld):
    videos = CumulativeVideos(pieces(meld))
    plans = [videos.plan(one) for one in meld]
    shown = [[count_of(frame.image) for frame in plan.video().frames()] for plan in plans]
    assert shown == [[*range(20)], [*range(32)], [*range(32), *range(44, 64)]]
    assert [round(plan.overlap_s, 3) for plan in plans] == [0, 0.32, 0.32]
    assert [plan.repeated_s for plan in plans] == [0, 0, 0]
    stamps = np.diff([frame.stamp_ns for frame in plans[2].video().frames()])
    np.testing.assert_allclose(stamps, 1e9 / FPS, atol=1e3)  # one time line, without holes


def test_an_earlier_clip_that_is_not_there_is_named(meld):
    videos = CumulativeVideos(pieces([record(0, None), *meld[1:]]))
    assert videos.plan(meld[2]).lacking == ("train_dia7_utt0",)
    assert len(videos.plan(meld[2]).spans) == 2
    assert not videos.has(meld[0])
    with pytest.raises(UnreadableVideo, match="train_dia7_utt0: MELD's clip of this utterance is not there"):
        videos(meld[0])


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([(0, 2), (1, 3), (2.5, 4)], [(0, 2), (2, 3), (3, 4)]),
        ([(0, 5), (1, 3), (2, 6)], [(0, 5), (5, 6)]),  # the second lies within the first
        ([(10, 12), (3, 4), (3.5, 5)], [(10, 12), (3, 4), (4, 5)]),  # a jump back, not touching
        ([(10, 12), (9, 13)], [(10, 12), (12, 13)]),
    ],
)
def test_trimming_follows_the_formula(tmp_path, times, expected):
    files = [Span(tmp_path / f"{i}.mp4") for i in range(len(times))]
    new = trim([Piece(span, *time) for span, time in zip(files, times, strict=True)])
    assert [(piece.start_s, piece.end_s) for piece in new] == expected
    began = {span.file: time[0] for span, time in zip(files, times, strict=True)}
    assert [piece.span.start_s for piece in new] == [piece.start_s - began[piece.span.file] for piece in new]


@pytest.mark.parametrize("first_s", [2.0, 1.5])
def test_a_real_repeat_that_no_stamp_tells_is_seen(tmp_path, first_s):
    """A man speaks; two clips of him, each encoded anew, share half a second or nothing."""
    film = pull("ravdess_angry")
    write_mp4(Video([Span(film, 1.0, 2.0)], max_width=320), tmp_path / "a.mp4")
    write_mp4(Video([Span(film, first_s, 2.6)], max_width=320), tmp_path / "b.mp4")
    assert repeated_s(Span(tmp_path / "a.mp4"), Span(tmp_path / "b.mp4")) == pytest.approx(2.0 - first_s, abs=0.02)


def test_a_clip_that_only_repeats_is_left_out(tmp_path, meld):
    film = pull("ravdess_angry")
    for name, start_s, end_s in (("a", 0.0, 2.0), ("b", 1.0, 2.0), ("c", 2.0, 2.5)):
        write_mp4(Video([Span(film, start_s, end_s)], max_width=320), tmp_path / f"{name}.mp4")
    times = [(0.0, 2.0), (2.0, 3.0), (3.0, 3.5)]
    known = {f"train_dia7_utt{i}": Piece(Span(tmp_path / f"{name}.mp4"), *times[i]) for i, name in enumerate("abc")}
    plan = CumulativeVideos(known).plan(meld[2])
    assert [span.file.stem for span in plan.spans] == ["a", "c"]
    assert plan.repeated_s == 1.0
    assert plan.overlap_s == 0.0


def bits(numbers):
    """Hashes of made images: equal numbers, equal images; others differ in half of the bits."""
    return np.stack([np.random.default_rng(n).random(255) < 0.5 for n in numbers])


def test_what_stands_still_is_no_repeat():
    film = bits(range(40))
    assert repeated(film[:20], film[15:30]) == 5
    assert repeated(film[:20], film[20:30]) == 0
    assert repeated(film[:20], film[:20]) == 20
    still = bits([3] * 20)
    assert repeated(still, still) == 0
    assert repeated(np.concatenate([film[:5], still]), np.concatenate([still, film[5:]])) == 0
    blurred = film.copy()
    blurred[::2, :6] ^= True  # what another encoding changes
    assert repeated(film[:20], blurred[15:30]) == 5


def test_a_file_that_cannot_be_read_leaves_none_behind(tmp_path, meld):
    bad = Span(tmp_path / "gone.mp4")
    with pytest.raises(UnreadableVideo, match="no such file"):
        write_mp4(Video([meld[0].source, bad]), tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []


def test_no_room_for_a_video_leaves_none_behind(tmp_path, meld):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(StoreFull, match="every clip that is there is whole"):
            rebuild(meld[:1], CumulativeVideos(pieces(meld)), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
    made, failed = rebuild(meld[:1], CumulativeVideos(pieces(meld)), tmp_path)
    assert (len(made), failed) == (1, {})
