"""Visual tokens of a stream: what is left to do at an utterance's end, and memory after thousands of windows.

``python -m benchmarks.streaming`` runs the stream alone and prints two readings of its memory. Compared is CPU time with
one thread. Engines that are not in the cache are built, of random weights where there are none: neither time nor memory
depend on them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.graph import BenchError
from benchmarks.hour import resident_mb
from benchmarks.page import Goal, Part, table
from emo_models.engines import EngineError, catalogue
from emo_models.engines.store import workspace
from emo_models.preprocess import Image
from emo_perception.config import PerceptionConfig, VisualConfig
from emo_perception.stages.visual import CLIPS, FRAMES, VisualStage
from emo_perception.stages.visual.dialogue import Dialogue
from emo_perception.stages.visual.encoders import ClipEncoder, FrameEncoder
from emo_perception.stages.visual.stage import HOLD_S
from emo_perception.streaming.window import SlidingWindow
from emo_perception.types import NS_PER_S, Frame, Utterance

SIZE_WH: Final = (640, 480)
RATE_HZ: Final = 10.0
GRID: Final = 100
"""Frames of a dialogue in use, at any size of the networks: as many as the paper's."""
LENGTHS_S: Final = (10, 60, 300)
TURNS: Final = 5
LEAST_RATIO: Final = 10.0
#: Preset -> windows of the stream, the first reading after so many. At paper size it would take a day.
WINDOWS: Final = {"toy": (10_000, 100), "paper": (100, 10)}
FRAMES_PER_WINDOW, SPOKEN_EVERY = 4, 5
APART_S: Final = 3
"""Seconds between two utterances."""
SMALL_WH: Final = (160, 120)
MOST_GROWTH_SHARE: Final = 0.01
LIMIT_S: Final = 3600.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class StreamingRun:
    """CPU-milliseconds and megabytes. ``end_ms``: seconds of dialogue -> at an utterance's end, its last frame included.

    ``batch_ms``: all :data:`GRID` frames at once instead. ``early_mb``, ``late_mb``: resident after ``early`` and all ``windows``.
    """

    preset: str
    frame_ms: float
    clip_ms: float
    end_ms: dict[int, float]
    batch_ms: float
    windows: int
    early: int
    early_mb: float
    late_mb: float

    @property
    def ratio(self) -> float:
        """How much less work the stream leaves to the end of the longest dialogue than a batch does."""
        return self.batch_ms / self.end_ms[max(self.end_ms)]

    @property
    def growth(self) -> float:
        """Share that came on top after the early windows."""
        return self.late_mb / self.early_mb - 1


def measure(preset: str, say: Say) -> StreamingRun:
    """All figures. Raises :class:`BenchError` and :class:`EngineError`."""
    config = _config(preset)
    _build_missing(config, say)
    say("an utterance's end, in a stream and as a batch")
    frame_ms, clip_ms, end_ms, batch_ms = _work(config)
    windows, early = WINDOWS[preset]
    say(f"memory over {windows} windows")
    early_mb, late_mb = _memory(preset, windows, early)
    return StreamingRun(preset, frame_ms, clip_ms, end_ms, batch_ms, windows, early, early_mb, late_mb)


def part(run: StreamingRun) -> Part:
    """The figures as a part of the report."""
    rows = [(f"end of an utterance after {s} s", f"{ms:.2f}") for s, ms in run.end_ms.items()]
    rows += [
        (f"the same as a batch of {GRID} frames", f"{run.batch_ms:.2f}"),
        ("each frame of the dialogue, when it comes", f"{run.frame_ms:.2f}"),
        ("a clip", f"{run.clip_ms:.2f}"),
    ]
    text = "\n\n".join(
        (
            f"## Visual tokens of a stream ({run.preset})",
            table(("CPU-milliseconds, one thread", ""), rows),
            f"Images of {SIZE_WH[0]}x{SIZE_WH[1]}, their preprocessing included. Resident memory after {run.early} windows "
            f"{run.early_mb:.1f} MB, after {run.windows} {run.late_mb:.1f} MB.",
        )
    )
    goals = (
        Goal(f"work at an utterance's end, {GRID} frames as a batch against the stream", f">= {LEAST_RATIO:.0f}x",
             f"{run.ratio:.1f}x", run.ratio >= LEAST_RATIO),
        Goal(f"memory after {run.windows} windows", f"<= {MOST_GROWTH_SHARE:.0%} more than after {run.early}",
             f"{run.growth:+.2%}", run.growth <= MOST_GROWTH_SHARE),
    )  # fmt: skip
    return Part("streaming", goals, text, dataclasses.asdict(run))


def _config(preset: str) -> VisualConfig:
    return VisualConfig(clips=True, frames=True, preset=preset, weights="random", threads=1, rate_hz=RATE_HZ)


def _build_missing(config: VisualConfig, say: Say) -> None:
    for name, kind in ((CLIPS, ClipEncoder), (FRAMES, FrameEncoder)):
        try:
            kind(config).close()
        except EngineError:
            say(f"building {name}")
            from emo_models.engines.build import Options, build
            from emo_models.engines.source import network

            with workspace() as work:
                build(network(catalogue.part(name).name, config.preset, work), Options(timing_s=0.1), lambda _: None)


