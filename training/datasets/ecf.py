"""ECF: which utterances cause an emotion, over the dialogues of MELD's series (Wang et al., 2023; GPL-3.0).

Two forms of the same annotation. Text: ``{train,dev,test}.txt`` or ``all_data_pair.txt``, a header ``ID N``, a line of
pairs ``(emotion,cause),...``, then ``n | Speaker | emotion | text | Friends_SxEy: begin - end``; the last column of
``all_data_pair_ECFvsMELD.txt`` is MELD's clip instead. JSON, of SemEval-2024 task 3: ``Subtask_{1,2}_{train,test}.json``.
Causes may come after the emotion; they are kept as annotated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from emo_models.labels import VOCABULARIES
from training.datasets.encodings import decode
from training.datasets.files import Clips, clips, first_of, lines, needed, number, read_json
from training.datasets.files import field as entry
from training.datasets.meld import FOLDERS, split_clips
from training.datasets.quarantine import Findings
from training.datasets.record import Dataset, DatasetError, Dialogue, Record, RecordError, Utterance

VOCABULARY: Final = "meld7"
FORMS: Final = ("auto", "text", "json")
#: Published numbers of the text form: conversations, utterances, pairs.
PUBLISHED: Final = {
    "train conversations": 1_001, "val conversations": 112, "test conversations": 261, "train utterances": 9_966,
    "val utterances": 1_087, "test utterances": 2_566, "pairs": 9_794,
}  # fmt: skip
#: The SemEval release: all of the above is its training part.
PUBLISHED_JSON: Final = {
    "train conversations": 1_374, "test conversations": 341, "train utterances": 13_619, "test utterances": 3_101,
}  # fmt: skip
TEXTS: Final = {"train.txt": "train", "dev.txt": "val", "test.txt": "test"}
WHOLE_TEXT: Final = "all_data_pair.txt"
MELD_TEXT: Final = "all_data_pair_ECFvsMELD.txt"
JSONS: Final = {"train": "train", "dev": "val", "test": "test"}
_PAIR: Final = re.compile(r"\((\d+),(\d+)\)")
_PLACE: Final = re.compile(r"\S+: (\d+:\d\d:\d\d\.\d+) - (\d+:\d\d:\d\d\.\d+)")
_MELD: Final = re.compile(r"(train|dev|test)_dia(\d+)_utt(\d+)")
_EMOTION_REF: Final = re.compile(r"(\d+)_(\w+)")


@dataclass
class Conversation:
    """One conversation as annotated: utterances by their number, and (emotion, cause, words of the cause)."""

    file: Path
    number: int
    split: str
    utterances: dict[int, Utterance] = field(default_factory=dict)
    videos: dict[int, str] = field(default_factory=dict)
    pairs: list[tuple[int, int, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Ecf:
    """Reader. ``form``: ``text``, ``json``, or ``auto`` (text where it is there); ``subtask``: 1 has the words of the
    causes, which become captions, 2 the names of the videos; ``meld``: MELD's folder, for its clips; ``videos``: a folder
    of ``diaNuttM.mp4`` clips."""

    form: str = "auto"
    subtask: int = 2
    meld: str = ""
    videos: str = ""
    name = "ecf"

    def __post_init__(self) -> None:
        if self.form not in FORMS or self.subtask not in (1, 2):
            raise DatasetError(
                f"ecf: expected form {', '.join(FORMS)} and subtask 1 or 2; got {self.form!r}, {self.subtask!r}"
            )

    def read(self, root: Path) -> Dataset:
        """One record per utterance, with the clip ids of its causes. Raises :class:`DatasetError`."""
        as_text = self.form == "text" or (self.form == "auto" and bool(first_of(root, *TEXTS, WHOLE_TEXT)))
        findings = Findings(self.name, root, PUBLISHED if as_text else PUBLISHED_JSON)
        conversations = _text(root, findings) if as_text else _json(root, self.subtask, findings)
        originals = _originals(root, findings) if as_text else {}
        found = clips(root, self.videos, "videos", "video")
        of_meld = {split: split_clips(Path(self.meld).expanduser(), split) for split in FOLDERS} if self.meld else {}
        for conversation in conversations:
            findings.count(f"{conversation.split} conversations")
            findings.count(f"{conversation.split} utterances", len(conversation.utterances))
            _rename(conversation, originals)
            keep_conversation(conversation, findings, found, of_meld)
        return findings.dataset()


def keep_conversation(
    conversation: Conversation, findings: Findings, found: Clips, of_meld: dict[str, Clips], *, captions: bool = True
) -> None:
    """One record per utterance of a conversation; pairs that point nowhere are refused."""
    utterances = conversation.utterances
    causes: dict[int, list[str]] = {}
    words: dict[int, list[str]] = {}
    for emotional, cause, span in conversation.pairs:
        if emotional not in utterances or cause not in utterances:
            known = f"utterances 1 to {max(utterances, default=0)}"
            detail = f"expected {known}, got the pair ({emotional}, {cause})"
            findings.refuse(conversation.file, f"conversation {conversation.number}", "unknown-clip", detail)
            continue
        findings.count("pairs")
        findings.count("causes after their emotion", int(cause > emotional))
        causes.setdefault(emotional, []).append(utterances[cause].clip_id)
        if span and captions:
            words.setdefault(emotional, []).append(span)
    order = sorted(utterances)
    for position, index in enumerate(order):
        target = utterances[index]
        with findings.row(conversation.file, f"conversation {conversation.number}, utterance {index}"):
            source, flags = found.span(conversation.videos.get(index, ""), f"dia{conversation.number}utt{index}")
            match = _MELD.fullmatch(target.clip_id)
            if source is None and match and match[1] in of_meld:
                source, flags = of_meld[match[1]].span(f"dia{match[2]}_utt{match[3]}")
            dialogue_id = f"{match[1]}_dia{match[2]}" if match else f"ecf_dia{conversation.number}"
            findings.keep(Record(
                clip_id=target.clip_id, dataset=findings.name, split=conversation.split, source=source,
                captions=tuple(words.get(index, ())), emotions=(target.emotion,) if target.emotion else (),
                vocabulary=VOCABULARY if target.emotion else "", subject=target.speaker, flags=flags,
                causes=tuple(dict.fromkeys(causes.get(index, ()))),
                dialogue=Dialogue(dialogue_id, index, tuple(utterances[i] for i in order[:position]), target),
            ))  # fmt: skip


def emotion_of(text: str) -> str:
    """An emotion of MELD's seven. Raises :class:`RecordError` (``class-out-of-range``)."""
    if text.lower() not in VOCABULARIES[VOCABULARY]:
        raise RecordError("class-out-of-range", f"expected one of {', '.join(VOCABULARIES[VOCABULARY])}; got {text!r}")
    return text.lower()


