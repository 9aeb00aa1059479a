"""The stages of the chain alone, one after the other: no ROS, no worker threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pace import paced
from emo_perception.config import Config, SourceConfig
from emo_perception.perception import Chain
from emo_perception.sources import SourceState, SourceStatus, open_source
from emo_perception.types import EmotionFeatures, Frame


@dataclass(frozen=True)
class StagesRun:
    """CPU milliseconds per frame: all together, and of each stage. ``faces``: mean number of faces in a frame."""

    cpu_ms: float
    stage_ms: Mapping[str, float]
    faces: float


def measure(frames: Sequence[Frame], configs: Mapping[str, Config]) -> StagesRun:
    """Run the chain of the profile over the frames at their own speed."""
    chain = Chain(configs)
    chain.warmup()
    spent_s = dict.fromkeys((step.name for step in chain.steps), 0.0)
    mark_s = 0.0

    def charge(name: str) -> Callable[[object], None]:
        def to_stage(_: object) -> None:
            nonlocal mark_s
            now_s = time.process_time()
            spent_s[name] += now_s - mark_s
            mark_s = now_s

        return to_stage

    def feed() -> Iterator[Frame]:
        nonlocal mark_s
        for frame in paced(frames):
            mark_s = time.process_time()
            yield frame

    for step in chain.steps:
        step.listeners.append(charge(step.name))
    began_s = time.process_time()
    faces = sum(len(found.faces) for found in chain.offline(feed()) if isinstance(found, EmotionFeatures))
    cpu_ms = (time.process_time() - began_s) / len(frames) * 1e3
    chain.close()
    return StagesRun(cpu_ms, {name: spent / len(frames) * 1e3 for name, spent in spent_s.items()}, faces / len(frames))


def measure_source(clip: Path) -> float:
    """CPU milliseconds per frame of the source alone, decoding the clip at its own speed."""
    source = open_source(SourceConfig(uri=str(clip), audio=False))
    frames: list[int] = []
    ended = threading.Event()

    def see(status: SourceStatus) -> None:
        if status.state in (SourceState.ENDED, SourceState.FAILED):
            ended.set()

    began_s = time.process_time()
    source.start(lambda frame: frames.append(frame.stamp_ns), lambda _: None, see)
    ended.wait()
    spent_s = time.process_time() - began_s
    source.close()
    return spent_s / len(frames) * 1e3
