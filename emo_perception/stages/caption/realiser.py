"""From content to one English sentence, with the span of every phrase that claims something.

Wording varies a little with the content, never with time: the same content gives the same sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from zlib import crc32

from emo_models.labels import NEUTRAL
from emo_perception.stages.caption.content import TOGETHER_NS, Account, Action, Feeling, Proof
from emo_perception.stages.caption.lexicon import emotion_word, in_words, third_person
from emo_perception.types import WordEvidence

_NUMBERS: Final = (
    "no",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)
_ORDINALS: Final = ("", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
#: Movements that set in within this share of TOGETHER_NS of each other are told as one step.
_STEP_NS: Final = TOGETHER_NS // 2

#: From the least to the most sure.
_MODES: Final = ("seem", "look", "clearly", "keep")
#: Finite and participle forms of the feeling, before the emotion word; {s} is the ending of the singular.
_FINITE: Final = {
    "clearly": "clearly look{s} ", "look": "look{s} ", "seem": "seem{s} ", "grow": "grow{s} ",
    "now": "now look{s} ", "still": "still look{s} ", "now seem": "now seem{s} ", "still seem": "still seem{s} ",
}  # fmt: skip
_PARTICIPLE: Final = {
    "clearly": "clearly looking ", "look": "looking ", "seem": "seeming ", "grow": "growing ",
    "now": "now looking ", "still": "still looking ", "now seem": "now seeming ", "still seem": "still seeming ",
}  # fmt: skip


def number_word(n: int) -> str:
    """``3`` -> "three"; figures above twelve."""
    return _NUMBERS[n] if n < len(_NUMBERS) else str(n)


def _ordinal(n: int) -> str:
    if n < len(_ORDINALS):
        return _ORDINALS[n]
    return f"{n}{'th' if n % 100 in (11, 12, 13) else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"


@dataclass(frozen=True)
class Piece:
    """A run of text and what proves it."""

    text: str
    proofs: tuple[Proof, ...] = ()


#: A phrase with its adverb, as "frowns" + " again".
VerbPhrase = tuple[Piece, ...]


@dataclass
class Sentence:
    """Text that grows, with the spans of its pieces."""

    text: str = ""
    evidence: list[WordEvidence] = field(default_factory=list)

    def add(self, pieces: Sequence[Piece]) -> None:
        """Append pieces; each proof becomes evidence of the span of its piece."""
        for piece in pieces:
            start, self.text = len(self.text), self.text + piece.text
            self.evidence += [
                WordEvidence(
                    start, len(self.text), p.track_id, p.au, p.side, p.emotion, p.intensity, frames_ns=p.frames_ns
                )
                for p in piece.proofs
            ]


def places(centres: Sequence[tuple[float, float]], widths: Sequence[float]) -> list[str]:
    """Where each of several people is, as the viewer sees the picture; empty for a single person.

    ``centres`` px, ``widths`` of the faces px. By order from left to right; two that stand one behind or above the
    other are told apart by size (half as large again), else by height.
    """
    n = len(centres)
    if n == 1:
        return [""]
    if n == 2 and abs(centres[0][0] - centres[1][0]) < 0.5 * max(widths):
        if max(widths) >= 1.5 * min(widths):
            return ["in front" if w == max(widths) else "farther back" for w in widths]
        return ["at the top" if c[1] == min(centres, key=lambda k: k[1])[1] else "at the bottom" for c in centres]
    result = [""] * n
    for rank, index in enumerate(sorted(range(n), key=lambda i: (centres[i], i))):
        from_right = n - 1 - rank
        if n % 2 and rank == n // 2:
            result[index] = "in the middle"
            continue
        side, k = ("left", rank) if rank < from_right else ("right", from_right)
        result[index] = f"on the {side}" if k == 0 else f"{_ordinal(k + 1)} from the {side}"
    return result


def realise(accounts: Sequence[Account], *, in_view: int, others: int) -> tuple[str, tuple[WordEvidence, ...]]:
    """One sentence about these people, in their order.

    ``in_view``: people to tell apart, those who just left included; ``others``: people in view to be counted without
    description, 0 to say nothing of them.
    """
    groups = _alike(accounts)
    choice = crc32(repr([_signature(a) for a in accounts]).encode())
    newcomer = "someone else" if any(a.leaves for a in accounts) else "someone"
    sentence = Sentence()
    for i, group in enumerate(groups):
        if i:
            sentence.add([Piece(", while " if len(groups) == 2 else "; and " if i == len(groups) - 1 else "; ")])
        sentence.add(_clause(group, in_view, newcomer, choice))
    if others:
        noun = "person" if others == 1 else "people"
        joint = ", with " if len(groups) == 1 else "; "
        verb = "" if len(groups) == 1 else (" is" if others == 1 else " are")
        sentence.add([Piece(f"{joint}{number_word(others)} other {noun}{verb} in view")])
    text = sentence.text[0].upper() + sentence.text[1:] + "."
    return text, tuple(sentence.evidence)


def _signature(account: Account) -> tuple[object, ...]:
    """What makes two people's accounts read alike."""
    feeling = account.feeling
    return (
        tuple((a.phrase.key, int(a.side), a.again) for a in account.actions),
        tuple(a.onset_ns - account.actions[0].onset_ns > _STEP_NS for a in account.actions),
        (feeling.names, feeling.change, feeling.contradicts) if feeling else (),
        account.arrives is not None,
        (account.leaves is not None, account.at_edge),
    )


