"""Text out of bytes of several encodings, and text that was decoded wrongly, put right again."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from training.datasets.record import RecordError

#: What Windows puts at 0x80 to 0x9f, as characters -> bytes; five of the places are empty.
_CP1252: Final = {bytes([b]).decode("cp1252"): b for b in range(0x80, 0xA0) if b not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)}
_BYTES: Final = {**_CP1252, **{chr(b): b for b in range(0x80, 0x100)}}
_RUN: Final = re.compile(f"[{re.escape(''.join(_BYTES))}]{{2,}}")
#: Three bytes of punctuation of which the last one was lost, with the blank or letter it swallowed: "?" stands for both.
_LOST: Final = re.compile("(?P<before>.?)(?:â\x80|â€)\\?(?P<after>.?)", re.DOTALL)
_CONTROL: Final = re.compile("[\x80-\x9f]")
#: The same accident through a Chinese encoding begins with this character: E2 80 of UTF-8 read as GBK.
_GBK_MARK: Final = "鈥"
_OPENING: Final = {"“": "”", "‘": "’"}


def decode(raw: bytes, encodings: tuple[str, ...] = ("utf-8-sig", "cp1252")) -> str:
    """Text of the first encoding that fits. Raises :class:`RecordError` (``bad-encoding``) when none does."""
    for encoding in encodings:
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise RecordError("bad-encoding", f"expected {' or '.join(encodings)}, got bytes {_excerpt(raw)}")


def decode_english(raw: bytes) -> str:
    """English out of UTF-8, GBK or CP1252 bytes.

    GBK takes an apostrophe of CP1252 and the letter after it for one ideograph, so GBK counts only where it yields none.
    """
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    try:
        text = raw.decode("gbk")
    except UnicodeDecodeError:
        return decode(raw, ("cp1252",))
    return decode(raw, ("cp1252", "gbk")) if any(_ideograph(character) for character in text) else text


def decode_chinese(raw: bytes) -> str:
    """Chinese out of UTF-8 or GBK bytes. Raises :class:`RecordError` (``bad-encoding``)."""
    return decode(raw, ("utf-8-sig", "gb18030"))


def repair(text: str) -> tuple[str, str]:
    """Put right what was UTF-8 and was read as Latin-1, CP1252 or GBK.

    Returns the text and how it went: ``""`` nothing was wrong, ``"repaired"`` without loss, ``"lossy"`` where a lost
    character was set by rule (after a blank a dash, else the closing mark of a quotation that is still open, an apostrophe
    after "in" or "s", three dots) or could not be set.
    """
    mended = _from_gbk(text) if _GBK_MARK in text else text
    mended = _RUN.sub(_again, mended)
    if _LOST.search(mended):
        return _set_lost(mended), "lossy"
    if _CONTROL.search(mended):
        return mended, "lossy"
    return mended, "repaired" if mended != text else ""


def _again(match: re.Match[str]) -> str:
    """The run of characters as the bytes they came from, read as UTF-8; a broken tail stays as it is."""
    raw = bytes(_BYTES[character] for character in match[0])
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if not error.start:
            return match[0]
        return raw[: error.start].decode("utf-8") + match[0][error.start :]


def _from_gbk(text: str) -> str:
    """Undo GBK for the words that carry its mark; what cannot be undone stays."""
    return " ".join(_word_from_gbk(word) if _GBK_MARK in word else word for word in text.split(" "))


def _word_from_gbk(word: str) -> str:
    try:
        return word.encode("gb18030").decode("utf-8")
    except UnicodeError:
        # The last byte of the mark took nothing along: it was lost, and stands as "?" or at the end of the word.
        return re.sub(f"{_GBK_MARK}\\??", "â\x80?", word)


def _set_lost(text: str) -> str:
    while match := _LOST.search(text):
        head, after = text[: match.start()] + match["before"], match["after"]
        blank = " " if after.isalnum() else ""  # the lost byte took the blank behind it along
        text = head + _lost_mark(head) + blank + after + text[match.end() :]
    return text.rstrip()


def _lost_mark(head: str) -> str:
    if not head or head.endswith(" "):
        return "—"
    opened = max(head.rfind(mark) for mark in _OPENING)
    if opened >= 0 and _OPENING[head[opened]] not in head[opened:]:
        return _OPENING[head[opened]]
    return "’" if head.endswith(("in", "s")) else "…"


def _ideograph(character: str) -> bool:
    return unicodedata.name(character, "").startswith("CJK UNIFIED")


def _excerpt(raw: bytes) -> str:
    odd = next((i for i, byte in enumerate(raw) if byte > 0x7F), 0)
    return repr(raw[max(0, odd - 8) : odd + 8])
