"""ECEM's clips as files: each cumulative clip as a video, and a plan that tells of what it is made."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from training.datasets.record import Record
from training.prepare.cumulative import Cumulative, CumulativeVideos, write_mp4
from training.prepare.errors import NO_SPACE, StoreError, StoreFull
from training.prepare.pool import Failure, results

PLAN: Final = "cumulative.jsonl"
Plan = dict[str, Any]


@dataclass
class RebuildWork:
    """Plans one clip after another and writes it, unless it is there."""

    videos: CumulativeVideos
    folder: Path
    write: bool

    def __call__(self, record: Record) -> Plan:
        plan = self.videos.plan(record)
        file = self.folder / f"{record.clip_id}.mp4"
        if self.write and not file.is_file():
            write_mp4(plan.video(), file)
        return _told(record.clip_id, plan)

    def close(self) -> None:
        """Nothing to free."""


def rebuild(
    records: Iterable[Record],
    videos: CumulativeVideos,
    folder: Path,
    *,
    write: bool = True,
    workers: int = 1,
    progress: Callable[[], object] | None = None,
) -> tuple[list[Plan], dict[str, str]]:
    """Write ``CLIP_ID.mp4`` of every record into ``folder``, and ``cumulative.jsonl`` of all; plans, and why some failed.

    A file that is there is whole and is kept, so that a killed run goes on. Raises :class:`StoreFull` for no room.
    """
    made: list[Plan] = []
    failed: dict[str, str] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for record, result in results(records, partial(RebuildWork, videos, folder, write), workers):
            if isinstance(result, Failure):
                failed[record.clip_id] = result.reason
            else:
                made.append(result)
            if progress is not None:
                progress()
        made.sort(key=lambda plan: str(plan["clip_id"]))
        lines = "".join(json.dumps(plan, ensure_ascii=False) + "\n" for plan in made)
        (folder / PLAN).write_text(lines, encoding="utf-8")
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise StoreError(f"{folder}: cannot be written: {error.strerror}") from None
        raise StoreFull(
            f"{folder}: no room ({error.strerror}): every clip that is there is whole. Make room and run the same command "
            "again: it goes on from there"
        ) from None
    return made, failed


def _told(clip_id: str, plan: Cumulative) -> Plan:
    return {
        "clip_id": clip_id,
        "spans": [{"file": str(s.file), "start_s": round(s.start_s, 6), "end_s": s.end_s} for s in plan.spans],
        "overlap_s": round(plan.overlap_s, 6),
        "repeated_s": round(plan.repeated_s, 6),
        "lacking": list(plan.lacking),
    }
