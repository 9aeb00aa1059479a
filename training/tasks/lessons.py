"""What a language model learns from before FAME-Net is built around it: questions and answers, in words alone.

A language model that is frozen later can use video tokens only if it has learned to read what stands between the
words of a question. A published one has learned so much that a projector finds a way in. One that is made here must be
taught, and no video may be needed for it: in a lesson the place of the video holds *descriptions* of its moments. They
are put there in three ways, drawn for each lesson anew: word by word, two words in one place, or a whole moment in one
place, its words mixed (:class:`emo_models.networks.language.Bags`). So the model learns to read a superposition of
words, which is what a linear projector of a picture can write.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from emo_models.networks.fame.prompt import CauseQuery, FaceExpression, PromptTokenizer, Utterance, render
from training.datasets.record import SPLITS, DatasetError
from training.tasks.questions import Inputs, reduced

#: How many words of a description share a place; 0: all of a moment, in any order.
GRAINS: Final = (1, 2, 0)


@dataclass(frozen=True)
class Lesson:
    """A question, what its video shows moment by moment in words, and the answer."""

    query: CauseQuery
    moments: tuple[str, ...]
    answer: str


@dataclass(frozen=True)
class Exercise:
    """A lesson as ids. ``ids``: of question and answer, with places; ``question``: how many belong to the question.

    ``bags``: the words of each place.
    """

    ids: tuple[int, ...]
    question: int
    bags: tuple[tuple[int, ...], ...]


def texts(lessons: Iterable[Lesson]) -> list[str]:
    """All that a tokenizer should know the words of."""
    found = []
    for lesson in lessons:
        found += [render(lesson.query, 0), " " + lesson.answer, *(" " + moment for moment in lesson.moments)]
    return found


def drawn(lesson: Lesson, rng: np.random.Generator, keep: float) -> tuple[Lesson, int]:
    """A lesson without some kinds of evidence, each of which stays with chance ``keep``, and a grain of its moments."""
    video, text, faces = (bool(value) for value in rng.random(3) < keep)
    query = reduced(lesson.query, Inputs(video, text, faces))
    return Lesson(query, lesson.moments if video else (), lesson.answer), int(rng.choice(GRAINS))


def places(moments: Sequence[str], grain: int, rng: np.random.Generator | None = None) -> list[str]:
    """The words of each place. ``rng``: to mix the words of whole moments."""
    found = []
    for moment in moments:
        words = moment.split()
        if grain == 0 and rng is not None:
            words = [words[i] for i in rng.permutation(len(words))]
        step = grain or len(words)
        found += [" ".join(words[i : i + step]) for i in range(0, len(words), step)]
    return found


class LessonEncoder:
    """Turns lessons into ids; remembers the words of places, of which there are few."""

    def __init__(self, tokenizer: PromptTokenizer, max_length: int = 2048) -> None:
        self.tokenizer, self.max_length = tokenizer, max_length
        self._bags: dict[str, tuple[int, ...]] = {}

    def __call__(self, lesson: Lesson, grain: int = 0, rng: np.random.Generator | None = None) -> Exercise:
        """A lesson as ids. The signs around the video are left out: they are new to the model when FAME-Net adds them."""
        where = places(lesson.moments, grain, rng)
        prompt = self.tokenizer(lesson.query, len(where), self.max_length)
        question = [token for token in prompt.ids if token <= self.tokenizer.patch]
        bags = tuple(self._bag(words) for words in where)
        return Exercise((*question, *self.tokenizer.answer(lesson.answer)), len(question), bags)

    def _bag(self, words: str) -> tuple[int, ...]:
        if words not in self._bags:
            ids = self.tokenizer.tokenizer(" " + words, add_special_tokens=False)["input_ids"]
            self._bags[words] = tuple(ids)
        return self._bags[words]


def write_lessons(folder: Path, split: str, lessons: Iterable[Lesson]) -> Path:
    """``SPLIT.jsonl`` in ``folder``, one lesson a line, as :func:`read_lessons` takes it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{split}.jsonl"
    with file.open("w", encoding="utf-8") as out:
        for lesson in lessons:
            out.write(json.dumps(asdict(lesson), ensure_ascii=False) + "\n")
    return file


def read_lessons(folder: Path) -> dict[str, list[Lesson]]:
    """Split -> lessons. Raises :class:`DatasetError` for a line that is none, and without ``train.jsonl``."""
    if not (folder / "train.jsonl").is_file():
        raise DatasetError(f"{folder}: expected lessons in train.jsonl; for the toy world type: emo toy lessons")
    found: dict[str, list[Lesson]] = {}
    for split in SPLITS:
        file = folder / f"{split}.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        found[split] = [_lesson(line, f"{file}, line {number}") for number, line in enumerate(lines, 1)]
    return found


def _lesson(line: str, where: str) -> Lesson:
    try:
        values = json.loads(line)
        query = values["query"]
        return Lesson(
            CauseQuery(
                tuple(Utterance(**said) for said in query["history"]),
                Utterance(**query["target"]),
                str(query["emotion"]),
                tuple(FaceExpression(**face) for face in query["faces"]),
                str(query["instruction"]),
            ),
            tuple(str(moment) for moment in values["moments"]),
            str(values["answer"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{where}: no lesson ({type(error).__name__}: {error})") from None
