"""Plots as PNG: loss curves, confusion, bars per action unit, attention and alignment maps."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import ArrayLike

from training.metrics.base import MetricError

if TYPE_CHECKING:
    from training.evaluation.maps import Maps

DPI: Final = 110
#: More points than a page is wide are averaged in equal groups.
MOST_POINTS: Final = 600


def curves(series: Mapping[str, Mapping[str, tuple[Sequence[int], Sequence[float]]]], columns: int = 3) -> bytes:
    """One panel per figure: name -> run -> steps and values."""
    figure, cells = panels(len(series), columns, (4.4, 2.9))
    for panel, (name, runs) in zip(cells, sorted(series.items()), strict=False):
        for run, (steps, values) in runs.items():
            panel.plot(*_thinned(steps, values), label=run, linewidth=1.2)
        panel.set_title(name, fontsize=9)
        panel.set_xlabel("step", fontsize=8)
        panel.tick_params(labelsize=7)
        panel.grid(visible=True, alpha=0.3)
        if len(runs) > 1:
            panel.legend(fontsize=7)
    return png(figure)


def confusion(matrix: ArrayLike, labels: Sequence[str]) -> bytes:
    """Rows are true classes, columns predicted ones; colours are shares of the row, numbers are clips."""
    counts = np.asarray(matrix)
    size = max(3.6, 0.55 * len(labels) + 1.6)
    figure, (panel,) = panels(1, 1, (size + 0.8, size))
    total = counts.sum(1, keepdims=True)
    shares = np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, line in enumerate(counts):
        for column, count in enumerate(line):
            if count:
                colour = "white" if shares[row, column] > 0.5 else "black"
                panel.text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)
    panel.set_xticks(range(len(labels)), labels, rotation=45, ha="right", fontsize=8)
    panel.set_yticks(range(len(labels)), labels, fontsize=8)
    panel.set_xlabel("predicted")
    panel.set_ylabel("true")
    return png(figure)


def bars(names: Sequence[str], groups: Mapping[str, ArrayLike], *, limit: float | None = 1.0) -> bytes:
    """Bars side by side: for each name one of every group; NaN leaves a gap."""
    figure, (panel,) = panels(1, 1, (max(4.5, 0.42 * len(names) * max(1, len(groups)) ** 0.5 + 1.5), 3.0))
    width = 0.8 / max(1, len(groups))
    place = np.arange(len(names))
    for number, (group, values) in enumerate(groups.items()):
        heights = np.nan_to_num(np.asarray(values, np.float64))
        panel.bar(place + (number - (len(groups) - 1) / 2) * width, heights, width, label=group)
    panel.set_xticks(place, names, rotation=60 if len(names) > 8 else 0, fontsize=8)
    if limit is not None:
        panel.set_ylim(0, limit)
    panel.grid(visible=True, axis="y", alpha=0.3)
    if len(groups) > 1:
        panel.legend(fontsize=8)
    return png(figure)


def attention(maps: Maps) -> bytes:
    """Fig. 10: how much each word attends to the pairs of frames and to the prompts."""
    figure, (panel,) = panels(1, 1, (0.55 * len(maps.columns) + 2.6, 0.24 * len(maps.words) + 1.3))
    _heat(panel, maps.attention, maps.words, maps.columns, colours="viridis")
    panel.axvline(maps.steps - 0.5, color="white", linewidth=1)
    return png(figure)


def prompts(maps: Maps) -> bytes:
    """Fig. 11: where the video features are strong, and where they agree with each prompt; a column is a pair of frames."""
    figure, cells = panels(len(maps.spatial) * maps.steps, maps.steps, (1.25, 1.25))
    for row, (name, grid) in enumerate(maps.spatial.items()):
        low, high = float(grid.min()), float(grid.max())
        for step in range(maps.steps):
            panel = cells[row * maps.steps + step]
            if maps.frames is not None:
                panel.imshow(maps.frames[min(2 * step, len(maps.frames) - 1)], extent=(0, 1, 0, 1))
            panel.imshow(
                grid[step], cmap="jet", alpha=0.5 if maps.frames is not None else 1.0, vmin=low, vmax=high,
                extent=(0, 1, 0, 1), interpolation="bilinear",
            )  # fmt: skip
            panel.set_xticks([])
            panel.set_yticks([])
            if step == 0:
                panel.set_ylabel(name, fontsize=7)
    return png(figure)


def alignment(maps: Maps) -> bytes:
    """Fig. 12: emotions of the whole clip, and the similarity of each action unit's prompt with each word.

    Only what the network has; there must be one of the two.
    """
    parts = [part for part, there in (("emotion", maps.emotion), ("units", maps.similarity.size)) if there]
    height = 0.3 * max(len(maps.aus), len(maps.emotion)) + 1.6
    figure, cells = panels(len(parts), 2, (0.22 * max(len(maps.content), 8) + 2.2, height))
    for part, panel in zip(parts, cells, strict=True):
        if part == "emotion":
            names = list(maps.emotion)
            panel.barh(names[::-1], [maps.emotion[name] for name in names][::-1])
            panel.set_title("emotion of the clip", fontsize=9)
            panel.set_xlim(0, 1)
            panel.tick_params(labelsize=8)
        else:
            most = float(np.abs(maps.similarity).max())
            rows = [f"AU{au}" for au in maps.aus]
            _heat(panel, maps.similarity, rows, maps.content, colours="coolwarm", limits=(-most, most))
            panel.set_title("cosine of action units and words", fontsize=9)
    return png(figure)


def _heat(
    panel: Any, values: Any, rows: Sequence[str], columns: Sequence[str], *, colours: str,
    limits: tuple[float | None, float | None] = (None, None),
) -> None:  # fmt: skip
    image = panel.imshow(values, cmap=colours, aspect="auto", vmin=limits[0], vmax=limits[1])
    panel.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=7)
    panel.set_yticks(range(len(rows)), rows, fontsize=7)
    panel.figure.colorbar(image, ax=panel, fraction=0.04, pad=0.02).ax.tick_params(labelsize=7)


def panels(count: int, columns: int, size: tuple[float, float]) -> tuple[Any, list[Any]]:
    """A figure of ``count`` panels, each of ``size`` in inches. Raises :class:`MetricError` without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MetricError(
            f"plots need matplotlib ({error}); type: make train, or leave them out with --no-plots"
        ) from None
    columns = max(1, min(columns, count))
    rows = max(1, -(-count // columns))
    figure = Figure(figsize=(columns * size[0], rows * size[1]), layout="constrained")
    made = [figure.add_subplot(rows, columns, place + 1) for place in range(rows * columns)]
    for panel in made[count:]:
        panel.set_visible(False)
    return figure, made


def _thinned(steps: Sequence[int], values: Sequence[float]) -> tuple[Any, Any]:
    x, y = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    if len(x) <= MOST_POINTS:
        return x, y
    groups = np.array_split(np.arange(len(x)), MOST_POINTS)
    return [x[group].mean() for group in groups], [y[group].mean() for group in groups]


def png(figure: Any) -> bytes:
    """A figure as PNG; equal figures give equal bytes."""
    buffer = io.BytesIO()
    # Without the version of matplotlib in it, equal plots are equal files.
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
