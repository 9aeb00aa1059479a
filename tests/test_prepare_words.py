"""Transcripts and clear faces, on real clips; and the file of lines that both go on from."""

from __future__ import annotations

import json
import resource

import numpy as np
import pytest
from media_files import write_clip

from emo_models.fetch import pull
from training.datasets.record import Dialogue, Record, Span, Utterance
from training.prepare.clear_face import ClearFace, FaceListError, clear_ids, look, only, read_ids, write_ids
from training.prepare.errors import OtherProducer, StoreError, StoreFull
from training.prepare.ledger import Ledger
from training.prepare.transcribe import Transcript, read_transcripts, sound, transcribe, with_texts, word_error_rate

PRODUCER = {"model": "m", "sha256": "1"}


def record(clip_id, file, text="Kids are talking by the door."):
    target = Utterance("Ross", text, clip_id=clip_id)
    history = (Utterance("Rachel", "Well?", clip_id="before"),)
    return Record(clip_id, "made", "train", Span(file), dialogue=Dialogue("d", 1, history, target))


@pytest.mark.parametrize(
    ("original", "recognised", "wer"),
    [
        ("The dogs are sitting", "the DOGS are sitting!", 0.0),
        ("It’s you — isn't it?", "It's you, isn't it", 0.0),
        ("one two three four", "one three four", 0.25),
        ("one two three four", "one two x three four", 0.25),
        ("one two three four", "one two x four", 0.25),
        ("one two", "three four five six", 2.0),
        ("one two", "", 1.0),
        ("...", "", 0.0),
        ("...", "word", float("inf")),
    ],
)
def test_word_error_rate(original, recognised, wer):
    assert word_error_rate(original, recognised) == wer


def test_real_speech_corrects_a_text_and_leaves_what_is_not_heard(tmp_path):
    silent = write_clip(tmp_path / "silent.mp4", frames=10, sound_s=None)
    clips = [
        record("near", pull("ravdess_neutral_man"), "Kids are walking by the door."),
        record("far", pull("ravdess_neutral_man"), "Somebody else said this before the cut."),
        record("silent", silent, "Nothing to hear."),
        record("gone", tmp_path / "gone.mp4", "No file."),
        Record("words", "made", "train", None, flags=frozenset({"no-video"})),
    ]
    file = tmp_path / "texts.jsonl"
    done = []
    found = transcribe(clips, file, progress=lambda: done.append(1))
    assert len(done) == 4
    assert found["near"].recognised == "Kids are talking by the door."
    assert (found["near"].wer, found["near"].chosen) == (pytest.approx(1 / 6, abs=1e-4), "recognised")
    assert (found["far"].wer > 0.5, found["far"].chosen) == (True, "original")
    assert found["silent"].failure == "the clip has no sound"
    assert "no such file" in found["gone"].failure
    before = file.read_bytes()
    assert transcribe(clips, file, progress=lambda: done.append(1)) == found
    assert (len(done), file.read_bytes()) == (4, before)
    assert read_transcripts(file) == found
    assert with_texts(clips[0], found).dialogue.target.text == "Kids are talking by the door."
    assert with_texts(clips[0], found, "original") == clips[0]
    assert with_texts(clips[2], found, "recognised").dialogue.target.text == "Nothing to hear."
    assert with_texts(clips[4], found) == clips[4]
    with pytest.raises(ValueError, match="expected one of chosen, recognised, original"):
        with_texts(clips[0], found, "best")


def test_words_of_the_history_are_replaced_too(tmp_path):
    heard = {"before": Transcript("before", "Well?", "Well well?", 0.5, 0.9, "recognised")}
    replaced = with_texts(record("a", tmp_path), heard)
    assert replaced.dialogue.history[0].text == "Well well?"
    assert replaced.dialogue.target.text == "Kids are talking by the door."


def test_only_the_sound_of_the_span_is_heard(tmp_path):
    """One second of silence, one of tone, one of silence."""
    file = write_clip(tmp_path / "tone.mkv", frames=75, sound_s=3.0, beep_s=(1.0, 2.0))
    assert len(sound(Span(file))) == pytest.approx(48_000, abs=2_000)
    tone = sound(Span(file, 1.1, 1.9))
    assert len(tone) == pytest.approx(12_800, abs=2)
    assert np.abs(tone.reshape(-1, 160)[:-1]).max(1).min() > 5_000
    assert np.abs(sound(Span(file, 2.2, None))).max() < 500


