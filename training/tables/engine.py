"""Runs a plan: every row with every seed, each exactly once, wherever it was stopped before.

A run is known by what determines its outcome: how it is run, the recipe with all changes, the seed. Its results lie in
``OUT/runs/<key>/result.json``; rows of different tables that are the same run share it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from training.tables.plan import Plan, PlanError, Row
from training.trainer.recipe import Recipe, RecipeError, load_recipe

log = logging.getLogger(__name__)

#: Turns a job into metrics by name.
Runner = Callable[["Job"], Mapping[str, float]]


@dataclass(frozen=True)
class Job:
    """One run. ``recipe``: with all changes, its seed and its folder; ``evaluate``: further sets to measure on.

    ``folder``: of this run alone; it may hold what an interrupted run left.
    """

    recipe: Recipe
    evaluate: tuple[Mapping[str, Any], ...]
    folder: Path


@dataclass(frozen=True)
class Outcome:
    """What a run gave: ``metrics`` by name, or the ``error`` that stopped it."""

    row: str
    seed: int
    metrics: Mapping[str, float]
    error: str = ""
    seconds: float = 0.0


def outcomes(plan: Plan, out: Path, *, run: bool = True, stop: tuple[type[Exception], ...] = ()) -> Iterator[Outcome]:
    """Results of all rows and seeds, in order of the seeds; what has no result yet is run, unless ``run`` is false.

    An exception of a type in ``stop`` ends that run alone: it becomes an outcome with an error, and is tried again next
    time. Any other ends the plan; what was finished before it is kept.
    """
    for seed in plan.seeds:
        for row in plan.rows:
            if not row.run:
                continue  # the paper's figures alone
            outcome = _stored(plan, row, seed, out)
            if outcome is None and run:
                outcome = _run(plan, row, seed, out, stop)
            if outcome is not None:
                yield outcome


def job_of(plan: Plan, row: Row, seed: int, out: Path) -> Job:
    """The run of a row with a seed. Raises :class:`PlanError` for a recipe or a change of it that does not work."""
    # A row of a table is for comparison: it must not take the place of the weights that others look for.
    changes = {**plan.set, **row.set, "seed": seed, "publish": ""}
    name = row.recipe or plan.recipe
    try:
        recipe = load_recipe(name, changes_of(changes))
    except RecipeError as error:
        raise PlanError(f"{plan.name}, row {row.name}: {error}") from None
    content = {key: value for key, value in recipe.to_dict().items() if key not in ("out", "evaluate")}
    folder = out / "runs" / _key(run=row.run, recipe=content)
    return Job(dataclasses.replace(recipe, out=str(folder / "training")), row.evaluate or plan.evaluate, folder)


def changes_of(values: Mapping[str, Any]) -> list[str]:
    """``{"optimiser.lr": 0.1}`` -> ``["optimiser.lr=0.1"]``, as :func:`load_recipe` takes them."""
    return [f"{name}={json.dumps(value)}" for name, value in values.items()]


def _run(plan: Plan, row: Row, seed: int, out: Path, stop: tuple[type[Exception], ...]) -> Outcome:
    job = job_of(plan, row, seed, out)
    job.folder.mkdir(parents=True, exist_ok=True)
    log.info("%s: %s, seed %d, in %s", plan.name, row.name, seed, job.folder)
    start = time.monotonic()
    try:
        metrics = {name: float(value) for name, value in _runner(row.run)(job).items()}
    except stop as error:
        return Outcome(row.name, seed, {}, f"{type(error).__name__}: {error}", time.monotonic() - start)
    seconds = time.monotonic() - start
    _write(_result_file(job), {
        "run": row.run, "recipe": job.recipe.to_dict(), "evaluate": [dict(entry) for entry in job.evaluate],
        "metrics": metrics, "seconds": round(seconds, 1),
    })  # fmt: skip
    return Outcome(row.name, seed, metrics, "", seconds)


def _stored(plan: Plan, row: Row, seed: int, out: Path) -> Outcome | None:
    file = _result_file(job_of(plan, row, seed, out))
    if not file.is_file():
        return None
    content = json.loads(file.read_text(encoding="utf-8"))
    return Outcome(row.name, seed, content["metrics"], "", content["seconds"])


def _result_file(job: Job) -> Path:
    """One file for each choice of sets to measure on, so that tables share a training but not its measurements."""
    measured = [dict(entry) for entry in job.evaluate]
    return job.folder / f"result-{_key(evaluate=measured, own=dataclasses.asdict(job.recipe.evaluate))}.json"


def _runner(name: str) -> Runner:
    module, _, function = name.partition(":")
    try:
        found: Runner = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise PlanError(f"run: {name!r} is not a module:function that can be imported ({error})") from error
    return found


def _key(**content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _write(file: Path, content: Mapping[str, Any]) -> None:
    part = file.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(file)
