"""What is remembered: events out of features, bounds, and the file that survives."""

from __future__ import annotations

import dataclasses
import json
import os
import stat

import numpy as np
import pytest
from cause_scenes import at, face, frames, says

from emo_perception import types as t
from emo_perception.memory import DialogueMemory, EventFinder, EventKind, MemoryFile, VisibleEvent


def events_of(stream, threshold=0.5):
    """All events of a stream, each as it was told last."""
    finder, found = EventFinder(threshold), {}
    for item in stream:
        found.update({event.key: event for event in finder(item)})
    return list(found.values())


def test_a_face_that_turns_sad_is_one_event_with_what_shows_it():
    stream = [*frames(0, 2, f1="neutral"), *frames(2, 5, f1="sad"), *frames(5, 6, f1="neutral")]
    expression = [e for e in events_of(stream) if e.kind is EventKind.EXPRESSION]
    assert [(e.track_id, e.emotion, e.before, e.au, e.start_ns) for e in expression] == [
        (1, "sad", "neutral", 1, at(2))
    ]
    assert at(4) < expression[0].end_ns < at(5)
    assert expression[0].score == pytest.approx(0.9)
    movement = [e for e in events_of(stream) if e.kind is EventKind.MOVEMENT]
    assert [(e.au, e.start_ns) for e in movement] == [(1, at(2))]


def test_a_twitch_is_no_event_and_the_first_look_of_a_face_no_change():
    assert not events_of([*frames(0, 2, f1="neutral"), *frames(2, 2.3, f1="sad"), *frames(2.3, 4, f1="neutral")])
    first = events_of(frames(0, 3, f1="happy"))
    assert [(e.emotion, e.before) for e in first if e.kind is EventKind.EXPRESSION] == [("happy", "")]


def test_people_come_and_go():
    stream = [*frames(0, 3, f1="neutral"), *frames(3, 6, f1="neutral", f2="neutral"), *frames(6, 9, f1="neutral")]
    assert [(e.kind, e.track_id, e.start_ns) for e in events_of(stream)] == [
        (EventKind.COMES, 2, at(3)),
        (EventKind.LEAVES, 2, at(5.9)),
    ]


def test_nan_probabilities_are_no_expression():
    broken = face(1, at(0), "happy")
    nan = np.full_like(broken.emotion.probabilities, np.nan)
    broken = dataclasses.replace(broken, emotion=dataclasses.replace(broken.emotion, probabilities=nan))
    stream = [dataclasses.replace(f, faces=(broken,)) for f in frames(0, 3)]
    assert not [e for e in events_of(stream) if e.kind is EventKind.EXPRESSION]


def test_memory_is_bounded_by_minutes_and_tokens_and_counts_what_it_forgets():
    memory = DialogueMemory(1.0, 100)
    for second in range(0, 300, 3):
        memory.add(says(second, second + 2, "Ana", "this is one of many sentences"))
        assert memory.tokens <= 100
    assert all(item.end_ns >= at(299 - 60) for item in memory.items)
    assert memory.forgotten == 100 - len(memory.items)
    memory.expire(at(1000))
    assert (memory.items, memory.tokens) == ((), 0)


def test_an_endless_utterance_and_an_event_told_again():
    memory = DialogueMemory(1.0, 100_000)
    memory.add(says(0, 50, "Ana", "word " * 100_000))
    assert len(memory.items[0].text) == 2000
    for end in (3, 4, 5):
        memory.add(VisibleEvent(EventKind.EXPRESSION, 1, at(2), at(end), "sad"))
    assert [i.end_ns for i in memory.items[1:]] == [at(5)]


def test_the_file_gives_back_what_was_saved_and_only_its_owner_reads_it(tmp_path):
    file = MemoryFile(tmp_path / "state" / "dialogue.json")
    assert file.load() == []
    items = [
        says(0, 1, "Ana", "Grüße, “Ben”!", 3),
        VisibleEvent(EventKind.EXPRESSION, 1, at(2), at(3), "sad", "neutral", 4, 0.75),
    ]
    file.save(items)
    assert file.load() == items
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert os.listdir(file.path.parent) == ["dialogue.json"]  # noqa: PTH208 - no half-written file is left beside it


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"format": 2, "items": []}', '{"format": 1, "items": [{"is": "event"}]}',
     json.dumps({"format": 1, "items": [{"is": "utterance", "id": "a", "start_ns": "soon", "end_ns": 1, "text": "x"}]})],
)  # fmt: skip
def test_a_broken_file_is_set_aside(tmp_path, text, caplog):
    file = MemoryFile(tmp_path / "dialogue.json")
    file.path.write_text(text, encoding="utf-8")
    assert file.load() == []
    assert "set aside as dialogue.json.broken" in caplog.text
    assert (tmp_path / "dialogue.json.broken").read_text(encoding="utf-8") == text
    assert not file.path.exists()


def test_names_of_faces_are_learned_from_speakers():
    memory = DialogueMemory(1.0, 1000)
    memory.extend([says(0, 1, "Ana", "hello", 4), t.Utterance("x", at(2), at(3), "hi", "", 5)])
    assert memory.names() == {4: "Ana"}
