"""Look at a data set before anybody trains on it: what is there, what is missing, what was left out, what is broken."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from training.datasets.catalogue import SOURCES
from training.datasets.quarantine import REASONS
from training.datasets.record import FLAGS, SPLITS, Dataset, QuarantinedRow, Record

EXAMPLES = 3


def probe(dataset: Dataset, *, workers: int = 0) -> Dataset:
    """Decode the first picture of every clip; records whose clip has none are left out (``unreadable-video``).

    ``workers``: clips opened at the same time (0: as many as there are cores).
    """
    files = sorted({record.source.file for record in dataset.records if record.source is not None})
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        troubles = {file: trouble for file, trouble in zip(files, pool.map(trouble_of, files), strict=True) if trouble}

    def broken(record: Record) -> str:
        return troubles.get(record.source.file, "") if record.source else ""

    rows = [
        QuarantinedRow(_name(record, dataset.root), record.clip_id, "unreadable-video", broken(record))
        for record in dataset.records
        if broken(record)
    ]
    return replace(
        dataset,
        records=tuple(record for record in dataset.records if not broken(record)),
        quarantined=(*dataset.quarantined, *rows),
    )


def trouble_of(file: Path) -> str:
    """Why no picture of a video can be decoded; empty when one can."""
    import av

    try:
        with av.open(str(file)) as container:
            if not container.streams.video:
                return "expected pictures, the file has only sound"
            next(container.decode(video=0))
    except StopIteration:
        return "expected pictures, the file ends before the first one"
    except (OSError, av.error.FFmpegError) as error:
        return f"expected a video, it cannot be decoded: {getattr(error, 'strerror', '') or error}"
    return ""


def report(dataset: Dataset) -> str:
    """A page about a data set, as ``emo data check`` prints it."""
    return "\n".join(_report(dataset))


def _report(dataset: Dataset) -> Iterator[str]:
    source = SOURCES[dataset.name]
    yield f"{source.title}, in {dataset.root}"
    counts = Counter(record.split for record in dataset.records)
    yield (
        "records      " + ", ".join(f"{name} {counts[name]:,}" for name in SPLITS if counts[name])
        if counts
        else "records      none"
    )
    yield from _contents(dataset)
    yield from (f"  {what}: {number:,}{_against(dataset, what)}" for what, number in dataset.found.items())
    yield from (f"  differs    {line}" for line in dataset.mismatches() if line.partition(":")[0] not in dataset.found)
    yield from (f"missing      {text}" for text in dataset.missing)
    yield from _left_out(dataset)
    if dataset.missing or not dataset.records or dataset.mismatches():
        yield f"where to ask {source.ask}"
    yield f"licence      {source.licence}"


def _contents(dataset: Dataset) -> Iterator[str]:
    captions = sum(len(record.captions) for record in dataset.records)
    if captions:
        words = sum(len(text.split()) for record in dataset.records for text in record.captions)
        yield f"captions     {captions:,}, {words / captions:.1f} words on average"
    emotions = Counter(emotion for record in dataset.records for emotion in record.emotions)
    if emotions:
        yield "emotions     " + ", ".join(f"{name} {number:,}" for name, number in emotions.most_common())
    dialogues = {record.dialogue.dialogue_id for record in dataset.records if record.dialogue}
    if dialogues:
        yield f"dialogues    {len(dialogues):,}"
    flags = Counter(flag for record in dataset.records for flag in record.flags)
    yield from (f"flag         {flag}: {number:,} ({FLAGS[flag]})" for flag, number in flags.most_common())


def _against(dataset: Dataset, what: str) -> str:
    wanted = dataset.expected.get(what)
    if wanted is None:
        return ""
    return " as published" if wanted == dataset.found[what] else f", published {wanted:,}"


def _left_out(dataset: Dataset) -> Iterator[str]:
    reasons = Counter(row.reason for row in dataset.quarantined)
    for reason, number in reasons.most_common():
        yield f"left out     {number:,} {reason}: {REASONS[reason]}"
        for row in [row for row in dataset.quarantined if row.reason == reason][:EXAMPLES]:
            yield f"             {row.file}, {row.row}: {row.detail}"


def _name(record: Record, root: Path) -> str:
    file = record.source.file if record.source else root
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)
