"""FAME-Net's delay at the end of an utterance, after dialogues of 10, 60 and 300 seconds, with and without warmed keys.

What is measured is the cause process: the video is pooled on arrival, as perception does, so that only its sums are read
at the end of an utterance. Random weights will do: time does not depend on what is said, and such answers never end early.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import scenes
from benchmarks.page import Goal, Part, table
from emo_perception.config import CauseConfig
from emo_perception.types import NS_PER_S, Utterance, VisualContext

if TYPE_CHECKING:
    from emo_perception.stages.cause import CauseStage

SECONDS = (10, 60, 300)
LINES = 4
"""Said in each dialogue, however long it takes, so that only time differs; beside it, a line every few seconds."""
EVERY_S = 4.0
RATE_HZ, FACES_HZ = 10, 10
TURNS = 9
MOST_GROWTH = 1.25
"""The first word after 300 s, of the time after 10 s: noise, and up to twice the rows of video by the grid's level."""
TARGET = "Oh no, she will be run over by a car!"


@dataclass(frozen=True)
class Delay:
    """Medians of some turns, milliseconds: ``taken_ms`` until the case is ready (words read, triggers ranked), then until
    the first word, ``cold_ms`` without and ``warm_ms`` with the keys of the history, and ``answer_ms`` until the last."""

    seconds: int
    lines: int
    tokens: int
    video: int
    reused: str
    snapshot_ms: float
    taken_ms: float
    cold_ms: float
    warm_ms: float
    answer_ms: float


@dataclass(frozen=True)
class CausesRun:
    """``sparse``: few words; ``dense``: talk without a break, of which the last minute is history."""

    preset: str
    about: str
    sparse: tuple[Delay, ...]
    dense: tuple[Delay, ...]

    @property
    def growth(self) -> float:
        """Delay of the first word in the longest dialogue, of that in the shortest."""
        first, last = ((d.snapshot_ms + d.taken_ms + d.cold_ms) for d in (self.sparse[0], self.sparse[-1]))
        return last / first


def measure(
    preset: str, say: Callable[[str], None] = lambda _: None, seconds: Sequence[int] = SECONDS, turns: int = TURNS
) -> CausesRun:
    """Both kinds of dialogue, as long as ``seconds`` says. Raises as :func:`emo_perception.stages.cause.make_cause_stage`."""
    from emo_perception.stages.cause import make_cause_stage
    from emo_perception.stages.cause.explainers.fame import FameExplainer

    runs: list[tuple[Delay, ...]] = []
    about = ""
    for window_s, lines in ((600.0, _few), (60.0, _many)):
        config = CauseConfig(
            explainer="fame", preset=preset, weights="random", window_s=window_s, memory_tokens=100_000, quiet_s=0.0,
            min_confidence=0.0, answer_s=0.0,
        )  # fmt: skip
        stage = make_cause_stage(config)
        explainer = stage.explainer
        assert isinstance(explainer, FameExplainer)
        explainer.prompt = dataclasses.replace(explainer.prompt, instruction="static")
        stage.warmup()
        about = explainer.loaded.about
        found = []
        for length in seconds:
            say(f"causes of fame/{preset}, {length} s of dialogue, {lines(length)} lines")
            found.append(_delay(stage, length, lines(length), turns))
        runs.append(tuple(found))
        stage.close()
    return CausesRun(preset, about, *runs)


def _few(_: int) -> int:
    return LINES


def _many(seconds: int) -> int:
    return int(seconds / EVERY_S)