def test_lines_survive_a_kill_in_the_middle_of_one(tmp_path):
    file = tmp_path / "new" / "lines.jsonl"
    with Ledger(file, PRODUCER) as ledger:
        ledger.note("a", {"x": 1})
        ledger.note("b", {"x": 2})
    file.write_bytes(file.read_bytes()[:-9])
    with Ledger(file, PRODUCER) as ledger:
        assert ledger.missing(["b", "a", "c", "b"]) == ["b", "c"]
        ledger.note("b", {"x": "ü"})
        assert ("b" in ledger, len(ledger)) == (True, 2)
    with Ledger(file, PRODUCER) as ledger:
        assert [ledger.get(item)["x"] for item in ledger] == [1, "ü"]
    with pytest.raises(ValueError, match="is closed"):
        ledger.note("c", {})
    with pytest.raises(OtherProducer, match="name another file, or delete it"):
        Ledger(file, {**PRODUCER, "sha256": "2"})
    file.write_text("some notes of mine\n")
    with pytest.raises(StoreError, match="is not a file of this command"):
        Ledger(file, PRODUCER)
    assert file.read_text() == "some notes of mine\n"


def test_lines_on_a_full_disk(tmp_path):
    file = tmp_path / "lines.jsonl"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Ledger(file, PRODUCER) as ledger:
        ledger.note("a", {"x": 1})
        resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 7, limits[1]))
        try:
            with pytest.raises(StoreFull, match="1 items are safe"):
                ledger.note("b", {"x": "long" * 20})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "b" not in ledger
        ledger.note("b", {"x": 3})
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line.get("x") for line in lines] == [None, 1, 3]


def test_clear_faces_are_found_in_real_clips(tmp_path):
    nobody = write_clip(tmp_path / "nobody.mp4", frames=10, sound_s=None)
    clips = [record("one", pull("ravdess_surprised")), record("nobody", nobody), record("gone", tmp_path / "gone.mp4")]
    clips.append(record("group", pull("group_photo")))
    seen, failed = look(clips, tmp_path / "faces.jsonl")
    assert list(failed) == ["gone"]
    assert [len(seen["one"]), len(seen["nobody"])] == [7, 1]  # two a second
    assert len(seen["group"][0]) == 6
    assert clear_ids(seen, ClearFace()) == ["one"]
    assert clear_ids(seen, ClearFace(size=0.9)) == []
    again, _ = look(clips, tmp_path / "faces.jsonl")
    assert again == seen


def test_the_rule():
    images = [[0.3], [0.3, 0.05], [0.3, 0.2], [], [0.1]]
    assert ClearFace(size=0.15).measure(images) == 0.4
    assert ClearFace(size=0.04).measure(images) == 0.4
    assert ClearFace(size=0.04, share=0.4).holds(images)
    assert not ClearFace().holds([])
    with pytest.raises(ValueError, match="size: expected a value above 0"):
        ClearFace(size=0.0)


def test_a_list_of_ids(tmp_path):
    clips = [record(name, tmp_path) for name in "abc"]
    write_ids(["a", "c"], tmp_path / "ids.txt", {"size": "0.15", "share": "0.8"})
    assert (tmp_path / "ids.txt").read_text() == "# size: 0.15\n# share: 0.8\na\nc\n"
    assert [one.clip_id for one in only(clips, read_ids(tmp_path / "ids.txt"))] == ["a", "c"]
    with pytest.raises(FaceListError, match="1 ids of the list are no clips here, as x"):
        only(clips, frozenset("ax"))
    with pytest.raises(FaceListError, match="make the list with: emo data clear-face"):
        read_ids(tmp_path / "none.txt")
    (tmp_path / "ids.txt").write_text("# size\n")
    with pytest.raises(FaceListError, match="names no clip"):
        read_ids(tmp_path / "ids.txt")
