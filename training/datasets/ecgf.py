"""ECGF: abstract causes of the emotions of ECF, written by annotators (Wang et al., 2024; GPL-3.0, research).

``{train,dev,test}.json``. The fields of the published files are not documented, so the reader looks for them: a list of
conversations, each with a list of utterances, and a cause in words for each emotional one. The form that the authors'
own code reads, ``{emo_utt_id: "dia14utt4", input, output}``, is known; its window holds up to two utterances after the
target, which no robot has heard yet: they are left out, and counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from training.datasets.ecf import VOCABULARY, emotion_of
from training.datasets.files import Clips, clips, field, needed, read_json
from training.datasets.quarantine import Findings
from training.datasets.record import Dataset, DatasetError, Dialogue, Record, RecordError, Span, Utterance

FILES: Final = {"train.json": "train", "dev.json": "val", "test.json": "test"}
TURNS: Final = ("conversation", "utterances", "dialogue", "dialog", "turns")
TEXT, INDEX = ("text", "utterance", "sentence"), ("utterance_ID", "utterance_id", "utt_id", "index", "id")
NUMBER: Final = ("conversation_ID", "conversation_id", "dialogue_id", "dia_id", "id")
LISTS: Final = (list, tuple)
_CAUSE: Final = re.compile(r"cause|explanation|reason", re.IGNORECASE)
_REF: Final = re.compile(r"(?:dia\d+)?(?:utt|U)?(\d+)(?:_(\w+))?")
_TARGET: Final = re.compile(r"dia(\d+)utt(\d+)")
_ASKED: Final = re.compile(r"Why does (?P<speaker>.+?) feel (?P<emotion>\w+) in U(?P<index>\d+)\?")
_TURN: Final = re.compile(r"U(\d+)\.\s*(?:<extra_id_\d+>\s*)*([^:]*?)\s*:\s*(.*)", re.DOTALL)
_NEXT: Final = re.compile(r"\s*\|\s*(?=U\d+\.)")


@dataclass(frozen=True)
class Ecgf:
    """Reader. ``videos``: folder of ``diaNuttM.mp4`` clips (default: ``videos``)."""

    videos: str = ""
    name = "ecgf"

    def read(self, root: Path) -> Dataset:
        """One record per explained utterance. Raises :class:`DatasetError` when no cause in words can be found."""
        findings = Findings(self.name, root)
        needed(root, "the conversations", *FILES)
        found = clips(root, self.videos, "videos", "video")
        for name, split in FILES.items():
            file = root / name
            if not file.is_file():
                findings.lack(name)
                continue
            items = read_json(file)
            if not isinstance(items, list) or not items:
                raise DatasetError(f"{file}: expected a list of conversations, got {type(items).__name__}")
            processed = isinstance(items[0], dict) and "emo_utt_id" in items[0]
            for row, item in enumerate(items, 1):
                with findings.row(file, row):
                    if processed:
                        findings.keep(_processed(item, split, found, findings))
                    else:
                        _keep_conversation(item, file, split, found, findings)
            if not processed and not findings.found(f"{split} explanations"):
                raise DatasetError(
                    f"{file}: expected a cause in words for the emotional utterances (a field with 'cause', 'explanation' "
                    f"or 'reason' in its name), got objects with {_fields(items[0])}"
                )
        return findings.dataset()


def _fields(item: Any) -> str:
    if not isinstance(item, dict):
        return type(item).__name__
    inner = [value[0] for value in item.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
    return ", ".join([*map(str, item), *(f"[{', '.join(map(str, part))}]" for part in inner)])


def _first(entry: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    return next((entry[key] for key in keys if key in entry), None)


def _keep_conversation(item: Any, file: Path, split: str, found: Clips, findings: Findings) -> None:
    """Records of one conversation of the published form. Raises :class:`RecordError`."""
    turns = _first(item, TURNS) if isinstance(item, dict) else None
    if not isinstance(turns, list):
        raise RecordError("unknown-form", f"expected a list under {' or '.join(TURNS)}, got {_fields(item)}")
    conversation = str(_first(item, NUMBER))
    utterances: dict[int, Utterance] = {}
    causes = dict(_causes_beside(item))
    videos = {}
    for position, turn in enumerate(turns, 1):
        with findings.row(file, f"conversation {conversation}, utterance {position}"):
            if not isinstance(turn, dict):
                raise RecordError("unknown-form", f"expected an utterance, got {type(turn).__name__}")
            given = _REF.fullmatch(str(_first(turn, INDEX) or position))
            if given is None:
                raise RecordError("bad-number", f"expected the number of an utterance, got {_first(turn, INDEX)!r}")
            index = int(given[1])
            emotion = emotion_of(str(turn["emotion"])) if turn.get("emotion") else ""
            clip_id = f"ecf_dia{conversation}_utt{index}"
            speaker = str(turn.get("speaker", ""))
            utterances[index] = Utterance(speaker, str(_first(turn, TEXT) or ""), emotion, clip_id=clip_id)
            videos[index] = Path(str(turn.get("video_name", ""))).stem
            causes.setdefault(index, []).extend(_causes_in(turn))
    for index, texts in causes.items():
        findings.count(f"{split} explanations", len(texts))
        if not texts:
            continue
        with findings.row(file, f"conversation {conversation}, utterance {index}"):
            if index not in utterances:
                raise RecordError("unknown-clip", f"expected one of {len(utterances)} utterances, got {index}")
            history = tuple(utterances[i] for i in sorted(utterances) if i < index)
            stems = (videos[index], f"dia{conversation}utt{index}")
            dialogue = Dialogue(f"ecf_dia{conversation}", index, history, utterances[index])
            findings.keep(_record(dialogue, tuple(texts), split, found.span(*stems)))


def _causes_in(turn: Mapping[str, Any]) -> list[str]:
    """Causes written into the utterance itself."""
    texts: list[str] = []
    for key, value in turn.items():
        if _CAUSE.search(key):
            texts += [
                text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str) and text
            ]
    return texts


def _causes_beside(item: Mapping[str, Any]) -> Iterator[tuple[int, list[str]]]:
    """Causes listed beside the utterances: number or ``3_surprise`` -> words, as pairs, objects or a mapping."""
    gathered: dict[int, list[str]] = {}
    for key, value in item.items():
        if not _CAUSE.search(key):
            continue
        for entry in value.items() if isinstance(value, dict) else value if isinstance(value, list) else ():
            parts = list(entry.values()) if isinstance(entry, dict) else list(entry) if isinstance(entry, LISTS) else []
            reference = _REF.fullmatch(str(parts[0])) if len(parts) >= 2 else None
            # "1_its words" is the extract of ECF, not an abstract cause.
            if reference and isinstance(parts[-1], str) and not re.match(r"\d+_|\d+$", parts[-1]):
                gathered.setdefault(int(reference[1]), []).append(parts[-1])
    yield from gathered.items()


def _processed(item: Any, split: str, found: Clips, findings: Findings) -> Record:
    """A record of the authors' processed form."""
    target = _TARGET.fullmatch(field(item, "emo_utt_id", str))
    text: str = field(item, "input", str)
    asked = _ASKED.search(text)
    if target is None or asked is None:
        raise RecordError(
            "unknown-form",
            f"expected dia14utt4 and 'Why does X feel E in U4?', got {item['emo_utt_id']!r}, {text[:60]!r}",
        )
    conversation, index = target[1], int(target[2])
    utterances = {}
    for part in _NEXT.split(text.partition("context:")[2].strip()):
        turn = _TURN.fullmatch(part.strip())
        if turn is None:
            raise RecordError("unknown-form", f"expected 'U3. Speaker: words', got {part[:60]!r}")
        number = int(turn[1])
        emotion = emotion_of(asked["emotion"]) if number == index else ""
        clip_id = f"ecf_dia{conversation}_utt{number}"
        utterances[number] = Utterance(turn[2].strip(), turn[3].strip(), emotion, clip_id=clip_id)
    if index not in utterances:
        raise RecordError("unknown-clip", f"expected U{index} in the context, got {', '.join(map(str, utterances))}")
    findings.count("utterances after their target left out", sum(number > index for number in utterances))
    findings.count(f"{split} explanations")
    history = tuple(utterances[number] for number in sorted(utterances) if number < index)
    dialogue = Dialogue(f"ecf_dia{conversation}", index, history, utterances[index])
    return _record(dialogue, (field(item, "output", str),), split, found.span(f"dia{conversation}utt{index}"))


def _record(
    dialogue: Dialogue, texts: tuple[str, ...], split: str, place: tuple[Span | None, frozenset[str]]
) -> Record:
    source, flags = place
    target = dialogue.target
    return Record(
        clip_id=target.clip_id, dataset="ecgf", split=split, source=source, captions=texts,
        emotions=(target.emotion,) if target.emotion else (), vocabulary=VOCABULARY if target.emotion else "",
        dialogue=dialogue, subject=target.speaker, flags=flags,
    )  # fmt: skip
