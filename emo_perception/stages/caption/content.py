"""What of the evidence is worth saying about one person: actions in order of time, and a feeling.

Confidence of what is said of one person::

    face * seen * (1 - (1 - E) * (1 - A)) * (0.7 if feeling and actions contradict each other)

with ``face`` the mean confidence of the face, ``seen`` = min(1, seconds seen, frames / 5), ``E`` the mean probability
of the emotion said (the sum for "surprised or afraid"; 0 if none is said) and ``A`` the mean peak intensity of the
actions said (0 if none): two witnesses, either of which may be right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Final

from emo_models.labels import NEUTRAL
from emo_perception.stages.caption.evidence import EYELID_AUS, Event, Person, strongest
from emo_perception.stages.caption.lexicon import MOUTH_AUS, PHRASES, SPEAKING, SPEAKING_AUS, Phrase
from emo_perception.types import NS_PER_S, Side

#: A movement must last this long to be an expression; of the mouth longer, or it may be the start of a word; closed
#: eyes longer, or they only blink.
LEAST_NS: Final = int(0.2 * NS_PER_S)
LEAST_MOUTH_NS: Final = int(0.4 * NS_PER_S)
LEAST_CLOSED_NS: Final = int(0.7 * NS_PER_S)
#: While the mouth speaks, a movement of the mouth counts only from here; an open mouth always.
LEAST_SPEAKING_NS: Final = int(0.6 * NS_PER_S)
#: Units of one phrase set in within this time of each other; so do movements that are told as simultaneous.
TOGETHER_NS: Final = int(1.0 * NS_PER_S)
#: A movement that comes back sooner than this after it ended is the same news.
QUIET_NS: Final = 2 * NS_PER_S
#: Speech pauses longer, and is news less.
QUIET_SPEAKING_NS: Final = 10 * NS_PER_S
#: Strength: slight below the first, strong from the second. A told movement is news again when it grows by RISE.
LEVELS: Final = (0.4, 0.7)
RISE: Final = 0.25

#: Probability from which an emotion "clearly looks", "looks", "seems"; a neutral face is said from NEUTRAL_SAID.
CLEARLY, LOOKS, SEEMS, NEUTRAL_SAID = 0.75, 0.5, 0.35, 0.6
#: Two emotions are both named when the second reaches SECOND and is within CLOSE of the first.
SECOND, CLOSE = 0.2, 0.2
#: The emotion told stays while it has this probability and none is ahead of it by more than HELD_MARGIN.
HELD, HELD_MARGIN, NEUTRAL_HELD = 0.3, 0.1, 0.4
#: A new emotion that is clear for this long counts at once.
FRESH_NS: Final = NS_PER_S // 2
#: Faces are seen at least this long before a neutral one is called so.
NEUTRAL_SEEN_NS: Final = int(0.9 * NS_PER_S)

_NOT_UNPLEASANT: Final = frozenset({NEUTRAL, "happy", "surprised", "amazed", "excited", "asleep", "tired", "bored"})
_SMILES: Final = frozenset({"smile", "smile_cheeks"})
#: Phrases that speak against happiness.
_GLOOMY: Final = frozenset(
    {"glare", "frown", "frown_squint", "brows_oblique", "grimace", "nose", "nose_and_lip", "lip_corners_down"}
)  # fmt: skip


@dataclass(frozen=True)
class Proof:
    """What proves a phrase for one person: an action unit, an emotion, or (neither) the track itself."""

    track_id: int
    intensity: float
    frames_ns: tuple[int, ...]
    au: int = 0
    side: Side = Side.BOTH
    emotion: str = ""


@dataclass(frozen=True)
class Action:
    """Something the face does. ``level``: 0 slight, 1 plain, 2 strong; ``news``: not told before.

    ``since_ns``: when it began; ``onset_ns``: the same, or the start of the window for what began before.
    """

    phrase: Phrase
    level: int
    side: Side
    since_ns: int
    onset_ns: int
    end_ns: int
    peak: float
    proofs: tuple[Proof, ...]
    news: bool = True
    again: bool = False


@dataclass(frozen=True)
class Feeling:
    """The emotion of a face: one name, or two that are close. ``mode``: clearly, look, seem, keep (neutral).

    ``change``: grow, now (after another), still, back (to neutral), or empty.
    """

    names: tuple[str, ...]
    probability: float
    mode: str
    proofs: tuple[Proof, ...]
    change: str = ""
    news: bool = True
    contradicts: bool = False


@dataclass
class ToldUnit:
    """The last that was said of one action unit (0: speaking)."""

    level: int
    peak: float
    end_ns: int


@dataclass
class Told:
    """What has been said of one person."""

    units: dict[int, ToldUnit] = field(default_factory=dict)
    feeling: tuple[str, ...] = ()
    present: bool = False


@dataclass(frozen=True)
class Account:
    """All that is said of one person in one sentence. ``place``: "on the left", or empty for the only person; ``x``: px."""

    track_id: int
    confidence: float
    actions: tuple[Action, ...] = ()
    feeling: Feeling | None = None
    arrives: Proof | None = None
    leaves: Proof | None = None
    at_edge: bool = False
    place: str = ""
    x: float = 0.0

    @property
    def news(self) -> bool:
        feeling = self.feeling is not None and self.feeling.news
        return feeling or any(a.news for a in self.actions) or self.arrives is not None or self.leaves is not None

    @property
    def says_something(self) -> bool:
        return bool(self.actions) or self.feeling is not None or self.arrives is not None

    @property
    def expressiveness(self) -> float:
        """Who is described first when there are too many: movement and emotion away from neutral."""
        felt = self.feeling.probability if self.feeling and self.feeling.names[0] != NEUTRAL else 0.0
        return felt + max((a.peak for a in self.actions), default=0.0)


def level_of(peak: float) -> int:
    """0 slight, 1 plain, 2 strong."""
    return sum(peak >= bound for bound in LEVELS)


def actions_of(person: Person, start_ns: int, threshold: float) -> list[Action]:
    """What the face does within the window, each action unit in at most one phrase, in order of onset."""
    events, actions = _worth_saying(person), _speaking(person, threshold)
    for phrase in PHRASES:
        parts = [events[au] for au in phrase.aus if au in events]
        if len(parts) < len(phrase.aus) or not _together(parts, start_ns):
            continue
        if phrase.context and phrase.context.isdisjoint(_reading(person, parts, events)):
            continue
        actions.append(_action(phrase, parts, person.track_id, start_ns))
        for au in phrase.aus:
            del events[au]
        for au in phrase.absorbs & events.keys():
            if _overlap(events[au], parts[0]):
                del events[au]
    return sorted(actions, key=lambda a: (a.onset_ns, -a.peak))


def _worth_saying(person: Person) -> dict[int, Event]:
    """The latest event of each action unit that is neither a twitch, a blink nor articulation."""
    utterances = [(run[0][0], run[-1][0]) for run in person.mouth.utterances()]
    found: dict[int, Event] = {}
    for au, events in person.events.items():
        for event in events:
            length = event.end_ns - event.onset_ns
            articulating = au in MOUTH_AUS and any(s < event.end_ns and event.onset_ns < e for s, e in utterances)
            if length >= _least_ns(au, articulating=articulating) and not (articulating and au in SPEAKING_AUS):
                found[au] = event
    return found


def _least_ns(au: int, *, articulating: bool) -> int:
    if au in EYELID_AUS:
        return LEAST_CLOSED_NS
    if articulating or au in SPEAKING_AUS:
        return LEAST_SPEAKING_NS
    return LEAST_MOUTH_NS if au in MOUTH_AUS else LEAST_NS


def _speaking(person: Person, threshold: float) -> list[Action]:
    runs = person.mouth.utterances()
    if not runs:
        return []
    turns = runs[-1]
    _, au, peak = max(turns, key=lambda t: (t[2], -t[0]))
    if peak < threshold:
        return []
    frames = strongest((t[0], t[2]) for t in turns if t[1] == au and t[2] >= threshold)
    proof = Proof(person.track_id, peak, frames, au)
    start_ns, end_ns = turns[0][0], turns[-1][0]
    return [Action(SPEAKING, 1, Side.BOTH, start_ns, start_ns, end_ns, peak, (proof,))]


def _overlap(a: Event, b: Event) -> bool:
    return a.onset_ns <= b.end_ns and b.onset_ns <= a.end_ns


def _together(parts: list[Event], start_ns: int) -> bool:
    """Whether the events overlap and set in together; what began before the window began together."""
    onsets = [max(p.onset_ns, start_ns) for p in parts]
    return max(onsets) - min(onsets) <= TOGETHER_NS and all(_overlap(a, b) for a, b in combinations(parts, 2))


def _reading(person: Person, parts: list[Event], events: Mapping[int, Event]) -> frozenset[str]:
    """How the whole face reads while these events last: happy, unpleasant, angry.

    The lip corners are pulled in anger and pain too; with a lowered brow or wrinkled nose it is a smile only if the
    expression network is sure of happiness.
    """
    probabilities, _ = person.mean_probabilities(parts[0].onset_ns, parts[0].end_ns)
    happy, angry = probabilities.get("happy", 0.0), probabilities.get("angry", 0.0)
    unpleasant = sum(p for name, p in probabilities.items() if name not in _NOT_UNPLEASANT)
    tense = any(_overlap(events[au], parts[0]) for au in (4, 9) if au in events)
    readings = set()
    one_sided = parts[0].side is not Side.BOTH
    if not one_sided and (happy >= 0.7 if tense else happy >= max(0.25, unpleasant / 2)):
        readings.add("happy")
    if unpleasant >= 0.4 or tense:
        readings.add("unpleasant")
    if angry >= 0.4:
        readings.add("angry")
    return frozenset(readings)


def _action(phrase: Phrase, parts: list[Event], track_id: int, start_ns: int) -> Action:
    proofs = tuple(Proof(track_id, p.peak, p.proof(), p.au, p.side) for p in parts)
    sides = {p.side for p in parts}
    side = sides.pop() if len(sides) == 1 else Side.BOTH
    since, end = min(p.onset_ns for p in parts), max(p.end_ns for p in parts)
    level = level_of(parts[0].peak)
    return Action(phrase, level, side, since, max(start_ns, since), end, parts[0].peak, proofs)


def with_news(actions: list[Action], told: Told) -> list[Action]:
    """Mark what was not told before, and let told movements that go on stay told.

    What counts is the leading unit of a phrase: cheeks that join a smile are no news.
    """
    marked = []
    for action in actions:
        unit = told.units.get(_key(action))
        quiet_ns = QUIET_SPEAKING_NS if action.phrase is SPEAKING else QUIET_NS
        again = unit is not None and action.since_ns > unit.end_ns + quiet_ns
        stronger = unit is not None and action.level > unit.level and action.peak >= unit.peak + RISE
        if unit is not None and not again:
            unit.end_ns = max(unit.end_ns, action.end_ns)
        marked.append(
            replace(action, news=unit is None or again or stronger, again=again and action.phrase is not SPEAKING)
        )
    return marked


def _key(action: Action) -> int:
    return 0 if action.phrase is SPEAKING else action.proofs[0].au


def remember(told: Told, account: Account) -> None:
    """Note that an account was said."""
    for action in account.actions:
        for key in {_key(action), *(p.au for p in action.proofs if action.phrase is not SPEAKING)}:
            told.units[key] = ToldUnit(action.level, action.peak, action.end_ns)
    if account.feeling is not None:
        told.feeling = account.feeling.names
    told.present = True


def names_of(probabilities: Mapping[str, float], held: tuple[str, ...]) -> tuple[str, ...]:
    """The one or two emotions that the probabilities support, or none; ``held``: those told last, which are kept."""
    if not probabilities:
        return ()
    ranked = sorted(probabilities.items(), key=lambda item: (-item[1], item[0]))
    best = ranked[0][1]
    if held and probabilities.get(held[0], 0.0) >= max(HELD, best - HELD_MARGIN) and held[0] != NEUTRAL:
        first = held[0]
    elif ranked[0][0] == NEUTRAL:
        return (NEUTRAL,) if best >= (NEUTRAL_HELD if NEUTRAL in held else LOOKS) else ()
    else:
        first = ranked[0][0]
    p_first = probabilities[first]
    others = [(name, p) for name, p in ranked if name not in (first, NEUTRAL)]
    second, p_second = others[0] if others else ("", 0.0)
    close = p_second >= SECOND and abs(p_first - p_second) < CLOSE and p_first < NEUTRAL_SAID
    if first not in held and probabilities.get(NEUTRAL, 0.0) > p_first - HELD_MARGIN:
        return ()
    if close and p_first + p_second >= LOOKS:
        opposed = "happy" in (first, second) and not {first, second} <= _NOT_UNPLEASANT
        return () if opposed else (first, second)
    return (first,) if p_first >= SEEMS or first in held else ()


def feeling_of(person: Person, told: Told, start_ns: int, actions: list[Action]) -> Feeling | None:
    """The emotion of the newer half of the window, or of its last moment if that is clear.

    It is set against what was told and what the face does.
    """
    middle_ns = min((start_ns + person.last_ns) // 2, person.last_ns - NS_PER_S)
    probabilities, samples = person.mean_probabilities(middle_ns, person.last_ns)
    fresh, fresh_samples = person.mean_probabilities(person.last_ns - FRESH_NS, person.last_ns)
    newest = max(fresh, key=lambda name: fresh[name], default=NEUTRAL)
    if newest != NEUTRAL and fresh[newest] >= CLEARLY and probabilities[newest] < LOOKS:
        probabilities, samples = fresh, fresh_samples
    names = names_of(probabilities, told.feeling)
    if not names:
        return None
    total = sum(probabilities[n] for n in names)
    proofs = []
    for name in names:
        column = person.labels.index(name)
        frames = strongest((s.stamp_ns, float(s.probabilities[column])) for s in samples)
        proofs.append(Proof(person.track_id, probabilities[name], frames, emotion=name))
    news = names[0] not in told.feeling
    feeling = Feeling(names, total, _mode(names, total), tuple(proofs), news=news)
    if names[0] == NEUTRAL:
        return _neutral(feeling, person, told, actions)
    feeling = replace(feeling, change=_change(person, names[0], told, news=news, start_ns=start_ns))
    return _reconciled(feeling, actions)


def _mode(names: tuple[str, ...], probability: float) -> str:
    if names[0] == NEUTRAL:
        return "keep"
    if len(names) == 2 or probability < LOOKS:
        return "seem"
    return "clearly" if probability >= CLEARLY else "look"


def _neutral(feeling: Feeling, person: Person, told: Told, actions: list[Action]) -> Feeling | None:
    """A neutral face is said when it is sure, seen long enough, and nothing moves in it."""
    moving = any(a.news or a.end_ns >= person.last_ns - LEAST_NS for a in actions)
    unsure = feeling.news and feeling.probability < NEUTRAL_SAID
    if moving or unsure or person.seen_ns < NEUTRAL_SEEN_NS:
        return None
    changed = bool(told.feeling) and feeling.news
    return replace(feeling, change="back" if changed else "")


def _change(person: Person, name: str, told: Told, *, news: bool, start_ns: int) -> str:
    if not news:
        return "still"
    if told.feeling and told.feeling != (NEUTRAL,):
        return "now"
    third_ns = (person.last_ns - start_ns) // 3
    before, _ = person.mean_probabilities(start_ns, start_ns + third_ns)
    after, _ = person.mean_probabilities(person.last_ns - third_ns, person.last_ns)
    rise = after.get(name, 0.0) - before.get(name, 1.0)
    return "grow" if rise >= RISE and before.get(name, 1.0) < SEEMS else ""


def _reconciled(feeling: Feeling, actions: list[Action]) -> Feeling | None:
    """Hedge a sure emotion that the movements contradict; leave out an unsure one."""
    keys = {a.phrase.key for a in actions}
    against_happy = feeling.names[0] == "happy" and bool(keys & _GLOOMY) and not keys & _SMILES
    against_other = feeling.names[0] not in _NOT_UNPLEASANT and any(
        a.phrase.key in _SMILES and a.end_ns >= feeling.proofs[0].frames_ns[0] for a in actions
    )
    if not (against_happy or against_other):
        return feeling
    if feeling.probability < LOOKS:
        return None
    return replace(feeling, mode="seem", change="", contradicts=True)


def confidence_of(person: Person, actions: tuple[Action, ...], feeling: Feeling | None) -> float:
    """As at the top of this file; with neither action nor feeling, how sure the face itself is."""
    face = sum(s.confidence for s in person.samples) / len(person.samples)
    seen = min(1.0, person.seen_ns / NS_PER_S, len(person.samples) / 5)
    if not actions and feeling is None:
        return face * seen
    emotion = feeling.probability if feeling else 0.0
    units = sum(a.peak for a in actions) / max(1, len(actions))
    doubt = 0.7 if feeling and feeling.contradicts else 1.0
    return min(1.0, face * seen * (1 - (1 - emotion) * (1 - units)) * doubt)
