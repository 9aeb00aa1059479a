"""What was measured, per person, within the window: events of action units, emotion samples, mouth movement.

Every frame is looked at once, on arrival; what lies before the window is dropped. Time is only the stamps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from emo_perception.stages.caption.lexicon import MOUTH_AUS, SPEAKING_AUS
from emo_perception.types import NS_PER_S, EmotionFeatures, FaceActionUnits, FaceFeatures, Side

#: An event ends below this share of the intensity at which it began, so that a wobble at the threshold is one event.
OFF_SHARE: Final = 0.6
#: A dip of an event shorter than this belongs to it; not for the mouth, whose movements follow each other in speech.
DIP_NS: Final = int(0.4 * NS_PER_S)
#: Mesh and neutral baseline of a new face are not settled for this long; what they claim is not believed.
SETTLING_NS: Final = int(0.3 * NS_PER_S)
#: Eyelids count as closed only from here: looking down and laughing half close them.
CLOSED_EYES: Final = 0.6
EYELID_AUS: Final = frozenset({43, 45})
#: Least change of the mouth's opening that counts as a movement, the longest pause between two of one utterance, and
#: how often the mouth opens in it at least.
SWING: Final = 0.12
SWING_PAUSE_NS: Final = int(0.7 * NS_PER_S)
SPEECH_OPENINGS: Final = 2
#: One side moves alone when it is this much stronger than the other on average.
ONE_SIDED: Final = 0.3
#: Stamps kept as proof of a phrase.
PROOF_FRAMES: Final = 5


@dataclass
class Event:
    """One action unit above its threshold; ``frames``: (stamp_ns, intensity) within the window."""

    au: int
    onset_ns: int
    end_ns: int
    open: bool = True
    frames: deque[tuple[int, float]] = field(default_factory=deque)
    left_minus_right: float = 0.0
    two_sided_frames: int = 0

    @property
    def peak(self) -> float:
        return max(intensity for _, intensity in self.frames)

    @property
    def side(self) -> Side:
        mean = self.left_minus_right / self.two_sided_frames if self.two_sided_frames else 0.0
        if abs(mean) < ONE_SIDED:
            return Side.BOTH
        return Side.LEFT if mean > 0 else Side.RIGHT

    def proof(self) -> tuple[int, ...]:
        """Stamps that show it best, the peak first."""
        return strongest(self.frames)


def strongest(frames: Iterable[tuple[int, float]]) -> tuple[int, ...]:
    """Stamps of the strongest frames, the peak first; the earlier of equals first."""
    return tuple(stamp for stamp, _ in sorted(frames, key=lambda f: (-f[1], f[0]))[:PROOF_FRAMES])


@dataclass(frozen=True)
class Sample:
    """One frame of one face: ``probabilities`` float32 [C] of the emotions."""

    stamp_ns: int
    confidence: float
    probabilities: NDArray[np.float32]


@dataclass
class MouthMotion:
    """Turning points of the mouth's opening: speech opens and closes it several times a second."""

    turns: deque[tuple[int, int, float]] = field(default_factory=deque)  # (stamp_ns, au, opening)
    extreme: tuple[int, int, float] = (0, 0, 0.0)
    opening: bool = True

    def add(self, stamp_ns: int, au: int, value: float) -> None:
        """Follow the opening until it turns back by at least ``SWING``; then the extreme was a turning point."""
        further = value >= self.extreme[2] if self.opening else value <= self.extreme[2]
        if further:
            self.extreme = (stamp_ns, au, value)
        elif abs(value - self.extreme[2]) >= SWING:
            self.turns.append(self.extreme)
            self.extreme, self.opening = (stamp_ns, au, value), not self.opening

    def utterances(self) -> list[list[tuple[int, int, float]]]:
        """Runs of turning points without a long pause, in which the mouth opened often enough."""
        runs: list[list[tuple[int, int, float]]] = []
        for turn in self.turns:
            if runs and turn[0] - runs[-1][-1][0] <= SWING_PAUSE_NS:
                runs[-1].append(turn)
            else:
                runs.append([turn])
        return [run for run in runs if _openings(run) >= SPEECH_OPENINGS]


def _openings(run: list[tuple[int, int, float]]) -> int:
    """Maxima among alternating minima and maxima."""
    first_is_maximum = len(run) > 1 and run[0][2] > run[1][2]
    return (len(run) + first_is_maximum) // 2


def by_unit(units: FaceActionUnits) -> dict[int, tuple[float, float | None]]:
    """Action unit -> (intensity, left minus right or None): the two-sided value where given, else the stronger side."""
    values: dict[int, dict[Side, float]] = {}
    for au, side, intensity in zip(units.au, units.side, units.intensity.tolist(), strict=True):
        values.setdefault(au, {})[side] = intensity
    result: dict[int, tuple[float, float | None]] = {}
    for au, sides in values.items():
        left, right = sides.get(Side.LEFT, 0.0), sides.get(Side.RIGHT, 0.0)
        lateral = left - right if len(sides.keys() - {Side.BOTH}) else None
        one_sided = lateral is not None and abs(lateral) >= ONE_SIDED
        result[au] = (max(left, right) if one_sided else sides.get(Side.BOTH, max(left, right)), lateral)
    return result