def _alike(accounts: Sequence[Account]) -> list[list[Account]]:
    """People of whom the same is said, from left to right, in the order of the first of each group."""
    groups: dict[tuple[object, ...], list[Account]] = {}
    for account in accounts:
        groups.setdefault(_signature(account), []).append(account)
    return [sorted(group, key=lambda a: (a.x, a.track_id)) for group in groups.values()]


def _clause(group: Sequence[Account], in_view: int, newcomer: str, choice: int) -> list[Piece]:
    """Subject, what the face does in order of time, and the feeling."""
    plural = len(group) > 1
    steps = _steps(group, plural=plural, choice=choice)
    feelings = [a.feeling for a in group if a.feeling]
    pieces = [Piece(_subject(group, in_view, newcomer) + " ")]
    if not feelings:
        return pieces + _in_order(steps)
    finite = tuple(_feeling(feelings, _FINITE, ending="" if plural else "s"))
    if not steps:
        return [*pieces, *finite]
    if feelings[0].contradicts:
        return [*pieces, *_in_order(steps), Piece(", yet "), *finite]
    long = len(steps) > 2 or len(steps[-1]) > 1
    if feelings[0].names[0] != NEUTRAL and (long or choice % 3 == 0):
        return [*pieces, *_in_order(steps), Piece(", "), *_feeling(feelings, _PARTICIPLE)]
    steps[-1].append(finite)
    return pieces + _in_order(steps)


def _subject(group: Sequence[Account], in_view: int, newcomer: str) -> str:
    if len(group) == 1:
        who = newcomer if group[0].arrives else "the person"
        return f"{who} {group[0].place}".strip()
    if len(group) == in_view:
        return "both people" if in_view == 2 else f"all {number_word(in_view)} people"
    return "the people " + _listed([a.place for a in group])


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def _steps(group: Sequence[Account], *, plural: bool, choice: int) -> list[list[VerbPhrase]]:
    """Verb phrases, those that set in together in one step."""
    head = group[0]
    steps: list[list[VerbPhrase]] = []
    if head.arrives or head.leaves:
        verb = "come into view" if head.arrives else "leave the view" if head.at_edge else "disappear from view"
        proofs = tuple(p for a in group for p in (a.arrives, a.leaves) if p)
        steps.append([(Piece(verb if plural else third_person(verb), proofs),)])
    first_ns: int | None = None
    for i, action in enumerate(head.actions):
        later = first_ns is not None and action.onset_ns - first_ns > _STEP_NS
        if later or not steps:
            steps.append([])
        if later or first_ns is None:
            first_ns = action.onset_ns
        same = [a.actions[i] for a in group]
        steps[-1].append(_verb_phrase(same, follows=later, plural=plural, choice=choice))
    return steps


def _verb_phrase(same: Sequence[Action], *, follows: bool, plural: bool, choice: int) -> VerbPhrase:
    """The same action of one or several people; the weakest strength of all is said."""
    phrase = same[0].phrase
    forms = phrase.follow if follows and phrase.follow else phrase.forms
    alternatives = forms[min(a.level for a in same)]
    words = in_words(alternatives[choice % len(alternatives)], same[0].side)
    piece = Piece(words if plural else third_person(words), tuple(p for a in same for p in a.proofs))
    return (piece, Piece(" again")) if same[0].again else (piece,)


def _in_order(steps: Sequence[Sequence[VerbPhrase]]) -> list[Piece]:
    """``first A and B, then C and finally D``; a single step without "first"."""
    if len(steps) == 1:
        return _joined(steps[0])
    pieces = [Piece("first ")]
    for i, step in enumerate(steps):
        if i:
            pieces.append(Piece(", and finally " if 1 < i == len(steps) - 1 else ", then "))
        pieces += _joined(step)
    return pieces


def _joined(phrases: Sequence[VerbPhrase]) -> list[Piece]:
    pieces = list(phrases[0])
    for i, phrase in enumerate(phrases[1:], start=2):
        pieces += [Piece(" and " if i == len(phrases) else ", "), *phrase]
    return pieces


def _feeling(feelings: Sequence[Feeling], words: Mapping[str, str], ending: str = "") -> list[Piece]:
    """``looks angry``, ``seeming surprised or afraid``; of people alike, the least sure wording is said."""
    head = feelings[0]
    proofs = [tuple(p for f in feelings for p in f.proofs if p.emotion == name) for name in head.names]
    if head.names[0] == NEUTRAL:
        verb = f"return{ending} to a " if head.change == "back" else f"keep{ending} a "
        return [Piece(verb), Piece(emotion_word(NEUTRAL), proofs[0]), Piece(" face")]
    mode = min((f.mode for f in feelings), key=_MODES.index)
    if head.change and not (head.change == "grow" and mode == "seem"):
        mode = f"{head.change} seem" if mode == "seem" else head.change
    pieces = [Piece(words[mode].format(s=ending)), Piece(emotion_word(head.names[0]), proofs[0])]
    if len(head.names) == 2:
        pieces += [Piece(" or "), Piece(emotion_word(head.names[1]), proofs[1])]
    return pieces
