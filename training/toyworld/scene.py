"""Drawing a scene: a place, people in it from the back to the front, light, noise, and what is true of every face."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from training.toyworld.actions import REST, Stance, stance
from training.toyworld.face import draw_head
from training.toyworld.head import Head, Pose, shape_head
from training.toyworld.identity import SHIRTS, Identity
from training.toyworld.pen import Image, disc, fill, line, mix
from training.toyworld.things import draw_place, draw_thing
from training.toyworld.truth import FaceTruth

#: Faces that are turned further away than this (degrees) do not count as visible.
TURNED: Final = 55.0
OCCLUSIONS: Final = ("hand", "hair")


@dataclass(frozen=True, eq=False)
class Actor:
    """A person over T frames. ``home``: the head at rest; ``activations`` [T, 2, U]; ``talk`` [T] 0 to 1: mouth;
    ``stances`` [T]; ``gaze`` -1 to 1; ``occlusion``: ``""`` or one of :data:`OCCLUSIONS`, before the face all the time."""

    who: Identity
    home: Pose
    activations: NDArray[np.float64]
    talk: NDArray[np.float64]
    stances: tuple[Stance, ...]
    thing: str = ""
    name: str = ""
    emotion: str = ""
    occlusion: str = ""
    gaze: float = 0.0
    sway: float = 0.0


@dataclass(frozen=True, eq=False)
class Scene:
    """A place and its people, the first one in front. ``loose``: things that nobody holds, per frame (name, x, y, radius)."""

    place: str
    actors: tuple[Actor, ...]
    size_wh: tuple[int, int]
    seed: tuple[int, ...]
    light: float = 1.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    slope: float = 0.0
    noise: float = 2.0
    loose: tuple[tuple[tuple[str, float, float, float], ...], ...] = field(default=())


def act(action: str, frames: int) -> tuple[Stance, ...]:
    """An action over a whole clip."""
    return tuple(stance(action, (number + 0.5) / frames) for number in range(frames))


def render(scene: Scene) -> tuple[list[Image], tuple[FaceTruth, ...]]:
    """RGB images [H, W, 3] and the truth about each actor's face."""
    rng = np.random.default_rng(scene.seed)
    width, height = scene.size_wh
    ground = np.zeros((height, width, 3), np.uint8)
    draw_place(ground, scene.place, rng)
    light = _light_map(scene)
    grains = [rng.normal(0, scene.noise, ground.shape).astype(np.int8) for _ in range(4)]
    images, heads = [], []
    for number in range(len(scene.actors[0].stances)):
        image = ground.copy()
        # Who is smaller is further away.
        order = sorted(range(len(scene.actors)), key=lambda place: scene.actors[place].home.scale)
        shaped = {place: _draw_actor(image, scene.actors[place], number) for place in order}
        for thing, x, y, radius in scene.loose[number] if scene.loose else ():
            draw_thing(image, thing, x, y, radius)
        heads.append([shaped[place] for place in range(len(scene.actors))])
        images.append(_expose(image, light, grains[number % 4]))
    return images, tuple(
        _face_truth(actor, [row[place] for row in heads], scene.size_wh) for place, actor in enumerate(scene.actors)
    )


def _light_map(scene: Scene) -> NDArray[np.uint8]:
    """Brightness per pixel and colour, 128 for unchanged."""
    width, height = scene.size_wh
    across = 1 + scene.slope * np.linspace(-1, 1, width)[None, :, None]
    shade = 128 * scene.light * across * np.array(scene.tint)
    return np.ascontiguousarray(np.clip(np.broadcast_to(shade, (height, width, 3)), 0, 255).astype(np.uint8))


def _expose(image: Image, light: NDArray[np.uint8], grain: NDArray[np.int8]) -> Image:
    lit = cv2.multiply(image, light, scale=1 / 128)
    return np.asarray(cv2.add(lit, grain, dtype=cv2.CV_8U), np.uint8)


