"""Dialogues of the toy world as pictures and sound: the script of :mod:`training.toyworld.script`, played."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.toyworld.actions import REST, Stance
from training.toyworld.clips import ClipOptions, person
from training.toyworld.expressions import express
from training.toyworld.head import Pose
from training.toyworld.identity import Identity
from training.toyworld.pen import Image
from training.toyworld.scene import Actor, Scene, render
from training.toyworld.script import NEUTRAL, TO_MAFW, Line, Script, write_script
from training.toyworld.things import PLACES
from training.toyworld.truth import FaceTruth
from training.toyworld.units import at_rest, movement, whole_face
from training.toyworld.video import SAMPLE_RATE_HZ

#: Frequency of the lowest voice of a cast and the step to the next, in Hz; syllables per second.
LOWEST_HZ, STEP_HZ, SYLLABLES_HZ = 110.0, 55.0, 4.0
Loose = tuple[tuple[str, float, float, float], ...]


@dataclass(frozen=True, eq=False)
class Played:
    """A dialogue that was played. ``sound``: mono samples; ``speaking`` [T]: place in the cast."""

    script: Script
    place: str
    light: float
    images: list[Image]
    faces: tuple[FaceTruth, ...]
    speaking: NDArray[np.int64]
    sound: NDArray[np.float32]


def play_dialogue(
    seed: int, number: int, options: ClipOptions, *, held_out: bool, seconds: float, distraction: float
) -> Played:
    """Dialogue ``number`` of the world ``seed``; ``held_out``: with people whom training does not see."""
    rng = np.random.default_rng([seed, 4, number])
    script = write_script(rng, options.fps, seconds, distraction=distraction)
    return play_script(rng, script, seed, number, options, held_out=held_out)


def play_script(
    rng: np.random.Generator, script: Script, seed: int, number: int, options: ClipOptions, *, held_out: bool
) -> Played:
    """A script with people and a place that are chosen by chance."""
    speaking = np.concatenate([np.full(line.end - line.start, line.speaker) for line in script.lines])
    place = PLACES[rng.integers(len(PLACES))]
    actors = tuple(
        _actor(rng, who, script, actor=actor, speaking=speaking, options=options)
        for actor, who in enumerate(_cast(seed, rng, len(script.names), options, held_out=held_out))
    )
    light = float(rng.uniform(0.75, 1.1))
    scene = Scene(
        place, actors, options.size_wh, (seed, 5, number), light, noise=1.5, loose=_loose(script, options.size_wh)
    )
    images, faces = render(scene)
    return Played(script, place, light, images, faces, speaking, _voices(speaking, options.fps))


def _cast(seed: int, rng: np.random.Generator, count: int, options: ClipOptions, *, held_out: bool) -> list[Identity]:
    found: dict[int, Identity] = {}
    while len(found) < min(count, options.held_out_people if held_out else options.people):
        who = person(seed, rng, options, held_out=held_out)
        found[who.number] = who
    return list(found.values())


def _actor(
    rng: np.random.Generator,
    who: Identity,
    script: Script,
    *,
    actor: int,
    speaking: NDArray[np.int64],
    options: ClipOptions,
) -> Actor:
    width, height = options.size_wh
    cast = len(script.names)
    middle = (actor - (cast - 1) / 2) * width * (0.26 if cast == 3 else 0.32)
    home = Pose(
        width / 2 + middle, height * float(rng.uniform(0.36, 0.42)), height / 240 * float(rng.uniform(18.5, 21)),
        yaw=-float(np.sign(middle)) * float(rng.uniform(4, 14)), pitch=float(rng.normal(0, 3)), roll=float(rng.normal(0, 3)),
    )  # fmt: skip
    frames = script.frames
    beat = np.abs(np.sin(np.pi * SYLLABLES_HZ * (np.arange(frames) + 0.5) / options.fps + actor))
    talk = np.where(speaking == actor, 0.35 + 0.65 * beat, 0.0)
    events = [line for line in script.lines if line.event is not None and _in_hand(line, actor)]
    stances = [Stance()] * frames
    for line in events:
        for frame in range(line.start, line.end):
            stances[frame] = _showing((frame - line.start + 0.5) / (line.end - line.start))
    thing = {line.event.thing for line in events if line.event is not None}
    return Actor(
        who, home, _feelings(rng, script, actor), talk, tuple(stances), next(iter(sorted(thing)), ""),
        script.names[actor], sway=float(rng.uniform(0.3, 0.8)),
    )  # fmt: skip


def _in_hand(line: Line, actor: int) -> bool:
    return line.event is not None and line.event.what == "show" and line.event.actor == actor


def _showing(moment: float) -> Stance:
    """A thing is raised before the chest and lowered again."""
    up = float(np.sin(np.pi * np.clip(moment, 0, 1)) ** 0.5)
    hand = (1.3, 4.4 - 1.7 * up)
    return Stance(hands=(REST[0], hand), thing=(hand[0] - 0.2, hand[1] - 0.4), size=0.9)


def _feelings(rng: np.random.Generator, script: Script, actor: int) -> NDArray[np.float64]:
    """Action units [T, 2, U] of one of the cast: what the script says, and nothing otherwise."""
    total = movement(rng, at_rest(), np.zeros(script.frames))
    for line in script.lines:
        shown = [line.emotion] if line.speaker == actor and line.emotion != NEUTRAL else []
        shown += [line.look.emotion] if line.look is not None and line.look.actor == actor else []
        for emotion in shown:
            # It comes up within the line and dies away behind it.
            length = line.end - line.start
            profile = np.zeros(script.frames)
            profile[line.start : line.end] = np.clip((np.arange(length) + 1) / max(2.0, 0.3 * length), 0, 1)
            profile[line.end : line.end + 3] = (0.6, 0.3, 0.1)[: max(0, min(3, script.frames - line.end))]
            total = np.maximum(total, movement(rng, whole_face(express(rng, TO_MAFW[emotion])), profile))
    return total


def _loose(script: Script, size_wh: tuple[int, int]) -> tuple[Loose, ...]:
    """Things that fall or walk by themselves, per frame: they fall or come in within the line and are gone behind it."""
    width, height = size_wh
    radius = height / 240 * 17
    seen: list[Loose] = [()] * script.frames
    for line in script.lines:
        if line.event is None or line.event.what == "show":
            continue
        for frame in range(line.start, line.end):
            moment = (frame - line.start + 0.5) / (line.end - line.start)
            seen[frame] = (*seen[frame], _path(line.event.what, line.event.thing, moment, (width, height), radius))
    return tuple(seen)


def _path(
    what: str, thing: str, moment: float, size_wh: tuple[int, int], radius: float
) -> tuple[str, float, float, float]:
    width, height = size_wh
    if what == "come":
        return thing, width * (0.95 - 0.5 * min(1.0, moment * 1.5)), height * 0.84, radius * 1.15
    fall = float(np.clip((moment - 0.15) / 0.4, 0, 1))
    return thing, width * 0.5, height * (0.12 + 0.76 * fall**2), radius


def _voices(speaking: NDArray[np.int64], fps: int) -> NDArray[np.float32]:
    """A hum per speaker, louder with every syllable as the mouth opens; what is said is in the transcript only."""
    count = len(speaking) * SAMPLE_RATE_HZ // fps
    time = np.arange(count) / SAMPLE_RATE_HZ
    who = speaking[np.minimum((time * fps).astype(np.int64), len(speaking) - 1)]
    pitch = LOWEST_HZ + STEP_HZ * who
    hum = sum(np.sin(2 * np.pi * pitch * harmonic * time) / harmonic for harmonic in range(1, 9))
    beat = np.abs(np.sin(np.pi * SYLLABLES_HZ * time + who))
    return np.asarray(0.12 * hum * (0.25 + 0.75 * beat), np.float32)


def cut(face: FaceTruth, start: int, end: int) -> FaceTruth:
    """The truth of a face from frame ``start`` to before ``end``."""
    part = slice(start, end)
    return replace(
        face, boxes_xywh=face.boxes_xywh[part], points=face.points[part], activations=face.activations[part],
        pose=face.pose[part], visible=face.visible[part], covered=face.covered[part],
    )  # fmt: skip
