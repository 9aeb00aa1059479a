"""The dyadic grid: the stream equals the batch on the same frames, and never touches an old one."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the networks need torch")
pytest.importorskip("transformers", reason="the language models come from transformers")

import emo_models  # noqa: E402
from emo_models.networks.fame.pooling import spatio_temporal_pool  # noqa: E402
from emo_models.networks.fame.streaming import DyadicVideo, FrameClock, dyadic_frames  # noqa: E402


def patches(count, seed=0):
    return torch.randn(count, 6, 4, generator=torch.Generator().manual_seed(seed)) + 3


def test_dyadic_frames_by_hand():
    assert dyadic_frames(range(4), 4) == [0, 1, 2, 3]
    assert dyadic_frames(range(5), 4) == [0, 2, 4]
    assert dyadic_frames(range(9), 4) == [0, 4, 8]
    assert dyadic_frames([3, 1, 0, 2, 5, 8], 4) == [0, 2, 8]
    for count in range(1, 400):
        kept = dyadic_frames(range(count), 100)
        assert len(kept) <= 100
        assert count <= 100 or len(kept) > 50


@pytest.mark.parametrize("limit", [1, 4, 8, 100])
def test_stream_equals_batch_after_every_frame(limit):
    x = patches(260)
    video = DyadicVideo(limit)
    for number, frame in enumerate(x):
        used = video.wants(number)
        assert video.push(frame, number) is used
        now = video.current()
        frames = dyadic_frames(range(number + 1), limit)
        assert list(now.frames) == frames
        assert (now.features() - spatio_temporal_pool(x[frames])).abs().max() < 1e-4
    assert 2**video.level >= 260 / limit


def test_gaps_in_the_numbers():
    numbers = [0, 1, 3, 4, 7, 8, 9, 16, 20, 21, 24, 40, 64, 65, 66, 72, 128, 160, 192]
    x = patches(200)
    video = DyadicVideo(5)
    for index, number in enumerate(numbers):
        video.push(x[number], number)
        frames = dyadic_frames(numbers[: index + 1], 5)
        assert list(video.current().frames) == frames
        assert (video.current().features() - spatio_temporal_pool(x[frames])).abs().max() < 1e-4


def test_memory_stays_bounded():
    video = DyadicVideo(8)
    for number, frame in enumerate(patches(2000)):
        video.push(frame, number)
        assert len(video._rows) <= 8
        assert len(video._levels) <= 5


def test_what_comes_later_does_not_change_a_snapshot():
    x = patches(50)
    video = DyadicVideo(8, snapshots=2)
    frozen = {}
    for number, frame in enumerate(x):
        video.push(frame, number)
        if number in {5, 11, 30}:
            frozen[number] = video.snapshot(f"utterance {number}").features().clone()
    for number in (11, 30):
        kept = video.at(f"utterance {number}")
        assert torch.equal(kept.features(), frozen[number])
        expected = spatio_temporal_pool(x[dyadic_frames(range(number + 1), 8)])
        assert (kept.features() - expected).abs().max() < 1e-4
    assert video.dropped_snapshots == 1
    with pytest.raises(KeyError, match="no snapshot of utterance 'utterance 5'; kept:"):
        video.at("utterance 5")


def test_order_and_emptiness_are_checked():
    video = DyadicVideo(4)
    with pytest.raises(ValueError, match="no frame has arrived yet"):
        video.current()
    video.push(patches(1)[0], 3)
    with pytest.raises(ValueError, match="frame 3 came after frame 3"):
        video.push(patches(1)[0], 3)
    video.reset()
    video.push(patches(1)[0], 0)
    assert video.current().frames == (0,)
    with pytest.raises(ValueError, match="must be at least 1"):
        DyadicVideo(0)


def test_clock_numbers_frames_at_the_base_rate():
    clock = FrameClock(10.0)
    stamps_ms = [5000, 5034, 5067, 5100, 5133, 5210, 5190, 5500]
    assert [clock(ms * 1_000_000) for ms in stamps_ms] == [0, None, 1, None, None, 2, None, 5]
    with pytest.raises(ValueError, match="the base rate must be positive, got 0 Hz"):
        FrameClock(0)


def test_whole_network_on_a_stream_equals_the_batch_form():
    torch.manual_seed(0)
    model = emo_models.create("fame", "toy", pad_to_frames=True).eval()
    frames = torch.randn(21, 3, 56, 56)
    video = DyadicVideo(model.config.frames)
    with torch.no_grad():
        for number, frame in enumerate(frames):
            if video.wants(number):
                video.push(model.frame_features(frame[None])[0], number)
        streamed = model.project(video.current().features(model.pad_to))
        batch = model.project(model.pool(model.frame_features(frames[dyadic_frames(range(21), model.config.frames)])))
    assert streamed.shape == (8 + 16, 64)
    assert (streamed - batch).abs().max() <= 1e-4
