"""What the sets with many captions per clip have in common: rows of (clip, caption) become one record per clip."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from training.datasets.files import Clips
from training.datasets.quarantine import Findings
from training.datasets.record import Record, RecordError, has_words

_BLANKS: Final = re.compile(r"\s+")


@dataclass(frozen=True)
class CaptionRow:
    """One caption. ``stems``: names under which the clip's file may be found, the best first."""

    file: Path
    row: int | str
    split: str
    clip_id: str
    caption: str
    stems: tuple[str, ...] = ()


def keep_captioned(
    rows: Iterable[CaptionRow],
    found: Clips,
    findings: Findings,
    *,
    emotion: Callable[[tuple[str, ...]], str] | None = None,
    vocabulary: str = "",
) -> None:
    """One record per clip with its captions in the order of the rows; captions without words are refused by row.

    ``emotion`` makes a label (or ``""``) of a clip's captions.
    """
    first: dict[str, CaptionRow] = {}
    captions: dict[str, list[str]] = {}
    for row in rows:
        with findings.row(row.file, row.row):
            text = _BLANKS.sub(" ", row.caption).strip()
            if not has_words(text):
                raise RecordError("no-words", f"expected a caption with words, got {row.caption!r}")
            at = first.setdefault(row.clip_id, row)
            if at.split != row.split:
                raise RecordError("duplicate", f"{row.clip_id} belongs to the split {at.split} already")
            captions.setdefault(row.clip_id, []).append(text)
            findings.count(f"{row.split} captions")
    for clip_id, row in first.items():
        with findings.row(row.file, row.row):
            source, flags = found.span(clip_id, *row.stems)
            texts = tuple(captions[clip_id])
            label = emotion(texts) if emotion else ""
            findings.keep(Record(
                clip_id, findings.name, row.split, source, texts, (label,) if label else (), vocabulary, flags=flags
            ))  # fmt: skip
            findings.count(f"{row.split} videos")