def _rename(conversation: Conversation, originals: dict[tuple[int, int], str]) -> None:
    """Give the utterances MELD's clip ids where they are known, so that both sets speak of the same clips."""
    for index, utterance in conversation.utterances.items():
        original = originals.get((conversation.number, index))
        if original:
            conversation.utterances[index] = replace(utterance, clip_id=original)


def _text(root: Path, findings: Findings) -> Iterator[Conversation]:
    files = {root / name: split for name, split in TEXTS.items() if (root / name).is_file()}
    if not files:
        files = {needed(root, "the conversations", *TEXTS, WHOLE_TEXT): "train"}
    elif len(files) < len(TEXTS):
        for name in TEXTS:
            if not (root / name).is_file():
                findings.lack(name)
    for file, split in files.items():
        yield from _conversations(file, split, findings)


def _conversations(file: Path, split: str, findings: Findings) -> Iterator[Conversation]:
    current: Conversation | None = None
    for row, raw in lines(file, findings):
        with findings.row(file, row):
            text = decode(raw).strip()
            if "|" in text:
                if current is None:
                    raise RecordError(
                        "unknown-form", f"expected a header 'ID N' before the first utterance, got {text!r}"
                    )
                _add(current, text)
            elif text.startswith("("):
                if current is not None:
                    current.pairs = [(int(e), int(c), "") for e, c in _PAIR.findall(text)]
            else:
                if current is not None:
                    yield current
                    current = None
                parts = text.split()
                if len(parts) != 2:
                    raise RecordError("unknown-form", f"expected 'ID N', pairs or an utterance, got {text!r}")
                current = Conversation(file, number(parts[0], "conversation"), split)
    if current is not None:
        yield current


