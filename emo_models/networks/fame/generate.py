"""Answers of FAME-Net, token by token, and the cache of what consecutive prompts have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor
from transformers import DynamicCache

from emo_models.networks.fame.prompt import EncodedPrompt, PromptTokenizer, ids_tensor

if TYPE_CHECKING:
    from emo_models.networks.fame.model import FAME

#: What a tokenizer shows for the first bytes of a letter whose last ones are still to come.
_INCOMPLETE = "\ufffd"


class PrefixCache:
    """Keys and values of instruction and history, the part of a prompt in front of the video.

    The next prompt reuses what it has in common with the last one, token by token from the start. The video tokens
    change with every frame and are never reused. One generation at a time may use a cache.
    """

    def __init__(self) -> None:
        self.ids: tuple[int, ...] = ()
        self.past = DynamicCache()
        self.reused = 0

    def clear(self) -> None:
        """Forget everything, as after loading other weights."""
        self.ids, self.past, self.reused = (), DynamicCache(), 0

    @torch.no_grad()
    def warm(self, model: FAME, ids: Sequence[int]) -> None:
        """Run the fixed part of a prompt in advance, as soon as a line of the dialogue is known."""
        start = self.take(ids, len(ids) - 1)
        words = torch.tensor(ids[start:], device=model.new_tokens.device)
        run(model, model.embed_words(words), self.past)
        self.ids = tuple(ids)

    def take(self, ids: Sequence[int], most: int) -> int:
        """Cut the cache to what it has in common with ``ids``, at most ``most`` tokens; returns their number."""
        common = 0
        while common < min(len(self.ids), len(ids), most) and self.ids[common] == ids[common]:
            common += 1
        if common == 0:
            self.past = DynamicCache()
        else:
            self.past.crop(common - self.past.get_seq_length())
        self.ids, self.reused = self.ids[:common], common
        return common


class Explanation:
    """An answer while it is written: iterate for the pieces of its text, as they come.

    Afterwards, or in between: ``text``, ``ids`` of the answer, and ``finish``: ``stop`` (the end token came),
    ``limit``, ``cancelled``, or ``running``; ``confidence``: geometric mean of the probabilities of its tokens.
    """

    def __init__(
        self, model: FAME, prompt: EncodedPrompt, features: Tensor, tokenizer: PromptTokenizer, *, limit: int,
        cancelled: Callable[[], bool], cache: PrefixCache | None = None,
    ) -> None:  # fmt: skip
        self._model, self._prompt, self._features, self._tokenizer = model, prompt, features, tokenizer
        self._limit, self._cancelled = limit, cancelled
        self._cache = PrefixCache() if cache is None else cache
        self.ids: list[int] = []
        self.text = ""
        self._log_probability = 0.0
        self.finish: Literal["running", "stop", "limit", "cancelled"] = "running"

    def __iter__(self) -> Iterator[str]:
        """Pieces of the text. What was not asked for is not computed."""
        scores: Tensor | None = None
        while self.finish == "running":
            if len(self.ids) >= self._limit:
                self.finish = "limit"
            elif self._cancelled():
                self.finish = "cancelled"
            else:
                scores = self._prefill() if scores is None else self._next()
                token = int(scores.argmax())
                if token == self._tokenizer.stop:
                    self.finish = "stop"
                else:
                    self.ids.append(token)
                    self._log_probability += float(scores.float().log_softmax(0)[token])
            piece = self._piece()
            if piece:
                yield piece

    @property
    def confidence(self) -> float:
        """How sure the network was of the words so far, in [0, 1]; 0 before the first."""
        return math.exp(self._log_probability / len(self.ids)) if self.ids else 0.0

    @torch.no_grad()
    def _prefill(self) -> Tensor:
        prompt, cache, model = self._prompt, self._cache, self._model
        ids = ids_tensor(prompt, model.new_tokens.device)
        inputs = model.embed(ids, model.project(self._features))
        start = cache.take(prompt.ids, prompt.fixed)
        scores = run(model, inputs[start:], cache.past)
        cache.ids = prompt.ids[: prompt.fixed]
        return scores

    @torch.no_grad()
    def _next(self) -> Tensor:
        device = self._model.new_tokens.device
        return run(self._model, self._model.embed_words(torch.tensor(self.ids[-1:], device=device)), self._cache.past)

    def _piece(self) -> str:
        text = self._tokenizer.decode(self.ids)
        if self.finish == "running" and text.endswith(_INCOMPLETE):
            return ""
        piece, self.text = text[len(self.text) :], text
        return piece


@torch.no_grad()
def run(model: FAME, inputs_LK: Tensor, past: DynamicCache) -> Tensor:
    """Scores ``[V]`` of the token behind ``inputs``, whose keys and values are added to ``past``."""
    output = cast("Any", model.llm)(
        inputs_embeds=inputs_LK[None], past_key_values=past, use_cache=True, logits_to_keep=1
    )
    return cast("Tensor", output.logits[0, -1])
