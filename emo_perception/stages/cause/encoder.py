"""Sentences as vectors: MiniLM, int8, so that sentences of like meaning lie close together."""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from emo_models.engines.protocol import EngineError
from emo_models.engines.select import open_card
from emo_models.weights import path as weight_path

WEIGHTS: Final = "minilm"
TOKENIZER: Final = "minilm_tokenizer"
DIMENSIONS: Final = 384
#: Word pieces of a sentence that are read; the rest is cut (the network was trained on 128).
MAX_PIECES: Final = 96
#: Sentences whose vector is kept, the most recently used.
REMEMBERED: Final = 512


def _tokenizer() -> Any:
    try:
        tokenizers = importlib.import_module("tokenizers")
    except ImportError as error:
        raise EngineError(f"the sentence encoder needs tokenizers ({error}); type: pip install tokenizers") from None
    tokenizer = tokenizers.Tokenizer.from_file(str(weight_path(TOKENIZER)))
    tokenizer.enable_truncation(MAX_PIECES)
    tokenizer.no_padding()
    return tokenizer


class SentenceEncoder:
    """Text -> float32 [384], length 1 (mean over the pieces, Reimers & Gurevych 2019); equal meaning has cosine near 1.

    Raises :class:`emo_models.weights.MissingWeights` or :class:`EngineError` where a part is missing. Not thread safe.
    """

    def __init__(self, threads: int = 0) -> None:
        self._tokenizer = _tokenizer()
        self.selection = open_card(WEIGHTS, threads=threads)
        self.engine = self.selection.engine
        self._known: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors float32 [n, 384] of the texts."""
        return np.stack([self._vector(text) for text in texts]) if texts else np.zeros((0, DIMENSIONS), np.float32)

    def close(self) -> None:
        """Free the engine."""
        self.engine.close()

    def _vector(self, text: str) -> NDArray[np.float32]:
        known = self._known.get(text)
        if known is not None:
            self._known.move_to_end(text)
            return known
        # One at a time: a vector then does not depend on its neighbours in a padded batch.
        pieces = np.array([self._tokenizer.encode(text).ids], np.int64)
        feed = {"input_ids": pieces, "attention_mask": np.ones_like(pieces), "token_type_ids": np.zeros_like(pieces)}
        mean = np.asarray(self.engine(feed)["last_hidden_state"][0], np.float32).mean(axis=0)
        vector: NDArray[np.float32] = mean / max(float(np.linalg.norm(mean)), 1e-9)
        self._known[text] = vector
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return vector
