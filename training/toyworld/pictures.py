"""Single pictures of the toy world: what AffectNet and pairs of pictures and words are to real networks.

Faces with what they show, in folders by class, and scenes of dialogues with a sentence that says what happens, as
``labels.csv``. People are others than those of the worlds of other seeds; nobody's name or feeling is told.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from emo_models.preprocess import POSES_112, align_face, resize
from training.toyworld.actions import Stance
from training.toyworld.clips import ClipOptions, person
from training.toyworld.expressions import express, table
from training.toyworld.head import Pose
from training.toyworld.scene import Actor, Scene, render
from training.toyworld.script import NEUTRAL, TO_MAFW, Event, Line, Script
from training.toyworld.stage import play_script
from training.toyworld.things import PLACES
from training.toyworld.units import at_rest, whole_face

#: Shares of neutral faces, of talking ones, and of pictures for the test, whose people are others.
QUIET, TALKING, TEST = 0.3, 0.4, 0.1
#: An expression on its way is weaker than at its apex.
WEAKEST: Final = 0.6
CAST: Final = 3
#: The table of the scenes, as ``training.tasks.pictures`` reads it.
TABLE: Final = "labels.csv"
#: What happens -> words for it.
SCENES: Final = {"fall": "{} fell down", "show": "{} held up", "come": "{} came in", "": "people talk"}
#: Height of a scene in pixels, and images of each.
EDGE, FRAMES = 112, 4


def write_faces(out: Path, seed: int, pictures: int) -> dict[str, int]:
    """Write ``out/{train,test}/CLASS/N.png``, 112 pixels, aligned as DDAMFN's; returns how many of each class.

    The same seed makes the same pictures.
    """
    counts: dict[str, int] = {}
    number = 0
    while number < pictures:
        rng = np.random.default_rng([seed, 7, number])
        split = "test" if rng.random() < TEST else "train"
        emotions = [str(rng.choice(list(TO_MAFW.values()))) if rng.random() > QUIET else NEUTRAL for _ in range(CAST)]
        image, points = _group(rng, seed, emotions, held_out=split == "test")
        for emotion, five in zip(emotions, points, strict=True):
            folder = out / split / emotion
            folder.mkdir(parents=True, exist_ok=True)
            face = align_face(image, five, 112, POSES_112)
            cv2.imwrite(str(folder / f"{number:05d}.png"), cv2.cvtColor(face, cv2.COLOR_RGB2BGR))
            counts[emotion] = counts.get(emotion, 0) + 1
            number += 1
    return counts


def _group(
    rng: np.random.Generator, seed: int, emotions: Sequence[str], *, held_out: bool
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """A picture of people side by side, and the five points of each face [n, 5, 2]."""
    options = ClipOptions()
    width, height = options.size_wh
    actors = []
    for place, emotion in enumerate(emotions):
        middle = (place - (len(emotions) - 1) / 2) * width * 0.29
        home = Pose(
            width / 2 + middle, height * float(rng.uniform(0.34, 0.44)), height / 240 * float(rng.uniform(18.0, 21.5)),
            yaw=float(rng.normal(0, 10)), pitch=float(rng.normal(0, 4)), roll=float(rng.normal(0, 4)),
        )  # fmt: skip
        apex = at_rest() if emotion == NEUTRAL else whole_face(express(rng, emotion)) * rng.uniform(WEAKEST, 1)
        talk = float(rng.uniform(0.2, 1)) if rng.random() < TALKING else 0.0
        who = person(seed, rng, options, held_out=held_out)
        actors.append(Actor(who, home, apex[None], np.array([talk]), (Stance(),), gaze=float(rng.uniform(-0.5, 0.5))))
    light, place_name = float(rng.uniform(0.7, 1.12)), PLACES[rng.integers(len(PLACES))]
    scene = Scene(place_name, tuple(actors), options.size_wh, (seed, 8, int(rng.integers(1 << 31))), light, noise=1.5)
    images, faces = render(scene)
    return images[0], np.stack([face.points[0] for face in faces])


def write_scenes(out: Path, seed: int, pictures: int) -> int:
    """Write ``out/N.png``, :data:`EDGE` pixels high, and ``labels.csv``; returns how many different captions there are.

    The same seed makes the same pictures.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, str, str]] = []
    number = 0
    while len(rows) < pictures:
        rng = np.random.default_rng([seed, 9, number])
        split = "test" if rng.random() < TEST else "train"
        script = _moment(rng)
        played = play_script(rng, script, seed, number, ClipOptions(), held_out=split == "test")
        for image in played.images:
            name = f"{len(rows):05d}.png"
            small = resize(image, (EDGE, EDGE * image.shape[1] // image.shape[0]), "bicubic")
            cv2.imwrite(str(out / name), cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
            rows.append((name, split, told(script.lines[0].event)))
        number += 1
    with (out / TABLE).open("w", encoding="utf-8", newline="") as file:
        table_writer = csv.writer(file)
        table_writer.writerow(("image", "split", "caption"))
        table_writer.writerows(rows)
    return len({caption for _, _, caption in rows})


def told(event: Event | None) -> str:
    """What is to be seen, in words."""
    return SCENES[""] if event is None else SCENES[event.what].format(event.thing)


def _moment(rng: np.random.Generator) -> Script:
    """A script of one line, in which something of :func:`write_script` happens or nothing does."""
    cast = int(rng.integers(2, 4))
    names = tuple(str(name) for name in rng.choice(table("dialogues")["names"], cast, replace=False))
    seen = sorted({text for choices in table("dialogues")["visible"].values() for text in choices})
    event = None
    if rng.random() > QUIET:
        what, thing = seen[rng.integers(len(seen))].split()
        event = Event(what, thing, int(rng.integers(cast)))
    emotions = [NEUTRAL, *TO_MAFW]
    line = Line(int(rng.integers(cast)), "", emotions[rng.integers(len(emotions))], 0, FRAMES, event)
    return Script(names, [line])
