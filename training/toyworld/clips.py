"""Single clips with captions: what is chosen by chance for clip n of a world, and how it becomes pictures and truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from training.toyworld.actions import ACTIONS, NEEDED
from training.toyworld.captions import Story, write_caption
from training.toyworld.expressions import EMOTIONS, blend, express
from training.toyworld.head import Pose
from training.toyworld.identity import FIRST_HELD_OUT, Identity, make_identity
from training.toyworld.pen import Image
from training.toyworld.scene import OCCLUSIONS, Actor, Scene, act, render
from training.toyworld.things import PLACES
from training.toyworld.truth import CaptionTruth, ClipTruth
from training.toyworld.units import Activation, at_rest, envelope, movement, whole_face

NEUTRAL: Final = "neutral"


@dataclass(frozen=True)
class ClipOptions:
    """How clips are made. ``size_wh`` px, even; ``seconds``: mean length; ``people``: identities in training, and
    ``held_out_people`` besides in the tests only; ``neutral``, ``compound``: shares of the clips; ``references``:
    captions of a test clip; ``scale``: half width of the subject's head in px at 240 px of height, from and to."""

    size_wh: tuple[int, int] = (320, 240)
    fps: int = 10
    seconds: float = 2.0
    people: int = 60
    held_out_people: int = 20
    neutral: float = 0.08
    compound: float = 0.08
    references: int = 3
    scale: tuple[float, float] = (21.0, 26.0)

    def __post_init__(self) -> None:
        if min(self.size_wh) < 96 or any(edge % 2 for edge in self.size_wh):
            raise ValueError(f"size: expected even numbers of at least 96 pixels, got {self.size_wh}; as 320x240")
        if self.fps < 1 or self.seconds * self.fps < 4:
            raise ValueError(f"expected clips of at least 4 frames, got {self.seconds:g} s at {self.fps} fps")
        if min(self.people, self.held_out_people) < 2 or self.people > FIRST_HELD_OUT:
            raise ValueError(f"people: expected 2 to {FIRST_HELD_OUT}, got {self.people} and {self.held_out_people}")


def person(seed: int, rng: np.random.Generator, options: ClipOptions, *, held_out: bool) -> Identity:
    """Somebody of training, or somebody whom training never sees."""
    number = int(rng.integers(options.held_out_people if held_out else options.people))
    return make_identity(seed, FIRST_HELD_OUT + number if held_out else number)


def make_clip(seed: int, number: int, split: str, options: ClipOptions) -> tuple[list[Image], ClipTruth]:
    """Clip ``number`` of the world ``seed``: its images and its truth. ``split``: ``train`` or ``test``."""
    rng = np.random.default_rng([seed, 2, number])
    held_out = split != "train"
    emotions = _emotions(rng, options)
    apex = express(rng, emotions[0])
    if len(emotions) > 1:
        apex = blend(apex, express(rng, emotions[1]))
    frames = max(4, round(options.fps * options.seconds * rng.uniform(0.8, 1.2)))
    action = tuple(ACTIONS)[rng.integers(len(ACTIONS))]
    things = NEEDED.get(action, ("",))
    thing = things[rng.integers(len(things))]
    place = PLACES[rng.integers(len(PLACES))]
    subject = _subject(
        rng, person(seed, rng, options, held_out=held_out), apex, emotions[0], frames=frames, options=options
    )
    subject = replace(subject, stances=act(action, frames), thing=thing)
    others = _bystanders(rng, seed, subject, frames, options, held_out=held_out)
    scene = Scene(
        place, (subject, *others), options.size_wh, (seed, 3, number), light=float(rng.uniform(0.62, 1.15)),
        tint=tuple(rng.uniform(0.9, 1.08, 3)), slope=float(rng.uniform(-0.25, 0.25)), noise=float(rng.uniform(0.5, 3)),
    )  # fmt: skip
    images, faces = render(scene)
    story = Story(subject.who, others[0].who if others else None, action, thing, place, emotions[0], whole_face(apex))
    truth = ClipTruth(
        f"{number:05d}", split, options.fps, options.size_wh, emotions, action, thing, place, scene.light,
        subject.occlusion, faces, _captions(rng, story, split, options), np.full(frames, -1, np.int64),
    )  # fmt: skip
    return images, truth


def _emotions(rng: np.random.Generator, options: ClipOptions) -> tuple[str, ...]:
    if rng.random() < options.neutral:
        return (NEUTRAL,)
    feelings = [emotion for emotion in EMOTIONS if emotion != NEUTRAL]
    count = 2 if rng.random() < options.compound else 1
    return tuple(feelings[i] for i in rng.choice(len(feelings), count, replace=False))


def _captions(rng: np.random.Generator, story: Story, split: str, options: ClipOptions) -> tuple[CaptionTruth, ...]:
    """One for training; for a test the first in wordings of training, the others in wordings that it lacks."""
    if story.emotion == NEUTRAL:
        return ()
    if split == "train":
        return (write_caption(rng, story, held_out=False),)
    return tuple(write_caption(rng, story, held_out=place > 0) for place in range(options.references))


def _subject(
    rng: np.random.Generator, who: Identity, apex: Activation, emotion: str, *, frames: int, options: ClipOptions
) -> Actor:
    width, height = options.size_wh
    scale = float(rng.uniform(*options.scale)) * height / 240
    home = Pose(
        width * float(rng.uniform(0.38, 0.56)), height * float(rng.uniform(0.36, 0.46)), scale,
        float(rng.normal(0, 10)), float(rng.normal(0, 5)), float(rng.normal(0, 4)),
    )  # fmt: skip
    moving = movement(rng, whole_face(apex), envelope(rng, frames))
    occlusion = str(rng.choice(OCCLUSIONS)) if rng.random() < 0.06 else ""
    return Actor(
        who, home, moving, np.zeros(frames), (), emotion=emotion, occlusion=occlusion,
        gaze=float(rng.uniform(-0.6, 0.6)), sway=float(rng.uniform(0.3, 1)),
    )  # fmt: skip


def _bystanders(
    rng: np.random.Generator, seed: int, subject: Actor, frames: int, options: ClipOptions, *, held_out: bool
) -> tuple[Actor, ...]:
    """Nobody, one or two people behind the subject, further away, with faces of their own."""
    height = options.size_wh[1]
    found: list[Actor] = []
    for side in (-1, 1)[: int(rng.choice(3, p=(0.5, 0.35, 0.15)))]:
        who = person(seed, rng, options, held_out=held_out)
        if who.number in (subject.who.number, *(actor.who.number for actor in found)):
            continue
        home = Pose(
            subject.home.x + side * float(rng.uniform(62, 90)) * height / 240, height * float(rng.uniform(0.3, 0.4)),
            subject.home.scale * float(rng.uniform(0.6, 0.75)), -side * float(rng.uniform(0, 25)),
        )  # fmt: skip
        emotion = EMOTIONS[rng.integers(len(EMOTIONS))] if rng.random() < 0.4 else NEUTRAL
        apex = whole_face(express(rng, emotion)) if emotion != NEUTRAL else at_rest()
        moving = movement(rng, apex, envelope(rng, frames))
        found.append(Actor(who, home, moving, np.zeros(frames), act("", frames), emotion=emotion, sway=0.5))
    return tuple(found)