def _add(conversation: Conversation, text: str) -> None:
    parts = [part.strip() for part in text.split(" | ")]
    if len(parts) < 5:
        raise RecordError("wrong-fields", f"expected n | speaker | emotion | text | place, got {len(parts)} fields")
    index = number(parts[0], "utterance")
    words, place = " | ".join(parts[3:-1]), _PLACE.fullmatch(parts[-1])
    start_s, end_s = (_seconds(place[1]), _seconds(place[2])) if place else (None, None)
    if start_s is not None and end_s is not None and end_s <= start_s:
        start_s = end_s = None  # the words are right all the same
    clip_id = f"ecf_dia{conversation.number}_utt{index}"
    conversation.utterances[index] = Utterance(parts[1], words, emotion_of(parts[2]), start_s, end_s, clip_id)


def _seconds(text: str) -> float:
    hours, minutes, rest = text.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


def _originals(root: Path, findings: Findings) -> dict[tuple[int, int], str]:
    """(conversation, utterance) -> MELD's clip."""
    file = first_of(root, MELD_TEXT)
    if file is None:
        findings.lack(f"{MELD_TEXT} (which clip of MELD each utterance is)")
        return {}
    originals, conversation = {}, 0
    for row, raw in lines(file, findings):
        with findings.row(file, row):
            parts = decode(raw).split("|")
            if len(parts) >= 5 and _MELD.fullmatch(parts[-1].strip()):
                originals[conversation, number(parts[0], "utterance")] = parts[-1].strip()
            elif len(parts) == 1 and not parts[0].startswith("("):
                conversation = number(parts[0].split()[0], "conversation")
    return originals


def _json(root: Path, subtask: int, findings: Findings) -> Iterator[Conversation]:
    names = {
        name: split for part, split in JSONS.items() for name in (f"Subtask_{subtask}_{part}.json", f"{part}.json")
    }
    files = {root / name: split for name, split in names.items() if (root / name).is_file()}
    if not files:
        needed(root, "the conversations", *names)
    for file, split in files.items():
        items = read_json(file)
        if not isinstance(items, list):
            raise DatasetError(f"{file}: expected a list of conversations, got {type(items).__name__}")
        for row, item in enumerate(items, 1):
            with findings.row(file, row):
                yield read_conversation(file, split, item, findings)


def read_conversation(file: Path, split: str, item: Any, findings: Findings) -> Conversation:
    """A conversation of the JSON form; utterances that cannot be used are refused. Raises :class:`RecordError`."""
    conversation = Conversation(file, number(entry(item, "conversation_ID", (int, str)), "conversation_ID"), split)
    for turn in entry(item, "conversation", list):
        with findings.row(file, f"conversation {conversation.number}"):
            index = number(entry(turn, "utterance_ID", (int, str)), "utterance_ID")
            clip_id = f"ecf_dia{conversation.number}_utt{index}"
            emotion = emotion_of(str(turn["emotion"])) if turn.get("emotion") else ""
            words, speaker = entry(turn, "text", str), entry(turn, "speaker", str)
            conversation.utterances[index] = Utterance(speaker, words, emotion, clip_id=clip_id)
            conversation.videos[index] = Path(str(turn.get("video_name", ""))).stem
    if "emotion-cause_pairs" in item:  # the test files of the competition have none
        conversation.pairs = list(_pairs(file, conversation, entry(item, "emotion-cause_pairs", list), findings))
    return conversation


def _pairs(
    file: Path, conversation: Conversation, pairs: Sequence[Any], findings: Findings
) -> Iterator[tuple[int, int, str]]:
    for pair in pairs:
        with findings.row(file, f"conversation {conversation.number}"):
            is_pair = isinstance(pair, list) and len(pair) == 2
            emotional = _EMOTION_REF.fullmatch(str(pair[0])) if is_pair else None
            cause, _, span = str(pair[1] if is_pair else "").partition("_")
            if emotional is None or not cause.isdecimal():
                raise RecordError("unknown-form", f"expected a pair as ['3_surprise', '1_its words'], got {pair!r}")
            emotion_of(emotional[2])
            yield int(emotional[1]), int(cause), span
