"""Visible events out of emotion features: an expression that changes, a strong movement, people who come and go."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from emo_models.labels import NEUTRAL
from emo_perception.stages.caption.evidence import by_unit
from emo_perception.types import NS_PER_S, EmotionFeatures, FaceFeatures

#: An expression or a movement is believed once it lasted this long.
HOLD_NS: Final = int(0.4 * NS_PER_S)
#: It ends below this share of the value at which it began, so that a wobble at the threshold is one event.
OFF_SHARE: Final = 0.6
#: An event that goes on is told again, with its new end, this often.
TELL_NS: Final = NS_PER_S // 2
#: Seen for so long, a face is there; unseen for so long, it is gone.
PRESENT_NS: Final = NS_PER_S // 2
GONE_NS: Final = NS_PER_S
#: Who is there from the first second on has not come.
ARRIVAL_NS: Final = NS_PER_S
#: A face must have looked otherwise for this long for its expression to be a change.
BEFORE_NS: Final = NS_PER_S // 2

#: Action units that go with an expression (Ekman & Friesen, EMFACS), those that the start profile can measure first.
UNITS_OF: Final[dict[str, tuple[int, ...]]] = {
    "happy": (12, 6),
    "sad": (1, 15, 17, 4),
    "angry": (4, 7, 24, 10),
    "surprised": (5, 2, 1, 26),
    "scared": (5, 1, 20, 4),
    "disgusted": (10, 9, 4),
}
#: Action units whose strong onset is an event by itself; eyelids and jaw move in speech and blinks.
TELLING_UNITS: Final = frozenset({1, 2, 4, 5, 9, 10, 12, 15, 20})
STRONG_UNIT: Final = 0.6


class EventKind(str, Enum):
    """What was seen."""

    EXPRESSION = "expression"
    MOVEMENT = "movement"
    COMES = "comes"
    LEAVES = "leaves"


@dataclass(frozen=True, slots=True)
class VisibleEvent:
    """Something that one face did from ``start_ns`` to ``end_ns``.

    ``emotion``: what the expression turned to, ``before``: from what (empty: unknown); ``au``: the action unit that
    shows it most, 0 for none; ``score`` in [0, 1]: probability of the expression or intensity of the movement.
    """

    kind: EventKind
    track_id: int
    start_ns: int
    end_ns: int
    emotion: str = ""
    before: str = ""
    au: int = 0
    score: float = 0.0

    @property
    def key(self) -> tuple[str, int, int, int]:
        """The same event told again, with a later end, has the same key."""
        return (self.kind.value, self.track_id, self.start_ns, self.au if self.kind is EventKind.MOVEMENT else 0)


@dataclass
class _Run:
    """An expression or movement under way."""

    event: VisibleEvent
    told_ns: int = 0

    def goes_on(self, stamp_ns: int, score: float, au: int) -> VisibleEvent | None:
        """Take in one more frame; the event when it is time to tell it."""
        better = score > self.event.score
        best = (score, au or self.event.au) if better else (self.event.score, self.event.au or au)
        self.event = replace(self.event, end_ns=stamp_ns, score=best[0], au=best[1])
        due = self.told_ns + TELL_NS if self.told_ns else self.event.start_ns + HOLD_NS
        if stamp_ns < due:
            return None
        self.told_ns = stamp_ns
        return self.event


@dataclass
class _Face:
    """What is known of one track."""

    first_ns: int
    last_ns: int
    came: bool
    calm_since_ns: int
    was: str = ""
    expression: _Run | None = None
    movements: dict[int, _Run] | None = None
    present: bool = False


class EventFinder:
    """Emotion features, in order of their stamps -> events, new or told again with a later end.

    ``threshold``: least probability of an expression. Bounded by the number of faces in view.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.reset()

    def reset(self) -> None:
        """Forget everybody, as when time jumps back."""
        self._faces: dict[int, _Face] = {}
        self._first_ns: int | None = None

    def __call__(self, features: EmotionFeatures) -> list[VisibleEvent]:
        stamp_ns = features.stamp_ns
        if self._first_ns is None:
            self._first_ns = stamp_ns
        found: list[VisibleEvent] = []
        for face in features.faces:
            found += self._see(face, stamp_ns)
        for track_id, known in list(self._faces.items()):
            if track_id in features.expired or stamp_ns - known.last_ns >= GONE_NS:
                found += _ended(known)
                if known.present:
                    found.append(VisibleEvent(EventKind.LEAVES, track_id, known.last_ns, known.last_ns, score=1.0))
                del self._faces[track_id]
        return found

    def _see(self, face: FaceFeatures, stamp_ns: int) -> list[VisibleEvent]:
        track_id = face.track.track_id
        known = self._faces.get(track_id)
        if known is None:
            came = stamp_ns - (self._first_ns or stamp_ns) >= ARRIVAL_NS
            known = self._faces[track_id] = _Face(stamp_ns, stamp_ns, came, stamp_ns, movements={})
        known.last_ns = stamp_ns
        found = []
        if not known.present and stamp_ns - known.first_ns >= PRESENT_NS:
            known.present = True
            if known.came:
                found.append(VisibleEvent(EventKind.COMES, track_id, known.first_ns, known.first_ns, score=1.0))
        units = {au: intensity for au, (intensity, _) in by_unit(face.action_units).items()}
        found += self._expression(known, face, units, stamp_ns)
        found += _movements(known, track_id, units, stamp_ns)
        return found

    def _expression(
        self, known: _Face, face: FaceFeatures, units: dict[int, float], stamp_ns: int
    ) -> list[VisibleEvent]:
        scores = dict(zip(face.emotion.labels, face.emotion.probabilities.tolist(), strict=True))
        best = max(scores, key=lambda name: scores[name], default=NEUTRAL)
        run, found = known.expression, []
        if run is not None and (
            scores.get(run.event.emotion, 0.0) < self.threshold * OFF_SHARE or best not in (run.event.emotion, NEUTRAL)
        ):
            found += [run.event] if run.told_ns else []
            known.was, known.calm_since_ns = run.event.emotion if run.told_ns else known.was, stamp_ns
            known.expression = run = None
        if run is None and best != NEUTRAL and scores[best] >= self.threshold:
            rested = stamp_ns - known.calm_since_ns >= BEFORE_NS
            before = NEUTRAL if rested else known.was
            event = VisibleEvent(EventKind.EXPRESSION, face.track.track_id, stamp_ns, stamp_ns, best, before)
            known.expression = run = _Run(event)
        if run is not None:
            shown = [au for au in UNITS_OF.get(run.event.emotion, ()) if units.get(au, 0.0) > 0.2]
            au = max(shown, key=lambda number: units[number], default=0)
            told = run.goes_on(stamp_ns, scores[run.event.emotion], au)
            found += [told] if told else []
        return found


def _movements(known: _Face, track_id: int, units: dict[int, float], stamp_ns: int) -> list[VisibleEvent]:
    runs, found = known.movements or {}, []
    for au in TELLING_UNITS & units.keys():
        run, intensity = runs.get(au), units[au]
        if run is not None and intensity < STRONG_UNIT * OFF_SHARE:
            found += [run.event] if run.told_ns else []
            del runs[au]
        elif run is not None or intensity >= STRONG_UNIT:
            run = runs.setdefault(
                au, _Run(VisibleEvent(EventKind.MOVEMENT, track_id, stamp_ns, stamp_ns, au=au, score=intensity))
            )
            told = run.goes_on(stamp_ns, intensity, au)
            found += [told] if told else []
    known.movements = runs
    return found


def _ended(known: _Face) -> list[VisibleEvent]:
    runs = [known.expression, *(known.movements or {}).values()]
    return [run.event for run in runs if run is not None and run.told_ns]
