"""The stages without a graph: every image and sound of a bag or file through all of them, captions and causes included.

Nothing is dropped for being slow, no clock is read, and the same input gives the same bytes. Times of computation go
into a file of their own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

from emo_models.preprocess import limit_width
from emo_perception import jsonl, pcm
from emo_perception.bags import Bag, BagError, Topic, deserialize, learn
from emo_perception.config import CaptionConfig, CauseConfig, Config, PerceptionConfig, SourceConfig
from emo_perception.images import BadImage, frame_from_msg
from emo_perception.perception import Chain
from emo_perception.sources import Item, open_source
from emo_perception.stages.caption import CaptionStage
from emo_perception.stages.cause.stage import CauseStage
from emo_perception.stages.speech import Segment
from emo_perception.types import NS_PER_S, AudioChunk, Caption, Cause, EmotionFeatures, Frame, Utterance, VisualContext

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
OVERLAY = "overlay/compressed"
#: Sound that :mod:`emo_perception.pcm` understands, and what describes one kind of it.
SOUND = (
    "emo_msgs/msg/AudioChunk",
    "audio_common_msgs/msg/AudioStamped",
    "audio_common_msgs/msg/AudioDataStamped",
    "audio_common_msgs/msg/AudioData",
)
SOUND_INFO = "audio_common_msgs/msg/AudioInfo"
RESULTS = ("features.jsonl", "captions.jsonl", "utterances.jsonl", "causes.jsonl", "latencies.jsonl")
ENGINES = "engines.json"
"""What computed the results: backend, its version, precision and threads of each stage."""


@dataclass(slots=True)
class Tally:
    """What came of an offline run.

    ``refused``: reason -> messages that are no image or no sound; ``late``: images whose stamp did not increase;
    ``withheld``: captions that claim what was not measured; ``engines``: stage -> what computed it.
    """

    frames: int = 0
    features: int = 0
    captions: int = 0
    abstentions: int = 0
    utterances: int = 0
    causes: int = 0
    withheld: int = 0
    late: int = 0
    wall_s: float = 0.0
    stream_s: float = 0.0
    refused: dict[str, int] = field(default_factory=dict)
    engines: dict[str, dict[str, object]] = field(default_factory=dict)

    def refuse(self, error: Exception) -> None:
        """Count a message that cannot be used by its reason."""
        self.refused[str(error)] = self.refused.get(str(error), 0) + 1


def image_topic(bag: Bag, wanted: str = "") -> str:
    """The topic of the images: ``wanted``, or the only camera of the bag, raw before compressed.

    Raises :class:`BagError` that names the choices.
    """
    images = [t for t in bag.topics if t.kind in (IMAGE, COMPRESSED) and t.count]
    listed = ", ".join(f"{t.name} ({t.count})" for t in images)
    if wanted:
        wanted = wanted if wanted.startswith("/") else f"/{wanted}"
        if wanted not in {t.name for t in images}:
            raise BagError(f"{bag.path}: no images on {wanted}; images are on: {listed or 'no topic'}")
        return wanted
    cameras: dict[str, Topic] = {}
    for topic in sorted(images, key=lambda t: t.kind == COMPRESSED):
        if not topic.name.endswith(OVERLAY):
            cameras.setdefault(topic.name.removesuffix("/compressed"), topic)
    if not cameras:
        have = ", ".join(t.name for t in bag.topics) or "no topic"
        raise BagError(
            f"{bag.path} has no camera images, so there is nothing to process: expected a topic of type {IMAGE} or "
            f"{COMPRESSED}; it has {have}. Record with 'emo bag record', which takes JPEG images, or --raw-images"
        )
    if len(cameras) > 1:
        raise BagError(f"{bag.path} has several cameras; choose one with --image-topic: {listed}")
    return next(iter(cameras.values())).name


def sound_topic(bag: Bag, wanted: str = "") -> str:
    """The topic of the sound: ``wanted``, or the only one of the bag; empty when there is none.

    Raises :class:`BagError` that names the choices.
    """
    sounds = [t.name for t in bag.topics if t.kind in SOUND and t.count]
    if wanted:
        wanted = wanted if wanted.startswith("/") else f"/{wanted}"
        if wanted not in sounds:
            raise BagError(f"{bag.path}: no sound on {wanted}; sound is on: {', '.join(sounds) or 'no topic'}")
        return wanted
    if len(sounds) > 1:
        raise BagError(f"{bag.path} has several microphones; choose one with --audio-topic: {', '.join(sounds)}")
    return "".join(sounds)


def bag_items(bag: Bag, images: str, sound: str, tally: Tally) -> Iterator[Item]:
    """Images and sound of two topics, in the order of receipt; what is neither is counted by its reason."""
    described = sound.rpartition("/")[0] + "/audio_info"
    info = None
    for topic in bag.topics:
        learn(topic.kind, topic.definition)
    for raw in bag.messages({images, sound, described} - {""}):
        try:
            message = deserialize(raw)
            if raw.topic == images:
                yield frame_from_msg(message)
            elif raw.topic == sound:
                yield pcm.sound(message, info)
            elif raw.kind == SOUND_INFO:
                info = message
        except (BadImage, pcm.BadSound, BagError) as error:
            tally.refuse(error)


def file_items(file: Path, source: SourceConfig) -> Iterator[Item]:
    """Images and sound of a video, from stream time zero. Raises :class:`emo_perception.sources.SourceError`."""
    return iter(open_source(source.with_values({"uri": str(file), "loop": False, "realtime": False})))


def process(items: Iterable[Item], configs: Mapping[str, Config], out: Path, tally: Tally) -> None:
    """Run the stages over everything and write :data:`RESULTS` and :data:`ENGINES` into ``out``, which is made; fills in the tally.

    Raises as :class:`emo_perception.perception.Chain`.
    """
    perception, caption, cause = (configs[kind.node] for kind in (PerceptionConfig, CaptionConfig, CauseConfig))
    assert isinstance(perception, PerceptionConfig)
    assert isinstance(caption, CaptionConfig)
    assert isinstance(cause, CauseConfig)
    begin = time.perf_counter()
    stage = CaptionStage(caption)
    with ExitStack() as stack:
        chain = stack.enter_context(closing(Chain(configs)))
        reasons = stack.enter_context(closing(CauseStage(cause)))
        chain.warmup()
        out.mkdir(parents=True, exist_ok=True)
        tally.engines = {**chain.engines(), "cause": reasons.selection.facts()}
        (out / ENGINES).write_text(json.dumps(tally.engines, indent=1) + "\n", encoding="utf-8")
        files = [stack.enter_context((out / name).open("w", encoding="utf-8")) for name in RESULTS]
        features_file, captions_file, utterances_file, causes_file, latencies_file = files
        feed = _Feed(items, chain, perception.max_width, tally)
        for features in chain.offline(feed):
            if isinstance(features, VisualContext):
                continue
            features_file.write(jsonl.line(features))
            _say(stage(features), captions_file, tally)
            latencies_file.write(feed.latency(features))
            tally.features += 1
            _explain(feed.heard(), reasons, utterances_file, causes_file, tally)
            _write_causes(reasons(features), causes_file, tally)
        _say(stage.flush(), captions_file, tally)
        _explain(feed.heard(), reasons, utterances_file, causes_file, tally)
        _write_causes(reasons.flush(), causes_file, tally)
        tally.late = chain.steps[0].stats.snapshot().late
    tally.wall_s = time.perf_counter() - begin


class _Feed:
    """Hands out the frames, scaled as perception does, and knows when it did; sound is heard on the way."""

    def __init__(self, items: Iterable[Item], chain: Chain, max_width: int, tally: Tally) -> None:
        self._items, self._chain, self._max_width, self._tally = items, chain, max_width, tally
        self._heard: list[Utterance] = []
        self._out_s = 0.0

    def __iter__(self) -> Iterator[Frame]:
        last_ns = None
        for item in self._items:
            if isinstance(item, AudioChunk):
                self._hear(item)
                continue
            self._tally.frames += 1
            self._tally.stream_s += 0.0 if last_ns is None else max(0, item.stamp_ns - last_ns) / NS_PER_S
            last_ns = item.stamp_ns
            image, _ = limit_width(item.image, self._max_width)
            self._out_s = time.perf_counter()
            yield replace(item, image=image)
        if self._chain.speech is not None:
            self._understand(self._chain.speech.flush())

    def heard(self) -> list[Utterance]:
        """The utterances since the last call."""
        heard, self._heard = self._heard, []
        return heard

    def latency(self, features: EmotionFeatures) -> str:
        """A line with the milliseconds since the frame of these features was handed out."""
        spent_ms = (time.perf_counter() - self._out_s) * 1e3
        return json.dumps({"stamp_ns": features.stamp_ns, "ms": round(spent_ms, 3)}) + "\n"

    def _hear(self, chunk: AudioChunk) -> None:
        try:
            self._understand(self._chain.hear(chunk))
        except ValueError as error:
            self._tally.refuse(error)

    def _understand(self, segments: Iterable[Segment]) -> None:
        for segment in segments:
            utterance = self._chain.speech(segment) if self._chain.speech is not None else None
            if utterance is not None:
                self._heard.append(utterance)


def _explain(heard: Iterable[Utterance], stage: CauseStage, utterances: TextIO, causes: TextIO, tally: Tally) -> None:
    for utterance in heard:
        utterances.write(jsonl.line(utterance))
        tally.utterances += 1
        _write_causes(stage(utterance), causes, tally)


def _write_causes(found: Iterable[Cause], file: TextIO, tally: Tally) -> None:
    for cause in found:
        file.write(jsonl.line(cause))
        tally.causes += not cause.abstained


def _say(caption: Caption | None, file: TextIO, tally: Tally) -> None:
    """Write what the caption node would publish: not what claims the unmeasured."""
    if caption is None:
        return
    if not (caption.abstained or caption.grounded):
        tally.withheld += 1
        return
    file.write(jsonl.line(caption))
    if caption.abstained:
        tally.abstentions += 1
    else:
        tally.captions += 1
