"""Damaged files: whatever is flipped, cut off or put in place of a value, a reader reads on or says what is wrong."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dataset_files import asked, ecem_item, mafw_split, meld_row, meld_table, write, write_json

from training.datasets import DatasetError, read_dataset

ATTEMPTS = 60
TURNS = [{"utterance_ID": i, "text": "a b", "speaker": "Anna", "emotion": "joy", "video_name": "x.mp4"} for i in (1, 2)]
CONTEXT = "question: Why does Ben feel joy in U2? \\ context: U1. <extra_id_1> Anna: a b | U2. <extra_id_2> Ben: c"


def make(root: Path, name: str) -> tuple[str, Path]:
    """A small data set; returns the reader and the file that is to be damaged."""
    rows = [meld_row(0, i, f"Words, {i}’s.") for i in range(4)]
    mafw = [f"{i:05d}.mp4\t{i}\t一个人笑。\tA man’s smile.".encode() for i in range(1, 6)]
    ecf = "1 2\n(2,1),(2,2)\n1 | Anna | joy | a b | F: 00:00:01.000 - 00:00:02.000\n2 | Ben | fear | c | train_dia1_utt2\n"
    conversation = {"conversation_ID": 4, "conversation": TURNS, "emotion-cause_pairs": [["2_joy", "1_a b"]]}
    corpus = 'VideoID,Start,End,Language,Description\na,1,2,English,A man.\na,1,2,English,"A dog, too."\n'
    write(root / "youtube_mapping.txt", "a_1_2 vid1\n")
    write(root / "i.tsv", "a\tx.mp4\t1\t2\n")
    write(root / "train.yaml", "img: i.tsv\ncaption: c.tsv\nlabel: l.tsv\ncaption_linelist: n.tsv\n")
    write(root / "n.tsv", "0\t0\n")
    makers = {
        "mafw": lambda: mafw_split(root, mafw),
        "meld": lambda: meld_table(root / "train_sent_emo.csv", rows),
        "ecem": lambda: write_json(root / "train_data_just_reason.json", [ecem_item("1_2.mp4", asked("joy", "A", "b"), "She has won it.")] * 2),
        "ecf": lambda: write(root / "train.txt", ecf),
        "ecf2": lambda: write(root / "all_data_pair_ECFvsMELD.txt", ecf) and write(root / "train.txt", ecf) and root / "all_data_pair_ECFvsMELD.txt",
        "ecf3": lambda: write_json(root / "Subtask_2_train.json", [conversation]),
        "ecgf": lambda: write_json(root / "train.json", [{**conversation, "causes": [{"u": "2_joy", "text": "She won."}]}]),
        "ecgf2": lambda: write_json(root / "train.json", [{"emo_utt_id": "dia1utt2", "input": CONTEXT, "output": "She won."}]),
        "emvidcap": lambda: write(root / "EmVidCap-L/EmVideo_trainval_captions.csv", "VideoID\tEmCaptions\na\tb c\nd\te’s\n"),
        "msvd": lambda: write(root / "video_corpus.csv", corpus),
        "msvd2": lambda: write_json(root / "msvd.json", {"train": [{"video": "a", "caption": ["b"]}]}),
        "msrvtt": lambda: write_json(root / "MSRVTT_data.json", {"videos": [{"video_id": "video1", "split": "train"}], "sentences": [{"video_id": "video1", "caption": "a"}]}),
        "swinbert": lambda: write(root / "c.tsv", 'a\t[{"caption": "b"}]\n'),
        "swinbert2": lambda: write(root / "l.tsv", 'a\t[{"emotion": "joy", "vocabulary": "meld7"}]\n') and write(root / "c.tsv", 'a\t[{"caption": "b"}]\n') and root / "l.tsv",
        "swinbert3": lambda: write(root / "c.tsv", 'a\t[{"caption": "b"}]\n') and root / "train.yaml",
    }  # fmt: skip
    return name.rstrip("0123456789"), makers[name]()


NAMES = (
    "mafw", "meld", "ecem", "ecf", "ecf2", "ecf3", "ecgf", "ecgf2", "emvidcap", "msvd", "msvd2", "msrvtt", "swinbert",
    "swinbert2", "swinbert3",
)  # fmt: skip


def damaged_bytes(content: bytes, luck: random.Random) -> bytes:
    at = luck.randrange(len(content))
    kind = luck.randrange(4)
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[:at] + bytes([luck.randrange(256)]) + content[at + 1 :]
    if kind == 2:
        return content[:at] + luck.choice([b'"', b"\n", b"\t", b"|", b"\0", b",", b"\xff", b"{"]) + content[at:]
    end = min(len(content), at + luck.randrange(1, 30))
    return content[:at] + content[end:]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container and key in a JSON value."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def damaged_json(content: bytes, luck: random.Random) -> bytes:
    value = json.loads(content)
    container, key = luck.choice(list(places(value)))
    other = luck.choice([None, 7, "", "x_y", [], {}, [1], [None, None], {"a": 1}, True, 1.5, "2"])
    if isinstance(container, dict) and luck.random() < 0.3:
        del container[key]
    else:
        container[key] = other
    return json.dumps(value).encode()


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_never_ends_in_a_traceback(tmp_path, name):
    reader, file = make(tmp_path, name)
    whole = file.read_bytes()
    assert read_dataset(reader, tmp_path).records
    luck = random.Random(name)
    for attempt in range(ATTEMPTS):
        as_json = file.suffix == ".json" and attempt % 3
        content = damaged_json(whole, luck) if as_json else damaged_bytes(whole, luck)
        file.write_bytes(content)
        said = outcome(reader, tmp_path)
        assert said is None or str(tmp_path) in said, content


def outcome(reader: str, root: Path) -> str | None:
    """What the reader says when it gives up; None when it read on, with a reason for every row that it left out."""
    try:
        dataset = read_dataset(reader, root)
    except DatasetError as error:
        return str(error)
    assert all(row.detail and row.file for row in dataset.quarantined)
    return None
