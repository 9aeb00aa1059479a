"""One recording after the other through all stages, without a graph: nothing is dropped, no deadline is kept."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from emo_models.labels import TO_REP155
from emo_perception.bag_input import Inputs, bag_items
from emo_perception.bags import Bag
from emo_perception.config import Config, SpeechConfig
from emo_perception.offline import Stages, Tally
from emo_perception.stages.cause import About, Question
from emo_perception.types import Utterance
from training.evaluation.bags.gather import Recording, Stride, Topics, clip_windows, image_rate
from training.evaluation.bags.story import Story
from training.recordings.references import CAPTION, CAUSE, Reference

Target = Literal["gold", "perceived"]
BAGS: Final = "bags"
"""Folder of the results of single recordings, beside the figures of all."""
PERCENTILES: Final = (50, 95, 99)


@dataclass
class Outcome:
    """What came of all recordings. ``counts``: recording -> what was taken in and came out; ``latency_ms``: stage ->
    its times; ``troubles``: what could not be used, in words."""

    stories: dict[str, Story] = field(default_factory=dict)
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)
    latency_ms: dict[str, list[float]] = field(default_factory=dict)
    stage_ms: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    """Stage -> percentiles of each run, where single times are not known."""
    engines: dict[str, dict[str, object]] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)
    settings: dict[str, list[str]] = field(default_factory=dict)
    """What was set, and all the ways in which it was."""

    def set(self, **settings: str) -> None:
        """Take note of how something was set for a recording."""
        for name, value in settings.items():
            ways = self.settings.setdefault(name.replace("_", " "), [])
            if value not in ways:
                ways.append(value)

    def add(self, name: str, story: Story, tally: Tally, troubles: Sequence[str]) -> None:
        """Take in what came of an offline run."""
        self.stories[name] = story
        self.engines.update(tally.engines)
        self.counts[name] = _counts(tally)
        self.troubles += [f"{name}: {trouble}; what could be read was processed" for trouble in troubles]
        self.troubles += [f"{name}: {n} messages refused: {why}" for why, n in tally.refused.items()]
        if tally.late:
            self.troubles.append(f"{name}: {tally.late} images out of order: a newer one was before them")

    def latencies(self) -> dict[str, dict[str, float]]:
        """Stage -> how often it was timed, p50, p95 and p99 in milliseconds."""
        found: dict[str, dict[str, float]] = {}
        for stage, values in self.latency_ms.items():
            known = [value for value in values if math.isfinite(value)]
            if known:
                marks = np.percentile(known, PERCENTILES)
                found[stage] = {"runs": len(known)} | {
                    f"p{p}": round(float(v), 3) for p, v in zip(PERCENTILES, marks, strict=True)
                }
        for stage, runs in self.stage_ms.items():  # the median of their percentiles
            busy = [run for run in runs if run["runs"]]
            if busy:
                found[stage] = {mark: round(float(np.median([run[mark] for run in busy])), 3) for mark in busy[0]}
                found[stage]["runs"] = sum(run["runs"] for run in busy)
        return found


@dataclass(frozen=True)
class Plan:
    """How recordings are evaluated. ``stride``: see :func:`~.gather.clip_windows`; ``target``: which emotion is explained."""

    profile: str
    configs: Mapping[str, Config]
    topics: Topics = field(default_factory=Topics)
    target: Target = "gold"
    stride: Stride = "clip"
    longest_s: float = 0.0
    """Length of the longest clip, for the windows of all."""

    def fitted(self, recording: Recording, bag: Bag, outcome: Outcome) -> tuple[Inputs, dict[str, Config]]:
        """What of a recording is processed, and with what configurations; takes note of it. Raises :class:`BagError`."""
        speech = self.configs[SpeechConfig.node]
        assert isinstance(speech, SpeechConfig)
        inputs = recording.inputs(bag, self.topics, listen=speech.enabled)
        configs, told = dict(self.configs), "captions as the profile has them"
        if self.stride == "clip" and recording.of(CAPTION):
            configs, told = clip_windows(configs, recording, self.longest_s, image_rate(bag, inputs.images))
        outcome.set(captions=told, words=inputs.told)
        if recording.of(CAUSE):
            outcome.set(emotion_of_causes=self.target)
        configs[SpeechConfig.node] = speech.with_values({"enabled": bool(inputs.sound)})
        return inputs, configs


def run_offline(found: Sequence[Recording], plan: Plan, out: Path, tell: Callable[[str], None]) -> Outcome:
    """Process every recording into ``out/bags/NAME``, as ``emo bag process`` does.

    Raises as :func:`emo_perception.offline.process`, and :class:`BagError`.
    """
    outcome = Outcome()
    with _Loaded() as loaded:
        for recording in found:
            with Bag(recording.path) as bag:
                inputs, configs = plan.fitted(recording, bag, outcome)
                stages, folder, asked = loaded.stages(configs), out / BAGS / recording.name, recording.of(CAUSE)
                story, tally = Story(bag.start_ns, bag.end_ns), Tally()
                ask = _questions(asked, plan.target) if asked else None
                stages.process(bag_items(bag, inputs, tally.refuse), folder, tally, ask=ask, watch=story)
                outcome.add(recording.name, story, tally, bag.troubles)
                _add_latencies(folder / "latencies.jsonl", outcome.latency_ms)
            counts = outcome.counts[recording.name]
            tell(
                f"{recording.name}: {', '.join(f'{counts[what]} {what}' for what in ('images', 'captions', 'causes'))}"
            )
    return outcome


class _Loaded(AbstractContextManager["_Loaded"]):
    """The stages that were used last; loading those of the papers takes longer than a clip."""

    def __init__(self) -> None:
        self._configs: Mapping[str, Config] | None = None
        self._stages: Stages | None = None

    def stages(self, configs: Mapping[str, Config]) -> Stages:
        """Those of these configurations. Raises as :class:`Stages`."""
        if self._stages is None or configs != self._configs:
            self._close()
            self._stages, self._configs = Stages(configs), configs
        return self._stages

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._stages is not None:
            self._stages.close()


def _questions(references: Sequence[Reference], target: Target) -> Callable[[Utterance], Question | None]:
    """Why does the speaker feel so? Of each annotated utterance, when it has been heard."""
    wanted = {reference.id: reference for reference in references}

    def ask(utterance: Utterance) -> Question | None:
        reference = wanted.get(utterance.id)
        if reference is None:
            return None
        return _question(reference, target)

    return ask


def _question(reference: Reference, target: Target) -> Question:
    emotion = TO_REP155.get(reference.emotion.lower(), reference.emotion) if target == "gold" else ""
    return Question(About.UTTERANCE, utterance_id=reference.id, emotion=emotion)


def _counts(tally: Tally) -> dict[str, Any]:
    return {
        "images": tally.frames, "features": tally.features, "captions": tally.captions, "causes": tally.causes,
        "utterances": tally.utterances, "abstentions": tally.abstentions, "withheld": tally.withheld + tally.withheld_causes,
        "out of order": tally.late, "refused": sum(tally.refused.values()), "dropped": 0,
        "seconds": round(tally.stream_s, 3),
    }  # fmt: skip


def _add_latencies(file: Path, found: dict[str, list[float]]) -> None:
    for line in file.read_text(encoding="utf-8").splitlines():
        for key, value in json.loads(line).items():
            if key != "stamp_ns":
                found.setdefault("features" if key == "ms" else key.removesuffix("_ms"), []).append(value)
