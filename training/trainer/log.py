"""What a run tells while it goes on: a progress bar, TensorBoard, and the same numbers as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

METRICS_FILE: Final = "metrics.jsonl"


class RunLog:
    """Numbers of a run, in ``metrics.jsonl`` and ``tensorboard/`` of its folder.

    ``step``: where the run goes on; what a killed process had logged beyond is dropped. ``main=False`` does nothing.
    """

    def __init__(self, folder: Path, step: int, *, main: bool = True) -> None:
        self._file = folder / METRICS_FILE
        self._writer: SummaryWriter | None = None
        if main:
            kept = [line for line in read_metrics(folder) if line["step"] <= step]
            self._file.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def __call__(self, kind: str, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """Log ``values`` of ``kind`` (``train``, ``epoch``, or a split) after ``step`` steps."""
        if self._writer is None:
            return
        line = {"kind": kind, "step": step, "epoch": epoch, **{name: float(value) for name, value in values.items()}}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        for name, value in values.items():
            self._writer.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Write out what TensorBoard still holds back."""
        if self._writer is not None:
            self._writer.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All lines of a run's ``metrics.jsonl``: ``kind``, ``step``, ``epoch`` and the numbers; a torn last line is left out."""
    file = folder / METRICS_FILE
    lines = []
    for text in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def bar(total: int, done: int, name: str, *, shown: bool) -> tqdm[Any]:
    """A progress bar over steps; none where nobody looks (no terminal)."""
    return tqdm(total=total, initial=done, desc=name, unit="step", dynamic_ncols=True, disable=None if shown else True)
