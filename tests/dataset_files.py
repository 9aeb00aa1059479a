"""Miniature copies of the layouts of public data sets, with the traps of the real ones; all words are made up."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

MELD_HEADER = (
    "Sr No.", "Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID", "Season", "Episode",
    "StartTime", "EndTime",
)  # fmt: skip


def video(file: Path, frames: int = 3) -> Path:
    """A real mp4 of a few small pictures."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w") as container:
        stream: Any = container.add_stream("h264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(frames):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * i, np.uint8), format="rgb24")
            picture.pts, picture.time_base = i, Fraction(1, 10)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return file


def touch(folder: Path, *names: str) -> Path:
    """Files that are there, for readers only look at names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"\0")
    return folder


def write(file: Path, content: bytes | str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def write_json(file: Path, value: Any) -> Path:
    return write(file, json.dumps(value))


def sheet(file: Path, rows: Iterable[Sequence[Any]]) -> Path:
    """An xlsx workbook of one sheet."""
    from openpyxl import Workbook

    file.parent.mkdir(parents=True, exist_ok=True)
    book = Workbook()
    for row in rows:
        book.active.append(list(row))
    book.save(file)
    return file


def mafw_split(root: Path, lines: Sequence[bytes], *, kind: str = "single/with_caption", fold: int = 1) -> Path:
    return write(root / "Train & Test Set" / kind / f"set_{fold}" / "train.txt", b"".join(x + b"\r\n" for x in lines))


def meld_row(
    dialogue: int, index: int, text: str, emotion: str = "joy", *, speaker: str = "Anna",
    times: tuple[str, str] = ("00:00:01,000", "00:00:02,000"), place: tuple[int, int] = (1, 1),
) -> list[Any]:  # fmt: skip
    return [0, text, speaker, emotion, "", dialogue, index, *place, *times]


def meld_table(file: Path, rows: Sequence[Sequence[Any]], encoding: str = "utf-8") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding=encoding, newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(MELD_HEADER)
        writer.writerows(rows)
    return file


def ecem_item(video_name: str, question: str, answer: str, number: int = 0) -> dict[str, Any]:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": number, "video": video_name, "conversations": turns}


def asked(emotion: str, speaker: str, text: str) -> str:
    return f"<video>\nExplain why the emotion of this statement is {emotion} <{speaker}: {text}>"
