"""MELD: dialogues of a comedy series, each utterance with its emotion and clip (Poria et al., 2019; GPL-3.0).

``{train,dev,test}_sent_emo.csv`` and one folder of clips per split, ``dia{D}_utt{U}.mp4``. Utterance numbers have gaps,
clips of neighbours overlap now and then, and some clips are broken: those are left out. Own recordings in this layout
may have utterances without an emotion.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from emo_models.labels import VOCABULARIES
from training.datasets.files import Clips, clips, first_of, needed, number, read_table, value
from training.datasets.quarantine import Findings
from training.datasets.record import Dataset, Dialogue, Record, RecordError, Utterance

VOCABULARY: Final = "meld7"
COLUMNS: Final = (
    "Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID", "Season", "Episode", "StartTime", "EndTime",
)  # fmt: skip
#: MELD's name of a split -> ours, and the published number of utterances.
SPLITS: Final = {"train": "train", "dev": "val", "test": "test"}
PUBLISHED: Final = {"train": 9_989, "dev": 1_109, "test": 2_610}
#: Split -> name of its folder of clips, in the archives of the authors.
FOLDERS: Final = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
#: Clips of the published archives that cannot be used -> season, episode (to know them from clips of other people with
#: the same number), and what is wrong.
KNOWN_BAD: Final = {
    "train_dia125_utt3": ("4", "18", "corrupt"),
    "train_dia309_utt0": ("4", "5", "wrongly cut"),
    "dev_dia110_utt7": ("6", "11", "not in the archive"),
    "test_dia38_utt4": ("3", "7", "minutes long"),
    "test_dia220_utt0": ("2", "1", "minutes long"),
}
_TIME: Final = re.compile(r"(\d+):(\d\d):(\d\d)[,.](\d{1,3})")


@dataclass(frozen=True)
class Line:
    """One row: the utterance with its place. ``refused``: why it is no example; it still belongs to the history."""

    file: Path
    row: int
    split: str
    dialogue: int
    index: int
    utterance: Utterance
    season: str
    episode: str
    refused: RecordError | None = None

    @property
    def dialogue_id(self) -> str:
        """``train_dia12``: numbers of dialogues repeat from split to split."""
        return f"{self.split}_dia{self.dialogue}"


@dataclass(frozen=True)
class Meld:
    """Reader. ``videos``: a folder that holds the folders of clips, when they are elsewhere."""

    videos: str = ""
    name = "meld"

    def read(self, root: Path) -> Dataset:
        """One record per utterance. Raises :class:`DatasetError` when no table is there."""
        findings = Findings(self.name, root, {f"{split} utterances": n for split, n in PUBLISHED.items()})
        for split, of_split in read_lines(root, findings).items():
            found = split_clips(Path(self.videos).expanduser() if self.videos else root, split)
            findings.count(f"{split} clips on disk", len(found.files))
            for lines in of_split.values():
                _keep_dialogue(lines, found, findings)
            _refuse_extras(split, of_split, found, findings)
        return findings.dataset()


def read_lines(root: Path, findings: Findings) -> dict[str, dict[int, list[Line]]]:
    """MELD's split -> dialogue -> its utterances in order. Raises :class:`DatasetError` when no table is there."""
    places = {
        split: [f"{f}{split}_sent_emo.csv" for f in ("", "data/MELD/", "MELD.Raw/", "annotations/")] for split in SPLITS
    }
    files = {split: first_of(root, *found) for split, found in places.items()}
    if not any(files.values()):
        needed(
            root, "MELD's tables", "train_sent_emo.csv", "data/MELD/train_sent_emo.csv", "MELD.Raw/train_sent_emo.csv"
        )
    read: dict[str, dict[int, list[Line]]] = {}
    for split, file in files.items():
        if file is None:
            findings.lack(f"{split}_sent_emo.csv")
            continue
        dialogues: dict[int, list[Line]] = {}
        for line in _lines(file, split, findings):
            dialogues.setdefault(line.dialogue, []).append(line)
        read[split] = {key: sorted(lines, key=lambda line: line.index) for key, lines in dialogues.items()}
    return read


