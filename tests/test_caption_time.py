"""Captions and time: jumps, gaps, late frames, reproducibility, bounded memory, the end of a stream."""

from __future__ import annotations

from caption_scenes import (
    FPS,
    captions,
    check_evidence,
    face,
    frames,
    ns,
    smiling,
    speaking,
    texts,
)

from emo_perception.config import CaptionConfig
from emo_perception.stages.caption import CaptionStage
from emo_perception.types import (
    Caption,
    FaceFeatures,
)


def test_stamps_that_jump_back_start_anew() -> None:
    stage = CaptionStage(CaptionConfig())
    first = captions(smiling, 3, stage)
    again = captions(smiling, 3, stage)
    assert again == first
    assert stage(next(iter(frames(smiling, 2.9, 3)))) is None


def test_late_frame_changes_nothing() -> None:
    plain, disturbed = CaptionStage(CaptionConfig()), CaptionStage(CaptionConfig())
    late = next(iter(frames(lambda t: [face({4: 1.0}, {"angry": 1.0})], 0.5, 0.6)))
    out: list[tuple[Caption | None, Caption | None]] = []
    for i, item in enumerate(frames(smiling, 0, 3)):
        out.append((plain(item), disturbed(item)))
        if i in (20, 25):
            assert disturbed(late) is None
    assert all(a == b for a, b in out)
    assert any(a for a, _ in out)


def busy(t: float) -> list[FaceFeatures]:
    """Two people whose faces change all the time, one of whom comes and goes."""
    phase = int(t) % 7
    one = face(
        {12: 0.7 * (phase < 2), 4: 0.8 * (3 <= phase < 5), 26: speaking(t) * (phase > 4)}, {"happy": 0.8 * (phase < 2)}
    )
    return [one, face({1: 0.6, 2: 0.6}, {"surprised": 0.8}, track=2 + int(t) // 11, x=60)][: 1 + (int(t) % 11 < 8)]


def test_deterministic() -> None:
    first, second = captions(busy, 40), captions(busy, 40)
    assert repr(first) == repr(second)
    assert len(texts(first)) > 5
    for caption in first:
        check_evidence(caption)


def test_memory_is_bounded() -> None:
    stage = CaptionStage(CaptionConfig())
    sizes = []
    for item in frames(busy, 0, 10_000 / FPS):
        stage(item)
        history = stage._history
        events = [e for p in history.people for events in p.events.values() for e in events]
        sizes.append(
            sum(len(p.samples) + len(p.mouth.turns) for p in history.people)
            + sum(len(e.frames) for e in events)
            + len(stage._memory.told)
        )
    assert max(sizes[1000:]) <= 1.1 * max(sizes[:1000])
    assert len(stage._memory.told) <= 3


def test_low_frame_rate() -> None:
    stage = CaptionStage(CaptionConfig())
    said = [c for item in frames(smiling, 0, 4, fps=5) if (c := stage(item))]
    assert len(texts(said)) == 1


def test_gap_in_the_stream() -> None:
    stage = CaptionStage(CaptionConfig())
    items = [*frames(smiling, 0, 2), *frames(smiling, 60, 63)]
    first, second = (c for item in items if (c := stage(item)))
    assert second.text == first.text  # nobody knows what went on in between
    assert second.window_start_ns == ns(60)


def test_flush_says_what_was_not_yet_said() -> None:
    stage = CaptionStage(CaptionConfig())
    assert stage.flush() is None
    for item in frames(smiling, 0, 0.8):
        assert stage(item) is None
    last = stage.flush()
    assert last is not None
    assert "smiles" in last.text
    assert stage.flush() is None