def _delay(stage: CauseStage, seconds: int, lines: int, turns: int) -> Delay:
    """The delay after a dialogue of that length."""
    from emo_models.networks.fame.streaming import DyadicVideo

    explainer: Any = stage.explainer
    network, dialogue = explainer.loaded.network, _dialogue(seconds, lines)
    video = DyadicVideo(network.config.frames)
    patches = _random_patches(explainer)
    for number in range(seconds * RATE_HZ):
        if video.wants(number):
            video.push(patches, number)
    taken: dict[str, list[float]] = {name: [] for name in ("snapshot", "taken", "cold", "warm", "answer")}
    tokens, reused, rows = 0, "", 0
    for turn in range(2 * turns):
        warm = turn % 2 == 1
        stage.reset()
        _play(stage, dialogue[:-1])
        explainer.close()  # no keys of another turn
        if warm:
            explainer.prepare(stage.dialogue())
        target = dataclasses.replace(dialogue[-1], text=f"{TARGET} {seconds} {turn} times!", id=f"target {turn}")
        begin = time.perf_counter()
        context = _context(video, target)
        seen = time.perf_counter()
        stage.take(context)
        (case,) = (case for case in stage.take(target) if case.statement is not None)
        ready = time.perf_counter()
        explainer(case)
        facts = explainer.facts()
        rows = len(context.tensors["rows"]) + len(context.tensors["patches"])
        tokens = explainer.facts()["prompt_tokens"]
        taken["snapshot"].append(seen - begin)
        taken["taken"].append(ready - seen)
        taken["warm" if warm else "cold"].append(facts["first_word_s"])
        taken["answer"].append(facts["answer_took_s"])
        reused = facts["prefix_reused"] if warm else reused
    ms = {name: float(np.median(values)) * 1e3 for name, values in taken.items()}
    return Delay(
        seconds, lines, tokens, rows, reused, ms["snapshot"], ms["taken"], ms["cold"], ms["warm"], ms["answer"]
    )


def _dialogue(seconds: int, lines: int) -> list[Utterance]:
    """Two people take turns, evenly over the time; the last one is the target's."""
    texts = [u.text for u in scenes.utterances("heldout", 20.0)]
    step_ns = seconds * NS_PER_S // (lines + 1)
    said = []
    for number in range(lines + 1):
        end_ns = scenes.BEGIN_NS + (number + 1) * step_ns
        start_ns = end_ns - min(step_ns, 2 * NS_PER_S)
        who = ("Ben", "Ana")[(number + lines + 1) % 2]
        said.append(Utterance(str(number), start_ns, end_ns, texts[number % len(texts)], who, 1 + (who == "Ana"), "en"))
    return said


def _play(stage: CauseStage, said: Sequence[Utterance]) -> None:
    before_ns = scenes.BEGIN_NS
    for utterance in said:
        count = (utterance.end_ns - before_ns) * FACES_HZ // NS_PER_S
        for frame in scenes.between(before_ns, utterance.end_ns, count):
            stage.take(frame)
        stage.take(utterance)
        stage.idle()
        before_ns = utterance.end_ns


def _random_patches(explainer: Any) -> Any:
    import torch

    from emo_models.networks.clip_vision import ClipVisionConfig

    clip = ClipVisionConfig.from_preset(explainer.loaded.network.config.clip)
    return torch.randn(clip.patches, clip.dim, generator=torch.Generator().manual_seed(0))


def _context(video: Any, target: Utterance) -> VisualContext:
    now = video.current()
    tensors = {"rows": now.rows.numpy(), "patches": now.patches.numpy(), "frames": np.array(now.frames, np.int64)}
    return VisualContext(
        target.end_ns, "camera_optical_frame", scenes.BEGIN_NS, target.end_ns, "clip_frames", tensors, target.id
    )


def part(run: CausesRun) -> Part:
    """The figures as a part of the report."""
    head = (
        "dialogue", "lines", "prompt tokens", "of these video", "sums read", "taken in and ranked", "first word",
        "first word, history's keys ready", "keys reused", "whole answer",
    )  # fmt: skip
    text = "\n\n".join((
        f"## Causes by FAME-Net ({run.preset}, {run.about}), milliseconds from the end of an utterance",
        f"The same {LINES} lines, spread over the dialogue:", table(head, _rows(run.sparse)),
        f"A line every {EVERY_S:g} s, of which the last minute or what fits into the prompt is history:",
        table(head, _rows(run.dense)),
        f"Medians of {TURNS} turns, `static` instruction, which lets history be run in advance.",
    ))  # fmt: skip
    goal = Goal(
        f"first word after {SECONDS[-1]} s of dialogue, of that after {SECONDS[0]} s", f"< {MOST_GROWTH:g}",
        f"{run.growth:.2f}", run.growth < MOST_GROWTH,
    )  # fmt: skip
    return Part("causes", (goal,), text, dataclasses.asdict(run))


def _rows(delays: Sequence[Delay]) -> list[tuple[str, ...]]:
    return [
        (
            f"{d.seconds} s", str(d.lines), str(d.tokens), str(d.video), f"{d.snapshot_ms:.2f}", f"{d.taken_ms:.1f}",
            f"{d.cold_ms:.1f}", f"{d.warm_ms:.1f}", d.reused, f"{d.answer_ms:.0f}",
        )
        for d in delays
    ]  # fmt: skip
