"""The stages without a graph: every image and sound of a bag or file through all of them, captions and causes included.

Nothing is dropped for being slow, no clock is read, no deadline is kept, and the same input gives the same bytes. Times
of computation go into a file of their own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from emo_models.preprocess import limit_width
from emo_perception import jsonl
from emo_perception.bag_input import Item
from emo_perception.config import CaptionConfig, CauseConfig, Config, PerceptionConfig, SourceConfig, VisualConfig
from emo_perception.learned import require
from emo_perception.perception import Chain
from emo_perception.sources import open_source
from emo_perception.stages.caption import make_writer
from emo_perception.stages.cause import Question, make_cause_stage
from emo_perception.stages.speech import Segment
from emo_perception.types import (
    NS_PER_S,
    AudioChunk,
    Caption,
    Cause,
    EmotionFeatures,
    Frame,
    Utterance,
    VisualContext,
)

RESULTS = ("features.jsonl", "captions.jsonl", "utterances.jsonl", "causes.jsonl", "latencies.jsonl")
ANSWERS = "answers.jsonl"
"""What was answered to questions, where some were asked; lines as in ``causes.jsonl``."""
ENGINES = "engines.json"
"""What computed the results: backend, its version, precision and threads of each stage."""

Ask = Callable[[Utterance], "Question | None"]
"""What is to be asked about an utterance once it has been heard and seen; None: nothing."""
Watch = Callable[[object], None]
"""Gets every result: frames as they are handed out, features, captions (those withheld too), utterances, causes; answers
as :class:`Answer`."""


@dataclass(frozen=True)
class Answer:
    """What was answered to the question about an utterance."""

    utterance: Utterance
    cause: Cause


@dataclass(slots=True)
class Tally:
    """What came of an offline run.

    ``refused``: reason -> messages that are no image or no sound; ``late``: images whose stamp did not increase;
    ``withheld``: captions that claim what was not measured, ``withheld_causes``: explanations that do; ``engines``: stage -> what computed it.
    """

    frames: int = 0
    features: int = 0
    captions: int = 0
    abstentions: int = 0
    utterances: int = 0
    causes: int = 0
    withheld: int = 0
    withheld_causes: int = 0
    late: int = 0
    wall_s: float = 0.0
    stream_s: float = 0.0
    refused: dict[str, int] = field(default_factory=dict)
    engines: dict[str, dict[str, object]] = field(default_factory=dict)

    def refuse(self, error: Exception) -> None:
        """Count a message that cannot be used by its reason."""
        self.refused[str(error)] = self.refused.get(str(error), 0) + 1


def file_items(file: Path, source: SourceConfig) -> Iterator[Item]:
    """Images and sound of a video, from stream time zero. Raises :class:`emo_perception.sources.SourceError`."""
    return iter(open_source(source.with_values({"uri": str(file), "loop": False, "realtime": False})))


def process(items: Iterable[Item], configs: Mapping[str, Config], out: Path, tally: Tally) -> None:
    """Run the stages over everything and write :data:`RESULTS` and :data:`ENGINES` into ``out``, which is made; fills in the tally.

    Raises as :class:`emo_perception.perception.Chain`.
    """
    with Stages(configs) as stages:
        stages.process(items, out, tally)


class Stages:
    """All stages of a profile, loaded; use as a context manager.

    Raises as :class:`emo_perception.perception.Chain`, and :class:`emo_perception.config.ConfigError` that names all built
    networks that are missing.

    Deadlines of captions and causes are taken off: they would make the result depend on the speed of the machine.
    """

    def __init__(self, configs: Mapping[str, Config]) -> None:
        require(configs)
        caption = configs[CaptionConfig.node].with_values({"deadline_s": 0.0})
        cause = configs[CauseConfig.node].with_values({"answer_s": 0.0})
        perception, visual = configs[PerceptionConfig.node], configs[VisualConfig.node]
        assert isinstance(perception, PerceptionConfig)
        assert isinstance(caption, CaptionConfig)
        assert isinstance(cause, CauseConfig)
        assert isinstance(visual, VisualConfig)
        self.max_width = perception.max_width
        self.sees_utterances = visual.frames or visual.pictures
        with ExitStack() as stack:
            self.chain = stack.enter_context(closing(Chain(configs)))
            self.writer = stack.enter_context(closing(make_writer(caption)))
            self.reasons = stack.enter_context(closing(make_cause_stage(cause)))
            for stage in (self.chain, self.writer, self.reasons):
                stage.warmup()
            self._loaded = stack.pop_all()

    def __enter__(self) -> Stages:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Free the engines. Safe to call twice."""
        self._loaded.close()

    def engines(self) -> dict[str, dict[str, object]]:
        """Stage -> what its engine is."""
        return {**self.chain.engines(), "cause": self.reasons.selection.facts()}

    def process(
        self, items: Iterable[Item], out: Path, tally: Tally, *, ask: Ask | None = None, watch: Watch | None = None
    ) -> None:
        """Run over one recording, as if it were the first; only the ids of faces go on from those before.

        Writes as :func:`process`, and :data:`ANSWERS` with ``ask``.
        """
        begin = time.perf_counter()
        for stage in (self.chain, self.writer, self.reasons):
            stage.reset()
        late = self.chain.steps[0].stats.snapshot().late
        out.mkdir(parents=True, exist_ok=True)
        tally.engines = self.engines()
        (out / ENGINES).write_text(json.dumps(tally.engines, indent=1) + "\n", encoding="utf-8")
        names = (*RESULTS, ANSWERS) if ask is not None else RESULTS
        with ExitStack() as stack:
            files = {name: stack.enter_context((out / name).open("w", encoding="utf-8")) for name in names}
            run = _Run(self, files, tally, ask or (lambda _: None), watch or (lambda _: None))
            run.all(items)
        tally.late = self.chain.steps[0].stats.snapshot().late - late
        tally.wall_s = time.perf_counter() - begin


