"""MSR-VTT: ten thousand web videos with twenty captions each (Xu et al., 2016).

``MSRVTT_data.json`` (``videos[].{video_id, split}``, ``sentences[].{video_id, caption}``), or the older pair
``train_val_videodatainfo.json`` and ``test_videodatainfo.json``. Where no split is given the order decides:
6,513 train, 497 validate, 2,990 test.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from training.datasets.captioned import CaptionRow, keep_captioned
from training.datasets.files import clips, field, first_of, needed, read_json
from training.datasets.quarantine import Findings
from training.datasets.record import Dataset, DatasetError, RecordError

PUBLISHED: Final = {"train videos": 6_513, "val videos": 497, "test videos": 2_990}
FILE: Final = "MSRVTT_data.json"
OLD_FILES: Final = ("train_val_videodatainfo.json", "test_videodatainfo.json")
FOLDERS: Final = ("videos/all", "videos", "TrainValVideo", "TestVideo", "train-video", "test-video")
SPLIT_NAMES: Final = {"train": "train", "validate": "val", "val": "val", "test": "test"}
_LAST_TRAIN, _LAST_VAL = 6_512, 7_009
_ID: Final = re.compile(r"video(\d+)")


@dataclass(frozen=True)
class MsrVtt:
    """Reader. ``videos``: folder of the clips when it is elsewhere."""

    videos: str = ""
    name = "msrvtt"

    def read(self, root: Path) -> Dataset:
        """Records with all captions of each video. Raises :class:`DatasetError` when no annotation file is there."""
        findings = Findings(self.name, root, PUBLISHED)
        found = clips(root, self.videos, *FOLDERS)
        whole = first_of(root, FILE, f"annotation/{FILE}", "MSR_VTT.json")
        old = [root / name for name in OLD_FILES if (root / name).is_file()]
        if whole is None and not old:
            needed(root, "the captions", FILE, *OLD_FILES)
        for name in OLD_FILES:
            if whole is None and not (root / name).is_file():
                findings.lack(name)
        rows = (row for file in ([whole] if whole else old) for row in _rows(file, findings))
        keep_captioned(rows, found, findings)
        return findings.dataset()


def _rows(file: Path, findings: Findings) -> Iterator[CaptionRow]:
    content = read_json(file)
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in ("videos", "sentences")):
        have = ", ".join(content) if isinstance(content, dict) else type(content).__name__
        raise DatasetError(f"{file}: expected an object with the lists videos and sentences, got {have}")
    splits = {}
    for index, video in enumerate(content["videos"], 1):
        with findings.row(file, f"video {index}"):
            clip = field(video, "video_id", str)
            splits[clip] = _split(clip, str(video.get("split", "")))
    for index, sentence in enumerate(content["sentences"], 1):
        with findings.row(file, f"sentence {index}"):
            clip = field(sentence, "video_id", str)
            if clip not in splits:
                raise RecordError("unknown-clip", f"expected one of the videos of this file, got {clip!r}")
            yield CaptionRow(file, f"sentence {index}", splits[clip], clip, field(sentence, "caption", str))


def _split(clip: str, given: str) -> str:
    if given in SPLIT_NAMES:
        return SPLIT_NAMES[given]
    if given:
        raise RecordError("bad-split", f"expected one of {', '.join(SPLIT_NAMES)}; got {given!r}")
    match = _ID.fullmatch(clip)
    if match is None:
        raise RecordError("bad-id", f"expected video0, video1, ...; got {clip!r}")
    order = int(match[1])
    return "train" if order <= _LAST_TRAIN else "val" if order <= _LAST_VAL else "test"
