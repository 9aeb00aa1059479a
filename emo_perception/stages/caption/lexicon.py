"""What each action unit is called in a sentence, and which phrases of a sentence claim which action units.

Wording follows FACS (Ekman, Friesen & Hager, 2002) and the manner of facial-expression captions ("frowns deeply and
opens the mouth wide"). A form is a verb phrase in its base form; ``{brows}`` becomes "the brows", or "the left brow"
(the subject's own left) when only that side moves. Nothing here names an emotion or a gender.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from emo_perception.types import Side, WordEvidence

#: Forms by strength: slightly, plainly, strongly; each a tuple of equal alternatives.
Forms = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True)
class Phrase:
    """A verb phrase and the action units that must all be measured for it.

    The first of ``aus`` sets the strength. ``absorbs``: action units that go without saying while this is said.
    ``follow``: forms for when something else came before. ``context``: the reading of the face's emotion under which
    the phrase may be chosen (see ``content.reading``); empty means any.
    """

    key: str
    aus: tuple[int, ...]
    forms: Forms
    absorbs: frozenset[int] = frozenset()
    follow: Forms | None = None
    context: frozenset[str] = field(default_factory=frozenset)


def _forms(slight: str, plain: str, strong: str) -> Forms:
    """Alternatives are separated by ``|``."""
    return tuple(slight.split("|")), tuple(plain.split("|")), tuple(strong.split("|"))


def _at(*aus: int) -> frozenset[int]:
    return frozenset(aus)


_SMILE_TAKES = _at(4, 6, 7, 10, 11, 13, 14, 16, 20, 25)
_SMILE_AFTER = _forms("begin to smile", "break into a smile", "break into a broad smile")
_PLEASANT = frozenset({"happy"})
_UNPLEASANT = frozenset({"unpleasant"})

#: Tried in this order: combinations first, so that a unit spoken in a combination is not spoken again alone.
PHRASES: Final = (
    Phrase(
        "smile_cheeks", (12, 6), absorbs=_SMILE_TAKES, follow=_SMILE_AFTER, context=_PLEASANT,
        forms=_forms("smile slightly with raised cheeks", "smile with raised cheeks", "smile broadly with raised cheeks"),
    ),
    Phrase(
        "smile", (12,), absorbs=_SMILE_TAKES, follow=_SMILE_AFTER, context=_PLEASANT,
        forms=_forms("smile slightly|smile a little", "smile", "smile broadly"),
    ),
    Phrase(
        "grimace", (12, 10), absorbs=_at(6, 7, 14, 16, 20, 25), context=_UNPLEASANT,
        forms=_forms("grimace slightly", "grimace", "grimace strongly"),
    ),
    Phrase(
        "lips_back", (12,), absorbs=_at(6, 14, 20), context=_UNPLEASANT,
        forms=_forms("pull back {lip corners} slightly", "pull back {lip corners}", "pull back {lip corners} strongly"),
    ),
    Phrase(
        "lip_corners_up", (12,), absorbs=_at(6, 13, 14),
        forms=_forms("lift {lip corners} slightly", "lift {lip corners}", "lift {lip corners} clearly"),
    ),
    Phrase(
        "lip_corners_sharp", (13,),
        forms=_forms("draw up {lip corners} slightly", "draw up {lip corners}", "draw up {lip corners} sharply"),
    ),
    Phrase(
        "brows_oblique", (1, 4),
        forms=_forms(
            "draw the inner brows slightly up and together",
            "draw the inner brows up and together",
            "draw the inner brows strongly up and together",
        ),
    ),
    Phrase(
        "brows_up", (1, 2),
        forms=_forms("raise {brows} slightly", "raise {brows}|lift {brows}", "raise {brows} high"),
    ),
    Phrase("inner_brows", (1,), _forms("raise {inner brows} slightly", "raise {inner brows}", "raise {inner brows} high")),
    Phrase("outer_brows", (2,), _forms("raise {outer brows} slightly", "raise {outer brows}", "raise {outer brows} high")),
    Phrase(
        "glare", (4, 7), context=frozenset({"angry"}),
        forms=_forms("frown slightly with narrowed eyes", "glare with lowered brows", "glare with deeply lowered brows"),
    ),
    Phrase(
        "frown_squint", (4, 7),
        forms=_forms("frown slightly with narrowed eyes", "frown with narrowed eyes", "frown deeply with narrowed eyes"),
    ),
    Phrase("frown", (4,), _forms("frown slightly", "frown|knit {brows}", "frown deeply")),
    Phrase("eyes_closed", (43,), _forms("close {eyes} halfway", "close {eyes}", "close {eyes} firmly"), absorbs=_at(5, 7)),
    Phrase("eyes_shut", (45,), _forms("close {eyes} halfway", "close {eyes}", "keep {eyes} closed"), absorbs=_at(5, 7)),
    Phrase("eyes_wide", (5,), _forms("widen {eyes} slightly", "widen {eyes}", "open {eyes} wide")),
    Phrase("eyes_narrow", (7,), _forms("narrow {eyes} slightly", "narrow {eyes}", "narrow {eyes} strongly")),
    Phrase("cheeks_up", (6,), _forms("raise {cheeks} slightly", "raise {cheeks}", "raise {cheeks} strongly")),
    Phrase(
        "nose_and_lip", (9, 10),
        forms=_forms(
            "wrinkle the nose slightly under a raised lip",
            "wrinkle the nose with a raised upper lip",
            "wrinkle the nose strongly with a raised upper lip",
        ),
    ),
    Phrase("nose", (9,), _forms("wrinkle the nose slightly", "wrinkle the nose", "wrinkle the nose strongly")),
    Phrase("nostrils_wide", (38,), _forms("flare the nostrils slightly", "flare the nostrils", "flare the nostrils wide")),
    Phrase(
        "nostrils_narrow", (39,),
        forms=_forms("narrow the nostrils slightly", "narrow the nostrils", "narrow the nostrils strongly"),
    ),
    Phrase("upper_lip", (10,), _forms("raise the upper lip slightly", "raise the upper lip", "curl the upper lip")),
    Phrase("dimple", (14,), _forms("tuck in {lip corners} slightly", "tuck in {lip corners}", "tuck in {lip corners} firmly")),
    Phrase(
        "lip_corners_down", (15,), absorbs=_at(17),
        forms=_forms("turn down {lip corners} slightly", "turn down {lip corners}", "turn down {lip corners} strongly"),
    ),
    Phrase("lower_lip", (16,), _forms("lower the bottom lip slightly", "lower the bottom lip", "lower the bottom lip far")),
    Phrase(
        "mouth_stretch", (27,), absorbs=_at(16, 25, 26),
        forms=_forms("open the mouth", "open the mouth wide", "stretch the mouth wide open"),
    ),
    Phrase(
        "mouth_open", (26,), absorbs=_at(16, 25),
        forms=_forms("open the mouth slightly", "open the mouth", "open the mouth wide"),
    ),
    Phrase("lips_part", (25,), _forms("part the lips slightly", "part the lips", "part the lips widely")),
    Phrase("lip_bite", (32,), _forms("bite the lip lightly", "bite the lip", "bite the lip hard"), absorbs=_at(24)),
    Phrase("tongue", (19,), _forms("show the tip of the tongue", "show the tongue", "stick out the tongue")),
    Phrase(
        "lips_pucker", (18,), absorbs=_at(17, 22, 23),
        forms=_forms("purse the lips slightly|pucker the lips slightly", "purse the lips|pucker the lips", "pucker the lips tightly"),
    ),
    Phrase("lips_funnel", (22,), _forms("push out the lips slightly", "push out the lips", "push out the lips strongly")),
    Phrase(
        "lips_press", (24,), absorbs=_at(23),
        forms=_forms("press the lips together lightly", "press the lips together", "press the lips together firmly"),
    ),
    Phrase("lips_tight", (23,), _forms("tighten the lips slightly", "tighten the lips", "tighten the lips strongly")),
    Phrase("lips_stretch", (20,), _forms("stretch the lips slightly", "stretch the lips", "stretch the lips wide")),
    Phrase("chin_up", (17,), _forms("push up the chin slightly", "push up the chin", "push up the chin firmly")),
)  # fmt: skip

#: Said for an opening and closing mouth instead of its single movements; proven by whichever unit moved (25, 26, 27).
SPEAKING: Final = Phrase(
    "speaking", (26,),
    _forms("move the mouth as if speaking", "move the mouth as if speaking", "move the mouth as if speaking"),
)  # fmt: skip
SPEAKING_AUS: Final = frozenset({25, 26, 27})

#: Action units without a phrase of their own, and why.
UNSPOKEN: Final = {11: "the public networks that report it are unreliable, and no caption says 'nasolabial'"}

#: Units of the mouth: their short movements are articulation while the mouth moves as if speaking.
MOUTH_AUS: Final = frozenset({10, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, 23, 24, 25, 26, 27, 32})

#: Name of an expression -> the word in a sentence, where the name itself does not do.
EMOTION_WORDS: Final = {"scared": "afraid", "contempt": "contemptuous"}

_SLOT = re.compile(r"\{([a-z ]+?)s\}")
_SIDE_WORD = {Side.LEFT: "left ", Side.RIGHT: "right "}


def emotion_word(name: str) -> str:
    """The adjective for an expression under its REP-155 name, or under its own where REP-155 has none."""
    return EMOTION_WORDS.get(name, name)


def in_words(form: str, side: Side) -> str:
    """Fill the slots of a form: ``raise {brows}`` -> "raise the brows" or "raise the left brow"."""
    word = _SIDE_WORD.get(side)
    return _SLOT.sub(lambda m: f"the {word}{m[1]}" if word else f"the {m[1]}s", form)


def third_person(base: str) -> str:
    """``raise the brows`` -> ``raises the brows`` (the verb is the first word)."""
    verb, _, rest = base.partition(" ")
    if verb.endswith(("s", "sh", "ch", "x", "z", "o")):
        verb += "es"
    elif verb.endswith("y") and verb[-2:-1] not in "aeiou":
        verb = verb[:-1] + "ies"
    else:
        verb += "s"
    return f"{verb} {rest}" if rest else verb


def _surfaces() -> dict[str, list[frozenset[int]]]:
    """Every wording that the lexicon can produce -> the sets of action units, any one of which proves it."""
    table: dict[str, list[frozenset[int]]] = {}
    for phrase in PHRASES:
        groups = phrase.forms + (phrase.follow or ())
        for form in (form for group in groups for form in group):
            for side in Side:
                words = in_words(form, side)
                for surface in (words, third_person(words)):
                    proofs = table.setdefault(surface, [])
                    if frozenset(phrase.aus) not in proofs:
                        proofs.append(frozenset(phrase.aus))
    for surface in (SPEAKING.forms[0][0], third_person(SPEAKING.forms[0][0])):
        table[surface] = [frozenset({au}) for au in sorted(SPEAKING_AUS)]
    return table


_SURFACES: Final = _surfaces()
_ANY_SURFACE: Final = re.compile(r"\b(" + "|".join(sorted(map(re.escape, _SURFACES), key=len, reverse=True)) + r")\b")


def claims(text: str) -> Iterator[tuple[int, int, list[frozenset[int]]]]:
    """Phrases of ``text`` that claim action units: start, end, and the sets of units any one of which proves it."""
    for match in _ANY_SURFACE.finditer(text):
        yield match.start(), match.end(), _SURFACES[match[0]]


def is_grounded(text: str, evidence: tuple[WordEvidence, ...]) -> bool:
    """Whether each phrase of ``text`` that claims action units has them among the evidence of that very span."""
    for start, end, proofs in claims(text):
        measured = {e.au for e in evidence if (e.start, e.end) == (start, end)}
        if not any(needed <= measured for needed in proofs):
            return False
    return True