class _Times:
    """Milliseconds that the stages needed for one frame, and since it was handed out."""

    def __init__(self) -> None:
        self.begin_s = time.perf_counter()
        self.row: dict[str, float] = {}
        self.stamp_ns = 0  # a late frame has none

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Add the time of a block."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, (time.perf_counter() - begin) * 1e3)

    def add(self, stage: str, ms: float) -> None:
        self.row[stage] = self.row.get(stage, 0.0) + ms

    def line(self) -> str:
        """``stamp_ns``, ``ms`` until the features were there, and ``STAGE_ms``."""
        return json.dumps({"stamp_ns": self.stamp_ns, **{key: round(ms, 3) for key, ms in self.row.items()}}) + "\n"


class _Run:
    """One recording on its way through the stages, into the files."""

    def __init__(self, stages: Stages, files: Mapping[str, TextIO], tally: Tally, ask: Ask, watch: Watch) -> None:
        self._stages, self._files, self._tally, self._ask, self._watch = stages, files, tally, ask, watch
        self._heard: list[tuple[Utterance, VisualContext | None]] = []
        self._unasked: dict[str, Utterance] = {}
        self._times = _Times()
        self._since_s = 0.0

    def all(self, items: Iterable[Item]) -> None:
        """Everything, to the end of the stream."""
        stages, chain = self._stages, self._stages.chain
        for result in chain.offline(self._frames(items)):
            if isinstance(result, EmotionFeatures):
                self._measure(result)
                self._write("features.jsonl", result)
                self._tally.features += 1
                self._caption(result)
                self._explain()
                self._reason(result)
            else:
                self._seen()
                self._caption(result)
                self._explain()
                self._look(result)
            self._since_s = time.perf_counter()
        with self._times.of("caption_ms"):
            said = stages.writer.flush()
        self._say(said)
        self._explain()
        for utterance in list(self._unasked.values()):  # nothing more will be seen of it
            self._question(utterance)
        with self._times.of("cause_ms"):
            found = stages.reasons.flush()
        self._causes(found)
        self._timed()

    # -- what comes in

    def _frames(self, items: Iterable[Item]) -> Iterator[Frame]:
        """Hands out the frames, scaled as perception does; sound and words are understood on the way."""
        last_ns = None
        for item in items:
            if isinstance(item, AudioChunk):
                self._hear(item)
                continue
            if isinstance(item, Utterance):
                self._understood(item)
                continue
            self._tally.frames += 1
            self._tally.stream_s += 0.0 if last_ns is None else max(0, item.stamp_ns - last_ns) / NS_PER_S
            last_ns = item.stamp_ns
            image, _ = limit_width(item.image, self._stages.max_width)
            frame = replace(item, image=image)
            self._watch(frame)
            self._timed()
            self._times = _Times()
            yield frame
            self._seen()
        self._segments(self._stages.chain.hush())

    def _hear(self, chunk: AudioChunk) -> None:
        try:
            self._segments(self._stages.chain.hear(chunk))
        except ValueError as error:
            self._tally.refuse(error)

    def _segments(self, segments: Iterable[Segment]) -> None:
        for segment in segments:
            assert self._stages.chain.speech is not None
            utterance = self._stages.chain.speech(segment)
            if utterance is not None:
                self._understood(utterance)

    def _understood(self, utterance: Utterance) -> None:
        """It is explained after the frame before it; what was seen of it comes at once or with one of the next frames."""
        context = self._stages.chain.utterance_ended(utterance)
        self._heard.append((utterance, context))

    # -- what goes out

    def _caption(self, item: EmotionFeatures | VisualContext) -> None:
        with self._times.of("caption_ms"):
            said = self._stages.writer(item)
        self._say(said)

    def _reason(self, item: EmotionFeatures | Utterance | VisualContext) -> None:
        with self._times.of("cause_ms"):
            found = self._stages.reasons(item)
        self._causes(found)

    def _explain(self) -> None:
        """The utterances since the last call, and what was seen of them."""
        heard, self._heard = self._heard, []
        for utterance, context in heard:
            self._write("utterances.jsonl", utterance)
            self._tally.utterances += 1
            self._unasked[utterance.id] = utterance
            self._reason(utterance)
            if context is not None:
                self._look(context)
            elif not self._stages.sees_utterances:
                self._question(utterance)

    def _look(self, context: VisualContext) -> None:
        """What was seen until the end of an utterance; of a clip, nothing here."""
        if context.utterance_id:
            self._reason(context)
            if context.utterance_id in self._unasked:
                self._question(self._unasked[context.utterance_id])

    def _question(self, utterance: Utterance) -> None:
        """Ask what is wanted about it, now that everything is known."""
        del self._unasked[utterance.id]
        question = self._ask(utterance)
        if question is None:
            return
        with self._times.of("cause_ms"):
            cause = self._stages.reasons.ask(question)
        self._files[ANSWERS].write(jsonl.line(cause))
        self._watch(Answer(utterance, cause))

    def _causes(self, found: Iterable[Cause]) -> None:
        for cause in found:
            if cause.abstained or cause.grounded:
                self._write("causes.jsonl", cause)
                self._tally.causes += not cause.abstained
            else:
                self._tally.withheld_causes += 1

    def _say(self, captions: Iterable[Caption]) -> None:
        """Write what the caption node would publish: not what claims the unmeasured."""
        for caption in captions:
            if not (caption.abstained or caption.grounded):
                self._tally.withheld += 1
                self._watch(caption)
                continue
            self._write("captions.jsonl", caption)
            if caption.abstained:
                self._tally.abstentions += 1
            else:
                self._tally.captions += 1

    def _write(self, name: str, item: Any) -> None:
        self._files[name].write(jsonl.line(item))
        self._watch(item)

    # -- times

    def _measure(self, features: EmotionFeatures) -> None:
        """Until the features were there; those of the single steps are the steps' own."""
        self._times.stamp_ns = features.stamp_ns
        self._times.add("ms", (time.perf_counter() - self._times.begin_s) * 1e3)
        for step in self._stages.chain.steps:
            self._times.add(f"{step.name}_ms", step.stats.last_ms)

    def _seen(self) -> None:
        """The stage of visual tokens works between the features of a frame and the next frame."""
        if self._stages.chain.visual is not None and self._times.stamp_ns:
            self._times.add("visual_ms", (time.perf_counter() - self._since_s) * 1e3)

    def _timed(self) -> None:
        """The frame before is done with; what comes at the end of the stream counts as of the last one."""
        if self._times.stamp_ns:
            self._files["latencies.jsonl"].write(self._times.line())
