"""MELD, ECEM, ECF and ECGF: miniature copies with the traps of the published files."""

from __future__ import annotations

from pathlib import Path

import pytest
from dataset_files import asked, ecem_item, meld_row, meld_table, touch, write, write_json

from training.datasets import DatasetError, Span, read_dataset
from training.datasets.record import unique


def refused(dataset):
    return [(q.row, q.reason) for q in dataset.quarantined]


@pytest.fixture
def meld(tmp_path: Path) -> Path:
    root = tmp_path / "meld"
    meld_table(root / "train_sent_emo.csv", [
        meld_row(0, 5, "Then he’s gone.", "anger", times=("0:00:05,000", "0:00:07,500")),
        meld_row(0, 0, "Hello, you.", "neutral", speaker="Ben", times=("00:00:01,000", "00:00:03,000")),
        meld_row(0, 2, "Hi!", "joy", times=("00:00:02,500", "00:00:04,000")),
        meld_row(0, 7, "What?", "rage"),
        meld_row(0, 8, "!"),
        meld_row(0, 9, "No time.", times=("00:00:09,000", "00:00:09,000")),
        meld_row(0, 10, "After it.", "sadness", times=("00:00:10,000", "00:00:11,00x")),
        meld_row(0, 2, "Hi again!"),
        meld_row(0, 11, "Not labelled yet.", ""),
        meld_row(125, 3, "Of the real archive.", place=(4, 18)),
        meld_row(309, 0, "Of somebody else's archive.", place=(1, 1)),
        meld_row("x", 0, "No number."),
        meld_row(1, 0, "Nobody.", speaker=""),
    ])  # fmt: skip
    meld_table(root / "dev_sent_emo.csv", [meld_row(0, 0, "It’s cold.", "fear")], encoding="cp1252")
    touch(root / "train_splits", "dia0_utt0.mp4", "dia0_utt5.mp4", "dia125_utt3.mp4", "final_videos_testdia1_utt1.mp4")
    touch(root / "dev_splits_complete", "dia0_utt0.mp4", "._dia0_utt0.mp4", "dia66_utt9.mp4")
    return root


def test_meld(meld):
    dataset = read_dataset("meld", meld)
    found = unique(dataset.records)
    assert list(found) == [
        "train_dia0_utt0", "train_dia0_utt2", "train_dia0_utt5", "train_dia0_utt11", "train_dia309_utt0", "dev_dia0_utt0",
    ]  # fmt: skip
    record = found["train_dia0_utt5"]
    assert (record.split, record.emotions, record.subject) == ("train", ("anger",), "Anna")
    assert record.source == Span(meld / "train_splits/dia0_utt5.mp4")
    assert record.dialogue.dialogue_id == "train_dia0"
    assert record.dialogue.index == 5
    assert [u.text for u in record.dialogue.history] == ["Hello, you.", "Hi!"]
    assert (record.dialogue.target.start_s, record.dialogue.target.end_s) == (5.0, 7.5)
    assert found["train_dia0_utt2"].flags == {"no-video", "overlap"}
    # Words whose clip cannot be right are still heard by those who come after.
    assert [u.text for u in found["train_dia0_utt11"].dialogue.history][-2:] == ["No time.", "After it."]
    assert found["train_dia0_utt11"].emotions == ()
    assert found["dev_dia0_utt0"].dialogue.target.text == "It’s cold."
    assert found["dev_dia0_utt0"].split == "val"


def test_meld_leaves_out_with_reasons(meld):
    dataset = read_dataset("meld", meld)
    assert sorted(refused(dataset), key=str) == sorted([
        (5, "class-out-of-range"), (6, "no-words"), (7, "bad-times"), (8, "bad-times"), (9, "duplicate"),
        (11, "known-bad-clip"), (13, "bad-number"), (14, "missing-value"), ("", "not-annotated"), ("", "not-annotated"),
    ], key=str)  # fmt: skip
    extras = {q.file for q in dataset.quarantined if q.reason == "not-annotated"}
    assert extras == {"train_splits/final_videos_testdia1_utt1.mp4", "dev_splits_complete/dia66_utt9.mp4"}
    assert "test_sent_emo.csv" in dataset.missing
    assert "train utterances: published 9,989, found 13" in dataset.mismatches()


