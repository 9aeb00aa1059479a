"""The stages without a graph: every image of a bag or file through face, action units, emotion and captions.

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
from emo_perception import jsonl
from emo_perception.bags import Bag, BagError, Topic, deserialize
from emo_perception.config import CaptionConfig, Config, PerceptionConfig, SourceConfig
from emo_perception.images import BadImage, frame_from_msg
from emo_perception.perception import Chain
from emo_perception.sources import open_source
from emo_perception.stages.caption import CaptionStage
from emo_perception.types import Caption, EmotionFeatures, Frame

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
OVERLAY = "overlay/compressed"
RESULTS = ("features.jsonl", "captions.jsonl", "latencies.jsonl")


@dataclass(slots=True)
class Tally:
    """What came of an offline run.

    ``refused``: reason -> images that are none; ``late``: images whose stamp did not increase; ``withheld``: captions
    that claim what was not measured.
    """

    frames: int = 0
    features: int = 0
    captions: int = 0
    abstentions: int = 0
    withheld: int = 0
    late: int = 0
    wall_s: float = 0.0
    stream_s: float = 0.0
    refused: dict[str, int] = field(default_factory=dict)


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


def bag_frames(bag: Bag, topic: str, tally: Tally) -> Iterator[Frame]:
    """The images of a topic, in the order of receipt; what is no image is counted by its reason."""
    for raw in bag.messages({topic}):
        try:
            yield frame_from_msg(deserialize(raw))
        except (BadImage, BagError) as error:
            tally.refused[str(error)] = tally.refused.get(str(error), 0) + 1


def file_frames(file: Path, source: SourceConfig) -> Iterator[Frame]:
    """The images of a video or picture, from stream time zero. Raises :class:`emo_perception.sources.SourceError`."""
    config = source.with_values({"uri": str(file), "loop": False, "realtime": False, "audio": False})
    return (item for item in open_source(config) if isinstance(item, Frame))


def process(frames: Iterable[Frame], configs: Mapping[str, Config], out: Path, tally: Tally) -> None:
    """Run the stages over all frames and write :data:`RESULTS` into ``out``, which is made; fills in the tally.

    Raises as :class:`emo_perception.perception.Chain`.
    """
    perception, caption = configs[PerceptionConfig.node], configs[CaptionConfig.node]
    assert isinstance(perception, PerceptionConfig)
    assert isinstance(caption, CaptionConfig)
    begin = time.perf_counter()
    stage = CaptionStage(caption)
    with ExitStack() as stack:
        chain = stack.enter_context(closing(Chain(configs)))
        chain.warmup()
        out.mkdir(parents=True, exist_ok=True)
        files = [stack.enter_context((out / name).open("w", encoding="utf-8")) for name in RESULTS]
        features_file, captions_file, latencies_file = files
        watch = _Watch(frames, perception.max_width, tally)
        for features in chain.offline(watch):
            features_file.write(jsonl.line(features))
            _say(stage(features), captions_file, tally)
            latencies_file.write(watch.line(features))
            tally.features += 1
        _say(stage.flush(), captions_file, tally)
        tally.late = chain.steps[0].stats.snapshot().late
    tally.wall_s = time.perf_counter() - begin


class _Watch:
    """Hands out frames, scaled as perception does, and knows when it did."""

    def __init__(self, frames: Iterable[Frame], max_width: int, tally: Tally) -> None:
        self._frames, self._max_width, self._tally = frames, max_width, tally
        self._out_s = 0.0

    def __iter__(self) -> Iterator[Frame]:
        last_ns = None
        for frame in self._frames:
            self._tally.frames += 1
            step_ns = 0 if last_ns is None else frame.stamp_ns - last_ns
            self._tally.stream_s += max(0, step_ns) / 1e9
            last_ns = frame.stamp_ns
            image, _ = limit_width(frame.image, self._max_width)
            self._out_s = time.perf_counter()
            yield replace(frame, image=image)

    def line(self, features: EmotionFeatures) -> str:
        """Milliseconds since the frame of these features was handed out."""
        spent_ms = (time.perf_counter() - self._out_s) * 1e3
        return json.dumps({"stamp_ns": features.stamp_ns, "ms": round(spent_ms, 3)}) + "\n"


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
