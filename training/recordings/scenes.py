"""What becomes one bag: a captioned clip, or a dialogue with the clips of its utterances one behind the other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from training.datasets import read_dataset, reader
from training.datasets.ecem import Ecem
from training.datasets.record import Dataset, DatasetError, Record, Span, Utterance
from training.prepare.cumulative import CumulativeVideos, pieces
from training.prepare.video import UnreadableVideo
from training.recordings.references import CAPTION, CAUSE, Reference
from training.tasks.fame_truth import Causes, causes_of

#: The parts of a drawn world that are made into bags; ECEM brings MELD's dialogues with it.
TOY_PARTS: Final = ("mafw", "ecem")


@dataclass(frozen=True)
class Part:
    """One clip of a scene. ``said``: its utterance; ``reference``: what is right about it, without times yet."""

    span: Span
    said: Utterance | None = None
    reference: Reference | None = None


@dataclass(frozen=True)
class Scene:
    """One bag to be. ``lacking``: ids of utterances whose clip is not there; ``name`` is fit for a folder."""

    name: str
    parts: tuple[Part, ...]
    lacking: tuple[str, ...] = ()


def scenes_of(name: str, root: Path, split: str, options: Mapping[str, Any]) -> Iterator[Scene]:
    """Scenes of a split of the data set ``name`` in ``root``, in the order of the files; ``options`` are its reader's.

    Raises :class:`DatasetError` when the folder is not that data set, or nothing in it can be shown.
    """
    dataset = read_dataset(name, root, **options)
    records = dataset.split(split)
    spoken = [record for record in records if record.dialogue is not None]
    found = _dialogues(dataset, spoken, options) if spoken else _clips(dataset, records)
    first = next(found, None)
    if first is None:
        raise DatasetError(
            f"{name}: expected clips with captions, or dialogues whose utterances have clips and times, in the split "
            f"{split!r}; of {len(records)} records there is none: emo data check {name} {root}"
        )
    yield first
    yield from found


def _clips(dataset: Dataset, records: Sequence[Record]) -> Iterator[Scene]:
    for record in records:
        if record.source is not None and record.captions:
            reference = Reference(CAPTION, record.clip_id, texts=record.captions, emotion=_emotion(record))
            yield Scene(_folder(f"{dataset.name}_{record.clip_id}"), (Part(record.source, reference=reference),))


def _dialogues(dataset: Dataset, records: Sequence[Record], options: Mapping[str, Any]) -> Iterator[Scene]:
    """One scene per dialogue. What two clips both show is cut, as for cumulative clips."""
    everything = _utterances(dataset, options)
    videos = CumulativeVideos(pieces(everything))
    lines = {r.dialogue.target.clip_id: r for r in everything if r.dialogue is not None}
    last: dict[str, Record] = {}
    for record in lines.values():
        assert record.dialogue is not None
        if videos.has(record):
            last[record.dialogue.dialogue_id] = record
    truth = causes_of(dataset.root)
    wanted: dict[str, dict[str, Record]] = {}
    for record in records:
        assert record.dialogue is not None
        wanted.setdefault(record.dialogue.dialogue_id, {})[record.dialogue.target.clip_id] = record
    for dialogue_id, annotated in wanted.items():
        if dialogue_id not in last:
            continue
        plan = _plan(videos, last[dialogue_id])
        said = {videos.pieces[clip_id].span.file: clip_id for clip_id in _ids(last[dialogue_id], videos)}
        parts = tuple(_part(span, lines[said[span.file]], annotated, truth) for span in plan.spans)
        if any(part.reference for part in parts):
            yield Scene(_folder(f"{dataset.name}_{dialogue_id}"), parts, plan.lacking)


def _plan(videos: CumulativeVideos, record: Record) -> Any:
    try:
        return videos.plan(record)
    except UnreadableVideo as error:
        raise DatasetError(f"{record.clip_id}: {error}") from None


def _ids(record: Record, videos: CumulativeVideos) -> list[str]:
    assert record.dialogue is not None
    ids = [said.clip_id for said in (*record.dialogue.history, record.dialogue.target)]
    return [clip_id for clip_id in ids if clip_id in videos.pieces]


def _utterances(dataset: Dataset, options: Mapping[str, Any]) -> tuple[Record, ...]:
    """The records with the clips of all utterances: of the data set itself, or of MELD, from which ECEM is made."""
    ecem = reader(dataset.name, **options)
    if not isinstance(ecem, Ecem):
        return dataset.records
    folder = ecem.meld_folder(dataset.root)
    if folder is None:
        raise DatasetError(
            f"ecem: expected MELD, for the clips, in or beside {dataset.root}; name it: --option meld=DIR"
        )
    return read_dataset("meld", folder).records


def _part(span: Span, line: Record, annotated: Mapping[str, Record], truth: Causes | None) -> Part:
    assert line.dialogue is not None
    said = line.dialogue.target
    record = annotated.get(said.clip_id)
    if record is None or not (record.captions or record.emotions):
        return Part(span, said)
    assert record.dialogue is not None
    said, key = record.dialogue.target, record.clip_id  # ECEM's words of it are corrected ones
    known = truth if truth is not None and key in truth.evidence else None
    reference = Reference(
        CAUSE, said.clip_id, texts=record.captions, emotion=_emotion(record), speaker=said.speaker,
        cause_phrases=tuple(known.evidence[key]) if known else (), other_phrases=tuple(known.others[key]) if known else (),
        cause_kind=known.kinds[key] if known else "",
    )  # fmt: skip
    return Part(span, said, reference)


def _emotion(record: Record) -> str:
    return record.emotions[0] if len(record.emotions) == 1 else ""


def _folder(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)
