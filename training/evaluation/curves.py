"""The numbers that a training logged, out of its TensorBoard event files."""

from __future__ import annotations

from pathlib import Path

from training.metrics.base import MetricError

Curve = tuple[list[int], list[float]]


def read_curves(run: Path) -> dict[str, Curve]:
    """Name of a figure (``train/loss``) -> steps and values, of all event files in a run's folder; none: empty.

    Of a step that was logged twice, as before and after a kill, the later counts.
    Raises :class:`MetricError` without tensorboard.
    """
    if not any(run.rglob("events.out.tfevents.*")):
        return {}
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError as error:
        raise MetricError(f"loss curves need tensorboard ({error}); type: make train, or --no-plots") from None
    folders = sorted({file.parent for file in run.rglob("events.out.tfevents.*")})
    found: dict[str, dict[int, float]] = {}
    for folder in folders:
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        events.Reload()
        for name in events.Tags()["scalars"]:
            found.setdefault(name, {}).update({event.step: event.value for event in events.Scalars(name)})
    return {name: (sorted(points), [points[s] for s in sorted(points)]) for name, points in found.items()}
