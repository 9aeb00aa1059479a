"""Captions of the toy world: who does what, what the face shows and which emotion, with the place of every phrase."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from training.toyworld.expressions import table
from training.toyworld.identity import Identity
from training.toyworld.truth import CaptionTruth, PhraseTruth
from training.toyworld.units import COLUMN, Activation

#: Words of a caption, a comma counting as one.
SHORTEST, LONGEST = 8, 20
#: A unit is told from this strength on.
TOLD: Final = 0.4


@dataclass(frozen=True)
class Story:
    """What a caption can tell. ``beside``: the person in the background, if any."""

    who: Identity
    beside: Identity | None
    action: str
    thing: str
    place: str
    emotion: str
    apex: Activation


def wordings() -> Any:
    """The table of words."""
    return table("wordings")


def visible_groups(apex: Activation) -> list[str]:
    """Names of the groups of units that a face shows, the strongest first; 25 is not told beside 26, nor 1, 2 apart."""
    strength = {number: float(apex[:, column].max()) for number, column in COLUMN.items()}
    found = {
        name: min(strength[au] for au in group["aus"])
        for name, group in wordings()["units"].items()
        if all(strength[au] >= TOLD for au in group["aus"])
    }
    for whole, parts in (("jaw", ("part",)), ("brow_raise", ("inner_brow", "outer_brow"))):
        if whole in found:
            for part in parts:
                found.pop(part, None)
    return sorted(found, key=lambda name: -found[name])


def write_caption(rng: np.random.Generator, story: Story, *, held_out: bool) -> CaptionTruth:
    """A caption of 8 to 20 words. ``held_out``: in wordings of faces that no training caption has, where it tells any."""
    groups = visible_groups(story.apex)
    for attempt in range(40):
        most = min(len(groups), 3 if attempt < 20 else 1)
        chosen = groups[: int(rng.integers(min(1, most), most + 1))] if most else []
        caption = _compose(rng, story, chosen, held_out)
        if SHORTEST <= len(caption.text.replace(",", " ,").split()) <= LONGEST:
            return caption
    raise RuntimeError(f"no caption of {SHORTEST} to {LONGEST} words for {story}; shorten data/wordings.yaml")


class _Text:
    """A sentence that grows by parts, and remembers where the phrases are."""

    def __init__(self) -> None:
        self.text = ""
        self.phrases: list[PhraseTruth] = []

    def add(self, words: str) -> None:
        glue = "" if not self.text or words.startswith(",") else " "
        self.text += glue + words

    def add_phrase(self, words: str, aus: tuple[int, ...], held_out: bool) -> None:
        self.add(words)
        self.phrases.append(PhraseTruth(len(self.text) - len(words), len(self.text), aus, held_out))


def _compose(rng: np.random.Generator, story: Story, groups: list[str], held_out: bool) -> CaptionTruth:
    text = _Text()
    face_first = bool(groups) and rng.random() < 0.25
    if face_first:
        _tell_face(rng, text, groups, held_out)
        text.add(",")
    text.add(_person(rng, story.who))
    text.add(_pick(rng, wordings()["actions"][story.action]).replace("OBJECT", story.thing))
    if story.beside is not None and rng.random() < 0.6:
        text.add(_pick(rng, wordings()["beside"]).replace("WHO", _noun(story.beside)))
    if rng.random() < 0.3:
        text.add(_pick(rng, wordings()["places"][story.place]))
    if groups and not face_first:
        _tell_face(rng, text, groups, held_out)
    _tell_emotion(rng, text, story.emotion)
    return CaptionTruth(text.text, tuple(text.phrases))


def _tell_face(rng: np.random.Generator, text: _Text, groups: list[str], held_out: bool) -> None:
    text.add("with")
    for place, name in enumerate(groups):
        if place:
            text.add("and" if place == len(groups) - 1 else ",")
        group = wordings()["units"][name]
        text.add_phrase(_pick(rng, group["held_out" if held_out else "train"]), tuple(group["aus"]), held_out)


def _tell_emotion(rng: np.random.Generator, text: _Text, emotion: str) -> None:
    words = wordings()["emotions"][emotion]
    text.add(",")
    if rng.random() < 0.7:
        text.add(_pick(rng, wordings()["emotion_adjective"]).replace("ADJ", _pick(rng, words["adjectives"])))
    else:
        text.add(_pick(rng, wordings()["emotion_noun"]).replace("NOUN", _pick(rng, words["nouns"])))


def _person(rng: np.random.Generator, who: Identity) -> str:
    told = ["plain", "shirt"] if who.style == "bald" else ["plain", "shirt", "hair"]
    told += ["beard"] * who.beard + ["glasses"] * who.glasses + [who.style] * (who.style in ("bald", "long"))
    phrase = _pick(rng, wordings()["people"][_pick(rng, told)])
    return phrase.replace("WHO", _noun(who)).replace("HAIR", who.hair).replace("SHIRT", who.shirt)


def _noun(who: Identity) -> str:
    return "woman" if who.woman else "man"


def _pick(rng: np.random.Generator, choices: list[str]) -> str:
    return choices[int(rng.integers(len(choices)))]
