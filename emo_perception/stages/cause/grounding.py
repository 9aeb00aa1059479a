"""Does a text say only what the evidence says? By words and by order, strictly: in doubt it does not."""

from __future__ import annotations

import re
from typing import Final

from emo_perception.types import Cause

#: Words that add neither people nor facts.
_PLAIN: Final = frozenset(
    """
    a about after all also an and angrily anger angry appears are as at be became because become been before being but by
    came can caused causes clearly comes disgust disgusted due during earlier emotion evidently expression face feel
    feeling feels felt fear frightened from gave gets got had happily happiness happy has have hear heard hearing her here
    his how in into is it its joy just left likely look looked looking looks made makes maybe moment moments most news of
    on or out own perhaps person possibly probably reacted reacting reaction reacts reason remark response sad sadly
    sadness said say saying says scared seconds second seemed seems see seen showed showing shown shows since so somebody
    someone sound sounded sounding sounds spoke spoken spread spreads still such surprise surprised talk talked telling
    tells than that the their them then there these they this those to told too turned turns upset very view was well were
    what when where which while who whose why with word words
    """.split()  # noqa: SIM905 - a list of a hundred and fifty strings is no easier to read
)
#: Other words for an emotion.
_NAMES_OF: Final = {
    "happy": {"happy", "happily", "happiness", "joy"},
    "sad": {"sad", "sadly", "sadness", "upset"},
    "angry": {"angry", "angrily", "anger"},
    "surprised": {"surprised", "surprise"},
    "scared": {"scared", "fear", "frightened"},
    "disgusted": {"disgusted", "disgust"},
}  # fmt: skip
_EMOTION_WORDS: Final = frozenset().union(*_NAMES_OF.values())
_WORD: Final = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")

MOST_CHARACTERS: Final = 600


def _words(text: str) -> list[str]:
    found = (word.lower().replace("’", "'") for word in _WORD.findall(text))
    return [word[:-2] if word.endswith("'s") else word for word in found]


def _evidence_words(cause: Cause) -> set[str]:
    texts = [cause.text, cause.emotion, *(evidence.text for evidence in cause.evidence)]
    return {word for text in texts for word in _words(text)}


def foreign_words(text: str, cause: Cause) -> list[str]:
    """Words of the text that neither the evidence nor plain English has; of emotions, only the evidence's are allowed."""
    known = _evidence_words(cause)
    for emotion, names in _NAMES_OF.items():
        if emotion in known:
            known |= names
    return [w for w in _words(text) if w not in known and (w not in _PLAIN or w in _EMOTION_WORDS)]


def objection(text: str, cause: Cause) -> str:
    """Why the text must not stand for the realised sentence ``cause.text``; empty when it may.

    Nothing but words of the evidence; the same people; first who is explained, then the emotion, then the others, so
    that nobody's part is given to another.
    """
    if not text.strip() or len(text) > MOST_CHARACTERS or "\n" in text.strip():
        return f"it is no single line of 1 to {MOST_CHARACTERS} characters"
    foreign = foreign_words(text, cause)
    if foreign:
        return f"not in the evidence: {', '.join(sorted(set(foreign)))}"
    people = _people(cause)
    said, realised = (_first_places(part, people) for part in (text, cause.text))
    if said.keys() != realised.keys():
        missing, added = realised.keys() - said.keys(), said.keys() - realised.keys()
        return f"other people: {', '.join(sorted(missing | added))}"
    return _disorder(text, cause, said, realised)


def _disorder(text: str, cause: Cause, said: dict[str, int], realised: dict[str, int]) -> str:
    emotion = next((i for i, w in enumerate(_words(text)) if w in _NAMES_OF.get(cause.emotion, {cause.emotion})), -1)
    if emotion < 0:
        return f"it does not say {cause.emotion}"
    order = sorted(said, key=lambda name: said[name])
    if order != sorted(realised, key=lambda name: realised[name]) or any(said[n] < emotion for n in order[1:]):
        return "its order may give one person's part to another"
    return ""


def _people(cause: Cause) -> set[str]:
    named = {e.text.split(":", 1)[0] if e.kind == "utterance" else e.text.split("'s face")[0] for e in cause.evidence}
    named = {name.removesuffix(" comes").removesuffix(" leaves") for name in named}
    return {name for name in (*named, cause.speaker, f"person {cause.track_id}") if name and name != "somebody"}


def _first_places(text: str, people: set[str]) -> dict[str, int]:
    """Name -> the index of the word at which it first stands, of those who occur."""
    words, found = _words(text), {}
    for name in people:
        parts = _words(name)
        for index in range(len(words) - len(parts) + 1):
            if parts and words[index : index + len(parts)] == parts:
                found[name] = index
                break
    return found
