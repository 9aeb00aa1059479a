"""Memory of a process over an hour of a simulated stream: ``python -m benchmarks.hour`` prints it as JSON.

Everything that remembers takes part, as fast as it can: the window with frames and sound, the networks of the faces (on
a frame every few seconds), the voice detector, recognition, captions, the dialogue's memory and the causes. No ROS. An
hour of recognising everything would take long: a person of the sample clips speaks every minute and a half; the other
utterances come as text.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import scenes, speech
from benchmarks.graph import BenchError
from benchmarks.page import Goal, Part, table
from emo_perception.config import CaptionConfig, CauseConfig
from emo_perception.perception import Chain
from emo_perception.stages.caption.stage import CaptionStage
from emo_perception.stages.cause.stage import CauseStage
from emo_perception.streaming.resample import RATE_HZ
from emo_perception.types import NS_PER_S, AudioChunk, EmotionFeatures, Frame, Utterance

MINUTES, EARLY_MINUTES = 60, 5
FPS = 10
SPEECH_EVERY_S, WORDS_EVERY_S, SEEN_EVERY_S = 90, 5, 5
"""Seconds between two utterances to recognise, two that come as text, and two frames that the networks look at."""
SHOWN_S, STAYS_S = 7, 45
"""A face changes its expression, and a person goes and another comes, after so many seconds."""
MOST_GROWTH_SHARE = 0.05
LIMIT_S = 300.0


@dataclass(frozen=True)
class HourRun:
    """Resident memory in MB after each of the minutes, the first at ``early``; and how much went through."""

    early_mb: float
    late_mb: float
    early_minutes: int
    minutes: int
    features: int
    utterances: int
    understood: int
    captions: int
    causes: int
    wall_s: float

    @property
    def growth_mb(self) -> float:
        """What came on top after the early minutes."""
        return self.late_mb - self.early_mb


def part(run: HourRun) -> Part:
    """The figures as a part of the report."""
    text = "\n\n".join(
        (
            "## Memory over a simulated stream",
            table(
                ("after", "resident memory, MB"),
                [
                    (f"{run.early_minutes} minutes", f"{run.early_mb:.0f}"),
                    (f"{run.minutes} minutes", f"{run.late_mb:.0f}"),
                ],
            ),
            f"{run.features} frames of features, {run.utterances} utterances, {run.understood} of them recognised out "
            f"of sound, {run.captions} captions and {run.causes} causes with abstentions; {run.wall_s:.0f} s for all.",
        )
    )
    wanted = f"<= {MOST_GROWTH_SHARE:.0%} more than after {run.early_minutes} minutes"
    share = run.growth_mb / run.early_mb
    goal = Goal(f"memory after {run.minutes} minutes", wanted, f"{share:+.1%}", share <= MOST_GROWTH_SHARE)
    return Part("hour", (goal,), text, dataclasses.asdict(run))


class _Stream:
    """The stages, and the stream second by second."""

    def __init__(self, voices: Sequence[NDArray[np.int16]], images: Sequence[NDArray[np.uint8]]) -> None:
        self.chain = Chain({})
        self.chain.warmup()
        self.caption, self.cause = CaptionStage(CaptionConfig()), CauseStage(CauseConfig())
        self.cause.warmup()
        self._voices, self._images = itertools.cycle(voices), itertools.cycle(images)
        self._words = itertools.cycle(u.text for u in scenes.utterances("train", 0.0))
        self._sound = np.zeros(0, np.int16)
        self.counts = dict.fromkeys(("features", "utterances", "understood", "captions", "causes"), 0)

    def second(self, number: int) -> None:
        """Everything of one second; its sound follows its frames."""
        begin_ns = scenes.BEGIN_NS + number * NS_PER_S
        image = next(self._images)
        if number % SEEN_EVERY_S == 0:
            for _ in self.chain.offline([Frame(begin_ns, image)]):
                pass
        for index in range(1, FPS):
            self.chain.window.add_frame(Frame(begin_ns + index * NS_PER_S // FPS, image))
        for features in self._features(number, begin_ns):
            self.counts["features"] += 1
            self.counts["captions"] += self.caption(features) is not None
            self.counts["causes"] += len(self.cause(features))
        if number % SPEECH_EVERY_S == SPEECH_EVERY_S // 2:
            self._sound = next(self._voices)
        self._hear(begin_ns)
        if number % WORDS_EVERY_S == WORDS_EVERY_S - 1:
            end_ns = begin_ns + NS_PER_S
            self._say(
                Utterance(f"u{number}", end_ns - 2 * NS_PER_S, end_ns, next(self._words), track_id=1 + number % 2)
            )

    def close(self) -> None:
        self.chain.close()
        self.cause.close()

    def _features(self, number: int, begin_ns: int) -> Iterator[EmotionFeatures]:
        person = 1 + number // STAYS_S
        shown = {f"f{person + i}": scenes.LABELS[(number // SHOWN_S + 3 * i) % len(scenes.LABELS)] for i in range(2)}
        gone = (person - 1,) if number % STAYS_S == 0 and person > 1 else ()
        for index in range(FPS):
            made = scenes.features(begin_ns + index * NS_PER_S // FPS, **shown)
            yield replace(made, expired=gone if index == 0 else ())

    def _hear(self, begin_ns: int) -> None:
        samples, self._sound = self._sound[:RATE_HZ], self._sound[RATE_HZ:]
        heard = np.concatenate((samples, np.zeros(RATE_HZ - len(samples), np.int16)))
        for segment in self.chain.hear(AudioChunk(begin_ns, heard)):
            assert self.chain.speech is not None
            utterance = self.chain.speech(segment)
            if utterance is not None:
                self.counts["understood"] += 1
                self._say(utterance)

    def _say(self, utterance: Utterance) -> None:
        self.counts["utterances"] += 1
        self.counts["causes"] += len(self.cause(utterance))


def measure(minutes: int = MINUTES, early: int = EARLY_MINUTES) -> HourRun:
    """Run the stream in a process of its own. Raises :class:`BenchError` when that fails."""
    command = [sys.executable, "-m", "benchmarks.hour", "--minutes", str(minutes), "--early", str(early)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=True)
    except subprocess.SubprocessError as error:
        said = getattr(error, "stderr", "") or ""
        raise BenchError(f"the hour did not come to its end: {error}\n{str(said)[-2000:]}") from None
    return HourRun(**json.loads(done.stdout.splitlines()[-1]))


def resident_mb() -> float:
    """Memory of this process that is in RAM."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stream here and print the result as one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hour", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--minutes", type=int, default=MINUTES)
    parser.add_argument("--early", type=int, default=EARLY_MINUTES, help="minutes before the first reading")
    options = parser.parse_args(argv)
    begin = time.perf_counter()
    stream = _Stream(speech.voices(), speech.frames())
    early_mb = 0.0
    for number in range(60 * options.minutes):
        if number == 60 * options.early:
            early_mb = resident_mb()
        stream.second(number)
    late_mb, wall_s = resident_mb(), time.perf_counter() - begin
    stream.close()
    run = HourRun(early_mb, late_mb, options.early, options.minutes, **stream.counts, wall_s=wall_s)
    print(json.dumps(dataclasses.asdict(run)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
