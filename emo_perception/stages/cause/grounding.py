"""Does a text say only what the evidence says? By words and by order, strictly: in doubt it does not.

Three checks, the freer the writer the looser. :func:`objection`: a sentence in other words. :func:`unfounded`: an
explanation out of words and faces. :func:`strangers`: one that may also say what was seen, which no word can prove.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
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
    "scared": {"scared", "afraid", "fear", "frightened"},
    "disgusted": {"disgusted", "disgust"},
    "contempt": {"contemptuous", "contempt", "scorn", "scornful"},
}  # fmt: skip
_EMOTION_WORDS: Final = frozenset().union(*_NAMES_OF.values())
#: Words by which an explanation links what is known; a sentence in other words needs none of them.
_OF_REASONS: Final = (
    "although by can cannot could does doing done if may might must no not now only since though told will would"
)
#: They begin with a capital and name nobody.
_PRONOUNS: Final = frozenset(
    "i i'm i've i'd i'll he she it we you nobody everybody everyone something nothing au".split()  # noqa: SIM905
)
_BEHIND_A_NAME: Final = frozenset(
    "is was feels felt looks looked has had says said told tells thinks thought and".split()  # noqa: SIM905
)
_UNIT: Final = re.compile(r"\b(?:AU|action unit) ?(\d+)", re.IGNORECASE)
_PERSON: Final = re.compile(r"\bperson (\d+)", re.IGNORECASE)
_WORD: Final = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")

MOST_CHARACTERS: Final = 600


def _words(text: str) -> list[str]:
    found = (word.lower().replace("’", "'") for word in _WORD.findall(text))
    return [word[:-2] if word.endswith("'s") else word for word in found]


def _evidence_words(cause: Cause) -> set[str]:
    texts = [cause.text, cause.emotion, *(evidence.text for evidence in cause.evidence)]
    return {word for text in texts for word in _words(text)}


def foreign_words(text: str, cause: Cause, said: str = "") -> list[str]:
    """Words of the text that neither the evidence nor plain English has; of emotions, only the evidence's are allowed.

    ``said``: further words that are known."""
    known = _evidence_words(cause) | set(_words(said))
    for emotion, names in _NAMES_OF.items():
        if emotion in known:
            known |= names
    return [w for w in _words(text) if w not in known and (w not in _PLAIN or w in _EMOTION_WORDS)]


def objection(text: str, cause: Cause) -> str:
    """Why the text must not stand for the realised sentence ``cause.text``; empty when it may.

    Nothing but words of the evidence; the same people; first who is explained, then the emotion, then the others, so
    that nobody's part is given to another.
    """
    if problem := _shape(text):
        return problem
    if foreign := foreign_words(text, cause):
        return _not_there(foreign)
    people = _people(cause)
    said, realised = (_first_places(part, people) for part in (text, cause.text))
    if said.keys() != realised.keys():
        missing, added = realised.keys() - said.keys(), said.keys() - realised.keys()
        return f"other people: {', '.join(sorted(missing | added))}"
    return _disorder(text, cause, said, realised)


def unfounded(text: str, cause: Cause, who: str, said: str) -> str:
    """Why an explanation must not stand; empty when it may. ``who`` is explained; ``said``: everything that was.

    Nothing but known words, the emotion among them, and of all people ``who`` first.
    """
    if problem := _shape(text):
        return problem
    if foreign := foreign_words(text, cause, f"{said} {_OF_REASONS}"):
        return _not_there(foreign)
    places = _first_places(text, _people(cause) | {who})
    if min(places, key=lambda name: places[name], default="") != who:
        return f"it does not speak of {who} first"
    return "" if _says_emotion(text, cause) >= 0 else f"it does not say {cause.emotion}"


def strangers(text: str, said: str) -> str:
    """Why an explanation of what was also seen must not stand: it names people, or action units, that nobody knows of.

    A name is told by its capital; at the start of a sentence, by the verb behind it. Empty when there is none.
    """
    known = set(_words(said))
    units = {f"AU {number}" for number in _UNIT.findall(text)} - {f"AU {number}" for number in _UNIT.findall(said)}
    people = {f"person {number}" for number in _PERSON.findall(text)}
    people -= {f"person {number}" for number in _PERSON.findall(said)}
    names = set()
    for sentence in re.split(r"(?<=[.!?])\s+", text.strip()):
        words = _WORD.findall(sentence)
        for place, word in enumerate(words):
            plain = _words(word)[0]
            is_name = word[0].isupper() and plain not in known and plain not in _PLAIN and plain not in _PRONOUNS
            if is_name and place == 0 and sentence.lstrip("“\"'").startswith(word):
                is_name = any(w.lower() in _BEHIND_A_NAME for w in words[1:2])
            if is_name and not _UNIT.match(sentence[sentence.find(word) :]):
                names.add(word)
    return _not_there([*units, *people, *names]) if units or people or names else ""


def _shape(text: str) -> str:
    if not text.strip() or len(text) > MOST_CHARACTERS or "\n" in text.strip():
        return f"it is no single line of 1 to {MOST_CHARACTERS} characters"
    return ""


def _not_there(words: Iterable[str]) -> str:
    return f"not in the evidence: {', '.join(sorted(set(words)))}"


def _says_emotion(text: str, cause: Cause) -> int:
    """The place of the word for the emotion that is explained, -1 where there is none."""
    names = _NAMES_OF.get(cause.emotion, {cause.emotion})
    return next((i for i, w in enumerate(_words(text)) if w in names), -1)


def _disorder(text: str, cause: Cause, said: dict[str, int], realised: dict[str, int]) -> str:
    emotion = _says_emotion(text, cause)
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