def _image(size_wh: tuple[int, int] = SIZE_WH) -> Image:
    """Noise: no network is faster on it."""
    return np.random.default_rng(0).integers(0, 256, (size_wh[1], size_wh[0], 3), np.uint8)


def _cpu_ms(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return (time.process_time() - start) * 1e3


def _median_ms(work: Callable[[], object]) -> float:
    return float(np.median([_cpu_ms(work) for _ in range(TURNS)]))


def _work(config: VisualConfig) -> tuple[float, float, dict[int, float], float]:
    """CPU-milliseconds of a frame, of a clip, at the end of dialogues of each length, and of all their frames at once."""
    frames, clips, image = FrameEncoder(config), ClipEncoder(config), _image()
    frames.warmup()
    found = (
        _median_ms(lambda: frames(image)),
        _median_ms(lambda: clips([image] * clips.frames)),
        {length: _end_ms(frames, image, length) for length in LENGTHS_S},
        _median_ms(lambda: _at_once(frames, [image] * GRID)),
    )
    frames.close()
    clips.close()
    return found


def _end_ms(encoder: FrameEncoder, image: Image, length_s: int) -> float:
    """Median over the ends of utterances that follow each other, the first after ``length_s``: the last frame and the state."""
    dialogue, patches = Dialogue(GRID, RATE_HZ, HOLD_S), encoder(image)
    taken, first = [], 0

    def see(index: int, seen: NDArray[np.float32]) -> int:
        stamp_ns = round(index * NS_PER_S / RATE_HZ)
        number = dialogue.number(stamp_ns)
        if number is not None:
            dialogue.add(stamp_ns, number, seen)
        return stamp_ns

    for turn in range(TURNS):
        last = round((length_s + turn * APART_S) * RATE_HZ)
        for index in range(first, last):
            see(index, patches)
        # The last frame is encoded also where the grid has no place for it.
        taken.append(_cpu_ms(lambda last=last, turn=turn: dialogue.end(f"u{turn}", see(last, encoder(image)))))  # type: ignore[misc]
        first = last + 1
    return float(np.median(taken))


def _at_once(encoder: FrameEncoder, images: Sequence[Image]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """R_t and R_s of a clip at rest, encoded in the largest batches that the engine takes."""
    most, (port,) = encoder.port.max[0], encoder.selection.engine.inputs
    found = []
    for start in range(0, len(images), most):
        batch = encoder.transform.clip(images[start : start + most])
        found.append(encoder.selection.engine({port.name: batch})["patches"].copy())
    patches = np.concatenate(found)
    return patches.mean(1), patches.mean(0)


def _memory(preset: str, windows: int, early: int) -> tuple[float, float]:
    """Megabytes after ``early`` and after all windows, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.streaming", preset, str(windows), str(early)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=True)
    except subprocess.SubprocessError as error:
        said = getattr(error, "stderr", "") or ""
        raise BenchError(f"the stream did not come to its end: {error}\n{str(said)[-2000:]}") from None
    early_mb, late_mb = json.loads(done.stdout.splitlines()[-1])
    return early_mb, late_mb


def stream(config: VisualConfig, windows: int, early: int) -> tuple[float, float]:
    """Clips and a dialogue of so many windows, a stride each, with somebody who speaks now and then; see :func:`_memory`."""
    window = SlidingWindow(PerceptionConfig().window_s, FRAMES_PER_WINDOW, PerceptionConfig().jump_back_s)
    stage, image, early_mb, contexts = VisualStage(config, window), _image(SMALL_WH), 0.0, 0
    stage.warmup()
    for number in range(windows):
        if number == early:
            early_mb = resident_mb()
        begin_ns = number * NS_PER_S
        for index in range(FRAMES_PER_WINDOW):
            frame = Frame(begin_ns + index * NS_PER_S // FRAMES_PER_WINDOW, image)
            window.add_frame(frame)
            contexts += len(stage(frame))
        if number % SPOKEN_EVERY == 0:
            utterance = Utterance(f"u{number}", begin_ns, begin_ns + NS_PER_S // 2, "so it is")
            stage.voice_ended(utterance.id, utterance.end_ns)
            contexts += stage.utterance_ended(utterance) is not None
    late_mb = resident_mb()
    stage.close()
    expected = windows - 1 + -(-windows // SPOKEN_EVERY)
    if contexts != expected:
        raise BenchError(f"expected {expected} clips and dialogues of {windows} windows, got {contexts}")
    return early_mb, late_mb


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stream here and print the two readings as one line of JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.streaming", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("preset", choices=catalogue.BUILT_PROFILES)
    parser.add_argument("windows", type=int)
    parser.add_argument("early", type=int, help="windows before the first reading")
    options = parser.parse_args(argv)
    print(json.dumps(stream(_config(options.preset), options.windows, options.early)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
