"""The folders that come of it: MAFW's or MELD's layout, sheets for two annotators, and the list of all clips.

``clips.csv`` holds everything that was cut; the layout is written from it, first as a draft or without annotation, then
with the texts on which the annotators agreed.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from emo_models.labels import VOCABULARIES
from training.datasets import ecem, mafw, meld
from training.datasets.agreement import COLUMNS as SHEET_COLUMNS
from training.datasets.files import number, read_table
from training.datasets.quarantine import Findings
from training.datasets.record import DatasetError, RecordError, has_words

LIST: Final = "clips.csv"
SHEETS: Final = ("annotation/annotator_1.csv", "annotation/annotator_2.csv")
VOCABULARY: Final = {"mafw": mafw.VOCABULARY, "meld": meld.VOCABULARY}
#: Splits of a recording -> MELD's name of it.
_MELD_SPLIT: Final = {ours: theirs for theirs, ours in meld.SPLITS.items()}
#: All columns of MELD's tables.
_MELD_COLUMNS: Final = (
    "Sr No.", "Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID", "Season", "Episode",
    "StartTime", "EndTime",
)  # fmt: skip


@dataclass(frozen=True)
class Item:
    """One clip. ``clip``: its file relative to the folder, empty where a cut has words but no picture."""

    layout: str
    clip: str
    split: str
    recording: str
    start_ns: int
    end_ns: int
    dialogue: int
    index: int
    speaker: str
    utterance: str
    emotion: str = ""
    text: str = ""


def clip_file(layout: str, split: str, order: int, dialogue: int, index: int) -> str:
    """Where a clip belongs: ``data/clips/00001.mp4`` or ``train_splits/dia0_utt3.mp4``."""
    if layout == "mafw":
        return f"{mafw.CLIPS[0]}/{order:05d}.mp4"
    return f"{meld.FOLDERS[_MELD_SPLIT[split]]}/dia{dialogue}_utt{index}.mp4"


def write_list(items: Sequence[Item], out: Path) -> None:
    """Everything about the clips, for the later steps."""
    _write_csv(out / LIST, [field.name for field in fields(Item)], [list(asdict(item).values()) for item in items])


def read_list(folder: Path) -> list[Item]:
    """What :func:`write_list` wrote. Raises :class:`DatasetError`."""
    file = folder / LIST
    if not file.is_file():
        raise DatasetError(f"{folder}: expected {LIST}, as 'emo bag export' writes it; there is none")
    names = [field.name for field in fields(Item)]
    findings = Findings("recordings", folder)
    items = []
    for row, cells in read_table(file, names, findings):
        with findings.row(file, row):
            items.append(_item(cells))
    broken = findings.dataset().quarantined
    if broken:
        raise DatasetError(f"{file}, line {broken[0].row}: {broken[0].detail}; it is not to be edited")
    return items


def _item(cells: Mapping[str, str]) -> Item:
    values: dict[str, Any] = {
        f.name: number(cells[f.name], f.name) if f.type == "int" else cells[f.name] for f in fields(Item)
    }
    if values["layout"] not in VOCABULARY or values["split"] not in _MELD_SPLIT:
        raise RecordError(
            "unknown-form", f"expected a layout and a split, got {values['layout']!r}, {values['split']!r}"
        )
    return Item(**values)


def write_sheets(items: Sequence[Item], out: Path, seed: int) -> None:
    """Two empty sheets, each in its own random order, without anything that a network said of the clips."""
    for order, name in enumerate(SHEETS):
        rows = [[item.clip, item.speaker, item.utterance, "", ""] for item in items if item.clip]
        random.Random(f"{seed}/{order}").shuffle(rows)
        _write_csv(out / name, SHEET_COLUMNS, rows)


def annotated(items: Sequence[Item], sheet: Path) -> tuple[list[Item], list[str]]:
    """Items with the emotions and texts of a sheet (or of what ``emo data agree --out`` wrote), and what cannot be used.

    Raises :class:`DatasetError` for a file that is no such sheet.
    """
    known = {item.clip: item for item in items if item.clip}
    given: dict[str, tuple[str, str]] = {}
    troubles = []
    findings = Findings("sheet", sheet.parent)
    for row, cells in read_table(sheet, ("clip", "emotion", "text"), findings, text="text"):
        clip, emotion, text = cells["clip"], cells["emotion"].lower(), cells["text"]
        item = known.get(clip)
        if item is None:
            troubles.append(f"line {row}: expected a clip of {LIST}, got {clip!r}")
        elif emotion and emotion not in VOCABULARIES[VOCABULARY[item.layout]]:
            names = ", ".join(VOCABULARIES[VOCABULARY[item.layout]])
            troubles.append(f"line {row}, {clip}: expected an emotion of {names}; got {emotion!r}")
        elif not emotion or (item.layout == "mafw" and not has_words(text)):
            troubles.append(f"line {row}, {clip}: expected an emotion and a text, the row is not finished")
        else:
            given[clip] = (emotion, text)
    troubles += [f"line {broken.row}: {broken.detail}" for broken in findings.dataset().quarantined]
    filled = [replace(i, emotion=given[i.clip][0], text=given[i.clip][1]) if i.clip in given else i for i in items]
    return filled, troubles


def write_layout(items: Sequence[Item], out: Path) -> None:
    """The files that the readers of MAFW, or of MELD and ECEM, read; what has no emotion is left out of MAFW's splits."""
    if items and items[0].layout == "mafw":
        _write_mafw(items, out)
    else:
        _write_meld(items, out)


