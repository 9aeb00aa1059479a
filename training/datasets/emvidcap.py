"""EmVidCap: videos with emotional captions, the parts L and S (Wang et al., 2022).

``EmVidCap-{L,S}/EmVideo_{trainval,test}_captions.csv``: L is separated by tabs, S by commas. The clips carry no
category; a clip's label is what most emotion words of its captions say, by the word lists of the data set
(``sentiment-words-E/CATEGORY.txt``, one word a line). The ids of S are those of MSVD.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from emo_models.labels import VOCABULARIES
from training.datasets.captioned import CaptionRow, keep_captioned
from training.datasets.files import clips, first_of, needed, read_bytes, read_table, value
from training.datasets.msvd import read_mapping
from training.datasets.quarantine import Findings
from training.datasets.record import Dataset, DatasetError

VOCABULARY: Final = "emvidcap34"
PARTS: Final = ("all", "L", "S")
#: Part and file -> published videos and captions.
PUBLISHED: Final = {
    ("L", "trainval"): (1_134, 19_398), ("L", "test"): (382, 6_527),
    ("S", "trainval"): (240, 9_462), ("S", "test"): (134, 5_622),
}  # fmt: skip
SPLITS: Final = {"trainval": "train", "test": "test"}
WORDS: Final = ("sentiment-words-E", "EmotionEval/sentiment-words-E")
_WORD: Final = re.compile(r"[a-z]+")


@dataclass(frozen=True)
class EmVidCap:
    """Reader. ``part``: ``L``, ``S`` or ``all``; ``videos``: folder of the clips when it is elsewhere."""

    part: str = "all"
    videos: str = ""
    name = "emvidcap"

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise DatasetError(f"emvidcap: part: expected one of {', '.join(PARTS)}; got {self.part!r}")

    def read(self, root: Path) -> Dataset:
        """Records with all captions of each video. Raises :class:`DatasetError` when no caption file is there."""
        parts = [part for part in ("L", "S") if self.part in (part, "all")]
        needed(root, "the captions", *(f"{folder}EmVidCap-{part}" for part in parts for folder in ("", "data/")))
        findings = Findings(self.name, root, _expected(parts))
        found = clips(root, self.videos, "videos", *(f"EmVidCap-{part}/videos" for part in parts))
        words = _words(root, findings)
        stems = read_mapping(root, findings) if "S" in parts else {}
        rows = (row for part in parts for row in _rows(root, part, stems, findings))
        keep_captioned(
            rows, found, findings, emotion=(lambda texts: majority(texts, words)) if words else None,
            vocabulary=VOCABULARY,
        )  # fmt: skip
        return findings.dataset()


def majority(captions: tuple[str, ...], words: Mapping[str, frozenset[str]]) -> str:
    """The category with the most emotion words in the captions; empty for none and for a tie.

    ``words``: word -> its categories; a word of several counts for each.
    """
    counts: Counter[str] = Counter()
    for caption in captions:
        for word in _WORD.findall(caption.lower()):
            counts.update(words.get(word, ()))
    best = counts.most_common(2)
    if not best or (len(best) == 2 and best[0][1] == best[1][1]):
        return ""
    return best[0][0]


def _expected(parts: list[str]) -> dict[str, int]:
    expected: Counter[str] = Counter()
    for (part, file), (videos, captions) in PUBLISHED.items():
        if part in parts:
            expected[f"{SPLITS[file]} videos"] += videos
            expected[f"{SPLITS[file]} captions"] += captions
    return dict(expected)


def _words(root: Path, findings: Findings) -> dict[str, frozenset[str]]:
    """Word -> categories, of the lists of the data set; empty when they are not there."""
    folder = first_of(root, *WORDS)
    if folder is None:
        findings.lack(f"{WORDS[0]}/ (the word lists, without which clips have no emotion)")
        return {}
    words: dict[str, set[str]] = {}
    for file in sorted(folder.glob("*.txt")):
        if file.stem not in VOCABULARIES[VOCABULARY]:
            findings.refuse(file, "", "class-out-of-range", f"expected one of the 34 categories, got {file.stem!r}")
            continue
        for word in read_bytes(file).decode("utf-8-sig", "replace").split():
            words.setdefault(word.lower(), set()).add(file.stem)
    return {word: frozenset(categories) for word, categories in words.items()}


def _rows(root: Path, part: str, stems: Mapping[str, str], findings: Findings) -> Iterator[CaptionRow]:
    for name, split in SPLITS.items():
        place = f"EmVidCap-{part}/EmVideo_{name}_captions.csv"
        file = first_of(root, place, f"data/{place}")
        if file is None:
            findings.lack(place)
            continue
        for row, cells in read_table(file, ("VideoID", "EmCaptions"), findings, text="EmCaptions"):
            with findings.row(file, row):
                clip = value(cells, "VideoID")
                found = (stems[clip],) if part == "S" and clip in stems else ()
                yield CaptionRow(file, row, split, clip, cells["EmCaptions"], found)
