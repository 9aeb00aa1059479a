"""Writes dialogues as MELD does (a table and a folder of clips per split) and as ECEM does (items with explanations)."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from training.datasets.ecem import FILES
from training.datasets.meld import FOLDERS
from training.toyworld.clips import ClipOptions
from training.toyworld.script import Explained, Line
from training.toyworld.stage import Played, cut, play_dialogue
from training.toyworld.truth import CaptionTruth, CauseTruth, ClipTruth, write_truth
from training.toyworld.video import SAMPLE_RATE_HZ, write_video

HEADER: Final = (
    "Sr No.", "Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID", "Season", "Episode",
    "StartTime", "EndTime",
)  # fmt: skip
SENTIMENTS: Final = {"neutral": "neutral", "joy": "positive", "surprise": "positive"}
#: One dialogue in ten is for validation, two for tests.
SPLIT_OF: Final = ("train", "train", "train", "test", "train", "train", "dev", "train", "test", "train")
#: MELD's split -> ECEM's file. ECEM takes items of MELD's train and test only, so that validation comes from train.
ECEM_OF: Final = {"train": "train", "test": "test"}
#: Every so many dialogues of MELD's train are ECEM's validation.
ECEM_VALIDATION: Final = 7


@dataclass
class _Written:
    """What was written of both data sets so far."""

    rows: dict[str, list[Sequence[Any]]] = field(default_factory=lambda: {split: [] for split in FOLDERS})
    items: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {split: [] for split in FILES})
    meld: list[ClipTruth] = field(default_factory=list)
    ecem: list[ClipTruth] = field(default_factory=list)
    dialogues: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FOLDERS, 0))


def write_dialogues(
    root: Path, seed: int, count: int, options: ClipOptions, *, seconds: float, distraction: float
) -> Iterator[Played]:
    """Write ``count`` dialogues to ``root/meld`` and their explained utterances to ``root/ecem``.

    ECEM's clips are cumulative, from the dialogue's start to the end of the explained utterance. Yields every dialogue
    as it is done; tables come last. ``seconds``: mean length of an utterance; ``distraction`` as ``script.write_script``.
    """
    done = _Written()
    for folder in (*(root / "meld" / name for name in FOLDERS.values()), root / "ecem" / "videos"):
        folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        split = SPLIT_OF[number % len(SPLIT_OF)]
        played = play_dialogue(
            seed, number, options, held_out=split == "test", seconds=seconds, distraction=distraction
        )
        _write_dialogue(root, played, split, options.fps, done)
        done.dialogues[split] += 1
        yield played
    _write_tables(root, done)
    write_truth(root / "meld", done.meld)
    write_truth(root / "ecem", done.ecem)


def _write_dialogue(root: Path, played: Played, split: str, fps: int, done: _Written) -> None:
    dialogue = done.dialogues[split]
    for index, line in enumerate(played.script.lines):
        part, clip = slice(line.start, line.end), f"dia{dialogue}_utt{index}"
        file = root / "meld" / FOLDERS[split] / f"{clip}.mp4"
        write_video(file, played.images[part], fps, _sound(played, line.start, line.end, fps))
        done.rows[split].append(_row(played, line, dialogue, index, fps=fps, serial=len(done.rows[split]) + 1))
        done.meld.append(
            _truth(
                f"{split}_{clip}", split, played, line, start=line.start, fps=fps, dialogue_id=f"{split}_dia{dialogue}"
            )
        )
        if line.explained is not None and split in ECEM_OF:
            _write_item(root / "ecem", played, line, (split, dialogue, index), fps=fps, done=done)


def _write_item(
    folder: Path, played: Played, line: Line, place: tuple[str, int, int], *, fps: int, done: _Written
) -> None:
    split, dialogue, index = place
    assert line.explained is not None
    stem = f"{'t_' if split == 'test' else ''}{dialogue}_{index}"
    write_video(folder / "videos" / f"{stem}.mp4", played.images[: line.end], fps, _sound(played, 0, line.end, fps))
    part = "val" if split == "train" and dialogue % ECEM_VALIDATION == ECEM_VALIDATION - 1 else ECEM_OF[split]
    speaker = played.script.names[line.speaker]
    question = f"<video>\nExplain why the emotion of this statement is {line.emotion} <{speaker}: {line.text}>"
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": line.explained.sentences[0]}]
    done.items[part].append({"id": len(done.items[part]), "video": f"{stem}.mp4", "conversations": turns})
    done.ecem.append(_truth(stem, part, played, line, start=0, fps=fps, dialogue_id=f"{split}_dia{dialogue}"))


def _truth(
    clip_id: str, split: str, played: Played, line: Line, *, start: int, fps: int, dialogue_id: str
) -> ClipTruth:
    height, width = played.images[0].shape[:2]
    event = line.event
    explained = line.explained
    return ClipTruth(
        clip_id, "val" if split == "dev" else split, fps, (width, height), (line.emotion,),
        "" if event is None else event.what, "" if event is None else event.thing, played.place, played.light, "",
        tuple(cut(face, start, line.end) for face in played.faces),
        () if explained is None else tuple(CaptionTruth(text) for text in explained.sentences),
        played.speaking[start : line.end], None if explained is None else _cause(explained, dialogue_id),
    )  # fmt: skip


def _cause(explained: Explained, dialogue_id: str) -> CauseTruth:
    return CauseTruth(explained.kind, f"{dialogue_id}_utt{explained.cause}", explained.evidence, explained.others)


def _sound(played: Played, start: int, end: int, fps: int) -> Any:
    return played.sound[start * SAMPLE_RATE_HZ // fps : end * SAMPLE_RATE_HZ // fps]


def _row(played: Played, line: Line, dialogue: int, index: int, *, fps: int, serial: int) -> Sequence[Any]:
    sentiment = SENTIMENTS.get(line.emotion, "negative")
    times = (_time(line.start / fps), _time(line.end / fps))
    return serial, line.text, played.script.names[line.speaker], line.emotion, sentiment, dialogue, index, 1, 1, *times


def _time(seconds: float) -> str:
    """``hh:mm:ss,ms``, as in MELD's tables."""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d},{rest % 1000:03d}"


def _write_tables(root: Path, done: _Written) -> None:
    for split, rows in done.rows.items():
        with (root / "meld" / f"{split}_sent_emo.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(HEADER)
            writer.writerows(rows)
    for split, items in done.items.items():
        text = json.dumps(items, ensure_ascii=False, indent=1)
        (root / "ecem" / FILES[split]).write_text(text + "\n", encoding="utf-8", newline="\n")
