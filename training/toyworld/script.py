"""Dialogues of the toy world as scripts: who says what and when, who feels what, and what caused it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from training.toyworld.expressions import table
from training.toyworld.truth import CAUSE_KINDS

#: MELD's emotions in MAFW's words, which the expressions are filed under.
TO_MAFW: Final = {
    "surprise": "surprise", "fear": "fear", "sadness": "sadness", "joy": "happiness", "disgust": "disgust",
    "anger": "anger",
}  # fmt: skip
NEUTRAL: Final = "neutral"
FEWEST, MOST = 3, 7


@dataclass(frozen=True)
class Event:
    """Something seen: ``what``: fall, show or come; ``thing``; ``actor``: whose hand, place in the cast."""

    what: str
    thing: str
    actor: int


@dataclass(frozen=True)
class Look:
    """Somebody's face: ``actor`` shows ``emotion`` (MELD's word)."""

    actor: int
    emotion: str


@dataclass(frozen=True)
class Explained:
    """Why the speaker of a line feels something. ``cause``: number of the line in which it happens; ``sentences``: right
    explanations; ``evidence`` and ``others`` as in ``truth.CauseTruth``."""

    kind: str
    cause: int
    sentences: tuple[str, ...]
    evidence: tuple[str, ...]
    others: tuple[str, ...]


@dataclass
class Line:
    """An utterance: ``speaker`` is a place in the cast; frames ``start`` to ``end`` of the dialogue."""

    speaker: int
    text: str
    emotion: str = NEUTRAL
    start: int = 0
    end: int = 0
    event: Event | None = None
    look: Look | None = None
    explained: Explained | None = None


@dataclass(frozen=True)
class Script:
    """A dialogue. ``names``: the cast from left to right."""

    names: tuple[str, ...]
    lines: list[Line] = field(default_factory=list)

    @property
    def frames(self) -> int:
        """Length of the whole dialogue."""
        return self.lines[-1].end


def write_script(rng: np.random.Generator, fps: int, seconds: float, *, distraction: float) -> Script:
    """A dialogue of 3 to 7 utterances of about ``seconds`` with one or two that are explained.

    ``distraction``: chance that something is seen, early, that causes nothing.
    """
    cast = int(rng.integers(2, 4))
    names = tuple(str(n) for n in rng.choice(table("dialogues")["names"], cast, replace=False))
    count = int(rng.integers(FEWEST, MOST + 1))
    speakers = [int(rng.integers(cast))]
    while len(speakers) < count:
        speakers.append(int(rng.choice([actor for actor in range(cast) if actor != speakers[-1]])))
    chat = rng.choice(table("dialogues")["small_talk"], count, replace=False)
    script = Script(names, [Line(speaker, str(text)) for speaker, text in zip(speakers, chat, strict=True)])
    _set_times(rng, script, fps, seconds)
    targets = [count - 1] if count < 5 else [count - 1, int(rng.integers(1, count - 2))]
    for target in sorted(targets):
        _explain(rng, script, target, str(rng.choice(CAUSE_KINDS)))
    free = [line for line in script.lines[: min(targets) - 1] if line.event is None and line.look is None]
    if free and rng.random() < distraction:
        _distract(rng, script, free[0])
    return script


def _set_times(rng: np.random.Generator, script: Script, fps: int, seconds: float) -> None:
    start = 0
    for line in script.lines:
        line.start = start
        line.end = start + max(4, round(fps * seconds * rng.uniform(0.75, 1.3)))
        start = line.end


def _explain(rng: np.random.Generator, script: Script, target: int, kind: str) -> None:
    """Let the line before cause what the speaker of line ``target`` feels."""
    data = table("dialogues")
    line, before = script.lines[target], script.lines[target - 1]
    line.emotion = str(rng.choice(list(TO_MAFW)))
    line.text = _pick(rng, data["reactions"])
    fill = {"TARGET": script.names[line.speaker], "EMOTION": data["adjectives"][line.emotion]}
    if kind == "visible":
        what, thing = _pick(rng, data["visible"][line.emotion]).split()
        before.event = Event(what, thing, before.speaker)
        fill |= {"THING": thing, "OTHER": script.names[before.speaker]}
        sentences, evidence = data["explanations"][what], [thing]
    elif kind == "face":
        before.look = _silent_look(rng, script, target)
        other, look = script.names[before.look.actor], data["looks"][before.look.emotion]
        fill |= {"OTHER": other, "LOOK": look}
        sentences, evidence = data["explanations"]["face"], [f"{other} looked {look}", f"face of {other} was {look}"]
    else:
        before.text, clause, key = data["words"][line.emotion][rng.integers(len(data["words"][line.emotion]))]
        fill |= {"OTHER": script.names[before.speaker], "CLAUSE": clause}
        sentences, evidence = data["explanations"]["words"], [key]
    shuffled = [_filled(sentences[i], fill) for i in rng.permutation(len(sentences))]
    line.explained = Explained(kind, target - 1, tuple(shuffled), tuple(evidence), ())


def _silent_look(rng: np.random.Generator, script: Script, target: int) -> Look:
    """Whose face changes in the line before: not the target's, and with three people not the speaker's either, whose
    line is neutral. Of two, the target speaks that line instead."""
    line, before = script.lines[target], script.lines[target - 1]
    silent = [actor for actor in range(len(script.names)) if actor not in (line.speaker, before.speaker)]
    if not silent:
        silent = [before.speaker]
        before.speaker = line.speaker
    return Look(int(rng.choice(silent)), _pick(rng, table("dialogues")["face"][line.emotion]))


def _distract(rng: np.random.Generator, script: Script, line: Line) -> None:
    """Show a thing that causes nothing: no explanation may name it."""
    named = {e for each in script.lines if each.explained for e in each.explained.evidence}
    things = [thing for thing in ("book", "ball", "phone", "mug", "flower") if thing not in named]
    event = Event("show", _pick(rng, things), line.speaker)
    line.event = event
    for each in script.lines:
        if each.explained is not None:
            was = each.explained
            each.explained = Explained(was.kind, was.cause, was.sentences, was.evidence, (event.thing,))


def _filled(sentence: str, words: dict[str, str]) -> str:
    for key, value in words.items():
        sentence = sentence.replace(key, value)
    return sentence


def _pick(rng: np.random.Generator, choices: list[str]) -> str:
    return choices[int(rng.integers(len(choices)))]
