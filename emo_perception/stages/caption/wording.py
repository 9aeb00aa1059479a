"""The words of a caption network: where an unfinished one can end, which are claims, and what proves them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from emo_models.labels import REP155_EXPRESSIONS, TO_REP155, rep155_or_none
from emo_perception.types import WordEvidence

#: A caption that was cut is at least so long.
LEAST_WORDS: Final = 3
#: In front of these a clause has ended. Not of "and" or "or": "raises her inner and ..." is no end.
_NEXT_CLAUSE: Final = frozenset({"but", "while", "as", "when", "then", "because", "with", "who", "which"})
_EMOTIONS: Final = {name: name for name in REP155_EXPRESSIONS} | TO_REP155
_WORD: Final = re.compile(r"\w+(?:['’]\w+)*")
_TOKEN: Final = re.compile(rf"{_WORD.pattern}|[.,;:!?]")


class Reader(Protocol):
    """Finds phrases that name action units: ``emo_models.networks.ecpa.captions.AuLexicon``."""

    @property
    def stop(self) -> frozenset[str]:
        """Words without content."""

    def phrases(self, text: str) -> Sequence[Any]:
        """Phrases with ``start``, ``end`` and ``aus``, without those that are negated."""


def standing_prefix(text: str, stop: frozenset[str]) -> str:
    """The longest beginning of an unfinished sentence that can stand alone: it ends with a clause; empty without one.

    >>> standing_prefix("a man smiles , and se", frozenset())
    'a man smiles'
    """
    words: list[str] = []
    end, best = 0, 0
    for token in _TOKEN.finditer(text):
        word = token.group().lower()
        is_word = word[0].isalnum()
        ends = (not is_word or word in _NEXT_CLAUSE) and len(words) >= LEAST_WORDS
        if ends and words[-1] not in stop | _NEXT_CLAUSE:
            best = end
        if is_word:
            words.append(word)
        end = token.end()
    return text[:best]


def unproven(text: str, reader: Reader, peaks: Mapping[int, float], least: float) -> list[str]:
    """Phrases that claim action units of which none was measured with at least that intensity.

    A phrase may stand for any of several units ("open mouth": 25, 26 or 27), so one of them proves it. ``peaks``: FACS
    number -> highest intensity in the window.
    """
    return [
        text[phrase.start : phrase.end].strip()
        for phrase in reader.phrases(text)
        if not any(peaks.get(au, 0.0) >= least for au in phrase.aus)
    ]


def emotion_evidence(
    text: str, track_id: int, emotions: Mapping[str, float], frames_ns: Iterable[int]
) -> Iterator[WordEvidence]:
    """For each word that names an emotion, what the network's own classes say of that emotion in the clip."""
    shares: dict[str, float] = {}
    for name, probability in emotions.items():
        if (ours := rep155_or_none(name)) is not None:
            shares[ours] = shares.get(ours, 0.0) + probability
    frames = tuple(frames_ns)
    for word in _WORD.finditer(text):
        named = _EMOTIONS.get(word.group().lower())
        if named is not None and named in shares:
            yield WordEvidence(*word.span(), track_id, emotion=named, intensity=shares[named], frames_ns=frames)
