"""Writes clips as MAFW does: ``data/clips``, ``Labels/*.xlsx`` and the folder of splits, with ``truth.jsonl`` beside."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import openpyxl

from training.datasets.mafw import SPLITS_FOLDER
from training.toyworld.captions import wordings
from training.toyworld.clips import NEUTRAL, ClipOptions, make_clip
from training.toyworld.expressions import EMOTIONS
from training.toyworld.truth import ClipTruth, write_truth
from training.toyworld.video import write_video

#: Share of the test clips, as roughly in MAFW's folds.
TEST_SHARE: Final = 0.2
#: Spreadsheets hold the time they were made; this one, so that the same seed makes the same file.
_EPOCH: Final = datetime.datetime(2000, 1, 1)


def write_mafw(root: Path, seed: int, count: int, options: ClipOptions) -> Iterator[ClipTruth]:
    """Write ``count`` clips under ``root``, yielding the truth of each as it is done; the labels come last."""
    clips = root / "data" / "clips"
    clips.mkdir(parents=True, exist_ok=True)
    done = []
    for number in range(1, count + 1):
        images, truth = make_clip(seed, number, split_of(number), options)
        write_video(clips / f"{truth.clip_id}.mp4", images, options.fps)
        done.append(truth)
        yield truth
    _write_labels(root / "Labels", done)
    for setting in ("single", "compound"):
        _write_splits(
            root / SPLITS_FOLDER / setting, [t for t in done if (len(t.emotions) > 1) == (setting == "compound")]
        )
    write_truth(root, done)


def split_of(number: int) -> str:
    """``test`` for every fifth clip, else ``train``."""
    return "test" if number % round(1 / TEST_SHARE) == 0 else "train"


def _labels(truth: ClipTruth) -> str:
    return ",".join(str(EMOTIONS.index(emotion) + 1) for emotion in truth.emotions)


def _texts(truth: ClipTruth) -> list[tuple[str, str]]:
    """Chinese and English captions, as many as there are."""
    return [(wordings()["chinese"][truth.emotions[0]], caption.text) for caption in truth.captions]


def _write_splits(folder: Path, truths: Sequence[ClipTruth]) -> None:
    """``set_1`` only: one fold is all that keeps people and wordings of the tests out of training."""
    for captioned in (False, True):
        place = folder / ("with_caption" if captioned else "no_caption") / "set_1"
        place.mkdir(parents=True, exist_ok=True)
        for split in ("train", "test"):
            rows = []
            for truth in truths:
                if truth.split != split:
                    continue
                clip, label = f"{truth.clip_id}.mp4", _labels(truth)
                if not captioned:
                    rows.append(f"{clip} {label}")
                elif truth.captions:
                    rows.append("\t".join((clip, label, *_texts(truth)[0])))
            (place / f"{split}.txt").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8", newline="\n")


def _write_labels(folder: Path, truths: Sequence[ClipTruth]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    single = [t for t in truths if len(t.emotions) == 1]
    annotation: list[Sequence[Any]] = [("clip", "invalid", *EMOTIONS)]
    annotation += [(f"{t.clip_id}.mp4", 0, *(int(e in t.emotions) for e in EMOTIONS)) for t in truths]
    _write_sheet(folder / "annotation.xlsx", annotation)
    _write_sheet(folder / "single-set.xlsx", ((f"{t.clip_id}.mp4", int(_labels(t))) for t in single))
    _write_sheet(folder / "multi-set.xlsx", ((f"{t.clip_id}.mp4", _labels(t)) for t in truths if t not in single))
    described = [t for t in single if t.emotions != (NEUTRAL,)]
    _write_sheet(folder / "descriptive_text.xlsx", ((f"{t.clip_id}.mp4", *_texts(t)[0]) for t in described))


def _write_sheet(file: Path, rows: Iterable[Sequence[Any]]) -> None:
    book = openpyxl.Workbook()
    book.properties.created = book.properties.modified = _EPOCH
    for row in rows:
        book.active.append(list(row))
    book.save(file)
