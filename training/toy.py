"""All networks, small, on drawn worlds: what ``make toy`` does.

Each step is a recipe that may also be followed by itself. Steps run side by side, one thread each, as far as they do not
need each other. What is complete is not repeated, so that a run which was stopped goes on where it was.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from emo_models.weights import cache_dir
from emo_perception.tools import cli
from training.evaluation.curves import read_curves
from training.evaluation.document import Block, Heading, Paragraph, Picture, Table, write
from training.evaluation.plots import curves
from training.trainer.loop import RESULT_FILE
from training.trainer.recipe import load_recipe
from training.trainer.state import replace_file

METRICS_FILE: Final = "metrics.json"
#: Folder that the packaged toy recipes read their worlds from.
HOME: Final = Path("toy")

#: Drawn clips with captions, below :data:`HOME`.
CLIPS: Final = "world/mafw/data/clips/*.mp4"

WITH_PARENT: Final = Path(cli.__file__).with_name("_with_parent.py")

Tell = Callable[[str], None]


class ToyError(RuntimeError):
    """A step failed; the message names it and has what it said."""


#: Stands in a world that is complete.
DONE: Final = ".complete"


@dataclass(frozen=True)
class Step:
    """A piece of work in a process of its own: arguments of ``emo``; ``needs``: steps that must be done before."""

    name: str
    about: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()


def drawing(name: str, about: str, *command: str) -> Step:
    """Something drawn, as ``emo toy`` can."""
    return Step(name, about, ("toy", *command, "--out"))


def training(recipe: str, about: str, needs: Sequence[str], *changes: str, name: str = "") -> Step:
    """Following a packaged recipe; ``changes``: fields that are other than in it; ``name``: of a second one of the kind."""
    sets = tuple(word for change in changes for word in ("--set", change))
    return Step(name or recipe, about, ("train", recipe, *sets, "--out"), tuple(needs))


#: In the graph a small detector places the faces, not as exactly as the recipe's drawing.
FOUND_FACES: Final = {"turn_deg": 8.0, "shift": 0.07, "zoom": 0.08, "light": 0.2}
#: The networks that ECPA and FAME-Net take as they are learn from other worlds than these two, other people included. What
#: others wait for longest stands first.
STEPS: Final = (
    drawing("world_actions", "500 clips", "world", "--seed", "101", "--clips", "500", "--dialogues", "0"),
    training("language_toy", "a language model, taught by scripts of dialogues", []),
    drawing("world", "900 clips with captions", "world", "--seed", "1", "--clips", "900", "--dialogues", "0"),
    training("actions_toy", "Video Swin: actions, things and places", ["world_actions"]),
    training("anfl_toy", "ANFL: action units of faces", ["world_actions"], "epochs=14"),  # captions stand on it
    drawing("scenes", "2400 scenes", "scenes"),
    training("clip_scenes_toy", "CLIP: pictures against words", ["scenes"]),
    drawing("faces", "2400 faces", "faces"),
    training(
        "ddamfn_faces_toy", "DDAMFN: expression of faces, for FAME-Net", ["faces"],
        *(f"options.variation.{name}={value}" for name, value in FOUND_FACES.items()),
    ),
    drawing("world_fame", "220 dialogues", "world", "--seed", "3", "--clips", "0", "--dialogues", "220"),
    training("ecpa_toy", "ECPA: captions with evidence", ["world", "anfl_toy", "actions_toy"]),
    training(
        "fame_toy",
        "FAME-Net: causes of emotions",
        ["world_fame", "clip_scenes_toy", "language_toy", "ddamfn_faces_toy"],
        "options.faces=points",  # a robot seldom knows whose face it sees
    ),
    training("detector_toy", "SCRFD: faces and five points in whole scenes", ["world_actions"]),
    training("er_toy", "ResNet: expression of faces, another source of ECPA's ER prompt", ["world_actions"]),
    Step(
        "engines", "engines of profile toy", ("engines", "build", "--profile", "toy"),
        ("anfl_toy", "ddamfn_faces_toy", "ecpa_toy", "fame_toy", "detector_toy", "er_toy"),
    ),
)  # fmt: skip


def train_toys(
    home: Path, out: Path, steps: Sequence[Step] = STEPS, *, jobs: int = 0, tell: Tell = print
) -> dict[str, Any]:
    """Do all steps, the worlds in ``home``; writes ``metrics.json`` and the report into ``out``.

    ``jobs``: steps side by side, 0 for one on each core. Returns what ``metrics.json`` holds. Raises
    :class:`ToyError` when a step fails; the others are then ended, and keep their checkpoints.
    """
    begin = time.monotonic()
    (out / "runs").mkdir(parents=True, exist_ok=True)
    crew = Crew(home, out, tell)
    jobs = jobs or os.cpu_count() or 1
    with ThreadPoolExecutor(jobs) as pool:
        try:
            _in_order(steps, lambda step: pool.submit(crew.do, step), jobs)
        except BaseException:
            crew.end()
            raise
    found = {step.name: _result(out, step.name) for step in steps if step.command[0] == "train"}
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    values = {
        "seconds": round(time.monotonic() - begin, 1), "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "cores": os.cpu_count(), "steps": found,
    }  # fmt: skip
    replace_file(out / METRICS_FILE, json.dumps(values, indent=1) + "\n")
    write(out, report([step for step in steps if step.name in found], found, out))
    tell(f"metrics: {out / METRICS_FILE}; report: {out / 'report.html'}; weights: {cache_dir() / 'toy'}")
    if (clip := next(iter(sorted(home.glob(CLIPS))), None)) is not None and any(s.name == "engines" for s in steps):
        tell(f"now type: emo run --profile toy --source {clip}")
    return values


def _in_order(steps: Sequence[Step], start: Callable[[Step], Future[None]], jobs: int) -> None:
    """Start each step when those that it needs are done; of those that could start, the first."""
    left, done, running = list(steps), set[str](), dict[Future[None], str]()
    while left or running:
        ready = [step for step in left if set(step.needs) <= done]
        for step in ready[: jobs - len(running)]:
            left.remove(step)
            running[start(step)] = step.name
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            name = running.pop(future)
            future.result()
            done.add(name)


class Crew:
    """The processes of the steps."""

    def __init__(self, home: Path, out: Path, tell: Tell) -> None:
        self.home, self.out, self.tell = home, out, tell
        self._running: set[subprocess.Popen[str]] = set()
        self._ended = False

    def do(self, step: Step) -> None:
        """Run one step to its end. Raises :class:`ToyError`."""
        folder, begin, drawn = self._folder(step), time.monotonic(), step.command[0] == "toy"
        if self._ended or (drawn and (folder / DONE).is_file()):
            return
        if drawn:
            shutil.rmtree(folder, ignore_errors=True)  # half a world is drawn again
        log = self.out / "runs" / f"{step.name}.log"
        # A child ends with this process, however that happens.
        launcher = [sys.executable, "-I", "-S", str(WITH_PARENT), str(os.getpid())] if sys.platform == "linux" else []
        place = [str(folder), *self._data(step)] if step.command[0] in ("toy", "train") else []
        command = [*launcher, sys.executable, "-m", cli.__name__, *step.command, *place]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with log.open("w", encoding="utf-8") as told:
            process = subprocess.Popen(command, env=environment, stdout=told, stderr=subprocess.STDOUT, text=True)
            self._running.add(process)
            code = process.wait()
            self._running.discard(process)
        if code:
            said = log.read_text(encoding="utf-8").strip().splitlines()
            raise ToyError(
                f"{step.name} ended with {code}: {said[-1] if said else 'nothing was said'} (all of it: {log})"
            )
        if drawn:
            (folder / DONE).touch()
        self.tell(f"{step.name:<16} {step.about}: {time.monotonic() - begin:.0f} s{self._figures(step)}")

    def end(self) -> None:
        """Ask what still runs to stop; trainings write a checkpoint first."""
        self._ended = True
        for process in list(self._running):
            process.terminate()

    def _folder(self, step: Step) -> Path:
        return self.home / step.name if step.command[0] == "toy" else self.out / "runs" / step.name

    def _data(self, step: Step) -> tuple[str, ...]:
        """The recipe's world, where it is not in ``toy/``."""
        if step.command[0] == "toy":
            return ()
        root = Path(load_recipe(step.command[1]).data.root)
        return ("--set", f"data.root={self.home / root.relative_to(HOME)}") if root.is_relative_to(HOME) else ()

    def _figures(self, step: Step) -> str:
        if step.command[0] != "train":
            return ""
        metrics = _result(self.out, step.name)["metrics"]
        return "; " + ", ".join(f"{name} {value:.3f}" for name, value in list(metrics.items())[:4])


def _result(out: Path, name: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((out / "runs" / name / RESULT_FILE).read_text(encoding="utf-8"))
    return values


def report(steps: Sequence[Step], found: Mapping[str, Mapping[str, Any]], out: Path) -> list[Block]:
    """What came of it, as a page."""
    blocks: list[Block] = [
        Heading("Toy world: what the small networks learned", 1),
        Paragraph(
            "Measured on the test part, whose people and wordings no training has seen. Nothing here is about real faces."
        ),
    ]
    for step in steps:
        result = found[step.name]
        blocks += [
            Heading(step.about, 2),
            Paragraph(f"Recipe {step.name}: {result['steps']} steps in {result['seconds']:.0f} s."),
            Table(("metric", "value"), [(name, f"{value:.4f}") for name, value in result["metrics"].items()]),
        ]
    losses = {
        step.name: {"loss": seen["train/loss"]} for step in steps if (seen := read_curves(out / "runs" / step.name))
    }
    if losses:
        blocks += [Heading("Losses", 2), Picture("losses", curves(losses), "Training loss over the steps")]
    return blocks
