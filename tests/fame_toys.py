"""A very small world for FAME-Net's trainings: a coloured disc moves while two people talk, in ECEM's layout."""

from __future__ import annotations

import json
import random
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from emo_models.networks.fame.prompt import CauseQuery, FaceExpression, Utterance
from training.tasks.lessons import Lesson, write_lessons
from training.trainer.recipe import Recipe, from_dict

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 230), "yellow": (230, 220, 40)}
PLACES = {"left": 16, "right": 48}
EMOTIONS = ("joy", "anger", "fear", "surprise")
SIZE, FPS, FRAMES = 64, 10, 12


def draw(colour: str, place: str, shift: int) -> np.ndarray:
    """RGB [64, 64, 3]: a disc on grey."""
    image = np.full((SIZE, SIZE, 3), 90, np.uint8)
    cv2.circle(image, (PLACES[place] + shift % 3, 32), 13, COLOURS[colour], -1)
    return image


def write_clip(file: Path, colour: str, place: str) -> None:
    with av.open(str(file), "w") as out:
        stream = out.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = SIZE, SIZE, "yuv420p", 2_000_000
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(draw(colour, place, number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def scene(rng: random.Random) -> tuple[str, str, str]:
    return rng.choice(list(COLOURS)), rng.choice(list(PLACES)), rng.choice(EMOTIONS)


def answer(colour: str, place: str, emotion: str) -> str:
    return f"Ann feels {emotion} because of the {colour} ball on the {place}."


def write_ecem(root: Path, *, train: int = 8, test: int = 4, seed: int = 0) -> Path:
    """ECEM's two files, with the cumulative clips."""
    rng = random.Random(seed)
    (root / "videos").mkdir(parents=True)
    for split, count, first in (("train", train, 0), ("test", test, 1000)):
        items = []
        for number in range(first, first + count):
            colour, place, emotion = scene(rng)
            write_clip(root / "videos" / f"{number}_1.mp4", colour, place)
            question = f"<video>\nExplain why the emotion of this statement is {emotion} <Ann: Look at that>"
            said = [{"from": "human", "value": question}, {"from": "gpt", "value": answer(colour, place, emotion)}]
            items.append({"id": number, "video": f"{number}_1.mp4", "conversations": said})
        (root / f"{split}_data_just_reason.json").write_text(json.dumps(items), encoding="utf-8")
    return root


def lesson(rng: random.Random) -> Lesson:
    colour, place, emotion = scene(rng)
    query = CauseQuery(
        (Utterance("Bob", "What now"),), Utterance("Ann", "Look at that"), emotion,
        (FaceExpression("Bob", "neutral", round(rng.uniform(0.5, 0.9), 2)),),
    )  # fmt: skip
    return Lesson(query, (f"{colour} ball {place}",) * 3, answer(colour, place, emotion))


def lessons(folder: Path, *, train: int = 24, val: int = 6) -> Path:
    rng = random.Random(1)
    write_lessons(folder, "train", [lesson(rng) for _ in range(train)])
    write_lessons(folder, "val", [lesson(rng) for _ in range(val)])
    return folder


def recipe(task: str, out: Path, data: tuple[str, Path], **changes) -> Recipe:
    """A recipe of few steps."""
    values = {
        "task": task, "network": {"name": task, "preset": "toy"}, "data": {"name": data[0], "root": str(data[1])},
        "optimiser": {"lr": 3e-3}, "schedule": {"name": "cosine", "warmup": 0.03}, "epochs": 1, "batch": 4,
        "evaluate": {"split": "test", "every": 0}, "out": str(out), "seed": 1,
    }  # fmt: skip
    for name, value in changes.items():
        values[name] = {**values[name], **value} if isinstance(values.get(name), dict) else value
    return from_dict(values)
