"""How a row of a table is run: trained by its recipe, measured on its own set and on further ones."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from training.tables.engine import Job, changes_of
from training.tables.plan import PlanError
from training.trainer.recipe import Recipe, from_dict

if TYPE_CHECKING:
    from pathlib import Path

    from emo_models.networks.base import Network
    from training.trainer.task import Task


def train_and_evaluate(job: Job) -> dict[str, float]:
    """Metrics of the recipe's own set, and of each further set under ``name/metric``."""
    from training.trainer.loop import train

    result = train(job.recipe)
    metrics = {**result.metrics, "training seconds": result.seconds, "seconds a step": result.seconds / result.steps}
    for entry in job.evaluate:
        name, split, recipe = _measured_on(job.recipe, entry)
        found = evaluate_weights(recipe, result.weights, split)
        metrics.update({f"{name}/{metric}": value for metric, value in found.items()})
    return metrics


def evaluate_weights(recipe: Recipe, weights: Path, split: str) -> dict[str, float]:
    """What trained weights are worth on the data of ``recipe``."""
    import torch

    with torch.no_grad():
        return load_task(recipe, weights).evaluate(split)


def load_task(recipe: Recipe, weights: Path) -> Task:
    """The task of a recipe with trained weights in its network, in evaluation mode."""
    from emo_models.checkpoints import load_weights
    from training.trainer.task import create_task

    task = create_task(recipe)
    load_weights(weights, into=cast("Network", task.network))
    task.network.eval()
    return task


def _measured_on(recipe: Recipe, entry: Mapping[str, Any]) -> tuple[str, str, Recipe]:
    """Name, split and recipe of a further set: ``{name, split, set}`` with the changes of the recipe."""
    unknown = sorted(set(entry) - {"name", "split", "set"})
    if unknown or "name" not in entry:
        raise PlanError(f"evaluate expects name, split (test) and set; got {dict(entry)}")
    values = recipe.to_dict()
    for change in changes_of(entry.get("set", {})):
        path, _, value = change.partition("=")
        place = values
        *parts, last = path.split(".")
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = json.loads(value)
    changed = from_dict(values)
    return str(entry["name"]), str(entry.get("split", "test")), dataclasses.replace(changed, out=recipe.out)