def _draw_actor(image: Image, actor: Actor, number: int) -> Head:
    now = actor.stances[number]
    home = actor.home
    sway = actor.sway * float(np.sin(0.35 * number))
    pose = Pose(
        home.x + home.scale * (now.shift[0] + 0.04 * sway),
        home.y + home.scale * now.shift[1],
        home.scale,
        home.yaw + now.yaw + 3 * sway,
        home.pitch + now.pitch,
        home.roll + 1.5 * sway,
    )
    head = shape_head(actor.who, actor.activations[number], pose, talk=float(actor.talk[number]), gaze=actor.gaze)
    shirt = SHIRTS[actor.who.shirt]
    _draw_body(image, actor.who, pose, shirt)
    draw_head(image, actor.who, head, actor.activations[number])
    _draw_occlusion(image, actor, pose)
    for side, sign in ((0, -1), (1, 1)):
        _draw_arm(image, actor.who, pose, sign, now.hands[side])
    if actor.thing and now.thing is not None:
        x, y = _at(pose, now.thing)
        draw_thing(image, actor.thing, x, y, now.size * pose.scale)
    for side in (0, 1):
        if now.hands[side] != REST[side]:
            disc(image, *_at(pose, now.hands[side]), 0.3 * pose.scale, actor.who.skin)
    return head


def _at(pose: Pose, place: tuple[float, float]) -> tuple[float, float]:
    return pose.x + place[0] * pose.scale, pose.y + place[1] * pose.scale


def _draw_body(image: Image, who: Identity, pose: Pose, shirt: tuple[int, int, int]) -> None:
    neck = np.array([[-0.38, 0.8], [0.38, 0.8], [0.46, 1.75], [-0.46, 1.75]])
    torso = np.array(
        [[-0.5, 1.5], [0.5, 1.5], [1.35, 1.85], [1.6, 2.5], [1.25, 14.0], [-1.25, 14.0], [-1.6, 2.5], [-1.35, 1.85]]
    )
    middle = np.array([pose.x, pose.y])
    fill(image, middle + neck * pose.scale, mix(who.skin, who.shade, 0.25))
    fill(image, middle + torso * pose.scale, shirt)
    line(image, middle + torso * pose.scale, mix(shirt, (0, 0, 0), 0.4), closed=True)


def _draw_arm(image: Image, who: Identity, pose: Pose, sign: int, hand: tuple[float, float]) -> None:
    shoulder, end = np.array([sign * 1.4, 2.1]), np.array(hand)
    reach = float(np.linalg.norm(end - shoulder))
    bend = np.array([sign * 0.7, 0.5]) * max(0.0, 1 - reach / 3.2)
    elbow = (shoulder + end) / 2 + bend
    points = np.array([pose.x, pose.y]) + np.stack([shoulder, elbow, end]) * pose.scale
    shirt = SHIRTS[who.shirt]
    line(image, points, mix(shirt, (0, 0, 0), 0.4), 0.5 * pose.scale + 2)
    line(image, points, mix(shirt, (0, 0, 0), 0.12), 0.5 * pose.scale)
    disc(image, points[2, 0], points[2, 1], 0.28 * pose.scale, who.skin)


def _draw_occlusion(image: Image, actor: Actor, pose: Pose) -> None:
    if actor.occlusion == "hand":
        wrist, palm = (-1.2, 2.4), (-0.42, 0.62)
        line(image, np.array([_at(pose, wrist), _at(pose, palm)]), SHIRTS[actor.who.shirt], 0.42 * pose.scale)
        disc(image, *_at(pose, palm), 0.36 * pose.scale, mix(actor.who.skin, actor.who.shade, 0.15))
    elif actor.occlusion == "hair":
        strand = np.array([_at(pose, p) for p in ((-0.1, -1.15), (-0.85, -0.9), (-0.75, 0.15), (-0.5, 0.05))])
        fill(image, strand, actor.who.hair_colour)


def _face_truth(actor: Actor, heads: list[Head], size_wh: tuple[int, int]) -> FaceTruth:
    width, height = size_wh
    points = np.stack([head.landmarks() for head in heads])
    inside = ((points >= 0) & (points < (width, height))).all((1, 2))
    poses = np.array([[h.pose.yaw, h.pose.pitch, h.pose.roll] for h in heads])
    covered = [_covers(actor, now) for now in actor.stances]
    return FaceTruth(
        actor.who.name, actor.name, actor.emotion, np.array([h.box() for h in heads], np.float32),
        points.astype(np.float32), actor.activations.astype(np.float32), poses.astype(np.float32),
        inside & (np.abs(poses[:, 0]) < TURNED), np.array(covered, bool),
    )  # fmt: skip


def _covers(actor: Actor, now: Stance) -> bool:
    """Whether something is before the face: what is meant to be, or a thing that is lifted to it."""
    thing = (
        actor.thing != ""
        and now.thing is not None
        and np.hypot(now.thing[0], now.thing[1] - 0.2) < 0.9 + 0.5 * now.size
    )
    return bool(actor.occlusion) or bool(thing)
