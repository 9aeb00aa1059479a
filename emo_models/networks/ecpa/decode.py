"""Writing the caption (Section III-G): greedy or beam search over an exact cache, and the evidence of each word."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import torch
from torch import Tensor

from emo_models.labels import OPENGRAPHAU_MAIN
from emo_models.networks.ecpa.captions import AuLexicon, owners
from emo_models.networks.ecpa.config import EcpaConfig
from emo_models.networks.ecpa.eca import similarity, word_vectors
from emo_models.networks.ecpa.vep import AuPrompts

#: A frame counts as a peak of an action unit when its score is within this share of the clip's highest.
PEAK_SHARE: Final = 0.9


class Stepper(Protocol):
    """Generation in progress, for B rows at once."""

    def __call__(self, prefix_Bt: Tensor) -> Tensor:
        """Scores ``[B, V]`` of the word behind the t words so far; called with t = 1, 2, 3, ..."""

    def select(self, rows: Tensor) -> Stepper:
        """The same for the given rows, in that order; a row may occur more than once."""


@dataclass(frozen=True)
class DecodeLimits:
    """When to stop. ``max_length`` counts all tokens of the text, the start token included; at most L of the network.

    ``start``, ``stop``: ids; ``banned``: ids that are never generated, such as the padding.
    """

    start: int
    stop: int
    max_length: int
    banned: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.max_length < 2:
            raise ValueError(f"max_length counts start and first word, so it is at least 2; got {self.max_length}")

    @classmethod
    def of(cls, config: EcpaConfig, max_length: int | None = None) -> DecodeLimits:
        """Those of a network; raises ``ValueError`` for a limit beyond its L."""
        length = max_length or config.text_length
        if length > config.text_length:
            raise ValueError(f"max_length is {length}, but the network was made for text_length={config.text_length}")
        start, stop, pad, mask = config.specials
        banned = sorted({token for token in (start, pad, mask) if token < config.words} - {stop})
        return cls(start, stop, length, tuple(banned))


@dataclass(frozen=True)
class Generated:
    """Ids of one caption from the start token on; ``stopped``: it ends with the stop token, not at the limit.

    ``log_prob``: sum over the generated words, of which there are ``len(ids) - 1``.
    """

    ids: tuple[int, ...]
    log_prob: float
    stopped: bool


@dataclass(frozen=True)
class AuEvidence:
    """What the network saw behind ``text[start:end]``: the action unit whose prompt is nearest to the word.

    ``au``: FACS number; ``similarity``: cosine of a_k and the word; ``intensity``: highest score of the unit in the
    clip, in [0, 1]; ``peak_frames``: indices of the frames that show it most, strongest first.
    """

    word: str
    start: int
    end: int
    au: int
    similarity: float
    intensity: float
    peak_frames: tuple[int, ...]


@dataclass(frozen=True)
class CaptionResult:
    """A caption with its evidence; ``emotion``: class -> probability p_vis, empty without the class branch."""

    text: str
    generated: Generated
    emotion: dict[str, float] = field(default_factory=dict)
    evidence: tuple[AuEvidence, ...] = ()


@torch.no_grad()
def grow(
    stepper: Stepper, batch: int, limits: DecodeLimits, device: torch.device | str = "cpu"
) -> Iterator[list[Generated]]:
    """The most probable word at each step, for every row, until all rows stopped or the limit is reached.

    Yields what every row has after each step, so that the caller can stop in between.
    """
    prefix = torch.full((batch, 1), limits.start, device=device)
    total = torch.zeros(batch, device=device)
    running = torch.ones(batch, dtype=torch.bool, device=device)
    while prefix.shape[1] < limits.max_length and bool(running.any()):
        best, word = _log_probs(stepper(prefix), limits).max(1)
        word = torch.where(running, word, limits.stop)
        total += torch.where(running, best, 0.0)
        prefix = torch.cat((prefix, word[:, None]), 1)
        running &= word != limits.stop
        yield [_finish(row, float(score), limits.stop) for row, score in zip(prefix.tolist(), total, strict=True)]


def greedy(stepper: Stepper, batch: int, limits: DecodeLimits, device: torch.device | str = "cpu") -> list[Generated]:
    """The captions that :func:`grow` ends with."""
    last = deque(grow(stepper, batch, limits, device), maxlen=1)
    return last[0] if last else []


@torch.no_grad()
def beam_search(
    stepper: Stepper, batch: int, limits: DecodeLimits, *, beams: int, length_penalty: float = 1.0,
    device: torch.device | str = "cpu",
) -> list[Generated]:  # fmt: skip
    """The caption with the highest ``log_prob / words ** length_penalty`` among those that ``beams`` beams meet.

    Exact when there are as many beams as captions; ends as soon as no running beam can win any more.
    """
    if beams < 1:
        raise ValueError(f"beams must be at least 1, got {beams}")
    rows = torch.arange(batch, device=device)
    return [_beams(stepper.select(rows[index, None]), limits, beams, length_penalty, device) for index in range(batch)]


def _beams(stepper: Stepper, limits: DecodeLimits, beams: int, penalty: float, device: torch.device | str) -> Generated:
    prefix = torch.full((1, 1), limits.start, device=device)
    total = torch.zeros(1, device=device)
    finished: list[tuple[float, Generated]] = []
    while prefix.shape[1] < limits.max_length and len(prefix):
        scores = total[:, None] + _log_probs(stepper(prefix), limits)
        words = prefix.shape[1]
        for row, score in zip(prefix.tolist(), scores[:, limits.stop].tolist(), strict=True):
            finished.append((score / words**penalty, Generated((*row, limits.stop), score, True)))
        scores[:, limits.stop] = -torch.inf
        total, flat = scores.flatten().topk(min(beams, scores.numel()))
        total, flat = total[total > -torch.inf], flat[total > -torch.inf]
        source = flat // scores.shape[1]
        prefix = torch.cat((prefix[source], (flat % scores.shape[1])[:, None]), 1)
        if len(prefix) and max(score for score, _ in finished) >= _best_possible(
            float(total.max()), words, limits, penalty
        ):
            return _best(finished)
        stepper = stepper.select(source)
    for row, score in zip(prefix.tolist(), total.tolist(), strict=True):
        finished.append((score / (len(row) - 1) ** penalty, Generated(tuple(row), score, False)))
    return _best(finished)


def _best(finished: list[tuple[float, Generated]]) -> Generated:
    return max(finished, key=lambda pair: pair[0])[1]


def _best_possible(log_prob: float, words: int, limits: DecodeLimits, penalty: float) -> float:
    """Upper bound of a running beam: no further loss, and the length that divides the most or the least."""
    lengths = (words, limits.max_length - 1)
    return max(log_prob * math.pow(length, -penalty) for length in lengths)


def explain_caption(
    text: str, spans: Sequence[tuple[int, int]], vectors_LD: Tensor, prompts: AuPrompts, scores_TA: Tensor,
    *, lexicon: AuLexicon, row: int,
) -> tuple[AuEvidence, ...]:  # fmt: skip
    """:func:`explain` for the content words of a caption. ``spans``: of its L pieces in ``text``, ``vectors``: of those."""
    words = lexicon.content_words(text)
    owner = torch.tensor([owners(spans, words)], device=vectors_LD.device)
    usable = torch.ones_like(owner, dtype=torch.bool)
    t, there = word_vectors(vectors_LD[None], owner, usable)
    kept = [span for span, has in zip(words, there[0].tolist(), strict=False) if has]
    return explain(text, kept, t[0, there[0]], prompts, scores_TA, row=row)


def explain(
    text: str, words: Sequence[tuple[int, int]], t_ND: Tensor, prompts: AuPrompts, scores_TA: Tensor, *, row: int
) -> tuple[AuEvidence, ...]:
    """For each content word the nearest valid AU prompt, ``argmax_k cos(a_k, t_word)``; no prompt, no evidence.

    ``words``: spans in ``text``; ``t``: their vectors ``[N, hidden]``; ``scores``: s_t ``[T, 27]``; ``row``: of the
    batch.
    """
    valid = prompts.valid[row].nonzero()[:, 0]
    if not len(valid) or not len(words):
        return ()
    best, nearest = similarity(prompts.tokens[row, valid][None], t_ND[None])[0].max(0)
    evidence = []
    for (start, end), cosine, slot in zip(words, best.tolist(), valid[nearest].tolist(), strict=True):
        unit = int(prompts.index[row, slot])
        intensity, peaks = _peaks(scores_TA[:, unit], prompts.frames[row, slot])
        evidence.append(AuEvidence(text[start:end], start, end, OPENGRAPHAU_MAIN[unit], cosine, intensity, peaks))
    return tuple(evidence)


def _peaks(score_T: Tensor, used_T: Tensor) -> tuple[float, tuple[int, ...]]:
    seen = score_T.masked_fill(~used_T, -1.0)
    highest = float(seen.max())
    order = seen.argsort(descending=True, stable=True).tolist()
    return highest, tuple(t for t in order if bool(used_T[t]) and float(seen[t]) >= PEAK_SHARE * highest)


def _log_probs(scores_BV: Tensor, limits: DecodeLimits) -> Tensor:
    banned = torch.tensor(limits.banned, dtype=torch.int64, device=scores_BV.device)
    return scores_BV.float().index_fill(1, banned, -torch.inf).log_softmax(1)


def _finish(row: list[int], log_prob: float, stop: int) -> Generated:
    ids = row[: row.index(stop, 1) + 1] if stop in row[1:] else row
    return Generated(tuple(ids), log_prob, ids[-1] == stop and len(ids) > 1)
