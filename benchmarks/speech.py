"""Hearing: how fast speech is recognised, and what that costs the frames.

No ROS: the live scheduler, the workers of hearing and the networks as they run in the perception process. Frames and
sound are people of the sample clips, offered at their own pace.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.page import Goal, Part, table
from emo_models import weights
from emo_perception.config import SourceConfig, SpeechConfig
from emo_perception.hearing import Hearing
from emo_perception.perception import Chain, Observation
from emo_perception.sources import open_source
from emo_perception.stages.speech.recogniser import Recogniser
from emo_perception.stages.speech.voice import FRAME, VoiceDetector
from emo_perception.streaming.resample import RATE_HZ
from emo_perception.streaming.scheduler import LiveScheduler
from emo_perception.types import NS_PER_S, AudioChunk, Frame, Utterance

PEOPLE = ("ravdess_angry", "ravdess_surprised", "ravdess_neutral_man", "ravdess_neutral_woman")
WIDTH, HEIGHT, FPS = 640, 480, 30
CHUNK = 1024
SECONDS, ROUNDS = 8.0, 5
SETTLE_FRAMES = 30
MOST_REAL_TIME = 1.0
"""Whoever needs longer than was spoken falls behind."""
LIMIT = 1.10
"""The p95 latency of frames with speech may be this many times that without."""


@dataclass(frozen=True)
class Recognition:
    """Seconds of computing, and of CPU time, per second of speech; CPU share of listening when nobody speaks."""

    real_time_factor: float
    cpu_factor: float
    longest_s: float
    listening: float


@dataclass(frozen=True)
class Latency:
    """Frames from being offered to being published: milliseconds; ``utterances`` understood meanwhile."""

    p50_ms: float
    p95_ms: float
    dropped: int
    utterances: int
    delay_s: float


@dataclass(frozen=True)
class SpeechRun:
    """Recognition alone, and each round of frames without and with speech."""

    recognition: Recognition
    without: tuple[Latency, ...]
    with_speech: tuple[Latency, ...]

    @property
    def ratio(self) -> float:
        """The p95 latency of frames with speech over that without."""
        return of(self.with_speech, "p95_ms") / of(self.without, "p95_ms")

    @property
    def delay_s(self) -> float:
        """Seconds from an utterance's end to its words; not a number when a round understood nothing."""
        return of(self.with_speech, "delay_s")


def voices() -> list[NDArray[np.int16]]:
    """The sound of the clips, int16 [n] at 16 kHz."""
    return [np.concatenate([i.samples for i in _items(name) if isinstance(i, AudioChunk)]) for name in PEOPLE]


def recognition(speech: Sequence[NDArray[np.int16]]) -> Recognition:
    """Recognise every clip three times, alone."""
    config, recogniser, detector = SpeechConfig(), Recogniser("tiny.en"), VoiceDetector()
    recogniser(speech[0], config)
    wall, cpu = [], time.process_time()
    for samples in [*speech] * 3:
        start = time.perf_counter()
        recogniser(samples, config)
        wall.append(time.perf_counter() - start)
    cpu, said_s = time.process_time() - cpu, 3 * sum(map(len, speech)) / RATE_HZ
    quiet = np.zeros(2 * FRAME, np.int16)
    detector(quiet)
    start_cpu = time.process_time()
    for _ in range(500):
        detector(quiet)
    listening = (time.process_time() - start_cpu) / (500 * len(quiet) / RATE_HZ)
    recogniser.close()
    detector.close()
    return Recognition(sum(wall) / said_s, cpu / said_s, max(wall), listening)


def latency(frames: Sequence[NDArray[np.uint8]], sound: NDArray[np.int16] | None, seconds: float) -> Latency:
    """Play frames at 30 Hz through the chain, with ``sound`` (repeated) or without any speech recognition."""
    chain = Chain({SpeechConfig.node: SpeechConfig(enabled=sound is not None)})
    chain.warmup()
    took_ms: list[float] = []
    delays_s: list[float] = []
    chain.steps[-1].listeners.append(lambda done: took_ms.append((time.time_ns() - done.stamp_ns) / 1e6))
    live: LiveScheduler[Frame, Observation] = LiveScheduler(Observation, chain.steps)

    def say(utterance: Utterance) -> None:
        delays_s.append((time.time_ns() - utterance.end_ns) / NS_PER_S)

    hearing: Hearing[AudioChunk] = Hearing(chain, lambda chunk: chunk, say)
    live.start()
    hearing.start()
    speaking = threading.Thread(target=_speak, args=(hearing, sound, seconds), daemon=True)
    if sound is not None:
        speaking.start()
    begin, images = time.perf_counter(), itertools.cycle(frames)
    for index in range(round(seconds * FPS)):
        time.sleep(max(0.0, begin + index / FPS - time.perf_counter()))
        live.offer(Frame(time.time_ns(), next(images)))
    live.stop()
    if sound is not None:
        speaking.join()
    hearing.stop()
    chain.close()
    settled = took_ms[SETTLE_FRAMES:]
    if not settled:
        raise RuntimeError(
            f"only {len(took_ms)} frames came through in {seconds:g} s, expected more than {SETTLE_FRAMES}: "
            "the machine is busy; end what else runs, or measure for longer"
        )
    p50, p95 = (float(p) for p in np.percentile(settled, (50, 95)))
    delay_s = float(np.median(delays_s)) if delays_s else float("nan")
    return Latency(p50, p95, live.door().dropped, len(delays_s), delay_s)


