"""All networks, small, on a drawn world, one after the other: what ``make toy`` does.

Each step is a recipe that may also be followed by itself. A step that is complete is not repeated, so a run that was
stopped goes on where it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from emo_models.weights import toy_file
from training.evaluation.document import Block, Heading, Paragraph, Table, write
from training.trainer.log import read_metrics
from training.trainer.loop import TrainResult, train
from training.trainer.recipe import load_recipe
from training.trainer.state import replace_file

METRICS_FILE: Final = "metrics.json"


@dataclass(frozen=True)
class Step:
    """One training: a packaged recipe and what is smaller than in it."""

    recipe: str
    about: str
    changes: tuple[str, ...] = ()


STEPS: Final = (
    Step("detector_toy", "SCRFD: faces and five points in whole scenes"),
    Step("anfl_toy", "ANFL: action units of faces"),
    Step("er_toy", "ResNet: expression of faces, for ECPA"),
    Step("ddamfn_toy", "DDAMFN: expression of faces, for FAME-Net"),
)


def train_toys(
    world: Path, out: Path, steps: Sequence[Step] = STEPS, *, tell: Callable[[str], None] = print
) -> dict[str, Any]:
    """Follow the steps' recipes on the data sets below ``world``; writes ``metrics.json`` and the report into ``out``.

    Returns what ``metrics.json`` holds. Raises what :func:`training.trainer.loop.train` raises.
    """
    found: dict[str, TrainResult] = {}
    begin = time.monotonic()
    for number, step in enumerate(steps, 1):
        tell(f"[{number}/{len(steps)}] {step.recipe}: {step.about}")
        found[step.recipe] = train(_recipe(step, world, out))
        figures = ", ".join(f"{name} {value:.3f}" for name, value in list(found[step.recipe].metrics.items())[:4])
        tell(f"      {figures}  ({time.monotonic() - begin:.0f} s so far)")
    values = {
        "seconds": round(sum(result.seconds for result in found.values()), 1),
        "steps": {
            name: {"metrics": dict(r.metrics), "steps": r.steps, "seconds": r.seconds, "sha256": r.sha256}
            for name, r in found.items()
        },
    }
    replace_file(out / METRICS_FILE, json.dumps(values, indent=1) + "\n")
    write(out, report(steps, found, out))
    tell(f"metrics: {out / METRICS_FILE}; report: {out / 'report.html'}; weights: {toy_file('*').parent}")
    return values


def _recipe(step: Step, world: Path, out: Path) -> Any:
    """The step's recipe with its data in ``world`` instead of ``toy/world``."""
    plain = load_recipe(step.recipe, step.changes)
    root = Path(plain.data.root)
    moved = world / root.relative_to("toy/world") if root.is_relative_to("toy/world") else root
    return load_recipe(step.recipe, (*step.changes, f"data.root={moved}"), out / "runs" / step.recipe)


def report(steps: Sequence[Step], found: Mapping[str, TrainResult], out: Path) -> list[Block]:
    """What came of it, as a page."""
    blocks: list[Block] = [
        Heading("Toy world: what the small networks learned", 1),
        Paragraph(
            "Measured on the test part, whose people and wordings no training has seen. Nothing here is about real faces."
        ),
    ]
    for step in steps:
        result = found[step.recipe]
        losses = [line["loss"] for line in read_metrics(out / "runs" / step.recipe) if line["kind"] == "epoch"]
        blocks += [
            Heading(step.about, 2),
            Paragraph(
                f"Recipe {step.recipe}: {result.steps} steps in {result.seconds:.0f} s; mean loss of the first epoch "
                f"{losses[0]:.3f}, of the last {losses[-1]:.3f}."
            ),
            Table(("metric", "value"), [(name, f"{value:.4f}") for name, value in result.metrics.items()]),
        ]
    return blocks
