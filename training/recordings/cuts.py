"""Where to cut a recording: by what was said in it, by what was written about it, or by fixed steps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from emo_models.labels import VOCABULARIES, rep155_or_none
from emo_perception import from_msg
from emo_perception.bags import Bag, BagError, deserialize, learn
from emo_perception.types import NS_PER_S, Caption, Cause, Utterance
from training.datasets.record import has_words

UTTERANCE, CAPTION, CAUSE = "emo_msgs/msg/Utterance", "emo_msgs/msg/EmotionCaption", "emo_msgs/msg/EmotionCause"
#: Captions that are still being written.
PARTIAL: Final = "/partial"
WAYS: Final = ("auto", "utterances", "captions", "stride")


@dataclass(frozen=True)
class Cut:
    """A stretch ``[start_ns, end_ns)`` of a recording. ``draft_*``: what the recording's own networks said of it."""

    start_ns: int
    end_ns: int
    speaker: str = ""
    words: str = ""
    draft_text: str = ""
    draft_emotion: str = ""
    dialogue: int = 0
    index: int = 0


@dataclass(frozen=True)
class Notes:
    """What is known of a recording besides pictures and sound, each in the order of time."""

    utterances: tuple[Utterance, ...] = ()
    captions: tuple[Caption, ...] = ()
    causes: tuple[Cause, ...] = ()


def notes_of_bag(bag: Bag) -> Notes:
    """Utterances, final captions and causes on whatever topics of their types. Messages that are none are left out."""
    for topic in bag.topics:
        learn(topic.kind, topic.definition)
    makers = {UTTERANCE: from_msg.utterance, CAPTION: from_msg.caption, CAUSE: from_msg.cause}
    topics = {t.name for t in bag.topics if t.kind in makers and not t.name.endswith(PARTIAL)}
    found: dict[str, list[Any]] = {kind: [] for kind in makers}
    for raw in bag.messages(topics) if topics else ():
        try:
            found[raw.kind].append(makers[raw.kind](deserialize(raw)))
        except BagError as error:
            bag.troubles.append(str(error))
    return _notes(found[UTTERANCE], found[CAPTION], found[CAUSE])


def notes_of_results(folder: Path) -> Notes:
    """The same out of what ``emo bag process --out FOLDER`` wrote. Raises :class:`BagError` for other content."""
    utterances = [
        Utterance(
            str(row["id"]), int(row["start_ns"]), int(row["end_ns"]), str(row["text"]), str(row["speaker"]),
            int(row["track_id"]),
        )
        for row in _json_lines(folder / "utterances.jsonl")
    ]  # fmt: skip
    captions = [
        Caption(
            row["stamp_ns"], row["frame_id"], row["window_start_ns"], row["window_end_ns"], row["text"],
            tuple(row["track_ids"]), row["emotion"], row["confidence"], (), row["model"], row["grounded"], row["abstained"],
        )
        for row in _json_lines(folder / "captions.jsonl")
    ]  # fmt: skip
    causes = [
        Cause(
            row["stamp_ns"], row["frame_id"], row["text"], row["emotion"], row["track_id"], row["speaker"],
            row["target_utterance"], (), (), row["confidence"], row["model"], row["grounded"], row["abstained"],
        )
        for row in _json_lines(folder / "causes.jsonl")
    ]  # fmt: skip
    return _notes(utterances, captions, causes)


def _json_lines(file: Path) -> Iterator[dict[str, Any]]:
    if not file.is_file():
        raise BagError(f"{file}: not there; expected the folder that 'emo bag process --out' wrote")
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise BagError(f"{file}, line {number}: expected JSON ({error.msg})") from None
        yield row


def _notes(utterances: Iterable[Utterance], captions: Iterable[Caption], causes: Iterable[Cause]) -> Notes:
    return Notes(
        tuple(sorted((u for u in utterances if has_words(u.text) and u.end_ns > u.start_ns), key=lambda u: u.start_ns)),
        tuple(sorted((c for c in captions if not c.abstained), key=lambda c: c.window_start_ns)),
        tuple(c for c in causes if not c.abstained),
    )


def find_cuts(
    notes: Notes, span_ns: tuple[int, int], *, by: str, stride_s: float, max_s: float, vocabulary: str
) -> list[Cut]:
    """Cuts in the order of time, none longer than ``max_s``; ``by``: one of :data:`WAYS`, ``auto`` takes what there is:
    captions, else utterances, else steps of ``stride_s`` over ``span_ns``."""
    if by == "auto":
        by = "captions" if notes.captions else "utterances" if notes.utterances else "stride"
    if by == "captions":
        cuts = list(_by_captions(notes.captions, vocabulary))
    elif by == "utterances":
        cuts = [_by_utterance(u, notes.causes, vocabulary) for u in notes.utterances]
    else:
        step_ns, (start_ns, end_ns) = round(stride_s * NS_PER_S), span_ns
        cuts = [Cut(at, at + step_ns) for at in range(start_ns, end_ns - step_ns // 2, step_ns)]
    limit_ns = round(max_s * NS_PER_S)
    return [replace(cut, end_ns=min(cut.end_ns, cut.start_ns + limit_ns)) for cut in cuts]


def number_dialogues(cuts: Sequence[Cut], first: int, gap_s: float) -> list[Cut]:
    """Number cuts by dialogues from ``first`` on: a silence longer than ``gap_s`` ends one."""
    numbered: list[Cut] = []
    for cut in cuts:
        before = numbered[-1] if numbered else None
        if before is None:
            numbered.append(replace(cut, dialogue=first, index=0))
        elif cut.start_ns - before.end_ns > gap_s * NS_PER_S:
            numbered.append(replace(cut, dialogue=before.dialogue + 1, index=0))
        else:
            numbered.append(replace(cut, dialogue=before.dialogue, index=before.index + 1))
    return numbered


def emotion_in(vocabulary: str, rep155: str) -> str:
    """A REP-155 emotion in the words of a vocabulary; empty where it has no such word."""
    return next((name for name in VOCABULARIES[vocabulary] if rep155_or_none(name) == rep155), "")


def _by_captions(captions: Sequence[Caption], vocabulary: str) -> Iterator[Cut]:
    """Windows that do not overlap: the next one begins where the last one has ended; of equal starts the longest."""
    last_ns = 0
    longest = {c.window_start_ns: c for c in sorted(captions, key=lambda c: (c.window_start_ns, c.window_end_ns))}
    for caption in longest.values():
        if caption.window_start_ns >= last_ns and caption.window_end_ns > caption.window_start_ns:
            last_ns = caption.window_end_ns
            emotion = emotion_in(vocabulary, caption.emotion)
            yield Cut(caption.window_start_ns, last_ns, draft_text=caption.text, draft_emotion=emotion)


def _by_utterance(utterance: Utterance, causes: Sequence[Cause], vocabulary: str) -> Cut:
    why = next((cause for cause in causes if cause.target_utterance == utterance.id), None)
    speaker = utterance.speaker or (f"person {utterance.track_id}" if utterance.track_id else "unknown")
    return Cut(
        utterance.start_ns, utterance.end_ns, speaker, utterance.text,
        why.text if why else "", emotion_in(vocabulary, why.emotion) if why else "",
    )  # fmt: skip
