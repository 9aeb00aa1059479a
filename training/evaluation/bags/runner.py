"""One recording after the other through all stages, without a graph: nothing is dropped, no deadline is kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from emo_models.labels import TO_REP155
from emo_perception.bag_input import bag_items
from emo_perception.bags import Bag
from emo_perception.config import Config, SpeechConfig
from emo_perception.offline import Stages, Tally
from emo_perception.stages.cause.stage import About, Question
from emo_perception.types import Utterance
from training.evaluation.bags.gather import Recording, Stride, Topics, clip_windows, image_rate, with_speech
from training.evaluation.bags.story import Story
from training.recordings.references import CAUSE, Reference

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
    engines: dict[str, dict[str, object]] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)

    def latencies(self) -> dict[str, dict[str, float]]:
        """Stage -> how often it was timed, p50, p95 and p99 in milliseconds."""
        found = {}
        for stage, values in self.latency_ms.items():
            known = [value for value in values if value == value]
            if known:
                marks = np.percentile(known, PERCENTILES)
                found[stage] = {"runs": len(known)} | {
                    f"p{p}": round(float(v), 3) for p, v in zip(PERCENTILES, marks, strict=True)
                }
        return found


def run_offline(
    found: Sequence[Recording], configs: Mapping[str, Config], out: Path, *, topics: Topics, target: Target,
    stride: Stride, tell: Callable[[str], None],
) -> Outcome:  # fmt: skip
    """Process every recording into ``out/bags/NAME``, as ``emo bag process`` does.

    Raises as :func:`emo_perception.offline.process`, and :class:`BagError`.
    """
    outcome = Outcome()
    for recording in found:
        with Bag(recording.path) as bag:
            speech = configs[SpeechConfig.node]
            assert isinstance(speech, SpeechConfig)
            inputs = recording.inputs(bag, topics, listen=speech.enabled)
            fitted, told = clip_windows(configs, found, stride, image_rate(bag, inputs.images))
            story, tally = Story(bag.start_ns, bag.end_ns), Tally()
            folder = out / BAGS / recording.name
            with Stages(with_speech(fitted, inputs)) as stages:
                asked = recording.of(CAUSE)
                stages.process(
                    bag_items(bag, inputs, tally.refuse), folder, tally, watch=story,
                    ask=_questions(asked, target) if asked else None,
                )  # fmt: skip
            outcome.stories[recording.name] = story
            outcome.settings = {"windows": told, "words": inputs.told, "emotions of causes": target if asked else "-"}
            outcome.engines.update(tally.engines)
            outcome.counts[recording.name] = _counts(tally)
            outcome.troubles += [f"{recording.name}: {trouble}; what could be read was processed" for trouble in bag.troubles]
            outcome.troubles += [f"{recording.name}: {n} messages refused: {why}" for why, n in tally.refused.items()]
            _add_latencies(folder / "latencies.jsonl", outcome.latency_ms)
        tell(f"{recording.name}: {tally.frames} images, {tally.captions} captions, {tally.causes} causes")
    return outcome


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
        "utterances": tally.utterances, "abstentions": tally.abstentions, "withheld": tally.withheld,
        "out of order": tally.late, "refused": sum(tally.refused.values()), "dropped": 0,
        "seconds": round(tally.stream_s, 3),
    }  # fmt: skip


def _add_latencies(file: Path, found: dict[str, list[float]]) -> None:
    for line in file.read_text(encoding="utf-8").splitlines():
        for key, value in json.loads(line).items():
            if key != "stamp_ns":
                found.setdefault("features" if key == "ms" else key.removesuffix("_ms"), []).append(value)