def split_clips(root: Path, split: str) -> Clips:
    """Clips of one of MELD's splits, in the usual places below ``root``."""
    name = FOLDERS[split]
    places = (name, f"{split}/{name}", f"MELD.Raw/{name}", f"MELD.Raw/{split}/{name}", f"videos/{name}")
    return clips(root, "", *places)


def seconds(text: str) -> float:
    """Seconds of ``hh:mm:ss,ms`` (hours of one digit occur too). Raises :class:`RecordError` (``bad-times``)."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise RecordError("bad-times", f"expected hh:mm:ss,ms, got {text!r}")
    hours, minutes, whole, part = match.groups()
    return int(hours) * 3600 + int(minutes) * 60 + int(whole) + int(part.ljust(3, "0")) / 1000


def _lines(file: Path, split: str, findings: Findings) -> Iterator[Line]:
    seen: set[tuple[int, int]] = set()
    for row_number, row in read_table(file, COLUMNS, findings):
        findings.count(f"{split} utterances")
        with findings.row(file, row_number):
            line = _line(file, row_number, split, row)
            place = (line.dialogue, line.index)
            if place in seen:
                raise RecordError("duplicate", f"expected each utterance once; dialogue {place[0]}, {place[1]} again")
            seen.add(place)
            yield line


def _line(file: Path, row_number: int, split: str, row: Mapping[str, str]) -> Line:
    row = dict(row)
    dialogue, index = number(row["Dialogue_ID"], "Dialogue_ID"), number(row["Utterance_ID"], "Utterance_ID")
    speaker, emotion = value(row, "Speaker"), row["Emotion"].lower()
    if emotion and emotion not in VOCABULARIES[VOCABULARY]:
        raise RecordError(
            "class-out-of-range", f"expected one of {', '.join(VOCABULARIES[VOCABULARY])}; got {emotion!r}"
        )
    clip_id = f"{split}_dia{dialogue}_utt{index}"
    refused = None
    try:
        utterance = Utterance(
            speaker, row["Utterance"], emotion, seconds(row["StartTime"]), seconds(row["EndTime"]), clip_id
        )
    except RecordError as error:
        if error.reason != "bad-times":
            raise
        # Its clip cannot be right, its words can: it stays in the history of the others.
        refused, utterance = error, Utterance(speaker, row["Utterance"], emotion, clip_id=clip_id)
    return Line(file, row_number, split, dialogue, index, utterance, row["Season"], row["Episode"], refused)


def _keep_dialogue(lines: Sequence[Line], found: Clips, findings: Findings) -> None:
    for position, line in enumerate(lines):
        with findings.row(line.file, line.row):
            if line.refused is not None:
                raise line.refused
            _check_known(line)
            source, flags = found.span(f"dia{line.dialogue}_utt{line.index}")
            if position and _overlap(lines[position - 1].utterance, line.utterance):
                flags |= {"overlap"}
            history = tuple(before.utterance for before in lines[:position])
            findings.keep(Record(
                clip_id=line.utterance.clip_id, dataset="meld", split=SPLITS[line.split], source=source,
                emotions=(line.utterance.emotion,) if line.utterance.emotion else (),
                vocabulary=VOCABULARY, subject=line.utterance.speaker, flags=flags,
                dialogue=Dialogue(line.dialogue_id, line.index, history, line.utterance),
            ))  # fmt: skip


def _check_known(line: Line) -> None:
    season, episode, trouble = KNOWN_BAD.get(line.utterance.clip_id, ("", "", ""))
    if trouble and (line.season, line.episode) == (season, episode):
        raise RecordError("known-bad-clip", f"{line.utterance.clip_id} of the published archive is {trouble}")


def _overlap(before: Utterance, after: Utterance) -> bool:
    return before.end_s is not None and after.start_s is not None and after.start_s < before.end_s


def _refuse_extras(split: str, dialogues: Mapping[int, Sequence[Line]], found: Clips, findings: Findings) -> None:
    """Videos that no row names, as ``final_videos_test...``."""
    named = {f"dia{line.dialogue}_utt{line.index}" for lines in dialogues.values() for line in lines}
    for stem, file in found.files.items():
        if stem not in named:
            detail = f"expected a row of {split}_sent_emo.csv for {stem}, there is none"
            findings.refuse(file, "", "not-annotated", detail)
