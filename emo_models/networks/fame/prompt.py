"""FAME-Net's prompt (Section 4.4): ``USER: <Instruction> <User Query><Vid-tokens><Emotion>\\nAssistant:``.

How E_cls enters is not said. Here it is words, for the language model is frozen: ``Facial expressions: Ross: surprise
(0.81); Rachel: neutral (0.64).`` With learned emotion tokens the label is one of eight new tokens, ``<emo_surprise>``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from emo_models.labels import VOCABULARIES

VID_PATCH: Final = "<vid_patch>"
VID_START: Final = "<vid_start>"
VID_END: Final = "<vid_end>"
#: New tokens, in the order of Video-ChatGPT's checkpoints.
VIDEO_TOKENS: Final = (VID_PATCH, VID_START, VID_END)

#: The wording of ECEM's items; the paper's own instruction is not published.
ECEM_INSTRUCTION: Final = "Explain why the emotion of this statement is {emotion} <{speaker}: {text}>"
#: The same request without the target, so that all of it and the history can be cached before the target is spoken.
STATIC_INSTRUCTION: Final = (
    "Explain why the last speaker of this dialogue feels the emotion given behind the statement."
)
#: How a network was asked in its training, as its card calls it.
INSTRUCTIONS: Final = {"ecem": ECEM_INSTRUCTION, "static": STATIC_INSTRUCTION}


@dataclass(frozen=True)
class Utterance:
    """One line of a dialogue."""

    speaker: str
    text: str


@dataclass(frozen=True)
class FaceExpression:
    """E_cls of one face track: ``label`` and ``confidence`` in [0, 1]; ``name``: who, or ``person 1``."""

    name: str
    label: str
    confidence: float


@dataclass(frozen=True)
class CauseQuery:
    """A question for the cause of an emotion: U_0..U_i-1, the target U_i with its ``emotion``, and the faces seen."""

    history: tuple[Utterance, ...]
    target: Utterance
    emotion: str
    faces: tuple[FaceExpression, ...] = ()
    instruction: str = ECEM_INSTRUCTION


def emotion_tokens(vocabulary: str) -> tuple[str, ...]:
    """Names of the learned emotion tokens of a vocabulary."""
    return tuple(f"<emo_{label}>" for label in VOCABULARIES[vocabulary])


def mean_expression(logits_TC: Tensor, valid_T: Tensor, vocabulary: str, name: str) -> FaceExpression | None:
    """E_cls of a track: the class with the highest mean softmax over its valid frames; None without a valid frame."""
    if not bool(valid_T.any()):
        return None
    mean = logits_TC[valid_T].softmax(1).mean(0)
    best = int(mean.argmax())
    return FaceExpression(name, VOCABULARIES[vocabulary][best], float(mean[best]))


def render(query: CauseQuery, visual_tokens: int, *, learned_emotions: bool = False) -> str:
    """The prompt as text. ``visual_tokens``: rows of Q_v, each stands behind one ``<vid_patch>``."""
    target = f"{query.target.speaker}: {query.target.text}"
    instruction = query.instruction.format(emotion=query.emotion, speaker=query.target.speaker, text=query.target.text)
    lines = [f"{line.speaker}: {line.text}" for line in query.history]
    user_query = "\n".join([*lines, f"{target} ({query.emotion})"])
    video = f"{VID_START}{VID_PATCH * visual_tokens}{VID_END}"
    return f"USER: {instruction} {user_query}{video}{_faces(query.faces, learned_emotions)}\nAssistant:"


def _faces(faces: Sequence[FaceExpression], learned: bool) -> str:
    if not faces:
        return ""
    label = "<emo_{}>" if learned else "{}"
    return f"Facial expressions: {'; '.join(f'{f.name}: {label.format(f.label)} ({f.confidence:.2f})' for f in faces)}."


@dataclass(frozen=True)
class EncodedPrompt:
    """Ids of a prompt for the language model. ``dropped``: oldest lines of history that did not fit.

    ``fixed``: how many ids stand in front of the first video token, the part whose keys and values can be cached.
    """

    ids: tuple[int, ...]
    fixed: int
    dropped: int


class PromptTokenizer:
    """Turns queries into ids. The new tokens get the ids behind the language model's words, ``words + i``.

    Brackets of the tokenizer's special tokens are taken out of what people said, so that speech cannot pose as video.
    """

    def __init__(self, tokenizer: Any, words: int, new_tokens: Sequence[str] = VIDEO_TOKENS) -> None:
        known = len(tokenizer) - sum(token in tokenizer.get_vocab() for token in new_tokens)
        if known > words:
            raise ValueError(f"the tokenizer has {known} words, the language model {words}; take a pair that fits")
        if tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer has no end-of-sequence token, so an answer could never end; set eos_token")
        self._emotions = {token for token in new_tokens if token.startswith("<emo_")}
        self.tokenizer = tokenizer
        self.stop = int(tokenizer.eos_token_id)
        reserved = [*tokenizer.all_special_tokens, *new_tokens]
        self._reserved = re.compile("|".join(re.escape(token) for token in sorted(reserved, key=len, reverse=True)))
        tokenizer.add_tokens(list(new_tokens), special_tokens=True)
        own = tokenizer.convert_tokens_to_ids(list(new_tokens))
        self._renumber = {old: words + index for index, old in enumerate(own)}
        self.patch = self._renumber[own[new_tokens.index(VID_PATCH)]]
        self._start = self._renumber[own[new_tokens.index(VID_START)]]

    def __call__(self, query: CauseQuery, visual_tokens: int, max_length: int = 2048) -> EncodedPrompt:
        """Encode a query; drops the oldest history while it is longer than ``max_length``.

        Raises ``ValueError`` when it does not fit even without history.
        """
        clean = self._clean(query)
        for dropped in range(len(clean.history) + 1):
            shorter = CauseQuery(clean.history[dropped:], clean.target, clean.emotion, clean.faces, clean.instruction)
            ids = self._encode(render(shorter, visual_tokens, learned_emotions=bool(self._emotions)), special=True)
            if len(ids) <= max_length:
                return EncodedPrompt(ids, ids.index(self._start), dropped)
        raise ValueError(
            f"the prompt has {len(ids)} tokens without history, {visual_tokens} of them video, more than max_length "
            f"{max_length}; shorten the statement or raise max_length"
        )

    def prefix(self, history: Sequence[Utterance], instruction: str = ECEM_INSTRUCTION) -> tuple[int, ...]:
        """Ids that the next prompt begins with, before its target is spoken, for :meth:`.generate.PrefixCache.warm`.

        An instruction that names the target hides the history behind it: only the words in front of the target are known.
        """
        lines = "\n".join(f"{line.speaker}: {line.text}" for line in history)
        known = instruction.partition("{")[0] if "{" in instruction else f"{instruction} {lines}"
        text = self._reserved.sub(_harmless, f"USER: {known.rstrip()}")
        return self._encode(text, special=True)

    def answer(self, text: str) -> tuple[int, ...]:
        """Ids of an answer with the stop token, the targets of training."""
        return (*self._encode(" " + text.strip(), special=False), self.stop)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _encode(self, text: str, *, special: bool) -> tuple[int, ...]:
        ids = self.tokenizer(text, add_special_tokens=special)["input_ids"]
        if special and ids[-1] == self.stop:
            ids = ids[:-1]
        return tuple(self._renumber.get(token, token) for token in ids)

    def _clean(self, query: CauseQuery) -> CauseQuery:
        def safe(text: str) -> str:
            return self._reserved.sub(_harmless, text)

        for face in query.faces:
            if self._emotions and f"<emo_{face.label}>" not in self._emotions:
                raise ValueError(
                    f"no learned token for emotion {face.label!r}; there are {', '.join(sorted(self._emotions))}"
                )
        history = tuple(Utterance(safe(line.speaker), safe(line.text)) for line in query.history)
        target = Utterance(safe(query.target.speaker), safe(query.target.text))
        faces = tuple(FaceExpression(safe(f.name), f.label, f.confidence) for f in query.faces)
        return CauseQuery(history, target, safe(query.emotion), faces, query.instruction)


def _harmless(hit: re.Match[str]) -> str:
    return hit.group().strip("<>[]|/")


def ids_tensor(prompt: EncodedPrompt, device: torch.device | str = "cpu") -> Tensor:
    """Ids of a prompt as int64 ``[n]``."""
    return torch.tensor(prompt.ids, dtype=torch.int64, device=device)
