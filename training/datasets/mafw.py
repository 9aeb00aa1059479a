"""MAFW: clips of faces with one or several of eleven emotions and bilingual captions (Liu et al., 2022).

Files: ``data/clips/NNNNN.mp4``, ``Labels/*.xlsx`` and
``Train & Test Set/{single,compound}/{no_caption,with_caption}/set_{1..5}/{train,test}.txt``. The captioned single split
``set_1`` (6,423 and 1,611 clips) is the one of the ECPA paper; it has no neutral clip, so ten classes are active.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from emo_models.labels import VOCABULARIES
from training.datasets.encodings import decode, decode_chinese, decode_english
from training.datasets.files import clips, first_of, lines, needed, read_sheet
from training.datasets.quarantine import Findings
from training.datasets.record import Dataset, DatasetError, Record, RecordError

VOCABULARY: Final = "mafw11"
SETTINGS: Final = ("single", "compound")
LANGUAGES: Final = ("en", "zh")
SPLITS_FOLDER: Final = "Train & Test Set"
CLIPS: Final = ("data/clips", "clips")
#: Published numbers: rows of the spreadsheets, and clips of the captioned single splits.
SHEETS: Final = {"annotation": 10_045, "single-set": 9_172, "multi-set": 4_058, "descriptive_text": 8_034}
CAPTIONED: Final = {"train rows": 6_423, "test rows": 1_611}
_CLIP: Final = re.compile(r"(\d{1,5})(?:\.mp4|\.0)?")


@dataclass(frozen=True)
class Mafw:
    """Reader. ``fold`` 1 to 5 chooses a published split; 0 takes every clip of ``Labels/*.xlsx`` as training data.

    ``setting``: ``single`` or ``compound``; ``captions``: the split with captions or the larger one without;
    ``lang``: ``en`` or ``zh`` captions; ``videos``: folder of the clips when it is elsewhere.
    """

    setting: str = "single"
    captions: bool = True
    fold: int = 1
    lang: str = "en"
    videos: str = ""
    name = "mafw"

    def __post_init__(self) -> None:
        if self.setting not in SETTINGS or self.lang not in LANGUAGES or self.fold not in range(6):
            raise DatasetError(
                f"mafw: expected setting {' or '.join(SETTINGS)}, lang {' or '.join(LANGUAGES)}, fold 0 to 5; "
                f"got {self.setting!r}, {self.lang!r}, {self.fold!r}"
            )

    def read(self, root: Path) -> Dataset:
        """Records of the chosen split. Raises :class:`DatasetError` when neither split nor spreadsheets are there."""
        findings = Findings(self.name, root, self._expected())
        found = clips(root, self.videos, *CLIPS)
        findings.count("clips on disk", len(found.files))
        doubtful = _doubtful(root, findings)
        compound = dict(_compound(root, findings)) if self.setting == "compound" else {}
        rows = self._split_rows(root, findings) if self.fold else self._sheet_rows(root, findings)
        for file, number, split, clip, label, caption in rows:
            with findings.row(file, number):
                stem = _clip(clip)
                source, flags = found.span(stem)
                findings.keep(Record(
                    clip_id=stem, dataset=self.name, split=split, source=source,
                    captions=(caption,) if self.captions else (), emotions=self._emotions(label, compound.get(stem, "")),
                    vocabulary=VOCABULARY, lang=self.lang, flags=flags | doubtful.get(stem, frozenset()),
                ))  # fmt: skip
        return findings.dataset()

    def _expected(self) -> dict[str, int]:
        expected = {"clips on disk": SHEETS["annotation"]}
        if self.fold == 1 and self.captions and self.setting == "single":
            expected |= CAPTIONED
        return expected | {"annotation.xlsx rows": SHEETS["annotation"]}

    def _emotions(self, label: str, compound: str) -> tuple[str, ...]:
        """Names of a label: 1 to 11, names, or several of them. ``compound``: what multi-set.xlsx says of this clip."""
        if self.setting == "compound" and label.isdecimal() and int(label) > len(VOCABULARIES[VOCABULARY]) and compound:
            label = compound  # the split numbers whole combinations; the spreadsheet spells them out
        names = tuple(_emotion(part) for part in re.split(r"[\s,_+]+", label) if part)
        if not names:
            raise RecordError("missing-value", "expected a label, it is empty")
        if self.setting == "single" and len(names) > 1:
            raise RecordError("class-out-of-range", f"expected one of eleven emotions, got {label!r}")
        return names

    def _split_rows(self, root: Path, findings: Findings) -> Iterator[tuple[Path, int, str, str, str, str]]:
        place = f"{SPLITS_FOLDER}/{self.setting}/{'with' if self.captions else 'no'}_caption/set_{self.fold}"
        folder = needed(root, f"the split (set_1 to set_5; fold={self.fold})", place)
        for split in ("train", "test"):
            file = folder / f"{split}.txt"
            if not file.is_file():
                findings.lack(f"{findings.relative(file)}")
                continue
            for number, raw in lines(file, findings):
                findings.count(f"{split} rows")
                with findings.row(file, number):
                    yield (file, number, split, *self._fields(raw))

    def _fields(self, raw: bytes) -> tuple[str, str, str]:
        """Clip, label and caption of a line; its columns may be in different encodings."""
        if not self.captions:
            parts = decode(raw).split(None, 1)
            if len(parts) != 2:
                raise RecordError("wrong-fields", f"expected clip and label, got {decode(raw)!r}")
            return parts[0], parts[1].strip(), ""
        fields = raw.split(b"\t")
        if len(fields) != 4:
            raise RecordError(
                "wrong-fields", f"expected clip, label, Chinese and English separated by tabs, got {len(fields)} fields"
            )
        chinese, english = (field.strip() for field in fields[2:])
        caption = decode_english(english) if self.lang == "en" else decode_chinese(chinese)
        return decode(fields[0]).strip(), decode(fields[1]).strip(), caption

    def _sheet_rows(self, root: Path, findings: Findings) -> Iterator[tuple[Path, int, str, str, str, str]]:
        """Every labelled clip of the spreadsheets, as training data."""
        labels = needed(root, "the labels", f"Labels/{'single-set' if self.setting == 'single' else 'multi-set'}.xlsx")
        texts = _captions(root, self.lang, findings) if self.captions else {}
        for number, row in _labelled(labels, findings):
            clip = str(row[0])
            stem = _clip(clip)
            if self.captions and stem not in texts:
                continue
            findings.count("train rows")
            yield labels, number, "train", clip, _cell(row, 1), texts.get(stem, "")


def _clip(text: str) -> str:
    match = _CLIP.fullmatch(text.strip())
    if match is None:
        raise RecordError("bad-id", f"expected a clip as 00042.mp4, got {text!r}")
    return match[1].zfill(5)


def _emotion(part: str) -> str:
    names = VOCABULARIES[VOCABULARY]
    if part.isdecimal() and 1 <= int(part) <= len(names):
        return names[int(part) - 1]
    if part.lower() in names:
        return part.lower()
    raise RecordError("class-out-of-range", f"expected 1 to {len(names)} or one of {', '.join(names)}; got {part!r}")


def _cell(row: tuple[Any, ...], index: int) -> str:
    cell = row[index] if index < len(row) else None
    return "" if cell is None else str(int(cell) if isinstance(cell, float) and cell.is_integer() else cell).strip()


def _labelled(file: Path, findings: Findings) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Rows that begin with a clip, whether the sheet has a header or not; others but the first are refused."""
    for number, row in read_sheet(file):
        if _CLIP.fullmatch(_cell(row, 0)):
            yield number, row
        elif number > 1:
            findings.refuse(file, number, "bad-id", f"expected a clip as 00042.mp4, got {row[0]!r}")


def _captions(root: Path, lang: str, findings: Findings) -> dict[str, str]:
    """Clip -> caption of ``descriptive_text.xlsx``, which has no header: clip, Chinese, English."""
    file = needed(root, "the captions", "Labels/descriptive_text.xlsx")
    return {_clip(_cell(row, 0)): _cell(row, 2 if lang == "en" else 1) for _, row in _labelled(file, findings)}


def _compound(root: Path, findings: Findings) -> Iterator[tuple[str, str]]:
    file = first_of(root, "Labels/multi-set.xlsx")
    if file is None:
        findings.lack("Labels/multi-set.xlsx (what the numbers of combinations mean)")
        return
    for _, row in _labelled(file, findings):
        yield _clip(_cell(row, 0)), _cell(row, 1)


def _doubtful(root: Path, findings: Findings) -> dict[str, frozenset[str]]:
    """Clips that ``annotation.xlsx`` marks as invalid; marks that are neither 0 nor 1 are refused and count as doubt."""
    file = first_of(root, "Labels/annotation.xlsx")
    if file is None:
        findings.lack("Labels/annotation.xlsx (which clips the annotators doubted)")
        return {}
    flags = {}
    for number, row in _labelled(file, findings):
        findings.count("annotation.xlsx rows")
        mark = _cell(row, 1)
        if mark not in ("0", "1", ""):
            findings.refuse(file, number, "bad-number", f"invalid: expected 0 or 1, got {mark!r}")
        if mark not in ("0", ""):
            flags[_clip(_cell(row, 0))] = frozenset({"uncertain"})
    return flags
