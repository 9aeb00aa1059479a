"""One sentence that says why, with its evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from emo_models.labels import AU_NAMES
from emo_perception.memory import EventKind, Item, VisibleEvent
from emo_perception.stages.cause.features import Target
from emo_perception.types import NS_PER_S, CauseEvidence, Utterance

#: Further causes are evidence from this probability on.
WORTH_NAMING: Final = 0.15
MOST_CAUSES: Final = 3
QUOTE_CHARACTERS: Final = 90
#: The adjective of the only expression whose name is none.
_ADJECTIVES: Final = {"contempt": "contemptuous"}


def name_of(track_id: int, speaker: str, names: Mapping[int, str]) -> str:
    """How a person is called: by name where one is known, else by the number of the face."""
    return speaker or names.get(track_id, "") or (f"person {track_id}" if track_id else "somebody")


def quote(text: str) -> str:
    """The words in quotation marks, a long text cut between two words; it never contains such marks itself."""
    plain = " ".join(text.replace("“", "'").replace("”", "'").split())
    if len(plain) > QUOTE_CHARACTERS:
        plain = plain[:QUOTE_CHARACTERS].rsplit(" ", 1)[0] + " …"
    return f"“{plain}”"


def how_sure(confidence: float) -> str:
    """The word for a probability."""
    return "most likely" if confidence >= 0.75 else "probably" if confidence >= 0.5 else "perhaps"


def realise(
    target: Target,
    cause: Item,
    confidence: float,
    *,
    names: Mapping[int, str],
    shown: VisibleEvent | None,
    mismatch: VisibleEvent | None,
) -> str:
    """The sentence. ``shown``: what the face of the target did; ``mismatch``: the face that contradicts the cause's words."""
    who = name_of(target.track_id, target.speaker, names)
    face = f", shown by the {AU_NAMES[shown.au]} (AU {shown.au})," if shown is not None and shown.au else ""
    emotion = _ADJECTIVES.get(target.emotion, target.emotion)
    if target.utterance is None:
        opening = f"{who} looks {emotion}{face or ','}"
    elif cause == target.utterance:
        opening = f"{who} {'looks and sounds' if shown else 'sounds'} {emotion}{face or ','}"
    else:
        spoken = quote(target.utterance.text)
        opening = f"{who} {'looks and sounds' if shown else 'sounds'} {emotion} when saying {spoken}{face or ','}"
    other = _ADJECTIVES.get(mismatch.emotion, mismatch.emotion) if mismatch is not None else ""
    against = f", while looking {other}" if other else ""
    return f"{opening} {how_sure(confidence)} {_because(target, cause, names)}{against}."


def _because(target: Target, cause: Item, names: Mapping[int, str]) -> str:
    who = name_of(cause.track_id, cause.speaker if isinstance(cause, Utterance) else "", names)
    when = _earlier(target, cause)
    own = target.is_by(cause, dict(names))
    if isinstance(cause, Utterance):
        words = quote(cause.text)
        if own:
            now = cause == target.utterance or cause.end_ns > target.onset_ns
            return f"because of these own words: {words}" if now else f"because of the own words {when}: {words}"
        return f"because {who} said {words} {when}"
    if cause.kind is EventKind.COMES:
        return f"because {who} came into view {when}"
    if cause.kind is EventKind.LEAVES:
        return f"because {who} left the view {when}"
    if cause.emotion == target.emotion:
        return f"because it spreads from {who}, whose face turned {cause.emotion} {when}"
    return f"because {who}'s face turned {cause.emotion} {when}"


def _earlier(target: Target, cause: Item) -> str:
    words = isinstance(cause, Utterance)
    gap_s = (target.onset_ns - (cause.end_ns if words else cause.start_ns)) / NS_PER_S
    if gap_s < 0:
        return "at that moment"
    return "just before" if gap_s < 1.5 else f"{gap_s:.0f} s before"


def evidence_of(
    target: Target,
    ranked: Sequence[tuple[Item, float]],
    *,
    shown: VisibleEvent | None,
    mismatch: VisibleEvent | None,
    names: Mapping[int, str],
) -> tuple[CauseEvidence, ...]:
    """The likeliest causes, what contradicts the first, and what the face of the target showed."""
    found = []
    for index, (item, chance) in enumerate(ranked[:MOST_CAUSES]):
        if index and chance < WORTH_NAMING:
            break
        found.append(_evidence(target, item, chance, names))
    if mismatch is not None:
        found.append(_face("mismatch", mismatch, names))
    if shown is not None:
        found.append(_face("face", shown, names))
    return tuple(found)


def _evidence(target: Target, item: Item, chance: float, names: Mapping[int, str]) -> CauseEvidence:
    if isinstance(item, Utterance):
        text = f"{name_of(item.track_id, item.speaker, names)}: {item.text}"
        return CauseEvidence(
            "utterance", text, item.id, item.track_id, score=chance, start_ns=item.start_ns, end_ns=item.end_ns
        )
    if item.kind is EventKind.EXPRESSION:
        kind = "contagion" if item.emotion == target.emotion else "event"
        text = f"{name_of(item.track_id, '', names)}'s face turned {item.emotion}"
    else:
        kind = "event"
        text = f"{name_of(item.track_id, '', names)} {item.kind.value}"
    return CauseEvidence(
        kind, text, track_id=item.track_id, au=item.au, score=chance, start_ns=item.start_ns, end_ns=item.end_ns
    )


def _face(kind: str, event: VisibleEvent, names: Mapping[int, str]) -> CauseEvidence:
    by = f" with the {AU_NAMES[event.au]}" if event.au else ""
    text = f"{name_of(event.track_id, '', names)}'s face showed {event.emotion}{by}"
    return CauseEvidence(
        kind, text, "", event.track_id, event.au, event.score, start_ns=event.start_ns, end_ns=event.end_ns
    )
