"""Visual tokens: those of training on the same frames, at the right moments, and bounded whatever the stream does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from media_files import FPS, write_clip

torch = pytest.importorskip("torch", reason="the networks need torch")

from emo_models.engines import EngineError  # noqa: E402
from emo_models.engines.source import network  # noqa: E402
from emo_models.networks.fame.pooling import spatio_temporal_pool  # noqa: E402
from emo_perception.config import ConfigError, PerceptionConfig, VisualConfig  # noqa: E402
from emo_perception.stages.visual import VisualStage, make_visual_stage  # noqa: E402
from emo_perception.streaming.window import SlidingWindow  # noqa: E402
from emo_perception.types import NS_PER_S, Frame, Utterance, VisualContext  # noqa: E402
from emo_perception.watching import Watching  # noqa: E402
from training.datasets.record import Record, Span  # noqa: E402
from training.prepare.clips import prepare_clip  # noqa: E402
from training.prepare.faces import KnownFaces  # noqa: E402
from training.prepare.video import Video  # noqa: E402
from training.tasks.ecpa_data import clip_tensor  # noqa: E402
from training.tasks.fame_data import grid_images  # noqa: E402

MS = 1_000_000
RATE_HZ = 10.0
TOY = {"preset": "toy", "weights": "random", "threads": 1, "rate_hz": RATE_HZ}


@pytest.fixture(autouse=True)
def _engines(toy_engines: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMO_CACHE", str(toy_engines("video_swin", "clip_frames")))


class Seen:
    """The stage behind its window, as the chain runs it."""

    def __init__(self, *, fps: float = 30.0, **values: Any) -> None:
        self.window = SlidingWindow(4.5, fps, 0.5)
        self.stage = VisualStage(VisualConfig(**{**TOY, **values}), self.window)

    def __call__(self, *frames: Frame) -> list[VisualContext]:
        found = []
        for frame in frames:
            self.window.add_frame(frame)
            found += self.stage(frame)
        return found


def picture(seed: int, width: int = 64, height: int = 48) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def frames(count: int, start_ns: int = 0, step_ms: int = 100, **size: int) -> list[Frame]:
    return [Frame(start_ns + i * step_ms * MS, picture(i % 50, **size), "cam") for i in range(count)]


def said(name: str, end_ns: int) -> Utterance:
    return Utterance(name, max(0, end_ns - NS_PER_S), end_ns, "so it is")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "moves.mp4", frames=64, size=(128, 96), sound_s=None)


@pytest.fixture(scope="module")
def record(file: Path) -> Record:
    return Record("a", "made", "train", Span(file, 0.0, None))


# -- the same as training


def test_a_clip_is_that_of_training_bit_by_bit(record: Record) -> None:
    seen = Seen(fps=FPS, clips=True, stride_s=3600.0)
    assert seen(*Video.of(record).frames()) == []
    (context,) = seen.stage.flush()
    engine = seen.stage.selections["video_swin"].engine
    _, channels, count, size, _ = engine.inputs[0].shape
    prepared = prepare_clip(record, frames=count, image_size=size, face_size=56, faces=KnownFaces({"a": []}, "1"))
    clip = clip_tensor(prepared.clip, size).numpy()
    assert clip.shape == (channels, count, size, size)
    assert context.tensors["stamps"].tolist() == prepared.stamps.tolist()
    transform = seen.stage._clips.transform
    mine = transform.clip(list(seen.window.sample(0, 10**18, count).images)).transpose(1, 0, 2, 3)
    assert np.array_equal(mine, clip)
    expected = engine({"clip": np.ascontiguousarray(clip[None])})["visual"][0]
    assert np.array_equal(context.tensors["visual"], expected)
    assert context.tensors["visual"].dtype == np.float32
    assert context.model == "video_swin/toy, random weights"
    assert (context.window_start_ns, context.window_end_ns) == (0, prepared.stamps[-1])
    assert context.stamp_ns == context.window_end_ns


def test_a_dialogue_is_that_of_training(record: Record, tmp_path: Path) -> None:
    seen = Seen(frames=True)
    video = Video.of(record)
    last_ns = int(video.stamps()[-1])
    assert seen(*video.frames()) == []
    context = seen.stage.utterance_ended(said("u1", last_ns))
    part = network("clip_frames", "toy", tmp_path).part
    limit = seen.stage._frames.limit
    images = grid_images(video, limit, RATE_HZ, seen.stage._frames.transform)
    assert 1 < len(images) <= limit < last_ns / NS_PER_S * RATE_HZ
    with torch.no_grad():
        x = part.module.clip(torch.from_numpy(np.stack(list(images.values()))))
    pooled = spatio_temporal_pool(x).numpy()
    tensors = context.tensors
    assert tensors["frames"].tolist() == list(images)
    np.testing.assert_allclose(np.concatenate([tensors["rows"], tensors["patches"]]), pooled, atol=1e-5)
    assert (context.utterance_id, context.stamp_ns) == ("u1", last_ns)
    assert context.window_start_ns == 0
    assert context.window_end_ns <= last_ns
    assert context.model == "clip_frames/toy, random weights"


def test_a_short_clip_repeats_frames() -> None:
    seen = Seen(clips=True)
    seen(*frames(2))
    (context,) = seen.stage.flush()
    assert context.tensors["stamps"].tolist() == [0, 0, 0, 100 * MS]


# -- when clips come


def test_a_clip_at_every_stride_and_one_at_the_end() -> None:
    seen = Seen(clips=True, stride_s=1.0, window_s=2.0)
    ends = [(c.window_start_ns // MS, c.window_end_ns // MS) for c in seen(*frames(36))]
    assert ends == [(0, 1000), (0, 2000), (1000, 3000)]
    assert [c.window_end_ns // MS for c in seen.stage.flush()] == [3500]
    assert seen.stage.flush() == []


def test_an_overdue_stride_runs_once_and_is_counted() -> None:
    seen = Seen(clips=True, stride_s=1.0)
    seen(*frames(2))
    late = [Frame(5300 * MS, picture(1)), Frame(5400 * MS, picture(2))]
    assert [c.stamp_ns // MS for c in seen(*late)] == [5300]
    assert seen.stage.clip_counts() == {"clips_skipped": 4}
    assert [c.stamp_ns // MS for c in seen(Frame(6300 * MS, picture(3)))] == [6300]


def test_stamps_that_jump_back_begin_another_stream() -> None:
    seen = Seen(clips=True, frames=True, stride_s=1.0)
    seen(*frames(25, start_ns=50 * NS_PER_S))
    again = seen(*frames(11))
    assert [(c.window_start_ns, c.window_end_ns) for c in again] == [(0, NS_PER_S)]
    context = seen.stage.utterance_ended(said("u", 500 * MS))
    assert context.tensors["frames"].tolist() == [0, 1, 2, 3, 4, 5]
    assert seen(Frame(900 * MS, picture(0))) == []  # late


def test_images_of_another_size_go_on() -> None:
    seen = Seen(clips=True, frames=True, stride_s=1.0)
    found = seen(*frames(10), *frames(11, start_ns=NS_PER_S, width=100, height=80))
    assert [c.tensors["stamps"].tolist()[0] // MS for c in found] == [1000, 1000]
    assert [len(set(c.tensors["stamps"].tolist())) for c in found] == [1, 4]
    assert len(seen.stage.utterance_ended(said("u", 2 * NS_PER_S)).tensors["frames"]) > 3


# -- what belongs to an utterance


def test_what_comes_after_an_utterance_does_not_belong_to_it() -> None:
    told, late, marked = (Seen(frames=True) for _ in range(3))
    stream = frames(60)
    end_ns = 2050 * MS
    told(*stream[:21])
    assert told.stage.utterance_ended(said("u", end_ns)) is None  # a frame may still come
    (expected,) = told(*stream[21:])
    assert expected.tensors["frames"].tolist() == [0, 4, 8, 12, 16, 20]
    late(*stream[:38])
    found = late.stage.utterance_ended(said("u", end_ns))
    marked(*stream[:27])
    marked.stage.voice_ended("u", end_ns)
    marked(*stream[27:])
    kept = marked.stage.utterance_ended(said("u", end_ns))
    for context in (found, kept):
        for name, values in expected.tensors.items():
            assert np.array_equal(context.tensors[name], values)
        assert (context.window_end_ns, context.utterance_id) == (2000 * MS, "u")
    assert [s.stage.dialogue_counts()["utterances_late"] for s in (told, late, marked)] == [0, 0, 0]
    marked.stage.utterance_ended(said("nobody told in time", end_ns))
    assert marked.stage.dialogue_counts()["utterances_late"] == 1


def test_after_a_long_silence_another_dialogue_begins() -> None:
    seen = Seen(frames=True, quiet_s=2.0)
    seen(*frames(15))
    assert seen.stage.utterance_ended(said("first", NS_PER_S)) is not None
    seen(*frames(15, start_ns=1500 * MS))
    within = seen.stage.utterance_ended(said("within", 2900 * MS))
    assert within is not None
    assert within.window_start_ns == 0
    seen(*frames(30, start_ns=3000 * MS))
    after = seen.stage.utterance_ended(said("after", 5900 * MS))
    assert after is not None
    assert after.window_start_ns == 5000 * MS
    assert after.tensors["frames"].tolist() == [0, 2, 4, 6, 8]  # at most eight


def test_at_the_end_of_the_stream_nobody_waits_any_longer() -> None:
    seen = Seen(frames=True)
    assert seen.stage.utterance_ended(said("before", 0)) is None
    seen(*frames(5, start_ns=NS_PER_S))
    assert seen.stage.utterance_ended(said("u", 3 * NS_PER_S)) is None
    assert [c.utterance_id for c in seen.stage.flush()] == ["u"]
    assert seen.stage.utterance_ended(said("understood later", 2 * NS_PER_S)).tensors["frames"].tolist() == [
        0,
        1,
        2,
        3,
        4,
    ]
    seen(*frames(1, start_ns=NS_PER_S + 500 * MS))
    assert seen.stage.utterance_ended(said("of the next stream", 2 * NS_PER_S)) is None


def test_no_frame_before_an_utterance_gives_nothing() -> None:
    seen = Seen(frames=True, pictures=True)
    seen(*frames(5, start_ns=9 * NS_PER_S))
    assert seen.stage.utterance_ended(said("u", NS_PER_S)) is None
    assert Seen(clips=True).stage.utterance_ended(said("u", NS_PER_S)) is None


def test_memory_is_bounded() -> None:
    seen = Seen(frames=True)
    for i in range(40):
        seen.stage.utterance_ended(said(f"early {i}", 10**18))
    assert seen.stage.dialogue_counts()["utterances_lost"] == 40 - 16
    for i, frame in enumerate(frames(6000)):  # ten minutes
        seen(frame)
        if i % 100 == 0:
            seen.stage.voice_ended(f"u{i}", frame.stamp_ns)
    counts, dialogue = seen.stage.dialogue_counts(), seen.stage._dialogue
    assert counts["snapshots_dropped"] == 60 - 16
    assert len(dialogue.video) <= seen.stage._frames.limit
    assert len(dialogue.video._levels) <= 6
    assert counts["frames_in_use"] <= seen.stage._frames.limit + 1
    assert 2 ** counts["grid_level"] >= 6000 / seen.stage._frames.limit


# -- pictures


def test_a_small_picture_goes_with_an_utterance() -> None:
    seen = Seen(pictures=True)
    assert seen.stage.selections == {}
    wide = np.full((300, 800, 3), (200, 30, 30), np.uint8)
    seen(Frame(0, wide), Frame(100 * MS, 255 - wide))
    context = seen.stage.utterance_ended(said("u", 50 * MS))
    assert list(context.tensors) == ["picture"]
    shown = cv2.imdecode(context.tensors["picture"], cv2.IMREAD_COLOR)
    assert shown.shape == (192, 512, 3)
    assert np.abs(shown[..., ::-1].mean((0, 1)) - (200, 30, 30)).max() < 3  # the one before the end, not the newest


# -- what cannot be


def test_configurations_that_cannot_be() -> None:
    inside = PerceptionConfig(source_inside=True)
    VisualConfig(clips=True, frames=True).check(inside)
    with pytest.raises(ConfigError, match=r"visual\.pictures .* set visual\.pictures to false, or leave privacy out"):
        VisualConfig(pictures=True).check(inside)
    with pytest.raises(ConfigError, match=r"at most the 4 s of perception\.window_s, got 5 s; .* raise perception"):
        VisualConfig(clips=True, window_s=5.0).check(PerceptionConfig())


def test_it_is_made_only_where_it_is_wanted_and_can_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    window = SlidingWindow(4.0, 8.0, 0.5)
    assert make_visual_stage(VisualConfig(), window) is None
    with pytest.raises(EngineError, match=r"visual: .*random numbers"):
        make_visual_stage(VisualConfig(clips=True, preset="toy"), window)
    monkeypatch.setenv("EMO_CACHE", str(tmp_path))
    with pytest.raises(EngineError, match="type: emo engines build --profile paper --network clip_frames"):
        make_visual_stage(VisualConfig(frames=True), window)


# -- the worker


class Gate:
    """An engine that waits in the middle of its first call, and fails where told."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.entered, self.go, self.fails = threading.Event(), threading.Event(), False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def __call__(self, inputs: Any) -> Any:
        self.entered.set()
        assert self.go.wait(30)
        if self.fails:
            self.fails = False
            raise EngineError("out of memory")
        return self._engine(inputs)


