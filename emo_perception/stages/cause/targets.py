"""What is worth explaining: an emotional utterance, or a face whose expression changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from emo_models.labels import NEUTRAL
from emo_perception.memory import EventKind, Item, VisibleEvent
from emo_perception.stages.cause.features import Target
from emo_perception.stages.cause.words import WordReader
from emo_perception.types import Utterance

#: A face is believed a little less than words and face that agree.
FACE_TRUST: Final = 0.8


def faces_during(utterance: Utterance, items: Sequence[Item], track_id: int) -> list[VisibleEvent]:
    """Expressions of that face during the utterance, the surest first."""
    shown = [
        i
        for i in items
        if isinstance(i, VisibleEvent)
        and i.kind is EventKind.EXPRESSION
        and i.track_id == track_id
        and i.start_ns <= utterance.end_ns
        and i.end_ns >= utterance.start_ns
    ]
    return sorted(shown, key=lambda e: (-e.score, e.start_ns))


def face_of(utterance: Utterance, names: dict[int, str]) -> int:
    """The track of the speaker: as told, else the face that other utterances gave this name; 0 when unknown."""
    if utterance.track_id or not utterance.speaker:
        return utterance.track_id
    return next((track_id for track_id, name in names.items() if name == utterance.speaker), 0)


def target_of_utterance(
    utterance: Utterance, items: Sequence[Item], names: dict[int, str], reader: WordReader
) -> Target:
    """The utterance with its likeliest emotion, by the words and by the speaker's face; ``strength``: its probability."""
    reading = reader(utterance.text)
    chances = {name: reading.emotional * share for name, share in reading.says.items()}
    track_id = face_of(utterance, names)
    shown = faces_during(utterance, items, track_id) if track_id else []
    for face in shown[:1]:
        chances[face.emotion] = 1 - (1 - chances.get(face.emotion, 0.0)) * (1 - FACE_TRUST * face.score)
    emotion = max(chances, key=lambda name: chances[name])
    # Words that are emotional, though it is open in which way, are emotional all the same.
    strength = max(chances[emotion], reading.emotional if not shown else 0.0)
    speaker = utterance.speaker or names.get(track_id, "")
    return Target(emotion, strength, utterance.start_ns, utterance.end_ns, track_id, speaker, utterance=utterance)


def target_of_event(event: VisibleEvent, names: dict[int, str]) -> Target | None:
    """A face that turned from one expression to another; None for any other event."""
    changed = event.kind is EventKind.EXPRESSION and event.before not in ("", event.emotion)
    if not changed or event.emotion == NEUTRAL:
        return None
    name = names.get(event.track_id, "")
    return Target(event.emotion, event.score, event.start_ns, event.end_ns, event.track_id, name, event=event)
