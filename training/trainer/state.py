"""Checkpoints of a run: whole or absent, whatever happens while one is written."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import random
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np
import torch
import yaml
from safetensors import SafetensorError

from training.trainer.recipe import Recipe, differences

if TYPE_CHECKING:
    from accelerate import Accelerator

    from training.trainer.task import Task

RECIPE_FILE: Final = "recipe.yaml"
_UNFINISHED: Final = ".unfinished"
_NAME: Final = re.compile(r"step-(\d{8})")


class RunError(RuntimeError):
    """A run that cannot begin, go on or be saved; the message says why and what to do."""


@dataclass
class Progress:
    """How far a run is. Sums and counts are over the steps of the epoch that is under way."""

    #: Steps of the optimiser so far, epochs completed, and steps of the epoch under way.
    step: int = 0
    epoch: int = 0
    step_of_epoch: int = 0
    #: Items of the training split and processes, which must not change.
    items: int = 0
    processes: int = 1
    sums: dict[str, float] = field(default_factory=dict)
    #: Best primary metric so far.
    best: float | None = None
    seconds: float = 0.0


class RunFolder:
    """The folder of one run: its recipe, a lock, and the newest checkpoint.

    Raises :class:`RunError` when the folder holds a run of another recipe, something that is no run, or a run that
    another process works on.
    """

    def __init__(self, recipe: Recipe, *, fresh: bool, main: bool = True) -> None:
        self.path = recipe.folder
        self.checkpoints = self.path / "checkpoints"
        self._lock: IO[str] | None = None
        if main:
            self._take()
            try:
                self._open(recipe, fresh)
            except RunError:
                self.close()
                raise

    def _take(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / ".lock").open("w")
        except OSError as error:
            raise RunError(f"cannot write to the folder of the run: {error}; choose another with --out DIR") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise RunError(f"{self.path} is in use by another training; wait for it or choose --out DIR") from None

    def _open(self, recipe: Recipe, fresh: bool) -> None:
        file = self.path / RECIPE_FILE
        if not file.is_file():
            if strange := sorted(p.name for p in self.path.iterdir() if p.name != ".lock"):
                raise RunError(
                    f"{self.path} holds {strange[0]} and no {RECIPE_FILE}: expected an empty folder or a run; choose --out DIR"
                )
        elif fresh:
            self._clear()
        else:
            old = yaml.safe_load(file.read_text(encoding="utf-8"))
            changed = [line for line in differences(old, recipe.to_dict()) if not line.startswith(("out:", "publish:"))]
            if changed:
                raise RunError(
                    f"{self.path} holds a run of another recipe ({'; '.join(changed)}); start anew with --fresh, or "
                    "choose another folder with --out DIR"
                )
        with saving(file):
            replace_file(file, yaml.safe_dump(recipe.to_dict(), sort_keys=False))

    def _clear(self) -> None:
        for entry in self.path.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != ".lock":
                entry.unlink()

    def close(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.close()

    def newest(self) -> Path | None:
        """The newest whole checkpoint."""
        if not self.checkpoints.is_dir():
            return None
        whole = [p for p in self.checkpoints.iterdir() if _NAME.fullmatch(p.name)]
        return max(whole, default=None)

    def save(self, accelerator: Accelerator, task: Task, progress: Progress) -> None:
        """Write a checkpoint beside the last one, then drop the last one. Raises :class:`RunError` and keeps the last."""
        final = self.checkpoints / f"step-{progress.step:08d}"
        unfinished = final.with_suffix(_UNFINISHED)
        before = self.newest()
        with saving(unfinished, f"; the checkpoint of {before.name} is whole" if before else ""):
            if accelerator.is_main_process:
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir(parents=True)
            accelerator.wait_for_everyone()
            accelerator.save_state(str(unfinished))
            if accelerator.is_main_process:
                torch.save(task.state(), unfinished / "task.pt")
                text = json.dumps(dataclasses.asdict(progress))
                (unfinished / "progress.json").write_text(text, encoding="utf-8")
            accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            for file in unfinished.rglob("*"):
                _sync(file)
            shutil.rmtree(final, ignore_errors=True)
            unfinished.rename(final)
            for old in self.checkpoints.iterdir():
                if old != final:
                    shutil.rmtree(old)
        accelerator.wait_for_everyone()

    def load(self, accelerator: Accelerator, task: Task) -> Progress | None:
        """Take up the newest checkpoint; None where there is none. Raises :class:`RunError` for one that is damaged."""
        folder = self.newest()
        if folder is None:
            return None
        try:
            accelerator.load_state(str(folder))
            task.load_state(torch.load(folder / "task.pt", weights_only=True))
            return Progress(**json.loads((folder / "progress.json").read_text(encoding="utf-8")))
        except (OSError, RuntimeError, ValueError, TypeError, KeyError, EOFError, SafetensorError) as error:
            raise RunError(
                f"{folder}: not a whole checkpoint of this network ({error}); start anew with --fresh"
            ) from None


@contextmanager
def saving(place: Path, after: str = "") -> Iterator[None]:
    """Turn what goes wrong while ``place`` is written into a :class:`RunError`, and leave nothing half written behind."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RunError):
            raise
        if place.is_dir():
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.with_name(place.name + _UNFINISHED).unlink(missing_ok=True)
        raise RunError(
            f"cannot write {place}: {_reason(error)}{_room(place)}{after}; make room and type the same command again"
        ) from error


def replace_file(file: Path, text: str) -> None:
    """Write a whole file or none."""
    unfinished = file.with_name(file.name + _UNFINISHED)
    unfinished.write_text(text, encoding="utf-8")
    _sync(unfinished)
    unfinished.replace(file)


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _reason(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _room(place: Path) -> str:
    with suppress(OSError):
        folder = next(p for p in place.parents if p.is_dir())
        return f" ({shutil.disk_usage(folder).free / 1e6:.0f} MB free there)"
    return ""


@contextmanager
def same_randomness() -> Iterator[None]:
    """Leave all generators as they were: what happens in between must not change the training."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def seed_everything(seed: int) -> None:
    """Seed torch's, numpy's and Python's own generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def plain_notes(recipe: Recipe, extra: Mapping[str, Any]) -> dict[str, Any]:
    """What a card tells about a training; folders of this machine are left out."""
    values = recipe.to_dict()
    values["data"].pop("root")
    values.pop("out")
    return {"recipe": values, **extra}
