"""FAME-Net explains, word by word, in time that depends on the prompt alone: no old frame is looked at again."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from emo_perception.config import CauseConfig
from emo_perception.stages.cause.case import HISTORY_STEP, Case, Line
from emo_perception.stages.cause.explainers.base import Cancelled, CancelledBy, Heard, never, nobody
from emo_perception.stages.cause.explainers.fame_network import load
from emo_perception.stages.cause.explainers.fame_prompt import FamePrompt, People
from emo_perception.stages.cause.grounding import strangers
from emo_perception.stages.learned import RANDOM
from emo_perception.types import NS_PER_S, Cause, VisualContext

if TYPE_CHECKING:
    from torch import Tensor

    from emo_models.networks.fame.generate import Explanation
    from emo_models.networks.fame.prompt import EncodedPrompt

#: Words that make a clause worth telling where the sentence never ended.
LEAST_WORDS: Final = 4
#: Tokens of a statement and of faces, before the first prompt has shown how many they are.
UNSEEN: Final = 64
_SENTENCE: Final = re.compile(r"^.*[.!?][”\"']?(?=\s|$)", re.DOTALL)
_CLAUSE: Final = re.compile(r"^(.*\w)\s*[,;:]", re.DOTALL)


def finished(text: str) -> str:
    """Of an answer that was cut off, what is whole: its sentences, else the clauses of its first; maybe nothing."""
    if sentences := _SENTENCE.match(text):
        return sentences.group().strip()
    clause = _CLAUSE.match(text)
    whole = clause.group(1).strip() if clause else ""
    return f"{whole}." if len(whole.split()) >= LEAST_WORDS else ""


class FameExplainer:
    """Explains statements; changed faces without words keep the ranking's sentence, as ``model`` then says.

    It always answers. What goes out as an abstention: nothing to go by but the statement itself; an answer that
    ``answer_s`` cut before its first clause ended, or that is too unsure; random weights. An answer that names people
    or action units which nobody knows of has ``grounded`` false. Raises as :func:`.fame_network.load`.
    """

    name = "fame"
    statements_only = True
    immediate = False

    def __init__(self, config: CauseConfig) -> None:
        from emo_models.networks.clip_vision import ClipVisionConfig
        from emo_models.networks.fame.generate import PrefixCache

        self.config = config
        self.loaded = load(config)
        fame = self.loaded.network.config
        self.prompt = FamePrompt.of(fame, self.loaded.notes)
        self.wants_video = self.prompt.video
        self.utterances_shown = self.prompt.face_utterances
        clip = ClipVisionConfig.from_preset(fame.clip)
        self._dim, self._patches = clip.dim, clip.patches
        self._cache = PrefixCache()
        self._most = fame.max_length
        self._room = min(fame.frames + clip.patches + UNSEEN, fame.max_length // 2)  # of a prompt, behind its history
        self._counts = dict.fromkeys(("finished", "cut", "too_late", "ungrounded", "without_video"), 0)
        self._speed: dict[str, float] = {}
        self._reused, self._tokens = (0, 0), 0

    def __call__(self, case: Case, heard: Heard = nobody, cancelled: CancelledBy = never) -> Cause:
        if case.statement is None:
            return case.ranked
        model = self._model(case)
        if not (case.history or case.shown or case.context is not None):
            return self._abstention(case, model, "nothing was said or seen but the statement itself")
        features = self._features(case.context)
        try:
            prompt = self.prompt.encode(case, self.loaded.prompts, len(features), self._most, self._step_ns)
        except ValueError as error:
            return self._abstention(case, model, str(error))
        began_s, limit_s = time.monotonic(), self.config.answer_s
        answer = self.loaded.network.explain(
            prompt, features, self.loaded.prompts, cache=self._cache,
            cancelled=lambda: cancelled() or bool(limit_s and time.monotonic() - began_s > limit_s),
        )  # fmt: skip
        known, people, first_s, told = case.words(), People.of(case), 0.0, ""
        for _ in answer:
            first_s = first_s or time.monotonic() - began_s
            whole = people.back(answer.text[: max(answer.text.rfind(" "), 0)].strip())  # the last word may still grow
            if whole != told and not self._invalid(case) and not strangers(whole, known):
                told = whole
                heard(whole)
        self._room = len(prompt.ids) - prompt.fixed
        self._measure(answer, prompt, time.monotonic() - began_s, first_s)
        if answer.finish == "cancelled" and cancelled():
            raise Cancelled
        return self._judged(case, answer, people.back(" ".join(answer.text.split())), model)

    def check(self, context: VisualContext) -> None:
        """Raises ``ValueError`` for tokens of another vision tower, or more of them than the network takes."""
        if "rows" not in context.tensors:
            raise ValueError(
                f"visual context of utterance {context.utterance_id!r}: expected the tensors rows and patches, got "
                f"{', '.join(context.tensors) or 'nothing'}; set visual.frames"
            )
        rows, patches = (np.shape(context.tensors.get(name, ())) for name in ("rows", "patches"))
        most = self.loaded.network.config.frames
        good = patches == (self._patches, self._dim) and len(rows) == 2 and rows[1] == self._dim and 0 < rows[0] <= most
        if not good:
            raise ValueError(
                f"video tokens of {context.model or 'the node visual'} for utterance {context.utterance_id!r}: expected "
                f"rows [1 to {most}, {self._dim}] and patches [{self._patches}, {self._dim}] as fame/{self.config.preset} "
                f"takes them, got rows {list(rows)} and patches {list(patches)}; set visual.preset and cause.preset to "
                "the same, and build their engines of the same weights"
            )

    def prepare(self, dialogue: tuple[Line, ...]) -> None:
        """Put what the next question begins with into the cache of keys and values."""
        ids = self.prompt.ahead(dialogue, self.loaded.prompts, self._most - self._room, self._step_ns)
        if ids != self._cache.ids[: len(ids)]:
            self._cache.warm(self.loaded.network, ids)

    def warmup(self) -> None:
        """Run a prompt once; its beginning stays in the cache."""
        self.prepare(())

    def close(self) -> None:
        """Let go of keys and values."""
        self._cache.clear()

    def facts(self) -> dict[str, object]:
        reused, fixed = self._reused
        return {
            "network": f"fame/{self.config.preset}, {self.loaded.about}", "arithmetic": self._arithmetic(),
            **{f"answers_{name}": count for name, count in self._counts.items()},
            **self._speed, "prompt_tokens": self._tokens, "prefix_reused": f"{reused} of {fixed} tokens",
        }  # fmt: skip

    # -- parts

    @property
    def _step_ns(self) -> int:
        return max(1, round(self.config.window_s * HISTORY_STEP * NS_PER_S))

    def _features(self, context: VisualContext | None) -> Tensor:
        """R [n + N, D], or no rows."""
        import torch

        from emo_models.networks.fame.pooling import join

        network = self.loaded.network
        device = network.new_tokens.device
        if context is None or not self.wants_video:
            self._counts["without_video"] += self.wants_video
            return torch.zeros(0, self._dim, device=device)
        rows, patches = (torch.from_numpy(np.array(context.tensors[name], np.float32)) for name in ("rows", "patches"))
        return join(rows, patches, network.pad_to).to(device)

    def _judged(self, case: Case, answer: Explanation, text: str, model: str) -> Cause:
        if answer.finish != "stop":
            text = finished(text)
            self._counts["cut" if text else "too_late"] += 1
        else:
            self._counts["finished"] += 1
        if invalid := self._invalid(case):
            return self._abstention(case, model, f"{invalid}; it would have said: {text}")
        if not text:
            limit = f"{self.config.answer_s:g} s" if answer.finish == "cancelled" else f"{len(answer.ids)} tokens"
            return self._abstention(case, model, f"no clause was finished within {limit} (answer_s, max_new_tokens)")
        confidence, least = answer.confidence, self.config.min_confidence
        if confidence < least:
            return self._abstention(
                case, model, f"too unsure: confidence {confidence:.2f} is below {least:.2f}: {text}"
            )
        problem = strangers(text, case.words())
        self._counts["ungrounded"] += bool(problem)
        return replace(
            case.ranked, text=text, evidence=case.evidence, confidence=confidence, model=model, grounded=not problem,
            evidence_utterances=tuple(e.utterance_id for e in case.evidence if e.kind == "utterance"),
            abstained=False, abstain_reason="",
        )  # fmt: skip

    def _invalid(self, case: Case) -> str:
        seen = case.context is not None and "random" in case.context.model
        return RANDOM if self.loaded.random or (seen and self.wants_video) else ""

    def _abstention(self, case: Case, model: str, reason: str) -> Cause:
        return replace(
            case.ranked, text="", evidence=(), evidence_utterances=(), confidence=0.0, model=model, abstained=True,
            abstain_reason=reason,
        )  # fmt: skip

    def _model(self, case: Case) -> str:
        without = ", without video" if self.wants_video and case.context is None else ""
        int8 = ", int8" if self.config.quantise == "int8" else ""
        return f"fame/{self.config.preset}{int8}{without}"

    def _arithmetic(self) -> str:
        return "int8" if self.config.quantise == "int8" else self.config.precision

    def _measure(self, answer: Explanation, prompt: EncodedPrompt, took_s: float, first_s: float) -> None:
        rest_s = took_s - (first_s or took_s)
        self._speed = {
            "answer_took_s": took_s, "first_word_s": first_s,
            "tokens_per_s": max(len(answer.ids) - 1, 0) / max(rest_s, 1e-6),
        }  # fmt: skip
        self._reused, self._tokens = (self._cache.reused, prompt.fixed), len(prompt.ids)
