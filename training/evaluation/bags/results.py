"""What an evaluation leaves: predictions that ``emo eval`` reads, figures as JSON, and the page; and two of them compared."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from training.evaluation.bags import page
from training.evaluation.bags.matching import Matched
from training.evaluation.bags.runner import Outcome
from training.evaluation.document import Block, Heading, Paragraph, write
from training.evaluation.measure import Options, measure
from training.evaluation.predictions import Prediction, read_predictions, write_predictions
from training.evaluation.report import Set
from training.evaluation.report import blocks as report_blocks
from training.metrics.base import MetricError, some
from training.recordings.references import CAPTION, CAUSE

METRICS: Final = "metrics.json"
#: Kind of reference -> the file of its predictions.
PREDICTIONS: Final = {CAPTION: "captions.jsonl", CAUSE: "causes.jsonl"}
TITLES: Final = {CAPTION: "Captions", CAUSE: "Explanations"}


def write_results(
    out: Path, title: str, outcome: Outcome, matched: Matched, options: Options, *, examples: int, draw: bool
) -> tuple[Path, list[Set], list[str]]:
    """Write everything; returns the page, what was measured, and in words what could not be."""
    sets, absent = [], []
    for kind, file in PREDICTIONS.items():
        rows = matched.of(kind)
        write_predictions(out / file, rows)
        if rows:
            try:
                sets.append(Set(TITLES[kind], measure(TITLES[kind], {row.clip_id: row for row in rows}, None, options)))
            except MetricError as error:
                absent.append(str(error))
    figures = {s.name: s.values for s in sets}
    content = {
        "title": title, "settings": outcome.settings, "figures": _plain(figures),
        "absent": {s.name: s.measured.absent for s in sets if s.measured}, "references": _coverage(matched),
        "recordings": outcome.counts, "engines": outcome.engines, "latency_ms": outcome.latencies(),
        "troubles": outcome.troubles,
    }  # fmt: skip
    (out / METRICS).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    blocks = page.blocks(title, outcome, sets, examples=examples, draw=draw)
    blocks[1:1] = [Paragraph(line) for line in (*_told(matched), *absent)]
    return write(out, blocks)[0], sets, absent


def compare(runs: Mapping[str, Path], out: Path, options: Options, *, examples: int, draw: bool) -> Path:
    """A page with two evaluations side by side, over the references that both have; returns it.

    Raises :class:`MetricError` for a folder that is no evaluation, and for two that share nothing.
    """
    contents = {name: _content(folder) for name, folder in runs.items()}
    blocks: list[Block] = [Heading(" and ".join(runs), 1)]
    for kind, file in PREDICTIONS.items():
        both = {name: _read(folder / file) for name, folder in runs.items()}
        if not all(both.values()):
            continue
        shared = set.intersection(*(set(rows) for rows in both.values()))
        if not shared:
            first, second = (some(rows) for rows in both.values())
            raise MetricError(f"{file}: nothing is in both: the first is about {first}, the second about {second}")
        sets = [
            Set(
                name,
                measure(name, {k: v for k, v in rows.items() if k in shared}, None, options),
                facts={"of": str(runs[name])},
            )
            for name, rows in both.items()
        ]
        blocks += report_blocks(sets, title=TITLES[kind], examples=examples, draw=draw)
    blocks += page.latency([(name, content["latency_ms"]) for name, content in contents.items()])
    return write(out, blocks)[0]


def _content(folder: Path) -> dict[str, Any]:
    file = folder / METRICS
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MetricError(
            f"{folder}: expected the folder of an evaluation, as emo bag eval --out makes it ({error})"
        ) from None
    return content


def _read(file: Path) -> dict[str, Prediction]:
    return read_predictions(file) if file.is_file() and file.stat().st_size else {}


def _coverage(matched: Matched) -> dict[str, Any]:
    return {
        "captions": len(matched.captions), "causes": len(matched.causes), "without a prediction": matched.lacking,
        "abstained": matched.abstained, "claims what was not measured": matched.withheld,
    }  # fmt: skip


def _told(matched: Matched) -> list[str]:
    """About what nothing could be scored but an empty text, in words."""
    total = len(matched.captions) + len(matched.causes)
    return [
        f"{len(keys)} of {total} references {what}: {some(keys)}."
        for keys, what in (
            (matched.lacking, "have no prediction, scored as an empty text"),
            (matched.abstained, "have an abstention only, scored as an empty text"),
            (matched.withheld, "have a sentence that claims what was not measured"),
        )
        if keys
    ]


def _plain(figures: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
    """The same with None for what JSON has no number for."""
    return {name: {k: v if math.isfinite(v) else None for k, v in values.items()} for name, values in figures.items()}