def test_meld_with_its_clips_elsewhere(meld, tmp_path):
    (meld / "train_splits").rename(tmp_path / "train_splits")
    dataset = read_dataset("meld", meld, videos=str(tmp_path))
    assert unique(dataset.records)["train_dia0_utt0"].source == Span(tmp_path / "train_splits/dia0_utt0.mp4")


def test_a_meld_table_without_a_column_is_refused(tmp_path):
    write(tmp_path / "train_sent_emo.csv", "Sr No.,Utterance,Speaker,Sentiment,Dialogue_ID\n1,x,y,z,0\n")
    with pytest.raises(DatasetError, match="without Emotion, Utterance_ID, Season, Episode, StartTime, EndTime"):
        read_dataset("meld", tmp_path)
    with pytest.raises(DatasetError, match=r"expected MELD's tables at train_sent_emo\.csv .* found other"):
        read_dataset("meld", touch(tmp_path / "b", "other"))


@pytest.fixture
def ecem(tmp_path: Path, meld: Path) -> Path:
    root = tmp_path / "ecem"
    gone = asked("anger", "Anna", "Then he’s gone.".encode().decode("gbk", "replace").replace("\ufffd", "?"))
    write_json(root / "train_data_just_reason.json", [
        ecem_item("0_5.mp4", gone, "She is angry because heâ\x80\x99s gone â\x80?again."),
        ecem_item("t_3_1.mp4", asked("surprise", "Ben", "Oh: really, <you>?"), '"The reason Ben is surprised is her ans'),
        ecem_item("0_0.mp4", asked("neutral", "Ben", "Hello."), "-1"),
        ecem_item("0_2.mp4", asked("joy", "Anna", "Hi!"), "She is hap"),
        ecem_item("0_9.mp4", "Why?", "Because she can do so."),
        ecem_item("0_10.mp4", asked("rage", "Anna", "No!"), "Because of all of it."),
        ecem_item("x.mp4", asked("joy", "Anna", "No!"), "Because of all of it."),
        {"video": "0_11.mp4"},
        ecem_item("0_5.mp4", gone, "She says it for a second time."),
    ])  # fmt: skip
    touch(root / "videos", "0_5.mp4")
    return root


def test_ecem_is_cleaned_and_joined_to_meld(ecem):
    dataset = read_dataset("ecem", ecem)
    found = unique(dataset.records)
    assert list(found) == ["0_5", "t_3_1"]
    record = found["0_5"]
    assert record.captions == ("She is angry because he’s gone — again.",)
    assert record.emotions == ("anger",)
    assert record.source == Span(ecem / "videos/0_5.mp4")
    assert record.flags == {"lossy", "repaired"}
    assert record.dialogue.dialogue_id == "train_dia0"
    assert [u.text for u in record.dialogue.history] == ["Hello, you.", "Hi!"]
    assert (record.dialogue.target.text, record.dialogue.target.start_s) == ("Then he’s gone.", 5.0)
    other = found["t_3_1"]
    assert other.captions == ("The reason Ben is surprised is her ans",)
    assert other.flags == {"no-video", "no-history", "truncated"}
    assert (other.dialogue.dialogue_id, other.dialogue.target.text) == ("test_dia3", "Oh: really, <you>?")
    assert refused(dataset) == [
        (3, "no-answer"), (4, "short-answer"), (5, "unknown-form"), (6, "class-out-of-range"), (7, "bad-id"),
        (8, "unknown-form"), (9, "duplicate"),
    ]  # fmt: skip
    assert dataset.found["from MELD test"] == 1


