"""Captions as the network reads them: ids, whole words, and the words that name an action unit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

import torch
import yaml
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from emo_models.labels import OPENGRAPHAU_MAIN
from emo_models.networks.ecpa.config import EcpaConfig

_WORD: Final = re.compile(r"\w+(?:['’]\w+)*")
#: Tokenizers put a space before every piece that is a word of its own, also where people write none.
_SPACED: Final = re.compile(r" ([.,;:!?])")
#: How many words in front of a phrase a negation reaches.
_NEGATION_REACH: Final = 2


@dataclass(frozen=True)
class Phrase:
    """``text[start:end]`` names the action units ``aus`` (FACS numbers)."""

    start: int
    end: int
    aus: tuple[int, ...]


class AuLexicon:
    """Phrases of captions that name action units, and the words that carry no content.

    ``weak``: also the units that a phrase merely may stand for.
    """

    def __init__(self, table: dict[str, Any], *, weak: bool = False) -> None:
        self._phrases = [
            (
                re.compile(rf"\b(?:{entry['pattern'].strip()})\b", re.IGNORECASE),
                tuple(entry["aus"]) + (tuple(entry.get("weak", ())) if weak else ()),
            )
            for entry in table["phrases"]
        ]
        self._negation = frozenset(table["negation"])
        self.stop = frozenset(table["stop"])

    @classmethod
    def load(cls, language: str = "en", *, weak: bool = False) -> AuLexicon:
        """The package's table. Raises ``KeyError`` naming the languages it has."""
        table = _tables()
        if language not in table:
            raise KeyError(f"no lexicon for language {language!r}; choose one of: {', '.join(sorted(table))}")
        return cls(table[language], weak=weak)

    def phrases(self, text: str) -> list[Phrase]:
        """Every phrase of the text that is not negated, in order of its start."""
        found = [
            Phrase(hit.start(), hit.end(), aus)
            for pattern, aus in self._phrases
            for hit in pattern.finditer(text)
            if aus and not self._negated(text[: hit.start()])
        ]
        return sorted(found, key=lambda phrase: (phrase.start, phrase.end))

    def content_words(self, text: str) -> list[tuple[int, int]]:
        """Spans of the words that are neither stop words nor punctuation."""
        return [hit.span() for hit in _WORD.finditer(text) if hit.group().lower() not in self.stop]

    def _negated(self, before: str) -> bool:
        clause = re.split(r"[.,;:!?]", before.lower())[-1]
        words = _WORD.findall(clause)[-_NEGATION_REACH:]
        return any(word in self._negation or word.endswith(("n't", "n’t")) for word in words)


@dataclass
class CaptionBatch:
    """Captions as tensors.

    ``ids``: int64 ``[B, L]`` with start and stop, padded; ``length``: ``[B]``; ``word``: ``[B, L]``, number of the
    content word a piece belongs to, -1 for none; ``word_aus``: bool ``[B, L, 27]``, units that word n names.
    """

    ids: Tensor
    length: Tensor
    word: Tensor
    word_aus: Tensor

    def to(self, device: torch.device | str) -> CaptionBatch:
        """The same on another device."""
        return CaptionBatch(*(part.to(device) for part in (self.ids, self.length, self.word, self.word_aus)))


class CaptionTokenizer:
    """Turns captions into a :class:`CaptionBatch` and generated ids into text. Captions are cut to L tokens."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, config: EcpaConfig, lexicon: AuLexicon | None = None
    ) -> None:
        self.tokenizer: Any = tokenizer
        if not self.tokenizer.is_fast:
            raise ValueError(f"{type(tokenizer).__name__} has no character offsets; load it with use_fast=True")
        if len(self.tokenizer) > config.words:
            raise ValueError(
                f"the tokenizer has {len(self.tokenizer)} words, the network {config.words}; "
                f"create the network with vocab_size={len(self.tokenizer)} or take the tokenizer it was trained with"
            )
        self.start, self.stop, self.pad, _ = config.specials
        self.length = config.text_length
        self.lexicon = lexicon or AuLexicon.load()

    def __call__(self, texts: Sequence[str]) -> CaptionBatch:
        """Encode captions."""
        ids = torch.full((len(texts), self.length), self.pad)
        length = torch.zeros(len(texts), dtype=torch.int64)
        word = torch.full_like(ids, -1)
        word_aus = torch.zeros(*ids.shape, len(OPENGRAPHAU_MAIN), dtype=torch.bool)
        for row, text in enumerate(texts):
            pieces, spans = self._pieces(text)
            length[row] = len(pieces) + 2
            ids[row, : length[row]] = torch.tensor([self.start, *pieces, self.stop])
            words = self.lexicon.content_words(text)
            word[row, 1 : len(pieces) + 1] = torch.tensor(owners(spans, words), dtype=torch.int64)
            for number, aus in enumerate(self._units(text, words[: self.length])):
                word_aus[row, number, aus] = True
        return CaptionBatch(ids, length, word, word_aus)

    def pieces(self, text: str) -> list[int]:
        """Ids of a text without start and stop."""
        return self._pieces(text)[0]

    def decode(self, ids: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
        """Text of generated ids (start, stop and padding apart), and the span of each id in it (empty for those)."""
        text, spans = "", []
        for end in range(1, len(ids) + 1):
            longer = self.text(ids[:end])
            spans.append((len(text), len(longer)))
            text = longer
        return text, spans

    def text(self, ids: Sequence[int]) -> str:
        """Text of generated ids, without the spans."""
        kept = [int(token) for token in ids if token not in {self.start, self.stop, self.pad}]
        return _SPACED.sub(r"\1", str(self.tokenizer.decode(kept, clean_up_tokenization_spaces=False)))

    def _pieces(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        keep = self.length - 2
        return encoded["input_ids"][:keep], [tuple(span) for span in encoded["offset_mapping"][:keep]]

    def _units(self, text: str, words: Sequence[tuple[int, int]]) -> list[list[int]]:
        phrases = self.lexicon.phrases(text)
        return [
            sorted(
                OPENGRAPHAU_MAIN.index(au)
                for au in {au for p in phrases if p.start < end and start < p.end for au in p.aus}
                if au in OPENGRAPHAU_MAIN
            )
            for start, end in words
        ]


def owners(spans: Sequence[tuple[int, int]], words: Sequence[tuple[int, int]]) -> list[int]:
    """Number of the word that each span overlaps, -1 for none."""
    return [
        next((number for number, (a, b) in enumerate(words) if start < b and a < end and start < end), -1)
        for start, end in spans
    ]


@cache
def _tables() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("lexicon.yaml").read_text(encoding="utf-8")
    tables: dict[str, Any] = yaml.safe_load(text)
    return tables
