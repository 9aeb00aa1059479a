"""Lessons for a language model out of scripts of the toy world that are never played: words alone, no picture.

What the video would show is told in words, two moments a line; what a face network would say is what the script says,
with its certainty drawn and a share of wrong answers, for a real one errs too.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from emo_models.labels import SYNONYMS, VOCABULARIES
from emo_models.networks.fame.prompt import CauseQuery, FaceExpression, Utterance
from training.tasks.lessons import Lesson
from training.toyworld.pictures import SCENES
from training.toyworld.script import NEUTRAL, Line, Script, write_script

#: Share of faces that are read wrongly; how sure the reader is of right and of wrong answers.
WRONG: Final = 0.15
SURE, UNSURE = (0.45, 0.98), (0.25, 0.6)
#: Moments of a line, and rows that stand for the places of the picture instead of its moments.
MOMENTS, PLACES = 2, 4
QUIET: Final = SCENES[""]
#: As the world's own dialogues: chance of a distraction; times do not matter in words.
DISTRACTION: Final = 0.35


def toy_lessons(seed: int, dialogues: int, vocabulary: str, utterances: int) -> dict[str, list[Lesson]]:
    """Lessons of that many scripts, every tenth for validation.

    ``vocabulary``: of the face network; ``utterances``: of the last so many the faces are told, as the recipe of
    FAME-Net says under ``face_utterances``.
    """
    found: dict[str, list[Lesson]] = {"train": [], "val": [], "test": []}
    for number in range(dialogues):
        rng = np.random.default_rng([seed, 6, number])
        script = write_script(rng, 10, 1.6, distraction=DISTRACTION)
        part = "val" if number % 10 == 9 else "train"
        for place, line in enumerate(script.lines):
            if line.explained is not None:
                found[part].append(lesson(rng, script, place, vocabulary, utterances))
    return found


def lesson(rng: np.random.Generator, script: Script, target: int, vocabulary: str, utterances: int) -> Lesson:
    """The question about line ``target`` of a script, in words."""
    lines = script.lines[: target + 1]
    explained = lines[-1].explained
    assert explained is not None
    said = tuple(Utterance(script.names[line.speaker], line.text) for line in lines)
    faces = tuple(
        _face(rng, name, emotion, VOCABULARIES[vocabulary])
        for line in lines[-utterances:]
        for name, emotion in zip(script.names, shown(script, line), strict=True)
    )
    moments = [moment(line) for line in lines for _ in range(MOMENTS)] + [QUIET] * PLACES
    query = CauseQuery(said[:-1], said[-1], lines[-1].emotion, faces)
    return Lesson(query, tuple(moments), explained.sentences[0])


def moment(line: Line) -> str:
    """What is to be seen during a line."""
    return QUIET if line.event is None else SCENES[line.event.what].format(line.event.thing)


def shown(script: Script, line: Line) -> list[str]:
    """What each face of the cast shows during a line, in MELD's words."""
    emotions = [NEUTRAL] * len(script.names)
    emotions[line.speaker] = line.emotion
    if line.look is not None:
        emotions[line.look.actor] = line.look.emotion
    return emotions


def _face(rng: np.random.Generator, name: str, emotion: str, labels: tuple[str, ...]) -> FaceExpression:
    common = [SYNONYMS.get(label, label) for label in labels]
    label, sure = labels[common.index(SYNONYMS.get(emotion, emotion))], SURE
    if rng.random() < WRONG:
        label, sure = labels[int(rng.integers(len(labels)))], UNSURE
    return FaceExpression(name, label, round(float(rng.uniform(*sure)), 2))