def test_ecem_keeps_short_answers_on_demand_and_needs_no_meld(ecem, meld):
    kept = unique(read_dataset("ecem", ecem, keep_short=True).records)["0_2"]
    assert kept.flags == {"no-video", "short", "truncated"}
    original = read_dataset("ecem", ecem, text="meld").records[0]
    assert original.dialogue.target.text == "Then he’s gone."
    (meld / "train_sent_emo.csv").unlink()
    (meld / "dev_sent_emo.csv").unlink()
    meld.rename(ecem.parent / "elsewhere")
    alone = read_dataset("ecem", ecem)
    assert "no-history" in alone.records[0].flags
    assert any("MELD" in text for text in alone.missing)
    with pytest.raises(DatasetError, match="text: expected ecem or meld, got 'other'"):
        read_dataset("ecem", ecem, text="other")


ECF = """1 3
(3,1),(3,3),(2,3),(3,9)
1 | Anna | neutral | Look | there . | Friends_S1E1: 00:00:01.000 - 00:00:02.500
2 | Ben | surprise | Where ? | Friends_S1E1: 00:00:02.500 - 00:00:02.500
3 | Anna | joy | There ! | Friends_S1E1: 00:00:04.000 - 00:00:05.000
nonsense

2 2

1 | Ben | rage | No ! | Friends_S1E1: 00:00:01.000 - 00:00:02.500
2 | Ben | joy | Yes !
3 | Ben | joy | Yes ! | Friends_S1E1: 00:00:01.000 - 00:00:02.500
"""


def test_ecf_as_text(tmp_path):
    write(tmp_path / "train.txt", ECF)
    write(
        tmp_path / "all_data_pair_ECFvsMELD.txt",
        ECF.partition("nonsense")[0].replace("Friends_S1E1: 00:00:04.000 - 00:00:05.000", "train_dia7_utt3"),
    )
    touch(tmp_path / "meld/train_splits", "dia7_utt3.mp4")
    dataset = read_dataset("ecf", tmp_path, meld=str(tmp_path / "meld"))
    found = unique(dataset.records)
    assert list(found) == ["ecf_dia1_utt1", "ecf_dia1_utt2", "train_dia7_utt3", "ecf_dia2_utt3"]
    record = found["train_dia7_utt3"]
    assert record.causes == ("ecf_dia1_utt1", "train_dia7_utt3")
    assert record.source == Span(tmp_path / "meld/train_splits/dia7_utt3.mp4")
    assert record.dialogue.dialogue_id == "train_dia7"
    assert [u.text for u in record.dialogue.history] == ["Look | there .", "Where ?"]
    assert found["ecf_dia1_utt2"].causes == ("train_dia7_utt3",)
    assert found["ecf_dia1_utt2"].dialogue.target.start_s is None
    assert (dataset.found["pairs"], dataset.found["causes after their emotion"]) == (3, 1)
    assert sorted(refused(dataset), key=str) == sorted(
        [(6, "unknown-form"), ("conversation 1", "unknown-clip"), (10, "class-out-of-range"), (11, "wrong-fields")],
        key=str,
    )


def test_ecf_as_json(tmp_path):
    write_json(tmp_path / "Subtask_1_train.json", [
        {"conversation_ID": 5, "conversation": [
            {"utterance_ID": 1, "text": "Look there .", "speaker": "Anna", "emotion": "neutral", "video_name": "dia5utt1.mp4"},
            {"utterance_ID": 3, "text": "There !", "speaker": "Anna", "emotion": "joy"},
            {"utterance_ID": 4, "text": "...", "speaker": "Anna", "emotion": "joy"},
            {"utterance_ID": 5, "speaker": "Anna", "emotion": "joy"}],
         "emotion-cause_pairs": [["3_joy", "1_Look there"], ["3_joy", "7_"], ["joy", "1_x"]]},
        {"conversation": []},
    ])  # fmt: skip
    touch(tmp_path / "videos", "dia5utt1.mp4")
    dataset = read_dataset("ecf", tmp_path, subtask=1)
    found = unique(dataset.records)
    assert found["ecf_dia5_utt1"].source == Span(tmp_path / "videos/dia5utt1.mp4")
    assert (found["ecf_dia5_utt3"].causes, found["ecf_dia5_utt3"].captions) == (("ecf_dia5_utt1",), ("Look there",))
    assert sorted(reason for _, reason in refused(dataset)) == [
        "no-words", "unknown-clip", "unknown-form", "unknown-form", "unknown-form",
    ]  # fmt: skip
    with pytest.raises(DatasetError, match="form auto, text, json and subtask 1 or 2; got 'auto', 3"):
        read_dataset("ecf", tmp_path, subtask=3)


