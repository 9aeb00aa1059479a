"""MSVD: short videos with some forty captions each (Chen & Dolan, 2011).

``youtube_mapping.txt`` (``ID_start_end vidN``) and ``video_corpus.csv``, of which the English rows count; or one JSON
``{split: [{video, caption}]}``. By the usual order vid1 to vid1200 train, 100 validate, 670 test. Clips are ``.avi``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from training.datasets.captioned import CaptionRow, keep_captioned
from training.datasets.encodings import decode
from training.datasets.files import clips, field, first_of, lines, number, read_json, read_table, value
from training.datasets.quarantine import Findings
from training.datasets.record import Dataset, DatasetError, RecordError

PUBLISHED: Final = {"train videos": 1_200, "val videos": 100, "test videos": 670}
MAPPING: Final = "youtube_mapping.txt"
CORPUS: Final = ("video_corpus.csv", "MSR Video Description Corpus.csv")
#: Files of a corpus that somebody has cut into splits.
CUT: Final = {"train": "train.csv", "val": "val.csv", "test": "test.csv"}
JSONS: Final = ("msvd.json", "MSVD.json", "annotations.json")
COLUMNS: Final = ("VideoID", "Start", "End", "Language", "Description")
SPLIT_NAMES: Final = {"train": "train", "val": "val", "validate": "val", "validation": "val", "test": "test"}
_LAST_TRAIN, _LAST_VAL = 1_200, 1_300
_VID: Final = re.compile(r"vid(\d+)")


@dataclass(frozen=True)
class Msvd:
    """Reader. ``videos``: folder of the clips when it is elsewhere (default: ``YouTubeClips`` or ``videos``)."""

    videos: str = ""
    name = "msvd"

    def read(self, root: Path) -> Dataset:
        """Records with all English captions of each video. Raises :class:`DatasetError` when none are there."""
        findings = Findings(self.name, root, PUBLISHED)
        found = clips(root, self.videos, "YouTubeClips", "videos", "youtubeclips")
        stems = read_mapping(root, findings)
        file = first_of(root, *JSONS)
        rows = _json_rows(file, stems, findings) if file else _corpus_rows(root, stems, findings)
        keep_captioned(rows, found, findings)
        return findings.dataset()


def read_mapping(root: Path, findings: Findings) -> dict[str, str]:
    """``vidN`` -> ``ID_start_end``, the name of its clip; empty, and noted as missing, when the file is not there."""
    file = first_of(root, MAPPING, f"MSVD/{MAPPING}", f"data/MSVD/{MAPPING}")
    if file is None:
        findings.lack(f"{MAPPING} (which clip is vid1, vid2, ...)")
        return {}
    stems = {}
    for row, raw in lines(file, findings):
        with findings.row(file, row):
            parts = decode(raw).split()
            if len(parts) != 2:
                raise RecordError("wrong-fields", f"expected 'ID_start_end vidN', got {decode(raw)!r}")
            stems[parts[1]] = parts[0]
    return stems


def _split(clip: str) -> str:
    match = _VID.fullmatch(clip)
    if match is None:
        raise RecordError("bad-id", f"expected vid1, vid2, ...; got {clip!r}")
    order = int(match[1])
    return "train" if order <= _LAST_TRAIN else "val" if order <= _LAST_VAL else "test"


def _corpus_rows(root: Path, stems: Mapping[str, str], findings: Findings) -> Iterator[CaptionRow]:
    whole = first_of(root, *CORPUS)
    cut = {
        split: root / place / name
        for split, name in CUT.items()
        for place in ("", "metadata")
        if (root / place / name).is_file()
    }
    if whole is None and not cut:
        raise DatasetError(f"{root}: expected {CORPUS[0]}, {', '.join(CUT.values())} or {JSONS[0]}; found none of them")
    if not stems:
        raise DatasetError(
            f"{root}: expected {MAPPING} beside {CORPUS[0]}: it says which clip is vid1; ask as 'emo data list' tells"
        )
    files = {"": whole} if whole else cut
    vids = {stem: vid for vid, stem in stems.items()}
    strangers: set[str] = set()
    for split, file in files.items():
        assert file is not None
        for row, cells in read_table(file, COLUMNS, findings, text="Description"):
            if cells["Language"] != "English":
                findings.count("captions in other languages")
                continue
            with findings.row(file, row):
                stem = f"{value(cells, 'VideoID')}_{number(cells['Start'], 'Start')}_{number(cells['End'], 'End')}"
                if stem not in vids:
                    if stem in strangers:
                        continue
                    strangers.add(stem)
                    raise RecordError("unknown-clip", f"expected a clip of {MAPPING}, got {stem} (its first row)")
                yield CaptionRow(file, row, split or _split(vids[stem]), vids[stem], cells["Description"], (stem,))


def _json_rows(file: Path, stems: Mapping[str, str], findings: Findings) -> Iterator[CaptionRow]:
    content: Any = read_json(file)
    if not isinstance(content, dict):
        raise DatasetError(f"{file}: expected an object of splits, got {type(content).__name__}")
    for name, items in content.items():
        if not isinstance(items, list):
            raise DatasetError(f"{file}: {name}: expected a list of captions, got {type(items).__name__}")
        for index, item in enumerate(items, 1):
            row = f"{name} {index}"
            with findings.row(file, row):
                if name not in SPLIT_NAMES:
                    raise RecordError("bad-split", f"expected one of {', '.join(SPLIT_NAMES)}; got {name!r}")
                stem = Path(field(item, "video", str)).stem
                captions = field(item, "caption", (str, list))
                captions = [captions] if isinstance(captions, str) else captions
                if not all(isinstance(caption, str) for caption in captions):
                    raise RecordError("unknown-form", f"caption: expected texts, got {str(captions)[:40]}")
                for caption in captions:
                    yield CaptionRow(file, row, SPLIT_NAMES[name], stem, caption, (stems.get(stem, stem),))
