"""The language model under FAME-Net as a task: a small LLaMA from nothing, on lessons in words (:mod:`.lessons`)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

import emo_models
from emo_models.checkpoints import NetworkCard
from emo_models.networks.fame.prompt import VIDEO_TOKENS, PromptTokenizer
from emo_models.networks.language import Bags, LanguageModel, tokenizer_note, train_tokenizer
from training.tasks.lessons import Exercise, Lesson, LessonEncoder, drawn, read_lessons, texts
from training.trainer.recipe import Recipe, RecipeError, read_options
from training.trainer.task import BaseTask

_IGNORED: Final = -100
#: Exercises of one step of an evaluation.
BATCH: Final = 64

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class LanguageOptions:
    """What a recipe of this task can say under ``options``.

    ``keep``: chance of each kind of evidence to stay in a question. ``question_weight``: of the loss on words of the
    question beside 1 on those of the answer. ``noise``: on the places of the video, as a share of the spread of the word
    vectors. ``max_length``: tokens of a question.
    """

    keep: float = 0.75
    question_weight: float = 0.2
    noise: float = 0.3
    max_length: int = 512
    licence: str = "research only"


@dataclass(frozen=True)
class ToyScripts:
    """``data.options`` of toy_scripts, as :func:`training.tasks.toy_lessons.toy_lessons` takes them."""

    seed: int
    dialogues: int
    vocabulary: str = "affectnet8"
    utterances: int = 2


class Exercises(Dataset[Exercise]):
    """Lessons as exercises; while training, what is left out and how the video is put in words is drawn anew."""

    def __init__(self, task: LanguageTask, lessons: list[Lesson], *, train: bool) -> None:
        self.task, self.lessons, self.train = task, lessons, train

    def __len__(self) -> int:
        return len(self.lessons)

    def __getitem__(self, index: int) -> Exercise:
        lesson, grain, rng = self.lessons[index], 0, None
        if self.train:
            rng = self.task.rng(index)
            lesson, grain = drawn(lesson, rng, self.task.options.keep)
        return self.task.encode(lesson, grain, rng)


class LanguageTask(BaseTask):
    """Trains :class:`emo_models.networks.language.LanguageModel` on ``lessons`` in the folder ``data.root``, or on
    ``toy_scripts`` that are written for it.

    The tokenizer is made of the training lessons and travels in the card of the weights.
    """

    network: LanguageModel

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.options = read_options(LanguageOptions, recipe.options)
        self.lessons = self._lessons()
        network = emo_models.create("language", recipe.network.preset, **recipe.network.options)
        self.network = cast("LanguageModel", network)
        words = self.network.config.words
        self.tokenizer = train_tokenizer(texts(self.lessons["train"]), words)
        # Its own copy: the signs of the video belong to FAME-Net, not to the language model.
        prompts = PromptTokenizer(copy.deepcopy(self.tokenizer), words, VIDEO_TOKENS)
        self.encode = LessonEncoder(prompts, self.options.max_length)

    def dataset(self, split: str) -> Exercises:
        return Exercises(self, self.lessons[split], train=split == "train")

    def collate(self, items: list[Exercise]) -> Batch:
        """``ids``, ``target``, ``weight`` ``[B, L]``, ``mask``; the words of all places and where each begins."""
        ids = _padded([item.ids for item in items], 0)
        rows = [np.arange(len(item.ids)) < item.question for item in items]
        asked = _padded([row.tolist() for row in rows], False)
        mask = _padded([[True] * len(item.ids) for item in items], False)
        place = ids >= self.network.config.words
        weight = torch.where(asked, self.options.question_weight, 1.0) * (mask & ~place)
        bags = [bag for item in items for bag in item.bags]
        lengths = torch.tensor([len(bag) for bag in bags], dtype=torch.int64)
        return {
            "ids": ids, "mask": mask, "weight": weight, "target": ids.masked_fill(~mask | place, _IGNORED),
            "answer": mask & ~asked, "bags": torch.tensor([w for bag in bags for w in bag], dtype=torch.int64),
            "offsets": lengths.cumsum(0) - lengths,
        }  # fmt: skip

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted cross-entropy of the next word; logged: that of the answers alone."""
        scores = self._scores(batch, self.options.noise)
        target, weight = batch["target"][:, 1:], batch["weight"][:, 1:]
        each = F.cross_entropy(scores[:, :-1].flatten(0, 1), target.flatten(), ignore_index=_IGNORED, reduction="none")
        each = each.view(weight.shape)
        answer = batch["answer"][:, 1:]
        return (each * weight).sum() / weight.sum(), {"answer loss": each.detach()[answer].mean()}

    def evaluate(self, split: str) -> dict[str, float]:
        """Share of answers whose every word is the likeliest one behind the right words before it, and the loss."""
        data, right, losses = self.dataset(split), [], []
        for first in range(0, len(data), BATCH):
            batch = self.collate([data[i] for i in range(first, min(first + BATCH, len(data)))])
            batch = {name: value.to(next(self.network.parameters()).device) for name, value in batch.items()}
            scores = self._scores(batch, 0.0)[:, :-1]
            answer, ids = batch["answer"][:, 1:], batch["ids"][:, 1:]
            right += ((scores.argmax(-1) == ids) | ~answer).all(1).tolist()
            losses += F.cross_entropy(scores[answer], ids[answer], reduction="none").tolist()
        if not right:
            raise RecipeError(
                f"data: no lesson in the split {split!r}; write them to {split}.jsonl, or evaluate another"
            )
        return {"answers exact": float(np.mean(right)), "answer loss": float(np.mean(losses))}

    def card(self) -> NetworkCard:
        return NetworkCard(
            "language", self.network.config.to_dict(), (), {}, self.options.licence, (self.recipe.data.name,),
            notes=tokenizer_note(self.tokenizer),
        )  # fmt: skip

    def _lessons(self) -> dict[str, list[Lesson]]:
        data = self.recipe.data
        if data.name == "lessons":
            return read_lessons(Path(data.root).expanduser())
        if data.name != "toy_scripts":
            raise RecipeError(f"data.name: this task learns from lessons or toy_scripts; got {data.name!r}")
        from training.tasks.toy_lessons import toy_lessons

        made = read_options(ToyScripts, data.options, "data.options")
        return toy_lessons(made.seed, made.dialogues, made.vocabulary, made.utterances)

    def _scores(self, batch: Batch, noise: float) -> Tensor:
        bags = Bags(batch["bags"], batch["offsets"], noise) if len(batch["offsets"]) else None
        return cast("Tensor", self.network(batch["ids"], batch["mask"], bags))


def _padded(rows: list[Any], fill: int) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=fill)
