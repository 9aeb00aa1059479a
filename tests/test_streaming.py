"""The streaming core: mailboxes, schedulers, the window, tracks. Real threads, no ROS."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

import numpy as np
import pytest

from emo_perception.streaming.mailbox import DropPolicy, Mailbox
from emo_perception.streaming.scheduler import LiveScheduler, OfflineScheduler, Step
from emo_perception.streaming.stats import StageStats
from emo_perception.streaming.timeline import Admission, Timeline
from emo_perception.streaming.tracks import TrackBook, iou
from emo_perception.streaming.window import AudioRing, FrameRing, SlidingWindow
from emo_perception.types import AudioChunk, Frame

MS = 1_000_000


def box(x: float, y: float = 0, size: float = 100) -> np.ndarray:
    return np.array([x, y, size, size], np.float32)


def frame(stamp_ns: int, value: int = 0, width: int = 8) -> Frame:
    return Frame(stamp_ns, np.full((6, width, 3), value, np.uint8))


# Mailboxes


@pytest.mark.parametrize(
    ("policy", "kept", "dropped"), [(DropPolicy.KEEP_LATEST, [2, 3], 2), (DropPolicy.DROP_NEW, [0, 1], 2)]
)
def test_full_mailbox_follows_its_policy(policy: DropPolicy, kept: list[int], dropped: int) -> None:
    mailbox: Mailbox[int] = Mailbox("m", policy, 2)
    for i in range(4):
        mailbox.offer(i)
    assert mailbox.counts().dropped == dropped
    assert [mailbox.take(0), mailbox.take(0)] == kept
    assert mailbox.take(0) is None
    counts = mailbox.counts()
    assert counts.offered == counts.taken + counts.dropped + counts.waiting == 4


def test_blocking_mailbox_loses_nothing() -> None:
    mailbox: Mailbox[int] = Mailbox("m", DropPolicy.BLOCK, 2)
    giver = threading.Thread(target=lambda: [mailbox.offer(i) for i in range(200)])
    giver.start()
    assert [mailbox.take(5) for _ in range(200)] == list(range(200))
    giver.join(5)
    assert mailbox.counts().dropped == 0


def test_closing_a_mailbox_wakes_the_waiting_and_leaves_what_is_there() -> None:
    mailbox: Mailbox[int] = Mailbox("m", DropPolicy.BLOCK, 1)
    mailbox.offer(1)
    refused: list[bool] = []
    giver = threading.Thread(target=lambda: refused.append(mailbox.offer(2)))
    giver.start()
    mailbox.close()
    giver.join(5)
    assert refused == [False]
    assert mailbox.take() == 1
    assert mailbox.take() is None


def test_mailbox_refuses_a_capacity_of_zero() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Mailbox("m", DropPolicy.BLOCK, 0)


# Time


def test_timeline_tells_late_from_restart() -> None:
    timeline = Timeline(jump_back_s=0.5)
    stamps = [1000, 1100, 1050, 1100, 1200, 100, 150]
    expected = ["new", "new", "late", "late", "new", "restart", "new"]
    assert [timeline.admit(s * MS) for s in stamps] == [Admission(e) for e in expected]


# Schedulers


@dataclass(frozen=True)
class Item:
    stamp_ns: int
    trace: tuple[str, ...] = ()


def step(name: str, resets: list[str] | None = None, gate: threading.Event | None = None) -> Step[Item]:
    def run(item: Item) -> Item:
        if gate is not None:
            gate.wait(5)
        if item.stamp_ns == 13 * MS:
            raise RuntimeError("thirteen")
        return replace(item, trace=(*item.trace, name))

    return Step(name, run, lambda: (resets if resets is not None else []).append(name), jump_back_s=0.5)


def test_offline_runs_every_item_through_every_step_in_order() -> None:
    done = list(OfflineScheduler([step("a"), step("b")]).run(Item(i * MS) for i in range(10)))
    assert [d.stamp_ns for d in done] == [i * MS for i in range(10)]
    assert all(d.trace == ("a", "b") for d in done)


def test_a_jump_back_resets_every_step_once_and_a_late_item_is_counted() -> None:
    resets: list[str] = []
    steps = [step("a", resets), step("b", resets)]
    stamps = [5000, 5100, 5050, 100, 200]
    done = list(OfflineScheduler(steps).run(Item(s * MS) for s in stamps))
    assert [d.stamp_ns // MS for d in done] == [5000, 5100, 100, 200]
    assert resets == ["a", "b"]
    assert steps[0].stats.snapshot().late == 1


def test_live_drops_only_at_the_door_and_keeps_the_newest() -> None:
    gate, seen, finished = threading.Event(), [], threading.Event()
    steps = [step("slow", gate=gate), step("b")]

    def collect(item: Item) -> None:
        seen.append(item.stamp_ns)
        if item.stamp_ns == 99:
            finished.set()

    steps[1].listeners.append(collect)
    live: LiveScheduler[Item, Item] = LiveScheduler(lambda item: item, steps)
    live.start()
    for i in range(100):
        live.offer(Item(i))
    gate.set()
    assert finished.wait(5)
    live.stop()
    door = live.door()
    assert door.offered == 100
    assert door.taken == len(seen)
    assert door.dropped == 100 - len(seen) > 0
    assert seen == sorted(seen)


def test_live_survives_a_failing_stage_and_a_refused_item(caplog: pytest.LogCaptureFixture) -> None:
    finished, steps = threading.Event(), [step("a")]
    steps[0].listeners.append(lambda item: finished.set() if item.stamp_ns == 20 * MS else None)

    def admit(raw: int) -> Item | None:
        if raw == 1:
            raise ValueError("bad message")
        return None if raw == 2 else Item(raw * MS)

    live: LiveScheduler[int, Item] = LiveScheduler(admit, steps)
    live.start()
    for raw in (1, 2, 13, 20):
        taken = live.door().taken
        live.offer(raw)
        while live.door().taken == taken and not finished.is_set():
            finished.wait(0.001)
    assert finished.wait(5)
    live.stop()
    live.stop()
    assert steps[0].stats.snapshot().failed == 1
    assert "a failed on the frame of 13000000 ns" in caplog.text
    assert "could not be taken in" in caplog.text


def test_stats_count_and_time() -> None:
    stats = StageStats()
    assert np.isnan(stats.snapshot().p50_ms)
    with stats.measured(7):
        pass
    with pytest.raises(KeyError), stats.measured(8):
        raise KeyError
    snapshot = stats.snapshot()
    assert (snapshot.processed, snapshot.failed, snapshot.last_stamp_ns) == (1, 1, 7)
    assert snapshot.p95_ms >= 0


# The window


def test_frame_ring_keeps_the_last_frames_at_its_rate_without_new_memory() -> None:
    ring = FrameRing(4, fps=10)
    kept = [ring.add(frame(i * 33 * MS, i)) for i in range(30)]
    assert kept[:7] == [True, False, False, True, False, False, True]
    memory = ring.clip(0, 10**12).images
    assert memory.shape == (4, 6, 8, 3)
    assert memory[:, 0, 0, 0].tolist() == [18, 21, 24, 27]
    before = ring._images
    ring.add(frame(10**9, 99))
    assert ring._images is before


def test_clip_is_cut_by_stamps_and_is_a_copy() -> None:
    ring = FrameRing(10, fps=10)
    for i in range(8):
        ring.add(frame(i * 100 * MS, i))
    clip = ring.clip(200 * MS, 400 * MS)
    assert clip.stamps_ns.tolist() == [200 * MS, 300 * MS, 400 * MS]
    for i in range(8, 18):
        ring.add(frame(i * 100 * MS, i))
    assert clip.images[:, 0, 0, 0].tolist() == [2, 3, 4]


def test_frames_of_another_size_restart_the_ring() -> None:
    ring = FrameRing(4, fps=10)
    ring.add(frame(0))
    ring.add(frame(100 * MS, 5, width=10))
    assert ring.clip(0, 10**12).images.shape == (1, 6, 10, 3)


def tone(start_ms: int, length_ms: int, value: int) -> AudioChunk:
    return AudioChunk(start_ms * MS, np.full(16 * length_ms, value, np.int16))


def test_audio_ring_puts_sound_on_one_time_axis() -> None:
    ring = AudioRing(1.0, 16_000)
    ring.add(tone(0, 100, 1))
    ring.add(tone(105, 100, 2))  # 5 ms of jitter is no hole
    ring.add(tone(400, 100, 3))
    cut = ring.cut(0, 500 * MS)
    assert cut.stamp_ns == 0
    values = cut.samples
    assert ring.gaps == 1
    assert values[: 16 * 100].tolist() == [1] * 1600
    assert values[16 * 100 : 16 * 200].tolist() == [2] * 1600
    assert not values[16 * 200 : 16 * 400].any()
    assert values[16 * 400 :].tolist() == [3] * 1600


def test_audio_ring_forgets_what_is_older_than_its_length() -> None:
    ring = AudioRing(0.5, 16_000)
    for i in range(20):
        ring.add(tone(i * 100, 100, i))
    cut = ring.cut(0, 10**12)
    assert cut.stamp_ns == 1500 * MS
    assert cut.samples[::1600].tolist() == [15, 16, 17, 18, 19]
    assert ring.cut(1700 * MS, 1800 * MS).samples.tolist() == [17] * 1600


def test_audio_of_a_chunk_longer_than_the_ring_keeps_its_end() -> None:
    ring = AudioRing(0.1, 16_000)
    ring.add(AudioChunk(0, np.arange(16_000, dtype=np.int16)))
    assert ring.cut(0, 10**12).samples.tolist() == list(range(14_400, 16_000))


def test_overlapping_audio_keeps_what_came_first() -> None:
    ring = AudioRing(1.0, 16_000)
    ring.add(tone(0, 200, 1))
    ring.add(tone(100, 200, 2))
    assert ring.cut(0, 300 * MS).samples[::1600].tolist() == [1, 1, 2]


def test_audio_of_another_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 16000 Hz, got 8000 Hz"):
        AudioRing(1, 16_000).add(AudioChunk(0, np.zeros(8, np.int16), 8_000))


def test_window_restarts_when_stamps_jump_back() -> None:
    window = SlidingWindow(seconds=2, fps=10, jump_back_s=0.5)
    for i in range(10):
        window.add_frame(frame((5000 + i * 100) * MS))
        window.add_audio(tone(5000 + i * 100, 100, 1))
    window.add_frame(frame(5850 * MS))
    window.add_frame(frame(100 * MS, 7))
    window.add_audio(tone(100, 100, 2))
    counts = window.counts()
    assert (counts.frames, counts.late_frames, counts.restarts) == (1, 1, 1)
    assert counts.audio_s == pytest.approx(0.1)
    assert window.clip(0, 10**12).stamps_ns.tolist() == [100 * MS]
    assert window.audio(0, 10**12).samples.max() == 2


# Tracks


def test_iou() -> None:
    assert iou(box(0), box(0)) == 1
    assert iou(box(0), box(50)) == pytest.approx(1 / 3)
    assert iou(box(0), box(200)) == 0


def test_id_survives_a_short_occlusion_and_expires_after_a_long_one() -> None:
    book = TrackBook(keep_lost_s=1.0)
    (person,) = book.enter(0, [box(0)])
    book.lose(person.track_id)
    assert book.expire(900 * MS) == ()
    (again,) = book.enter(900 * MS, [box(30)])
    assert (again.track_id, again.first_seen_ns) == (person.track_id, 0)
    book.lose(again.track_id)
    assert book.expire(2000 * MS) == (person.track_id,)
    (other,) = book.enter(2100 * MS, [box(30)])
    assert other.track_id != person.track_id


def test_a_face_elsewhere_or_of_another_size_is_another_person() -> None:
    book = TrackBook(keep_lost_s=1.0)
    (person,) = book.enter(0, [box(0)])
    book.lose(person.track_id)
    far, large = book.enter(100 * MS, [box(500), box(0, size=300)])
    assert person.track_id not in (far.track_id, large.track_id)


def test_two_lost_faces_come_back_to_the_nearest_id() -> None:
    book = TrackBook(keep_lost_s=1.0)
    left, right = book.enter(0, [box(0), box(120)])
    book.lose(left.track_id)
    book.lose(right.track_id)
    back = book.enter(100 * MS, [box(125), box(5)])
    assert [t.track_id for t in back] == [right.track_id, left.track_id]


def test_clearing_ends_all_tracks_and_never_gives_an_id_twice() -> None:
    book = TrackBook(keep_lost_s=1.0)
    a, b = book.enter(0, [box(0), box(300)])
    book.lose(b.track_id)
    assert set(book.clear()) == {a.track_id, b.track_id}
    assert book.enter(0, [box(0)])[0].track_id == 3
