"""A plan: the rows of a table as data, each a recipe with some options changed, and the paper's figures for it.

A YAML file::

    title: What each part adds
    source: ECPA, Table IV
    recipe: ecpa_mafw                      # of the package, or a path
    set: {epochs: 15}                      # for all rows; dotted names of the recipe's fields
    seeds: [88, 89, 90]
    evaluate:                              # further sets to measure on; metrics of this one are "emvidcap/CIDEr"
      - {name: emvidcap, split: test, set: {data.name: emvidcap, data.root: data/emvidcap}}
    columns:
      - {metric: CIDEr, title: C, scale: 100, digits: 2}
    rows:
      - {name: baseline, set: {network.options.au_prompt: false}, paper: {CIDEr: 27.61}}
      - {name: full, paper: {CIDEr: 34.38}}
    expect:
      - {better: full, than: baseline, metric: CIDEr}
    notes: [what a reader of the table must know]

A row may name its own ``recipe`` or another way to ``run``: ``module:function``, called with a
:class:`training.tables.engine.Job`, which returns the metrics. With ``run: ""`` it shows the paper's figures alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml

#: How a row is run unless it says otherwise.
TRAIN: Final = "training.tables.runs:train_and_evaluate"
PLANS: Final = "plans"

Part = TypeVar("Part")


class PlanError(ValueError):
    """A plan that cannot be run; the message names the file, what was expected and what came."""


@dataclass(frozen=True)
class Column:
    """One metric of the table. ``scale``: what our value is multiplied by to be in the paper's unit."""

    metric: str
    title: str = ""
    scale: float = 1.0
    digits: int = 2

    @property
    def heading(self) -> str:
        """Title, or the metric's own name."""
        return self.title or self.metric


@dataclass(frozen=True)
class Row:
    """One line: what differs from the plan's recipe, and the paper's figures by metric, in the paper's unit."""

    name: str
    group: str = ""
    recipe: str = ""
    set: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    run: str = TRAIN
    evaluate: tuple[Mapping[str, Any], ...] = ()
    paper: Mapping[str, float] = dataclasses.field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Expectation:
    """Row ``better`` should have a higher ``metric`` than row ``than`` (lower with ``lower``)."""

    better: str
    than: str
    metric: str
    lower: bool = False


@dataclass(frozen=True)
class Plan:
    """A whole table."""

    name: str
    title: str
    source: str
    recipe: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    seeds: tuple[int, ...] = (88,)
    set: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    evaluate: tuple[Mapping[str, Any], ...] = ()
    expect: tuple[Expectation, ...] = ()
    notes: tuple[str, ...] = ()

    def only(self, names: Sequence[str]) -> Plan:
        """The plan with the rows called ``names``. Raises :class:`PlanError` listing the rows for another name."""
        there = [row.name for row in self.rows]
        if unknown := [name for name in names if name not in there]:
            raise PlanError(f"{self.name}: no row {', '.join(unknown)}; there are: {', '.join(there)}")
        rows = tuple(row for row in self.rows if row.name in names)
        expect = tuple(e for e in self.expect if {e.better, e.than} <= set(names))
        return dataclasses.replace(self, rows=rows, expect=expect)


def list_plans(system: str) -> tuple[str, ...]:
    """Names of the plans in the package for ``ecpa`` or ``fame``."""
    folder = resources.files(__package__).joinpath(PLANS)
    names = (entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return tuple(sorted(name.removeprefix(f"{system}_") for name in names if name.startswith(f"{system}_")))


def load_plan(system: str, name: str) -> Plan:
    """A plan of the package, or the YAML file at the path ``name``. Raises :class:`PlanError`."""
    if name in list_plans(system):
        text = resources.files(__package__).joinpath(PLANS, f"{system}_{name}.yaml").read_text(encoding="utf-8")
        return read_plan(text, f"{system}_{name}")
    file = Path(name).expanduser()
    if not file.is_file():
        raise PlanError(
            f"no plan {name!r} of {system}, and no file of that name; there are: {', '.join(list_plans(system))}"
        )
    return read_plan(file.read_text(encoding="utf-8"), file.stem)


def read_plan(text: str, name: str) -> Plan:
    """A plan from YAML. Raises :class:`PlanError` for a missing or unknown field, and for rows that occur twice."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PlanError(f"{name}: not readable as YAML: {error}") from error
    if not isinstance(content, dict):
        raise PlanError(f"{name}: expected a mapping with title, source, recipe, columns and rows")
    values = {
        **content,
        "name": name,
        "columns": tuple(_part(Column, entry, name) for entry in content.get("columns", ())),
        "rows": tuple(_part(Row, entry, name) for entry in content.get("rows", ())),
        "expect": tuple(_part(Expectation, entry, name) for entry in content.get("expect", ())),
    }
    plan = _part(Plan, values, name)
    _check(plan)
    return plan


def _part(kind: type[Part], values: Any, plan: str) -> Part:
    """A dataclass of a mapping, with lists made tuples."""
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if not isinstance(values, Mapping):
        raise PlanError(f"{plan}: expected a mapping with {', '.join(fields)}; got {values!r}")
    needed = {
        name for name, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }  # fmt: skip
    if unknown := sorted(set(values) - set(fields)):
        raise PlanError(f"{plan}: unknown field {', '.join(unknown)}; there are: {', '.join(fields)}")
    if missing := sorted(needed - set(values)):
        raise PlanError(f"{plan}: {kind.__name__.lower()} without {', '.join(missing)}: {dict(values)}")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _check(plan: Plan) -> None:
    names = [row.name for row in plan.rows]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PlanError(f"{plan.name}: row {', '.join(twice)} occurs twice")
    if not names or not plan.columns:
        raise PlanError(f"{plan.name}: expected at least one row and one column")
    for expectation in plan.expect:
        if missing := {expectation.better, expectation.than} - set(names):
            raise PlanError(f"{plan.name}: expect names a row that is not there: {', '.join(sorted(missing))}")
