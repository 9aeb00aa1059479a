"""The one common record: what every reader yields and everything after the readers works with.

A reader turns the files of one data set into :class:`Record` objects and puts every row it cannot use into
:class:`Dataset.quarantined`, with the file, the row and the reason. Nothing is dropped silently.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

SPLITS: Final = ("train", "val", "test")

#: Flags of a record -> what they mean.
FLAGS: Final[dict[str, str]] = {
    "no-video": "the clip is not on this disk: only the text can be used",
    "no-history": "the utterances before the target are not known",
    "repaired": "broken encoding was mended without loss",
    "lossy": "broken encoding was mended by rule; the original character is gone",
    "short": "an explanation of three words or fewer",
    "truncated": "an explanation without its end",
    "overlap": "the clip begins before the utterance before it has ended",
    "uncertain": "the annotators marked the clip as doubtful",
}

_WORD: Final = re.compile(r"\w")


class DatasetError(ValueError):
    """A data set that cannot be read at all; the message names the file, what was expected, what came and what to do."""


class RecordError(ValueError):
    """One row that cannot be a record: ``reason`` is a key of :data:`training.datasets.quarantine.REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def has_words(text: str) -> bool:
    """Whether there is a letter or digit in a text: punctuation alone teaches nothing."""
    return bool(_WORD.search(text))


@dataclass(frozen=True)
class Span:
    """A stretch of a video or sound file, in seconds from its start; ``end_s`` None: to the end of the file.

    Raises :class:`RecordError` (``bad-times``) for a stretch that begins before the file or has no length.
    """

    file: Path
    start_s: float = 0.0
    end_s: float | None = None

    def __post_init__(self) -> None:
        _check_times(self.start_s, self.end_s)


@dataclass(frozen=True)
class Utterance:
    """What somebody said. ``emotion`` is a name of the record's vocabulary, or empty; times in seconds or None.

    ``clip_id`` names the utterance's own clip, and is what :attr:`Record.causes` refers to.
    Raises :class:`RecordError` for a text without words and for times that run backwards.
    """

    speaker: str
    text: str
    emotion: str = ""
    start_s: float | None = None
    end_s: float | None = None
    clip_id: str = ""

    def __post_init__(self) -> None:
        if not has_words(self.text):
            raise RecordError("no-words", f"expected an utterance with words, got {self.text!r}")
        if self.start_s is not None:
            _check_times(self.start_s, self.end_s)


@dataclass(frozen=True)
class Dialogue:
    """The conversation around a record: ``history`` is strictly before ``target``, oldest first.

    ``dialogue_id`` is unique in the data set and the same for all data sets made from the same recordings (MELD, ECEM,
    ECF), so that leakage between them can be found. ``index`` is the utterance's own number, which may have gaps.
    """

    dialogue_id: str
    index: int
    history: tuple[Utterance, ...]
    target: Utterance


@dataclass(frozen=True)
class Record:
    """One example. ``emotions``: none, one (a single label) or several (compound), names of ``vocabulary``.

    ``captions``: what is to be learned: captions of the clip, or explanations of the emotion. ``source`` is None when
    the clip is not there; the flag ``no-video`` then says so (:data:`FLAGS`). ``causes``: clip ids of the utterances
    that cause the emotion, where they are annotated. ``lang``: ISO 639-1 of captions and words.
    Raises :class:`RecordError` for what no training could use.
    """

    clip_id: str
    dataset: str
    split: str
    source: Span | None
    captions: tuple[str, ...] = ()
    emotions: tuple[str, ...] = ()
    vocabulary: str = ""
    dialogue: Dialogue | None = None
    subject: str = ""
    lang: str = "en"
    flags: frozenset[str] = frozenset()
    causes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.clip_id:
            raise RecordError("missing-value", "expected a clip id, got none")
        if self.split not in SPLITS:
            raise RecordError("bad-split", f"expected a split out of {', '.join(SPLITS)}; got {self.split!r}")
        wordless = [text for text in self.captions if not has_words(text)]
        if wordless:
            raise RecordError("no-words", f"expected a caption with words, got {wordless[0]!r}")
        self._check_emotions()
        unknown = self.flags - FLAGS.keys()
        if unknown:
            raise ValueError(f"unknown flags {', '.join(sorted(unknown))}; known: {', '.join(FLAGS)}")
        if (self.source is None) != ("no-video" in self.flags):
            raise ValueError(f"{self.clip_id}: a record has a source, or else the flag no-video")

    def _check_emotions(self) -> None:
        if not self.emotions and not self.vocabulary:
            return
        from emo_models.labels import VOCABULARIES  # here: "emo --help" looks into this package and stays quick

        if self.vocabulary not in VOCABULARIES:
            raise ValueError(f"unknown vocabulary {self.vocabulary!r}; known: {', '.join(sorted(VOCABULARIES))}")
        names = VOCABULARIES[self.vocabulary]
        for emotion in self.emotions:
            if emotion not in names:
                raise RecordError("class-out-of-range", f"expected one of {', '.join(names)}; got {emotion!r}")


@dataclass(frozen=True)
class QuarantinedRow:
    """A row that was left out. ``file``: relative to the data set's folder; ``row``: number counted from 1, or an id.

    ``reason``: a key of :data:`training.datasets.quarantine.REASONS`; ``detail``: what was expected and what came.
    """

    file: str
    row: int | str
    reason: str
    detail: str


@dataclass(frozen=True)
class Dataset:
    """What a reader found. ``expected``: published counts; ``found``: ours, under the same names; ``missing``: in words.

    A count that differs is reported (:meth:`mismatches`), never an error: a part of a set is a set too.
    """

    name: str
    root: Path
    records: tuple[Record, ...]
    quarantined: tuple[QuarantinedRow, ...] = ()
    expected: Mapping[str, int] = field(default_factory=dict)
    found: Mapping[str, int] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    def split(self, name: str) -> tuple[Record, ...]:
        """Records of ``train``, ``val`` or ``test``, in the order of the files. Raises ``ValueError`` for another name."""
        if name not in SPLITS:
            raise ValueError(f"expected a split out of {', '.join(SPLITS)}; got {name!r}")
        return tuple(record for record in self.records if record.split == name)

    def mismatches(self) -> tuple[str, ...]:
        """One line per published count that is not ours."""
        return tuple(
            f"{what}: published {wanted:,}, found {self.found.get(what, 0):,}"
            for what, wanted in self.expected.items()
            if self.found.get(what, 0) != wanted
        )


class Reader(Protocol):
    """Reads one data set. A reader is a frozen dataclass whose fields are its options."""

    name: str

    def read(self, root: Path) -> Dataset:
        """Everything usable under ``root``. Raises :class:`DatasetError` when it is not this data set."""
        ...


def unique(records: Sequence[Record]) -> dict[str, Record]:
    """Clip id -> record. Raises ``ValueError`` naming an id that occurs twice."""
    found: dict[str, Record] = {}
    for record in records:
        if record.clip_id in found:
            raise ValueError(f"{record.dataset}: clip id {record.clip_id} occurs twice")
        found[record.clip_id] = record
    return found


def _check_times(start_s: float, end_s: float | None) -> None:
    if start_s < 0 or (end_s is not None and end_s <= start_s):
        raise RecordError("bad-times", f"expected 0 <= start < end, got start {start_s:g} s and end {end_s} s")