def turn(index: int, text: str, emotion: str = "neutral", **more):
    return {"utterance_ID": index, "text": text, "speaker": "Anna", "emotion": emotion, **more}


@pytest.mark.parametrize(
    "conversation",
    [
        {"conversation_ID": 4, "conversation": [turn(1, "a"), turn(2, "b", "joy", cause="She got a cat."), turn(3, "c")]},
        {"id": 4, "utterances": [turn(1, "a"), turn(2, "b", "joy", cause_explanation=["She got a cat."]), turn(3, "c")]},
        {"conversation_ID": 4, "conversation": [turn(1, "a"), turn(2, "b", "joy"), turn(3, "c")],
         "emotion-cause_pairs": [["2_joy", "1_a"]], "abstract_causes": [["2_joy", "She got a cat."]]},
        {"conversation_ID": 4, "dialogue": [turn(1, "a"), turn(2, "b", "joy"), turn(3, "c")],
         "causes": [{"utterance": "dia4utt2", "text": "She got a cat."}]},
        {"conversation_ID": 4, "dialogue": [turn(1, "a"), turn(2, "b", "joy"), turn(3, "c")],
         "explanations": {"2": "She got a cat."}},
    ],
)  # fmt: skip
def test_ecgf_causes_are_found_wherever_they_are(tmp_path, conversation):
    write_json(tmp_path / "train.json", [conversation])
    (record,) = read_dataset("ecgf", tmp_path).records
    assert (record.clip_id, record.captions, record.emotions) == ("ecf_dia4_utt2", ("She got a cat.",), ("joy",))
    assert [u.text for u in record.dialogue.history] == ["a"]


def test_ecgf_without_causes_says_what_it_found(tmp_path):
    write_json(tmp_path / "train.json", [{"conversation_ID": 4, "conversation": [turn(1, "a")]}])
    with pytest.raises(
        DatasetError,
        match=r"expected a cause in words .* got objects with conversation_ID, conversation, \[utterance_ID",
    ):
        read_dataset("ecgf", tmp_path)


def test_ecgf_as_processed_leaves_out_what_nobody_has_heard_yet(tmp_path):
    context = "U1. <extra_id_1> <extra_id_51> Anna: a: b | U2. <extra_id_2> <extra_id_52> All: no | c | U3. <extra_id_3> Ben: d"
    entry = {
        "emo_utt_id": "dia14utt2", "output": "They lost.",
        "input": f"question: Why does All feel anger in U2? \\ caption: x \\ context: {context}",
    }  # fmt: skip
    write_json(tmp_path / "dev.json", [
        entry, {**entry, "emo_utt_id": "dia15utt9"}, {**entry, "input": "?"}, {**entry, "output": "..."},
        {**entry, "input": entry["input"].replace("U1. <extra_id_1> <extra_id_51> Anna:", "Anna")},
    ])  # fmt: skip
    dataset = read_dataset("ecgf", tmp_path)
    (record,) = dataset.records
    assert (record.clip_id, record.split, record.captions, record.emotions) == (
        "ecf_dia14_utt2", "val", ("They lost.",), ("anger",),
    )  # fmt: skip
    assert [(u.speaker, u.text) for u in record.dialogue.history] == [("Anna", "a: b")]
    assert record.dialogue.target.text == "no | c"
    assert dataset.found["utterances after their target left out"] == 2
    assert refused(dataset) == [(2, "unknown-clip"), (3, "unknown-form"), (4, "no-words"), (5, "unknown-form")]