def _speak(hearing: Hearing[AudioChunk], sound: NDArray[np.int16], seconds: float) -> None:
    """Offer the sound at its own pace; a chunk comes when its last sample was taken."""
    start_ns, begin = time.time_ns(), time.perf_counter()
    for index in range(round(seconds * RATE_HZ / CHUNK)):
        time.sleep(max(0.0, begin + (index + 1) * CHUNK / RATE_HZ - time.perf_counter()))
        samples = np.take(sound, np.arange(index * CHUNK, (index + 1) * CHUNK), mode="wrap")
        hearing.offer(AudioChunk(start_ns + index * CHUNK * NS_PER_S // RATE_HZ, samples))


def _items(name: str) -> list[Frame | AudioChunk]:
    return list(open_source(SourceConfig(uri=str(weights.path(name)), realtime=False)))


def frames() -> list[NDArray[np.uint8]]:
    """One person, to and fro, so that nobody ever jumps; uint8 [480, 640, 3]."""
    images = []
    for item in _items("ravdess_angry"):
        if isinstance(item, Frame):
            height, width = item.image.shape[:2]
            wide = height * WIDTH // HEIGHT
            left = (width - wide) // 2
            middle = np.ascontiguousarray(item.image[:, left : left + wide])
            images.append(np.asarray(cv2.resize(middle, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA), np.uint8))
    return [*images, *images[-2:0:-1]]


def measure(rounds: int = ROUNDS, seconds: float = SECONDS) -> SpeechRun:
    """Recognition alone, then frames without and with speech, in turn: other programs then trouble both alike."""
    said, images = voices(), frames()
    alone = recognition(said)
    sound = np.concatenate(said)
    without, with_speech = [], []
    for _ in range(rounds):
        without.append(latency(images, None, seconds))
        with_speech.append(latency(images, sound, seconds))
    return SpeechRun(alone, tuple(without), tuple(with_speech))


def part(run: SpeechRun) -> Part:
    """The figures as a part of the report."""
    alone, config = run.recognition, SpeechConfig()
    rows = [
        (name, *(f"{of(runs, key):.1f}" for key in ("p50_ms", "p95_ms")), str(sum(r.dropped for r in runs)), str(sum(r.utterances for r in runs)))
        for name, runs in (("without speech", run.without), ("with speech", run.with_speech))
    ]  # fmt: skip
    text = "\n\n".join(
        (
            "## Speech",
            table(
                ("", ""),
                [
                    (f"real-time factor of recognition ({config.model}, {os.cpu_count()} cores), of its CPU time",
                     f"{alone.real_time_factor:.2f}, {alone.cpu_factor:.2f}"),
                    ("longest recognition of one utterance", f"{alone.longest_s:.2f} s"),
                    ("listening when nobody speaks", f"{alone.listening:.1%} of a core"),
                    (f"an utterance's end to its words, {config.pause_s:.1f} s of it the pause that ends it",
                     f"{run.delay_s:.2f} s"),
                ],
            ),
            table(("frames, one face, 30 Hz, medians of the rounds", "latency p50", "p95 (ms)", "dropped", "utterances"), rows),
            "No ROS in between: the live scheduler and the workers of hearing, as in the perception process.",
        )
    )  # fmt: skip
    goals = (
        Goal("real-time factor of recognition", f"< {MOST_REAL_TIME:.1f}", f"{alone.real_time_factor:.2f}",
             alone.real_time_factor < MOST_REAL_TIME),
        Goal("p95 latency of frames with speech", f"<= {LIMIT:.0%} of that without", f"{run.ratio:.0%}",
             run.ratio <= LIMIT),
    )  # fmt: skip
    figures = {**dataclasses.asdict(run), "derived": {"ratio": run.ratio, "delay_s": run.delay_s}}
    return Part("speech", goals, text, figures)


def of(runs: Sequence[Latency], key: str) -> float:
    """Median of a figure over the rounds."""
    return float(np.median([getattr(run, key) for run in runs]))
