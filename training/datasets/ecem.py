"""ECEM: why somebody of MELD feels as they do, one sentence each (Wang et al., 2025; the FAME-Net paper).

``train_data_just_reason.json`` is the only published part: 5,837 items over MELD's train (``{d}_{u}.mp4``) and test
(``t_{d}_{u}.mp4``) utterances, so what is trained on all of it must not be measured on MELD's test set. The clips are
not published: the preparation rebuilds them from MELD.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from emo_models.labels import VOCABULARIES
from training.datasets.encodings import repair
from training.datasets.files import Clips, clips, field, first_of, needed, read_json
from training.datasets.meld import Line, read_lines
from training.datasets.quarantine import Findings
from training.datasets.record import Dataset, DatasetError, Dialogue, Record, RecordError, Utterance

VOCABULARY: Final = "ecem7"
PUBLISHED: Final = {"train items": 5_837, "from MELD train": 4_638, "from MELD test": 1_199}
#: Our split -> the file; only the first is published, the others are read where somebody has them.
FILES: Final = {split: f"{split}_data_just_reason.json" for split in ("train", "val", "test")}
#: Answers of so few words explain nothing.
SHORT_WORDS: Final = 3
NO_ANSWER: Final = "-1"
TEXTS: Final = ("ecem", "meld")
_VIDEO: Final = re.compile(r"(?P<test>t_)?(?P<dialogue>\d+)_(?P<index>\d+)(?:\.\w+)?")
_QUESTION: Final = re.compile(
    r"(?:<video>)?\s*Explain why the emotion of this statement is (?P<emotion>\w+) "
    r"<(?P<speaker>[^:]*?)\s*:\s*(?P<text>.*)>\s*(?:<video>)?\s*",
    re.DOTALL,
)
_END: Final = re.compile(r"[.!?…。！？][\"'”’)]*$")

History = Mapping[str, Mapping[int, Line]]


@dataclass(frozen=True)
class Ecem:
    """Reader. ``meld``: MELD's folder, for the history (default: in, or beside, this one).

    ``text``: words of the target from ``ecem`` (corrected by speech recognition) or from ``meld``; ``keep_short``: keep
    explanations of three words or fewer, flagged; ``videos``: folder of the cumulative clips (default: ``videos``).
    """

    meld: str = ""
    text: str = "ecem"
    keep_short: bool = False
    videos: str = ""
    name = "ecem"

    def __post_init__(self) -> None:
        if self.text not in TEXTS:
            raise DatasetError(f"ecem: text: expected {' or '.join(TEXTS)}, got {self.text!r}")

    def read(self, root: Path) -> Dataset:
        """Records with the explanation as caption. Raises :class:`DatasetError`."""
        findings = Findings(self.name, root, PUBLISHED)
        needed(root, "ECEM's items", *FILES.values())
        found = clips(root, self.videos, "videos", "clips", ".")
        dialogues = self._dialogues(root, findings)
        for split, file_name in FILES.items():
            file = root / file_name
            if not file.is_file():
                continue
            items = read_json(file)
            if not isinstance(items, list):
                raise DatasetError(f"{file}: expected a list of items, got {type(items).__name__}")
            for row, item in enumerate(items, 1):
                findings.count(f"{split} items")
                with findings.row(file, row):
                    findings.keep(self._record(item, split, found, dialogues, findings))
        return findings.dataset()

    def meld_folder(self, root: Path) -> Path | None:
        """Where MELD is expected, if it is anywhere."""
        if self.meld:
            return Path(self.meld).expanduser()
        if (root / "train_sent_emo.csv").is_file():
            return root  # own recordings have both in one folder
        return first_of(root, "meld", "MELD", "../meld", "../MELD")

    def _dialogues(self, root: Path, findings: Findings) -> dict[str, dict[int, Line]]:
        """Dialogue -> number -> line of MELD; empty when MELD is not there."""
        folder = self.meld_folder(root)
        if folder is None:
            findings.lack("MELD (the utterances before each target); give its folder with the option meld")
            return {}
        if not folder.is_dir():
            raise DatasetError(f"meld: expected MELD's folder, there is none at {folder}")
        lines = read_lines(folder, Findings("meld", folder))
        return {
            of_dialogue[0].dialogue_id: {line.index: line for line in of_dialogue}
            for dialogues in lines.values()
            for of_dialogue in dialogues.values()
        }

    def _record(self, item: Any, split: str, found: Clips, dialogues: History, findings: Findings) -> Record:
        match = _VIDEO.fullmatch(field(item, "video", str))
        if match is None:
            raise RecordError("bad-id", f"video: expected 12_3.mp4 or t_12_3.mp4, got {item['video']!r}")
        origin = "test" if match["test"] else "train"
        findings.count(f"from MELD {origin}")
        dialogue_id, index = f"{origin}_dia{match['dialogue']}", int(match["index"])
        emotion, utterance, asked = _target(_said(item, "human"), f"{dialogue_id}_utt{index}")
        answer, flags = _answer(_said(item, "gpt"), self.keep_short)
        lines = dialogues.get(dialogue_id, {})
        if index in lines:
            original = lines[index].utterance
            asked = frozenset() if self.text == "meld" else asked
            utterance = original if self.text == "meld" else replace(original, text=utterance.text, emotion=emotion)
        history = tuple(lines[number].utterance for number in sorted(lines) if number < index)
        stem = f"{match['test'] or ''}{match['dialogue']}_{index}"
        source, missing = found.span(stem)
        return Record(
            clip_id=stem, dataset=self.name, split=split, source=source, captions=(answer,), emotions=(emotion,),
            vocabulary=VOCABULARY, dialogue=Dialogue(dialogue_id, index, history, utterance), subject=utterance.speaker,
            flags=flags | missing | asked | (frozenset() if index in lines else frozenset({"no-history"})),
        )  # fmt: skip


def _said(item: Any, who: str) -> str:
    turns = [turn for turn in field(item, "conversations", list) if field(turn, "from", str) == who]
    if len(turns) != 1:
        raise RecordError("unknown-form", f"conversations: expected one turn from {who}, got {len(turns)}")
    text: str = field(turns[0], "value", str)
    return text


def _target(question: str, clip_id: str) -> tuple[str, Utterance, frozenset[str]]:
    """Emotion, utterance and flags of a question."""
    text, how = repair(question)
    match = _QUESTION.fullmatch(text)
    if match is None:
        raise RecordError(
            "unknown-form",
            f"expected 'Explain why the emotion of this statement is E <Speaker: text>', got {text[:80]!r}",
        )
    emotion = match["emotion"].lower()
    if emotion not in VOCABULARIES[VOCABULARY]:
        raise RecordError(
            "class-out-of-range", f"expected one of {', '.join(VOCABULARIES[VOCABULARY])}; got {emotion!r}"
        )
    return emotion, Utterance(match["speaker"], match["text"].strip(), emotion, clip_id=clip_id), _flag(how)


def _flag(how: str) -> frozenset[str]:
    return frozenset({how} if how else ())


def _answer(raw: str, keep_short: bool) -> tuple[str, frozenset[str]]:
    """The explanation, cleaned, and its flags. Raises :class:`RecordError` for none and for one that is too short."""
    text, how = repair(raw.strip())
    if text in ("", NO_ANSWER):
        raise RecordError("no-answer", f"expected an explanation, got {text!r}")
    text = _unquoted(text)
    flags = _flag(how)
    if len(text.split()) <= SHORT_WORDS:
        if not keep_short:
            raise RecordError("short-answer", f"expected more than {SHORT_WORDS} words, got {text!r}")
        flags |= {"short"}
    if not _END.search(text):
        flags |= {"truncated"}
    return text, flags


def _unquoted(text: str) -> str:
    """Without the quotation marks around the whole answer, of which the last one may be cut off."""
    if text.startswith('"') and (text.endswith('"') or text.count('"') == 1):
        return text.strip('"').strip()
    return text
