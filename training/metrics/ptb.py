"""Penn Treebank tokens of English captions, as the COCO scorer's tokeniser makes them, without Java.

The COCO scorer hands captions to the Stanford tokeniser 3.4.1 (``-preserveLines -lowerCase``) and then drops
punctuation. This lexer is written from what that program answers, not from its source: at each place the rule that
takes the most characters wins, the first one among equals. It is held to recorded answers (tests/data/ptb_cases.json).
Beyond English captions, as in program text or rare scripts, it may differ; and where the program looks at the first
word of the next caption to tell whether a letter with a full stop ends a sentence, this one looks at the end of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

#: What the COCO scorer drops. Brackets stay: it lists them in capitals, and they arrive in small letters.
PUNCTUATION: Final = frozenset(
    ("''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";")
)

_BRACKETS: Final = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_SIGNS: Final = {
    **_BRACKETS, "½": "1/2", "¼": "1/4", "¾": "3/4", "£": "#", "€": "$", "¢": "cents", "«": "``", "»": "''",
    "\u0080": "$", "‹": "`", "›": "'", "‘": "`", "’": "'", "“": "``", "”": "''", '"': "''", "–": "--", "—": "--", "…": "...",
    "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": "''", "&apos;": "'",
}  # fmt: skip
"""What a sign is called; every other sign stands for itself."""
_TWO: Final = {"cannot": 3, "gonna": 3, "gotta": 3, "lemme": 3, "gimme": 3, "wanna": 3}
"""Words that are two -> length of the first."""

_L = r"[^\W\d_²³¹¼½¾]"  # a letter of any script
_A = "['’\u0092]"  # an apostrophe
_N = r"\d+(?:[.,:]\d+)*"
_W = rf"(?:(?:{_L}|\d)(?:{_L}|\d|[\u00ad\u0300-\u036f])*)"
#: Shortened words that keep their full stop.
_SHORT = (
    "jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|mon|tues?|wed|thurs?|thu|fri|etc|al|seq|gen|lt|sgt|capt|rep|sen|"
    "st|ave|rd|blvd|ft|mt|jr|sr|bros|inc|ltd|corp|co|dept|univ|est|vs|esq|mr|mrs|ms|dr|prof|gov|rev|hon|messrs|ph\\.d"
)

Action = Callable[[str], Sequence[str]]


def _one(found: str) -> Sequence[str]:
    return (found.replace("\u00ad", ""),)


def _straight(found: str) -> Sequence[str]:
    return (found.replace("’", "'").replace("\u0092", "'"),)


def _unbreakable(found: str) -> Sequence[str]:
    return (found.replace(" ", "\u00a0"),)


def _halves(found: str) -> Sequence[str]:
    return found[: _TWO[found.lower()]], found[_TWO[found.lower()] :]


def _sign(found: str) -> Sequence[str]:
    return (_SIGNS.get(found, found),)


def _spell_brackets(found: str) -> Sequence[str]:
    return ("".join(_BRACKETS.get(sign, sign) for sign in found),)


def _split_at(place: int) -> Action:
    return lambda found: (found[:place], found[place:])


def _rule(pattern: str, action: Action = _one) -> tuple[re.Pattern[str], Action]:
    return re.compile(pattern, re.IGNORECASE), action


_RULES: Final = (
    _rule(rf"(?:{'|'.join(_TWO)})", _halves),
    _rule(rf"more{_A}n(?!{_L})", _split_at(4)),
    _rule(rf"{_A}t(?:is|was)(?!{_L})", _split_at(2)),
    # Clitics: the word ends where n't begins, and 's and its like stand alone.
    _rule(rf"({_W})n{_A[:-1]}`]t(?!{_L})"),
    _rule(rf"n{_A[:-1]}`]t(?!{_L})", _straight),
    _rule(rf"{_A}(?:s|m|d|re|ve|ll)(?!{_L})", _straight),
    # Words with an apostrophe.
    _rule(rf"(?:[dlo]{_A}{_L}+|(?:c|n){_A}est|c{_A}m(?:on|ere)|qu{_A}il|ma{_A}am|ol{_A}|[djly]{_A})"),
    _rule(rf"{_L}+[aeiouy]{_A}[aeiou]{_L}*"),
    _rule(rf"(?:{_A}n{_A}?|{_A}(?:em|til|till|cause)(?!{_L})|(?<!\w){_A}\d(?:0s|\d)(?!\w))"),
    # Words and numbers, with what joins their parts.
    _rule(rf"{_W}(?:[-_/]{_W})*"),
    _rule(rf"{_L}+(?:[.!?]{_L}+)+"),
    _rule(rf"[-+]?{_N}|[-+]?\.\d+"),
    _rule(rf"\d+(?:[.,]\d+)*(?:[-/]{_W})+"),
    _rule(rf"(?:{_L}\.){{2,}}(?:-{_W})?"),
    _rule(rf"{_L}\.(?!\s*$)(?!\s+(?-i:The|He|She|It|They|A|His|Her|But|And)\b)"),
    _rule(rf"(?:{_SHORT})\.(?!\w)"),
    _rule(r"no\.(?= ?\d)"),
    _rule(r"(?-i:[A-Z]+&[A-Z]+)"),
    # Addresses, tags, faces.
    _rule(r"(?:https?://|www\.)[^\s\"<>|()]+[^\s\"<>|.!?(){},;'-]"),
    _rule(r"[\w.+-]+@\w+(?:[.-]\w+)*"),
    _rule(r"[#@][^\W\d]\w*"),
    _rule(r"[<>]?[:;=][-o*']?[()DPdp\]\[](?!\w)", _spell_brackets),
    _rule(r"\^_\^"),
    _rule(r"</?[a-z](?:[a-z ]|[.:-](?![.]))*>", _unbreakable),
    # Signs.
    _rule(r"&(?:amp|lt|gt|quot|apos);", _sign),
    _rule(r"(?-i:US|A|C)\$"),
    _rule(r"[!?]+|\*{1,3}|_+"),
    _rule(r"-{2,}", lambda _: ("--",)),
    _rule(r"\.{3,}", lambda _: ("...",)),
    _rule(r"(?![\u0081-\u009f\ue000-\uf8ff\ufe0e\ufe0f])[^\s\w\U00010000-\U0010ffff]|[½¼¾²³]", _sign),
)
_SPACE: Final = re.compile(r"[\s\u00a0\u200b-\u200d\ufeff]+|&nbsp;")
#: Nearly all words of a caption: letters up to a space, a comma or the last full stop.
_PLAIN: Final = re.compile(r"[A-Za-z]+(?=[ ,]|\.?$)")
_NOT_PLAIN: Final = frozenset((*_TWO, *_SHORT.split("|")))


def tokens(text: str) -> list[str]:
    """All tokens in small letters, punctuation included.

    The full stop that ends a sentence behind a shortened word is not repeated (it would be dropped anyway).
    """
    found: list[str] = []
    place, end = 0, len(text)
    while place < end:
        plain = _PLAIN.match(text, place)
        if plain and plain[0].lower() not in _NOT_PLAIN and len(plain[0]) > 1:
            found.append(plain[0].lower())
            place = plain.end()
            continue
        space = _SPACE.match(text, place)
        if space:
            place = space.end()
            continue
        longest, best = 0, ""
        make: Action = _one
        for pattern, action in _RULES:
            hit = pattern.match(text, place)
            if hit and len(hit[0]) > longest:
                longest, best, make = len(hit[0]), hit[hit.lastindex or 0], action
        found.extend(token.lower() for token in make(best) if token)
        place += len(best) or 1  # a sign that no rule knows is dropped
    return found


def caption_tokens(caption: str) -> str:
    """The tokens that the COCO scorer compares, separated by spaces."""
    return " ".join(token for token in tokens(caption) if token not in PUNCTUATION)
