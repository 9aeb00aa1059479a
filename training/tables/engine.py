"""Runs a plan: every row with every seed, each exactly once, wherever it was stopped before.

A run is known by what determines its outcome: how it is run, the recipe with all changes, the seed. Its results lie in
``OUT/runs/<key>/result.json``; rows of different tables that are the same run share it.
"""

from __future__ import annotations

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

log = logging.getLogger(__name__)

#: Turns a job into metrics by name.
Runner = Callable[["Job"], Mapping[str, float]]


@dataclass(frozen=True)
class Job:
    """One run. ``recipe``: name or path; ``set``: its changes by dotted name; ``evaluate``: sets to measure on.

    ``folder``: of this training alone; it may hold what an interrupted run left.
    """

    recipe: str
    set: Mapping[str, Any]
    seed: int
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
            outcome = _stored(plan, row, seed, out)
            if outcome is None and run:
                outcome = _run(plan, row, seed, out, stop)
            if outcome is not None:
                yield outcome


def job_of(plan: Plan, row: Row, seed: int, out: Path) -> Job:
    """The run of a row with a seed."""
    changes = {**plan.set, **row.set}
    recipe = row.recipe or plan.recipe
    key = _key(run=row.run, recipe=recipe_text(recipe), set=changes, seed=seed)
    return Job(recipe, changes, seed, row.evaluate or plan.evaluate, out / "runs" / key)


def recipe_text(recipe: str) -> str:
    """Content of a recipe, so that a changed recipe is another run. Raises :class:`PlanError` when there is none."""
    from training.trainer.recipe import recipe_file

    try:
        return recipe_file(recipe).read_text(encoding="utf-8")
    except (OSError, ValueError, KeyError) as error:
        raise PlanError(f"recipe {recipe}: {error}") from error


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
        "run": row.run, "recipe": job.recipe, "set": dict(job.set), "seed": seed,
        "evaluate": [dict(entry) for entry in job.evaluate], "metrics": metrics, "seconds": round(seconds, 1),
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
    return job.folder / f"result-{_key(evaluate=[dict(entry) for entry in job.evaluate])}.json"


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
