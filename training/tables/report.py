"""A table in words: our figures with their spread over the seeds, beside the paper's."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from training.tables.engine import Outcome
from training.tables.plan import Column, Expectation, Plan, Row


@dataclass(frozen=True)
class Cell:
    """Mean over the seeds and its standard deviation (NaN for one seed), in the paper's unit; ``values``: by seed."""

    values: dict[int, float]

    @property
    def mean(self) -> float:
        """Mean; NaN without values."""
        return statistics.fmean(self.values.values()) if self.values else math.nan

    @property
    def spread(self) -> float:
        """Sample standard deviation."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else math.nan

    def text(self, digits: int) -> str:
        """``11.35 ± 0.20``, without the spread of a single seed, a dash without values."""
        if not self.values:
            return "–"
        spread = "" if math.isnan(self.spread) else f" ± {self.spread:.{digits}f}"
        return f"{self.mean:.{digits}f}{spread}"


def cell(outcomes: Iterable[Outcome], row: str, column: Column) -> Cell:
    """Values of a row's metric; a run that did not report it is left out."""
    return Cell({
        outcome.seed: outcome.metrics[column.metric] * column.scale
        for outcome in outcomes
        if outcome.row == row and column.metric in outcome.metrics
    })  # fmt: skip


def markdown(plan: Plan, outcomes: Sequence[Outcome]) -> str:
    """The whole table: title, figures, expectations, what was stopped, notes."""
    parts = [
        f"### {plan.title}",
        f"{plan.source}. Seeds: {', '.join(map(str, plan.seeds))}; mean ± standard deviation.",
    ]
    parts.append(_table(plan, outcomes))
    if plan.expect:
        parts.append(_expectations(plan, outcomes))
    if stopped := [o for o in outcomes if o.error]:
        parts.append("\n".join(f"* {o.row}, seed {o.seed}: {o.error}" for o in stopped))
    if notes := [*plan.notes, *(f"{row.name}: {row.note}" for row in plan.rows if row.note)]:
        parts.append("\n".join(f"* {note}" for note in notes))
    return "\n\n".join(parts) + "\n"


def _table(plan: Plan, outcomes: Sequence[Outcome]) -> str:
    with_paper = [any(column.metric in row.paper for row in plan.rows) for column in plan.columns]
    head = [""]
    for column, paper in zip(plan.columns, with_paper, strict=True):
        head += [column.heading, "paper"] if paper else [column.heading]
    lines = [_line(head), _line(["---"] * len(head))]
    group = ""
    for row in plan.rows:
        if row.group != group:
            group = row.group
            lines.append(_line([f"*{group}*", *[""] * (len(head) - 1)]))
        lines.append(_line(_cells(row, plan, with_paper, outcomes)))
    return "\n".join(lines)


def _cells(row: Row, plan: Plan, with_paper: Sequence[bool], outcomes: Sequence[Outcome]) -> list[str]:
    cells = [row.name]
    for column, paper in zip(plan.columns, with_paper, strict=True):
        ours = cell(outcomes, row.name, column)
        few = f" ({len(ours.values)} of {len(plan.seeds)} seeds)" if 0 < len(ours.values) < len(plan.seeds) else ""
        cells.append(ours.text(column.digits) + few)
        if paper:
            cells.append(f"{row.paper[column.metric]:.{column.digits}f}" if column.metric in row.paper else "–")
    return cells


def _expectations(plan: Plan, outcomes: Sequence[Outcome]) -> str:
    lines = [_line(["expected", "metric", "difference", "in seeds", "holds"]), _line(["---"] * 5)]
    for expectation in plan.expect:
        difference = _difference(plan, expectation, outcomes)
        column = _column(plan, expectation.metric)
        held = sum(value > 0 for value in difference.values.values())
        verdict = "not run" if not difference.values else "yes" if difference.mean > 0 else "no"
        sign = "<" if expectation.lower else ">"
        lines.append(_line([
            f"{expectation.better} {sign} {expectation.than}", column.heading, difference.text(column.digits),
            f"{held} of {len(difference.values)}", verdict,
        ]))  # fmt: skip
    return "\n".join(lines)


def _difference(plan: Plan, expectation: Expectation, outcomes: Sequence[Outcome]) -> Cell:
    """How much better, seed by seed, so that what the seeds share cancels."""
    column = _column(plan, expectation.metric)
    better, than = (cell(outcomes, name, column).values for name in (expectation.better, expectation.than))
    sign = -1.0 if expectation.lower else 1.0
    return Cell({seed: sign * (better[seed] - than[seed]) for seed in better if seed in than})


def _column(plan: Plan, metric: str) -> Column:
    return next((column for column in plan.columns if column.metric == metric), Column(metric))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
