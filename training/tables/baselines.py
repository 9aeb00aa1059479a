"""The baselines of FAME-Net's Table 2: other language models that are asked for the cause, with or without pictures.

A model answers through any server that speaks OpenAI's chat protocol (``options.baseline.url`` of the recipe; the key, if it wants one, from
the environment variable ``EMO_CHAT_API_KEY`` and nowhere else) or is loaded from a folder by ``transformers``
(``options.baseline.folder``). Answers are kept as they come, so that a broken evaluation goes on where it was. A clip that got
no answer has none: it is tried again next time, counted, and never scored as if it had been answered.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from emo_models.preprocess import middle_frames
from emo_perception.config import ConfigError
from emo_perception.stages.cause.explainers.chat import ChatError, ChatServer
from training.datasets import read_dataset
from training.datasets.record import Record
from training.prepare.video import UnreadableVideo, Video
from training.tables.engine import Job
from training.tables.plan import PlanError
from training.tasks.questions import dialogue_of, emotion_of
from training.trainer.recipe import RecipeError, read_options

log = logging.getLogger(__name__)

Image = NDArray[np.uint8]
#: A question and pictures -> the answer.
Model = Callable[[str, Sequence[Image]], str]

SYSTEM: Final = (
    "You explain emotions in conversations. Answer with one English sentence that names the cause of the emotion, and "
    "nothing else."
)
#: So many failures in a row mean that the server is gone, not that a question was hard.
MOST_FAILURES: Final = 5


@dataclass(frozen=True)
class Baseline:
    """How a baseline is asked. ``frames``: pictures of a clip that are shown, 0 for a text-only model.

    ``limit_s``: time for one answer; ``clips``: ask about the first so many only, 0 for all.
    """

    url: str = ""
    model: str = ""
    folder: str = ""
    frames: int = 0
    limit_s: float = 60.0
    clips: int = 0


def ask(job: Job) -> dict[str, float]:
    """Runs a row of a plan: :class:`Baseline` from the recipe's ``options.baseline``, data and split as the recipe says.

    Raises :class:`PlanError` for a wrong option and for a model that cannot be asked.
    """
    recipe = job.recipe
    try:
        baseline = read_options(Baseline, recipe.options.get("baseline", {}), "options.baseline")
    except RecipeError as error:
        raise PlanError(str(error)) from None
    records = read_dataset(recipe.data.name, Path(recipe.data.root), **recipe.data.options).split(recipe.evaluate.split)
    records = records[: baseline.clips or None]
    answers = answer_all(records, make_model(baseline), job.folder / "answers.jsonl", baseline.frames)
    return scored(records, answers)


def make_model(baseline: Baseline) -> Model:
    """The model behind a baseline. Raises :class:`PlanError` unless exactly one of url and folder is given."""
    if bool(baseline.url) == bool(baseline.folder):
        raise PlanError(
            "options.baseline: expected a server or a local model: --set options.baseline.url=http://localhost:8000/v1 "
            "options.baseline.model=NAME, or --set options.baseline.folder=DIR"
        )
    if baseline.folder:
        from training.tables.local_model import local_model

        local = local_model(Path(baseline.folder), pictures=baseline.frames > 0)
        # In one turn: not every template has a place for the system.
        return lambda text, images: local(f"{SYSTEM}\n\n{text}", images)
    try:
        server = ChatServer.of(baseline.url, baseline.model, ("options.baseline.url", "options.baseline.model"))
    except ConfigError as error:
        raise PlanError(str(error)) from None
    assert server is not None
    return lambda text, images: " ".join("".join(server.stream(messages(text, images), baseline.limit_s)).split())


def messages(text: str, images: Sequence[Image]) -> list[dict[str, Any]]:
    """The chat of one question in OpenAI's form; pictures as JPEG inside it."""
    system = {"role": "system", "content": SYSTEM}
    if not images:
        return [system, {"role": "user", "content": text}]
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": _jpeg(image)}} for image in images]
    return [system, {"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def question_text(record: Record) -> str:
    """The question in words: the dialogue up to the target, and what is asked."""
    dialogue = dialogue_of(record)
    lines = [f"{line.speaker}: {line.text}" for line in (*dialogue.history, dialogue.target)]
    return (
        "\n".join(lines) + f"\n\nExplain why the emotion of the last statement is {emotion_of(record)}: "
        f"why does {dialogue.target.speaker} feel so?"
    )


def pictures(record: Record, count: int) -> list[Image]:
    """``count`` middle frames of a clip. Raises :class:`UnreadableVideo`."""
    if not count:
        return []
    video = Video.of(record)
    wanted = set(middle_frames(video.count(), count).tolist())
    with closing(video.frames()) as frames:
        return [frame.image for number, frame in enumerate(frames) if number in wanted]


def answer_all(records: Sequence[Record], model: Model, file: Path, frames: int) -> dict[str, str]:
    """Answers by clip. Each is written to ``file`` at once; those that are there are not asked for again.

    Raises :class:`PlanError` when the model failed :data:`MOST_FAILURES` times in a row, or always.
    """
    answers = _read(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    failed, in_a_row = 0, 0
    for record in records:
        if record.clip_id in answers:
            continue
        try:
            text = model(question_text(record), pictures(record, frames))
            if not text.strip():
                raise ChatError("the answer has no words")
        except (ChatError, UnreadableVideo) as error:
            failed, in_a_row = failed + 1, in_a_row + 1
            log.warning("%s: no answer: %s", record.clip_id, error)
            if in_a_row >= MOST_FAILURES:
                raise PlanError(
                    f"{in_a_row} clips in a row got no answer, the last: {error}. {len(answers)} answers are kept in "
                    f"{file}; look after the model and give the same command again"
                ) from None
            continue
        in_a_row = 0
        answers[record.clip_id] = text
        with file.open("a", encoding="utf-8") as out:
            out.write(json.dumps({"clip_id": record.clip_id, "text": text}, ensure_ascii=False) + "\n")
    if not answers:
        raise PlanError(f"none of {len(records)} clips got an answer ({failed} failures)")
    return answers


def scored(records: Sequence[Record], answers: Mapping[str, str]) -> dict[str, float]:
    """Caption scores by the names of the plans, and the share of clips that got an answer."""
    from training.metrics.captions import score_captions

    references = {record.clip_id: list(record.captions) for record in records}
    scores = score_captions({clip: text for clip, text in answers.items() if clip in references}, references)
    return {**scores.values, "answered": len(scores.coverage.scored) / len(references)}


def _read(file: Path) -> dict[str, str]:
    """Answers of an earlier run; a last line that a killed process left unfinished is dropped from the file."""
    if not file.is_file():
        return {}
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
        file.write_text("".join(lines), encoding="utf-8")
    rows = [json.loads(line) for line in lines]
    return {row["clip_id"]: row["text"] for row in rows}


def _jpeg(image: Image) -> str:
    import cv2

    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    assert done
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
