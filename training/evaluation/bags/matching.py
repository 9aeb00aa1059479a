"""Which prediction belongs to a reference, and both as a row of the file that ``emo eval`` reads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from emo_models.labels import TO_REP155
from emo_perception.bags import BagError
from emo_perception.types import NS_PER_S, Caption, Cause
from training.evaluation.bags.gather import Recording
from training.evaluation.bags.story import Story
from training.evaluation.predictions import Prediction
from training.metrics.base import some
from training.metrics.grounding import Evidence
from training.recordings.references import CAPTION, CAUSE, Reference


@dataclass
class Matched:
    """Predictions of all recordings, by kind. ``lacking``: references about which nothing was said, ``abstained``: those
    about which only an abstention was. Both have an empty text, which is scored as the worst. ``withheld``: those whose
    sentence claims what was not measured."""

    captions: list[Prediction] = field(default_factory=list)
    causes: list[Prediction] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    abstained: list[str] = field(default_factory=list)
    withheld: list[str] = field(default_factory=list)

    def of(self, kind: str) -> list[Prediction]:
        """Those of one kind."""
        return self.captions if kind == CAPTION else self.causes


def overlap(caption: Caption, reference: Reference) -> float:
    """Intersection over union of window and reference; a moment inside the other is the least that counts."""
    common = min(caption.window_end_ns, reference.end_ns) - max(caption.window_start_ns, reference.start_ns)
    if common < 0:
        return 0.0
    whole = max(caption.window_end_ns, reference.end_ns) - min(caption.window_start_ns, reference.start_ns)
    return max(common, 1) / max(whole, 1)


def caption_of(reference: Reference, captions: Sequence[Caption]) -> Caption | None:
    """The caption whose window overlaps the reference best, of equals the later; None where none does."""
    best = max(captions, key=lambda c: (overlap(c, reference), c.window_end_ns), default=None)
    return best if best is not None and overlap(best, reference) > 0 else None


def cause_of(reference: Reference, story: Story) -> Cause | None:
    """The answer about the reference's utterance, else the graph's own explanation of it."""
    if reference.id in story.answers:
        return story.answers[reference.id]
    return next((cause for cause in story.causes if cause.target_utterance == reference.id), None)


def match(
    stories: Mapping[str, Story], recordings: Sequence[Recording], *, gold: bool, ungrounded: bool = False
) -> Matched:
    """A prediction for each reference of all recordings.

    ``gold``: the emotions of causes were given, not perceived; ``ungrounded``: sentences that claim what was not measured
    count as said, else as withheld: an empty text.

    Raises :class:`BagError`, naming both sides, when of a kind nothing at all belongs to a reference.
    """
    found = Matched()
    shared = _shared(recordings)
    for recording in recordings:
        story = stories[recording.name]
        for reference in recording.references:
            key = f"{recording.name}/{reference.id}" if (reference.kind, reference.id) in shared else reference.id
            said: Caption | Cause | None
            if reference.kind == CAPTION:
                said = caption_of(reference, story.captions)
                row = _caption(key, reference, said, story)
            else:
                said = cause_of(reference, story)
                row = _cause(key, reference, said, story, gold=gold)
            if said is not None and not (said.abstained or said.grounded):
                found.withheld.append(key)
                row = (
                    row if ungrounded else replace(row, text="", evidence=None, au_scores=None, emotion={}, causes=None)
                )
            found.of(reference.kind).append(row)
            if said is None:
                found.lacking.append(key)
            elif said.abstained:
                found.abstained.append(key)
    for kind in (CAPTION, CAUSE):
        rows = found.of(kind)
        if rows and all(row.clip_id in found.lacking for row in rows):
            raise BagError(_nothing(kind, stories, recordings))
    return found


def _caption(key: str, reference: Reference, caption: Caption | None, story: Story) -> Prediction:
    empty = Prediction(key, "", references=reference.texts, true_emotion=_rep155(reference.emotion))
    if caption is None or caption.abstained:
        return replace(empty, context="" if caption is None else f"abstained: {caption.abstain_reason}")
    evidence = (
        Evidence(e.start, e.end, e.au, 1.0 if math.isnan(e.similarity) else e.similarity)
        for e in caption.evidence
        if e.au
    )
    return replace(
        empty, text=caption.text, emotion={caption.emotion: round(caption.confidence, 4)} if caption.emotion else {},
        evidence=tuple(evidence), au_scores=story.au_scores(caption) or None,
    )  # fmt: skip


def _cause(key: str, reference: Reference, cause: Cause | None, story: Story, *, gold: bool) -> Prediction:
    heard = [f"{u.speaker or 'somebody'}: {u.text}" for u in story.utterances if u.end_ns <= reference.end_ns]
    empty = Prediction(
        key, "", references=reference.texts, true_emotion="" if gold else _rep155(reference.emotion),
        cause_phrases=reference.cause_phrases, other_phrases=reference.other_phrases, kind=reference.cause_kind,
        context=" / ".join(heard),
    )  # fmt: skip
    if cause is None:
        return empty
    emotion = {cause.emotion: 1.0} if cause.emotion and not gold else {}
    if cause.abstained:
        return replace(empty, emotion=emotion, context=f"{empty.context} (abstained: {cause.abstain_reason})")
    return replace(empty, text=cause.text, emotion=emotion, causes=cause.evidence_utterances)


def _rep155(emotion: str) -> str:
    """The graph's word for an emotion of a data set; its own where there is none."""
    return TO_REP155.get(emotion.lower(), emotion)


def _shared(recordings: Sequence[Recording]) -> set[tuple[str, str]]:
    """Ids that several recordings have, as those of two parts of a data set."""
    seen: set[tuple[str, str]] = set()
    twice = set()
    for recording in recordings:
        keys = {(reference.kind, reference.id) for reference in recording.references}
        twice |= keys & seen
        seen |= keys
    return twice


def _nothing(kind: str, stories: Mapping[str, Story], recordings: Sequence[Recording]) -> str:
    wanted = [f"{r.name}: {_when(one)}" for r in recordings for one in r.of(kind)]
    if kind == CAPTION:
        had = [
            f"{name}: {_span(c.window_start_ns, c.window_end_ns)}"
            for name, story in stories.items()
            for c in story.captions
        ]
        return (
            f"no caption overlaps a reference: the references are of {some(wanted)}; the captions of {some(had) or 'none'}; "
            "are the references those of this bag? Their times are stamps of its images"
        )
    had = [f"{name}: {u.id}" for name, story in stories.items() for u in story.utterances]
    return (
        f"no explanation belongs to a reference: the references are about the utterances {some(wanted)}; the bag has "
        f"{some(had) or 'none'}; ids must be those of the bag's utterances (--utterance-topic)"
    )


def _when(reference: Reference) -> str:
    return reference.id if reference.kind == CAUSE else _span(reference.start_ns, reference.end_ns)


def _span(start_ns: int, end_ns: int) -> str:
    return f"{start_ns / NS_PER_S:.2f} to {end_ns / NS_PER_S:.2f} s"