@pytest.fixture
def gated() -> Iterator[tuple[Seen, Gate, Watching, list[VisualContext]]]:
    seen = Seen(clips=True, frames=True, stride_s=1.0, window_s=2.0)
    gate = Gate(seen.stage._clips.selection.engine)
    object.__setattr__(seen.stage._clips.selection, "engine", gate)
    found: list[VisualContext] = []
    watching = Watching(seen.stage, found.append)
    watching.start()
    yield seen, gate, watching, found
    gate.go.set()
    watching.stop()


def test_a_slow_network_drops_frames_and_never_holds_up_who_gives_them(gated, wait_for) -> None:
    seen, gate, watching, found = gated

    def give(*given: Frame, slowly: bool = False) -> None:
        for frame in given:
            seen.window.add_frame(frame)
            watching.offer(frame)
            if slowly:
                wait_for(lambda: not watching.counts().waiting, "an idle worker")

    stream = frames(60)
    give(*stream[:11], slowly=True)
    assert gate.entered.wait(30)
    give(*stream[11:])  # five seconds while the first clip is encoded: returns at once
    counts = watching.counts()
    assert (counts.taken, counts.waiting, counts.dropped) == (11, 4, 60 - 11 - 4)
    gate.go.set()
    wait_for(lambda: watching.counts().taken == 15, "the frames that waited")
    wait_for(lambda: len(found) == 2, "two clips")
    assert [c.window_end_ns // MS for c in found] == [1000, 5600]
    assert found[1].window_start_ns == 3600 * MS
    assert seen.stage.clip_counts() == {"clips_skipped": 3}
    watching.source_ended(True)
    watching.utterance_ended(said("u", 6 * NS_PER_S))
    wait_for(lambda: len(found) == 4, "what was waited for until the source's end")
    assert [(c.utterance_id, c.stamp_ns // MS) for c in found[2:]] == [("u", 6000), ("", 5900)]
    watching.source_ended(False)
    give(*frames(11, start_ns=7 * NS_PER_S), slowly=True)
    wait_for(lambda: len(found) == 5, "a clip of the next stream")
    assert found[4].window_start_ns == 7 * NS_PER_S


def test_a_network_that_fails_costs_that_clip_only(gated, wait_for) -> None:
    seen, gate, watching, found = gated
    gate.fails = True
    gate.go.set()
    watching.utterance_ended(said("u", NS_PER_S))
    for frame in frames(21):
        seen.window.add_frame(frame)
        watching.offer(frame)
        wait_for(lambda: not watching.counts().waiting, "an idle worker")
    wait_for(lambda: len(found) == 2, "the utterance and the second clip")
    assert [c.utterance_id for c in found] == ["u", ""]
    assert watching.clips.snapshot().failed == 1
    assert watching.frames.snapshot().failed == 0
