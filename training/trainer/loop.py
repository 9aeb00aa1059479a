"""The training loop: AdamW with a schedule, on one device or, through accelerate, on many, with exact resume."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.utils.data import DataLoader

from emo_models.checkpoints import read_card, save_weights
from emo_models.networks.base import Network
from emo_models.weights import cache_dir
from training.trainer.log import RunLog, bar
from training.trainer.recipe import Recipe, RecipeError, ScheduleRecipe
from training.trainer.state import (
    Progress,
    RunError,
    RunFolder,
    plain_notes,
    replace_file,
    same_randomness,
    saving,
    seed_everything,
)
from training.trainer.task import DoomedRunError, Task, create_task

#: Steps between two lines of the log: reading a number from an accelerator makes it wait.
LOG_STEPS: Final = 10
WEIGHTS_FILE: Final = "weights.safetensors"
BEST_FILE: Final = "best.safetensors"
RESULT_FILE: Final = "result.json"
#: Where a task that makes a tokenizer keeps it, in the folder of the run.
TOKENIZER_FOLDER: Final = "tokenizer"


@dataclass(frozen=True)
class TrainResult:
    """What a training came to."""

    #: The weights with their card; also at ``recipe.publish`` in the cache, where that is given.
    weights: Path
    #: Metrics of these weights on the recipe's split, the primary first.
    metrics: Mapping[str, float]
    steps: int
    seconds: float
    sha256: str


def train(recipe: Recipe, *, resume: bool = True, make_task: Callable[[Recipe], Task] = create_task) -> TrainResult:
    """Train to the end, from the newest checkpoint in the recipe's folder if there is one.

    A run that is complete is not repeated. ``resume=False`` starts anew. ``make_task`` is called with the
    generators seeded, so that the network starts alike. On one CPU thread, or wherever torch computes deterministically, a run that was killed and taken up again
    ends with the same bits as one that was not.

    Raises:
        RecipeError: the recipe does not fit its data or the number of processes.
        RunError: the folder is another run's, or cannot be written.
        DoomedRunError: the run cannot come to anything.

    """
    # accelerate fixes the precision once for a process; a plan of trainings may ask for another in the next.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        mixed_precision="no" if recipe.precision == "fp32" else recipe.precision,
        gradient_accumulation_steps=recipe.accumulate,
        # Samples without a label, and prompts of faces that were not found, leave parameters out of a step.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    folder = RunFolder(recipe, fresh=not resume, main=accelerator.is_main_process)
    try:
        accelerator.wait_for_everyone()
        done = completed(folder.path) or Trainer(recipe, accelerator, folder, make_task).run()
        if recipe.publish and accelerator.is_main_process:
            publish(done.weights, cache_dir() / recipe.publish)
        return done
    finally:
        folder.close()


def learning_rate(schedule: ScheduleRecipe, step: int, steps: int) -> float:
    """Share of the full learning rate at step ``step`` (from 0) of ``steps``."""
    warm = round(schedule.warmup * steps)
    if step < warm:
        return (step + 1) / warm
    left = (steps - step) / max(steps - warm, 1)
    if schedule.name == "linear":
        return left
    return 1.0 if schedule.name == "constant" else 0.5 * (1 - math.cos(math.pi * left))


def adamw_groups(groups: Sequence[Mapping[str, Any]], lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """A task's groups as the optimiser takes them: vectors and scalars apart and without decay."""
    made = []
    for group in groups:
        base = {"lr": lr * group.get("lr_factor", 1.0)}
        params = [p for p in group["params"] if p.requires_grad]
        if "weight_decay" in group:
            made.append({**base, "params": params, "weight_decay": group["weight_decay"]})
            continue
        made.append({**base, "params": [p for p in params if p.ndim > 1], "weight_decay": weight_decay})
        made.append({**base, "params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0})
    return [{**group, "full_lr": group["lr"]} for group in made if group["params"]]


def completed(run: Path) -> TrainResult | None:
    """What a complete run came to, None for one that is not."""
    file, weights = run / RESULT_FILE, run / WEIGHTS_FILE
    if not file.is_file() or not weights.is_file():
        return None
    values = json.loads(file.read_text(encoding="utf-8"))
    return TrainResult(**{**values, "weights": weights})


def publish(weights: Path, target: Path) -> None:
    """Copy weights, whole or not at all; a tokenizer beside them goes into a folder of the weights' name.

    Raises :class:`RunError`.
    """
    unfinished = target.with_name(target.name + ".unfinished")
    with saving(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(weights, unfinished)
        if (words := weights.parent / TOKENIZER_FOLDER).is_dir():
            shutil.copytree(words, target.with_suffix("") / TOKENIZER_FOLDER, dirs_exist_ok=True)
        unfinished.replace(target)


class Objective(nn.Module):
    """A task's loss as a module, which is what accelerate can wrap for several processes."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.network = task.network
        self._task = [task]  # in a list, else a task that is a module would be registered twice

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        total, parts = self._task[0].loss(batch)
        return total, {name: value.detach().float() for name, value in {"loss": total, **parts}.items()}


class Trainer:
    """One run of :func:`train`."""

    def __init__(
        self, recipe: Recipe, accelerator: Accelerator, folder: RunFolder, make_task: Callable[[Recipe], Task]
    ) -> None:
        self.recipe, self.accelerator, self.folder = recipe, accelerator, folder
        self.main = accelerator.is_main_process
        seed_everything(recipe.seed)
        self.task = make_task(recipe)
        self.data = self.task.dataset("train")
        self.progress = Progress(items=len(cast("Sized", self.data)), processes=self.accelerator.num_processes)
        self.piece: int = self._piece()
        self.steps_of_epoch = self.progress.items // recipe.batch
        self.steps = self.steps_of_epoch * recipe.epochs
        self._stop = threading.Event()
        self._waiting: list[dict[str, Tensor]] = []

    def _piece(self) -> int:
        """Items of one forward pass of one process."""
        recipe, processes = self.recipe, int(self.accelerator.num_processes)
        pieces = processes * recipe.accumulate
        if recipe.batch % pieces:
            raise RecipeError(
                f"batch: expected a multiple of {pieces} ({processes} processes, accumulate {recipe.accumulate}); got {recipe.batch}"
            )
        if self.progress.items < recipe.batch:
            raise RecipeError(
                f"batch: expected at most the {self.progress.items} items of the training split; got {recipe.batch}"
            )
        return recipe.batch // pieces

    def run(self) -> TrainResult:
        """Train and write the weights."""
        with self._signals():
            self._train()
        return self._finish()

    # Before and after

    def _prepare(self) -> None:
        o = self.recipe.optimiser
        groups = adamw_groups(self.task.parameter_groups(), o.lr, o.weight_decay)
        if not groups:
            raise RecipeError(f"task: {self.recipe.task} has nothing to learn: everything is frozen")
        plugin = self.accelerator.state.deepspeed_plugin
        if plugin is not None:  # it asks for a loader, and this loop deals out the items itself
            plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = self.piece
        optimiser = torch.optim.AdamW(groups, lr=o.lr, betas=o.betas, eps=o.eps)
        self.objective, self.optimiser = self.accelerator.prepare(Objective(self.task), optimiser)
        seed_everything(self.recipe.seed + 1 + self.accelerator.process_index)
        restored = self.folder.load(self.accelerator, self.task)
        if restored is None:
            return
        for name, what in (("items", "items in the training split"), ("processes", "processes")):
            then, now = getattr(restored, name), getattr(self.progress, name)
            if then != now:
                raise RunError(f"{self.folder.path}: begun with {then} {what}, now {now}; start anew with --fresh")
        self.progress = restored

    def _finish(self) -> TrainResult:
        path, keep = self.folder.path, self.recipe.evaluate.keep
        if keep == "best" and (path / BEST_FILE).is_file():
            card = read_card(path / BEST_FILE)
            if self.main:
                shutil.copyfile(path / BEST_FILE, path / WEIGHTS_FILE)
        else:
            card = self._write_weights(path / WEIGHTS_FILE, self._evaluate())
        result = TrainResult(
            path / WEIGHTS_FILE, card.notes["metrics"], self.progress.step, round(self.progress.seconds, 1), card.sha256
        )
        if self.main:
            values = {k: v for k, v in dataclasses.asdict(result).items() if k != "weights"}
            with saving(path / RESULT_FILE):
                replace_file(path / RESULT_FILE, json.dumps(values, indent=1))
        self.accelerator.wait_for_everyone()
        self.accelerator.free_memory()
        return result

    def _write_weights(self, file: Path, metrics: Mapping[str, float]) -> Any:
        notes = plain_notes(self.recipe, {"metrics": dict(metrics), "steps": self.progress.step})
        card = self.task.card()
        card = dataclasses.replace(card, notes={**card.notes, **notes})
        if self.main:
            with saving(file):
                card = save_weights(cast("Network", self.task.network), file, card)
        return card

    # The loop

    def _train(self) -> None:
        self._prepare()
        p = self.progress
        self.log = RunLog(self.folder.path, p.step, main=self.main)
        self.bar = bar(self.steps, p.step, self.recipe.task, shown=self.main)
        try:
            while p.epoch < self.recipe.epochs:
                self._epoch()
        finally:
            self.bar.close()
            self.log.close()

    def _epoch(self) -> None:
        p, every = self.progress, self.recipe.checkpoint_steps
        self.task.begin_epoch(p.epoch)
        self.task.network.train()
        pieces = self._pieces(p.epoch, p.step_of_epoch)
        while p.step_of_epoch < self.steps_of_epoch:
            self._step(pieces)
            if self._stop.is_set():
                self._read()
                self.folder.save(self.accelerator, self.task, p)
                raise KeyboardInterrupt
            if every and p.step % every == 0 and p.step_of_epoch < self.steps_of_epoch:
                self._read()
                self.folder.save(self.accelerator, self.task, p)
        self._read()
        means = {name: total / p.step_of_epoch for name, total in p.sums.items()}
        p.epoch, p.step_of_epoch, p.sums = p.epoch + 1, 0, {}
        self.log("epoch", p.step, p.epoch, {**means, **self.task.end_epoch()})
        self._evaluate_epoch()
        self.folder.save(self.accelerator, self.task, p)

    def _pieces(self, epoch: int, first: int) -> Iterator[Any]:
        """What this process computes, from step ``first`` of the epoch on; every process shuffles alike."""
        order = torch.randperm(self.progress.items, generator=torch.Generator().manual_seed(self.recipe.seed + epoch))
        mine, n = self.accelerator.process_index, self.accelerator.num_processes
        lists = []
        for step in range(first, self.steps_of_epoch):
            items = order[step * self.recipe.batch : (step + 1) * self.recipe.batch].tolist()
            for number in range(self.recipe.accumulate):
                begin = (number * n + mine) * self.piece
                lists.append(items[begin : begin + self.piece])
        loader: DataLoader[Any] = DataLoader(
            self.data,
            batch_sampler=lists,
            collate_fn=self.task.collate,
            num_workers=self.recipe.workers,
            pin_memory=self.accelerator.device.type == "cuda",
            # A loader draws its workers' seed from the common generator, once per start: a run that is taken up
            # again starts one more loader.
            generator=torch.Generator().manual_seed(epoch),
        )
        return iter(loader)

    def _step(self, pieces: Iterator[Any]) -> None:
        p, begin = self.progress, time.perf_counter()
        share = learning_rate(self.recipe.schedule, p.step, self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = group["full_lr"] * share
        seen: list[dict[str, Tensor]] = []
        for _ in range(self.recipe.accumulate):
            batch = send_to_device(next(pieces), self.accelerator.device, non_blocking=True)
            with self.accelerator.accumulate(self.objective):
                total, parts = self.objective(batch)
                self.accelerator.backward(total)
                if self.accelerator.sync_gradients and self.recipe.optimiser.clip:
                    self.accelerator.clip_grad_norm_(self.objective.parameters(), self.recipe.optimiser.clip)
                self.optimiser.step()
                self.optimiser.zero_grad()
            seen.append(parts)
        self._waiting.append({name: torch.stack([each[name] for each in seen]).mean() for name in seen[0]})
        if p.step == 0:
            self.task.check_first_loss(self._mean()["loss"])
        p.step += 1
        p.step_of_epoch += 1
        p.seconds += time.perf_counter() - begin
        self.bar.update()
        if len(self._waiting) >= LOG_STEPS:
            self._read()

    def _mean(self) -> dict[str, float]:
        """Mean over the steps that wait and over all processes."""
        names = list(self._waiting[0])
        values = torch.stack([torch.stack([step[name] for name in names]) for step in self._waiting]).mean(0)
        reduced = cast("Tensor", self.accelerator.reduce(values, reduction="mean"))
        return dict(zip(names, reduced.tolist(), strict=True))

    def _read(self) -> None:
        """Log the steps that wait and add them to the epoch's sums."""
        if not self._waiting:
            return
        p, count, means = self.progress, len(self._waiting), self._mean()
        self._waiting.clear()
        if not math.isfinite(means["loss"]):
            raise DoomedRunError(
                f"the loss is {means['loss']} by step {p.step}: lower optimiser.lr, set optimiser.clip, or use "
                "precision bf16 or fp32"
            )
        for name, value in means.items():
            p.sums[name] = p.sums.get(name, 0.0) + value * count
        self.log("train", p.step, p.epoch, {**means, "lr": self.optimiser.param_groups[0]["lr"]})
        self.bar.set_postfix(loss=f"{means['loss']:.3f}")

    # Evaluation

    def _evaluate(self) -> dict[str, float]:
        with same_randomness(), torch.no_grad():
            self.task.network.eval()
            return self.task.evaluate(self.recipe.evaluate.split)

    def _evaluate_epoch(self) -> None:
        p, how = self.progress, self.recipe.evaluate
        if not how.every or p.epoch % how.every:
            return
        metrics = self._evaluate()
        self.log(how.split, p.step, p.epoch, metrics)
        primary = next(iter(metrics.values()))
        if how.keep == "best" and (p.best is None or primary > p.best):
            p.best = primary
            self._write_weights(self.folder.path / BEST_FILE, metrics)

    # Stopping

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C ends the run after the step under way, with a checkpoint; several processes cannot agree on a step."""
        if self.accelerator.num_processes > 1 or threading.current_thread() is not threading.main_thread():
            yield
            return
        old = {number: signal.signal(number, lambda *_: self._stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
