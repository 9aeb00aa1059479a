"""The labelled dialogues of ``training/data``: who said what, what the faces showed, and what caused it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from emo_models.labels import NEUTRAL
from emo_perception.memory import DialogueMemory, EventKind, Item, VisibleEvent
from emo_perception.types import NS_PER_S, Utterance

DATA: Final = Path(__file__).with_name("data")
PARTS: Final = ("train", "heldout")
#: The first line of a dialogue is at this time: stamps are never 0.
START_NS: Final = 1000 * NS_PER_S

_LINE: Final = re.compile(
    r"(?P<start>[\d.]+)(?:-(?P<end>[\d.]+))? (?P<who>\w+)"
    r"(?: (?P<moves>comes|leaves)| \[(?P<shows>\w+) AU(?P<au>\d+)\]|(?: \((?P<feels>\w+)\))?: (?P<words>.+?))"
    r"(?: <- (?P<why>none|[\d,]+))?"
)


@dataclass(frozen=True)
class Question:
    """One line to explain: its item, the labelled emotion, and the items that caused it (empty: none of them)."""

    dialogue: str
    item: Item
    emotion: str
    causes: tuple[Item, ...]
    memory: DialogueMemory


@dataclass(frozen=True)
class Dialogue:
    """A labelled dialogue; ``emotions``: of each utterance, ``neutral`` where none is marked."""

    name: str
    questions: tuple[Question, ...]
    emotions: tuple[tuple[Utterance, str], ...]


def read_part(part: str) -> list[Dialogue]:
    """All dialogues of ``train`` or ``heldout``. Raises ``ValueError`` naming the line that cannot be."""
    document = yaml.safe_load((DATA / f"dialogues_{part}.yaml").read_text(encoding="utf-8"))
    return [_dialogue(name, lines) for name, lines in document.items()]


def _dialogue(name: str, lines: list[str]) -> Dialogue:
    faces: dict[str, int] = {}
    parsed = []
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{name}, line {number}: expected START-END WHO ..., got {line!r}")
        face = faces.setdefault(match["who"], len(faces) + 1)
        parsed.append((match, _item(f"{name}/{number}", match, face)))
    memory = DialogueMemory(10.0, 10_000)
    memory.extend(item for _, item in parsed)
    questions, emotions = [], []
    for number, (match, item) in enumerate(parsed, 1):
        if isinstance(item, Utterance):
            emotions.append((item, match["feels"] or NEUTRAL))
        if match["why"]:
            numbers = [] if match["why"] == "none" else [int(n) for n in match["why"].split(",")]
            if any(n > len(parsed) for n in numbers):
                raise ValueError(f"{name}, line {number}: there is no line {max(numbers)}")
            causes = tuple(parsed[n - 1][1] for n in numbers)
            questions.append(Question(name, item, match["feels"] or match["shows"], causes, memory))
    return Dialogue(name, tuple(questions), tuple(emotions))


def _item(key: str, match: re.Match[str], face: int) -> Item:
    start_ns = START_NS + round(float(match["start"]) * NS_PER_S)
    end_ns = START_NS + round(float(match["end"] or match["start"]) * NS_PER_S)
    if match["words"]:
        return Utterance(key, start_ns, end_ns, match["words"], match["who"], face, "en")
    if match["moves"]:
        return VisibleEvent(EventKind(match["moves"]), face, start_ns, end_ns, score=1.0)
    return VisibleEvent(
        EventKind.EXPRESSION, face, start_ns, end_ns, match["shows"], NEUTRAL, int(match["au"]), score=0.8
    )
