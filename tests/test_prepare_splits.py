"""Splits: the same everywhere, whole dialogues or not, and no training on what is tested unless somebody says so."""

from __future__ import annotations

import json
import re

import pytest

from training.datasets.record import Dialogue, Record, Span, Utterance
from training.prepare.splits import (
    KINDS,
    LeakageError,
    SplitError,
    check_leakage,
    dialogue_disjoint,
    leakage,
    paper_like,
    read_split,
)

DIALOGUES, LENGTH = 40, 5


def record(dialogue, index, split="train", dataset="ecem"):
    target = Utterance("Ross", "Hi.", "joy", clip_id=f"train_dia{dialogue}_utt{index}")
    return Record(
        f"{dialogue}_{index}", dataset, split, Span(__file__), emotions=("joy",), vocabulary="ecem7",
        dialogue=Dialogue(f"train_dia{dialogue}", index, (), target),
    )  # fmt: skip


RECORDS = [record(d, i) for d in range(DIALOGUES) for i in range(LENGTH)]


@pytest.mark.parametrize("kind", KINDS)
def test_shares_are_kept_and_everything_is_dealt_once(kind):
    split = KINDS[kind](RECORDS, 1, (0.8, 0.1, 0.1))
    sizes = [len(split.parts[part]) for part in ("train", "val", "test")]
    assert sizes == pytest.approx([160, 20, 20], abs=LENGTH)
    assert sorted(i for ids in split.parts.values() for i in ids) == sorted(r.clip_id for r in RECORDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_split_depends_on_seed_and_records_alone(kind):
    split = KINDS[kind](RECORDS, 1, (0.8, 0.1, 0.1))
    assert KINDS[kind](RECORDS[::-1], 1, (0.8, 0.1, 0.1)) == split
    assert KINDS[kind](RECORDS, 2, (0.8, 0.1, 0.1)).parts != split.parts


def test_dialogues_stay_whole(tmp_path):
    split = dialogue_disjoint(RECORDS, 3)
    split.write(tmp_path / "split.json")
    divided = read_split(tmp_path / "split.json").apply(RECORDS)
    assert len(divided) == len(RECORDS)
    parts = {}
    for one in divided:
        parts.setdefault(one.dialogue.dialogue_id, set()).add(one.split)
    assert all(len(of) == 1 for of in parts.values())
    assert not check_leakage(divided)


def test_the_papers_way_is_refused_until_it_is_meant():
    split = paper_like(RECORDS, 3)
    told = r"(\d+) of (\d+) dialogues \(\d+%\) to be tested are in training too, as train_dia\d+, .*--allow-leakage"
    with pytest.raises(LeakageError, match=told) as caught:
        split.apply(RECORDS)
    shared, tested = map(int, re.search(told, str(caught.value)).groups())
    divided = split.apply(RECORDS, allow_leakage=True)
    of = {part: {r.dialogue.dialogue_id for r in divided if r.split in part} for part in (("train",), ("val", "test"))}
    assert tested == len(of["val", "test"])
    assert shared == len(of["val", "test"] & of["train",])
    assert shared > 0


def test_leakage_is_seen_between_data_sets():
    """ECEM's train file holds utterances of MELD's test set; a network trained on it must not be measured there."""
    meld = [record(d, 0, "test", "meld") for d in range(38, 45)]
    found = leakage(RECORDS, meld)
    assert found.dialogues == ("train_dia38", "train_dia39")
    assert found.tested == 7
    assert found.clips == ("38_0", "39_0")
    assert not leakage(RECORDS[:50], meld)


def test_clips_without_dialogue_are_their_own_group():
    plain = [Record(f"{i:05d}", "mafw", "train", Span(__file__)) for i in range(100)]
    split = dialogue_disjoint(plain, 0)
    assert [len(split.parts[part]) for part in ("train", "val", "test")] == [80, 10, 10]
    assert not check_leakage(split.apply(plain))


@pytest.mark.parametrize("shares", [(0.8, 0.1), (0.8, 0.1, 0.2), (1.1, 0.0, -0.1)])
def test_shares_that_cannot_be(shares):
    with pytest.raises(SplitError, match="expected three shares"):
        paper_like(RECORDS, 0, shares)


def test_too_few_dialogues_are_told():
    with pytest.raises(SplitError, match=r"2 groups \(dialogue_disjoint\) are too few .*: .* would be empty"):
        dialogue_disjoint(RECORDS[: 2 * LENGTH], 0)
    assert dialogue_disjoint(RECORDS[: 2 * LENGTH], 0, (0.5, 0.0, 0.5)).parts["val"] == ()


def test_a_split_of_other_records_is_refused(tmp_path):
    split = dialogue_disjoint(RECORDS, 0)
    with pytest.raises(SplitError, match=r"names 1 clips of ecem that are not here, as 0_0: was it made with other"):
        split.apply(RECORDS[1:])
    more = split.apply([*RECORDS, record(99, 0)])
    assert "99_0" not in {r.clip_id for r in more}
    with pytest.raises(SplitError, match="make a split with: emo data split"):
        read_split(tmp_path / "none.json")
    (tmp_path / "other.json").write_text(json.dumps({"parts": {}}))
    with pytest.raises(SplitError, match="is no split file"):
        read_split(tmp_path / "other.json")
