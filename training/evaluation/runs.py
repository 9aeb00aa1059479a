"""A run of ``emo train``, measured: its weights on a split of its data, its predictions, its curves, maps of a few clips."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation.curves import Curve, read_curves
from training.evaluation.predictions import Prediction, read_predictions
from training.metrics.base import MetricError

if TYPE_CHECKING:
    from training.evaluation.maps import Maps

log = logging.getLogger(__name__)

RECIPE, WEIGHTS, BEST = "recipe.yaml", "weights.safetensors", "best.safetensors"


@dataclass
class EvaluatedRun:
    """What a run's weights are worth. ``metrics``: the task's own; ``predictions``: empty where the task writes none."""

    folder: Path
    weights: str
    metrics: Mapping[str, float]
    predictions: dict[str, Prediction] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    maps: list[Maps] = field(default_factory=list)


def is_run(path: Path) -> bool:
    """Whether a folder is a run's."""
    return (path / RECIPE).is_file()


def evaluate_run(
    folder: Path, split: str = "test", changes: Sequence[str] = (), *, maps: int = 0, curves: bool = True
) -> EvaluatedRun:
    """Load the weights of a run and let its task measure them on ``split``; ``changes`` as of ``emo train --set``.

    Raises:
        MetricError: no run, one without weights yet, or weights that do not fit the recipe.
        training.trainer.recipe.RecipeError: a change that does not work, data that is not there.

    """
    import torch

    from emo_models.checkpoints import CheckpointError, read_card
    from emo_models.weights import WeightsError
    from training.tables.runs import load_task
    from training.trainer.recipe import load_recipe

    weights = next((folder / name for name in (WEIGHTS, BEST) if (folder / name).is_file()), None)
    if weights is None:
        raise MetricError(
            f"{folder} has no weights yet; let the training end: emo train {folder / RECIPE} --out {folder}"
        )
    recipe = load_recipe(folder / RECIPE, changes, folder)
    try:
        task = load_task(recipe, weights)
        before = _stamps(folder)
        with torch.no_grad():
            metrics = {name: float(value) for name, value in task.evaluate(split).items()}
    except (CheckpointError, WeightsError) as error:
        raise MetricError(f"{folder}: {error}") from None
    found = EvaluatedRun(folder, f"{weights.name} sha256 {read_card(weights).sha256[:16]}", metrics)
    written = [file for file, stamp in _stamps(folder).items() if before.get(file) != stamp]
    for file in written:
        found.predictions.update(read_predictions(file))
    if curves:
        found.curves = read_curves(folder)
    if maps:
        found.maps = _maps(task, found.predictions, maps)
    return found


def training_facts(folder: Path) -> dict[str, str]:
    """What the run says of itself, for the page."""
    file = folder / "result.json"
    if not file.is_file():
        return {}
    values = json.loads(file.read_text(encoding="utf-8"))
    return {name: str(values[name]) for name in ("steps", "seconds") if name in values}


def _stamps(folder: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in folder.glob("predictions-*.jsonl")}


def _maps(task: Any, predictions: Mapping[str, Prediction], count: int) -> list[Maps]:
    """Maps of the first clips, where the network is ECPA."""
    try:
        from emo_models.networks.ecpa import ECPA
        from training.evaluation.maps import ecpa_maps
        from training.tasks.ecpa_data import clip_item, face_features
    except ImportError:
        return []
    if not isinstance(task.network, ECPA):
        return []
    device = next(task.network.parameters()).device
    made = []
    for clip_id, prediction in list(predictions.items())[:count]:
        arrays = task.features[clip_id]
        item = {n: v[None].to(device) for n, v in clip_item(arrays, task.network.config).items()}
        read = item["clip"], face_features(item), task.captions
        try:
            maps = ecpa_maps(task.network, *read, text=prediction.text, clip_id=clip_id)
        except MetricError as error:
            log.warning("no maps of %s: %s", clip_id, error)
            continue
        # Where the visual encoder is frozen only its features are kept, no images.
        frames = _middle(arrays["clip"], task.network.config.image_size) if "clip" in arrays else None
        made.append(dataclasses.replace(maps, frames=frames))
    return made


def _middle(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The square of each image that the network sees."""
    top, left = (images.shape[1] - size) // 2, (images.shape[2] - size) // 2
    return images[:, top : top + size, left : left + size]