def _write_mafw(items: Sequence[Item], out: Path) -> None:
    folder = out / mafw.SPLITS_FOLDER / "single" / "with_caption" / "set_1"
    folder.mkdir(parents=True, exist_ok=True)
    names = VOCABULARIES[mafw.VOCABULARY]
    for split in ("train", "test"):
        done = [item for item in items if item.split == split and item.clip and item.emotion and has_words(item.text)]
        lines = [
            f"{Path(item.clip).name}\t{names.index(item.emotion) + 1}\t\t{_one_line(item.text)}\n" for item in done
        ]
        (folder / f"{split}.txt").write_text("".join(lines), encoding="utf-8")


def _write_meld(items: Sequence[Item], out: Path) -> None:
    for split, theirs in _MELD_SPLIT.items():
        of_split = [item for item in items if item.split == split]
        if not of_split:
            continue
        start_ns = {item.recording: item.start_ns for item in reversed(of_split)}
        rows = [
            [
                count, _one_line(item.utterance), item.speaker, item.emotion, "", item.dialogue, item.index, 0, 0,
                _clock(item.start_ns - start_ns[item.recording]), _clock(item.end_ns - start_ns[item.recording]),
            ]
            for count, item in enumerate(of_split, 1)
        ]  # fmt: skip
        _write_csv(out / f"{theirs}_sent_emo.csv", _MELD_COLUMNS, rows)
    # The explanations, in ECEM's form: "12_3.mp4" is utterance 3 of the training dialogue 12, "t_" one of the test part.
    for split, prefix in (("train", ""), ("test", "t_")):
        explained = [
            item for item in items if item.split == split and item.clip and item.emotion and has_words(item.text)
        ]
        content = [_explanation(place, prefix, item) for place, item in enumerate(explained)]
        if content:
            text = json.dumps(content, ensure_ascii=False, indent=1)
            (out / ecem.FILES[split]).write_text(text, encoding="utf-8")


def _explanation(place: int, prefix: str, item: Item) -> dict[str, Any]:
    question = (
        f"<video>\nExplain why the emotion of this statement is {item.emotion} <{item.speaker}: {item.utterance}>"
    )
    turns: list[Mapping[str, str]] = [{"from": "human", "value": question}, {"from": "gpt", "value": item.text}]
    return {"id": place, "video": f"{prefix}{item.dialogue}_{item.index}.mp4", "conversations": turns}


def _clock(ns: int) -> str:
    ms = round(ns / 1e6)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d},{ms % 1000:03d}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _write_csv(file: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)