@dataclass
class Person:
    """The history of one face within the window. ``box_xywh``: the newest box, px."""

    track_id: int
    first_ns: int
    labels: tuple[str, ...]
    last_ns: int = 0
    confidence: float = 0.0
    box_xywh: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    samples: deque[Sample] = field(default_factory=deque)
    events: dict[int, deque[Event]] = field(default_factory=dict)
    mouth: MouthMotion = field(default_factory=MouthMotion)
    ended: bool = False

    @property
    def seen_ns(self) -> int:
        """How long the face has been seen, from its first to its newest frame."""
        return self.last_ns - self.first_ns

    def add(self, face: FaceFeatures, stamp_ns: int, threshold: float) -> None:
        """Take in one frame of this face."""
        if self.labels != face.emotion.labels:
            self.labels, self.samples = face.emotion.labels, deque()
        x, y, w, h = (float(v) for v in face.track.box_xywh)
        self.box_xywh, self.last_ns, self.ended = (x, y, w, h), stamp_ns, False
        self.confidence = face.track.confidence
        self.samples.append(Sample(stamp_ns, face.track.confidence, face.emotion.probabilities))
        if self.seen_ns < SETTLING_NS:
            return
        units = by_unit(face.action_units)
        for au, (intensity, lateral) in units.items():
            self._follow(au, stamp_ns, intensity, lateral, max(threshold, CLOSED_EYES * (au in EYELID_AUS)))
        openings = [(units[au][0], au) for au in SPEAKING_AUS if au in units]
        if openings:
            value, au = max(openings)
            self.mouth.add(stamp_ns, au, value)

    def _follow(self, au: int, stamp_ns: int, intensity: float, lateral: float | None, on: float) -> None:
        events = self.events.setdefault(au, deque())
        event = events[-1] if events else None
        dip_ns = 0 if au in EYELID_AUS | MOUTH_AUS else DIP_NS
        if event is not None and event.open and intensity < on * OFF_SHARE:
            event.open = False
        if event is not None and not event.open and intensity >= on and stamp_ns - event.end_ns <= dip_ns:
            event.open = True
        if intensity >= on and (event is None or not event.open):
            event = Event(au, stamp_ns, stamp_ns)
            events.append(event)
        if event is not None and event.open:
            event.end_ns = stamp_ns
            event.frames.append((stamp_ns, intensity))
            if lateral is not None:
                event.left_minus_right += lateral
                event.two_sided_frames += 1

    def forget_before(self, start_ns: int) -> None:
        """Drop what lies before the window."""
        while self.samples and self.samples[0].stamp_ns < start_ns:
            self.samples.popleft()
        while self.mouth.turns and self.mouth.turns[0][0] < start_ns:
            self.mouth.turns.popleft()
        for events in self.events.values():
            for event in events:
                while event.frames and event.frames[0][0] < start_ns:
                    event.frames.popleft()
            while events and not events[0].frames:
                events.popleft()

    def mean_probabilities(self, start_ns: int, end_ns: int) -> tuple[dict[str, float], tuple[Sample, ...]]:
        """Mean of each emotion over the samples in ``[start_ns, end_ns]``, and those samples; empty without any."""
        chosen = tuple(s for s in self.samples if start_ns <= s.stamp_ns <= end_ns)
        if not chosen or not self.labels:
            return {}, ()
        mean: list[float] = np.asarray(np.mean([s.probabilities for s in chosen], axis=0, dtype=np.float64)).tolist()
        return dict(zip(self.labels, mean, strict=True)), chosen


class History:
    """Everybody seen within the window. Bounded by the window: ``people`` leave it when the stage removes them."""

    def __init__(self, window_ns: int, threshold: float) -> None:
        self.window_ns, self.threshold = window_ns, threshold
        self.people: list[Person] = []
        self.first_ns: int | None = None
        self.last_ns = 0
        self.frame_id = ""
        self.size_wh = (0, 0)

    @property
    def window_start_ns(self) -> int:
        return max(self.first_ns or 0, self.last_ns - self.window_ns)

    def add(self, features: EmotionFeatures) -> None:
        """Take in one frame; its stamp must be newer than all before."""
        if self.first_ns is None:
            self.first_ns = features.stamp_ns
        self.last_ns, self.frame_id, self.size_wh = features.stamp_ns, features.frame_id, features.size_wh
        for face in features.faces:
            self._person_of(face).add(face, features.stamp_ns, self.threshold)
        for person in self.people:
            person.ended |= person.track_id in features.expired
            person.forget_before(self.window_start_ns)

    def _person_of(self, face: FaceFeatures) -> Person:
        for person in self.people:
            if person.track_id == face.track.track_id:
                return person
        first_ns = min(face.track.first_seen_ns, self.last_ns)
        person = Person(face.track.track_id, first_ns, face.emotion.labels)
        self.people.append(person)
        return person
