"""Hearing: how fast speech is recognised, and what that costs the frames. ``python -m benchmarks.speech``

No ROS: the live scheduler, the workers of hearing and the networks as they run in the perception process. Frames and
sound are people of the sample clips, offered at their own pace.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from emo_models import weights
from emo_models.fetch import Puller
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
SECONDS, ROUNDS = 10.0, 5
SETTLE_FRAMES = 30
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
    p50, p95 = (float(p) for p in np.percentile(took_ms[SETTLE_FRAMES:], (50, 95)))
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


def _frames() -> list[NDArray[np.uint8]]:
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


def main() -> int:
    """Print what was measured; 1 when speech costs the frames more than a tenth of their p95 latency."""
    with Puller() as puller:
        for name in (*PEOPLE, *weights.profiles()["start"]):
            puller.pull(weights.card(name))
    speech, frames = voices(), _frames()
    alone = recognition(speech)
    print(f"speech recognition, tiny.en, {os.cpu_count()} cores")
    print(
        f"  real-time factor {alone.real_time_factor:.2f} (CPU {alone.cpu_factor:.2f}), longest {alone.longest_s:.2f} s"
    )
    print(f"  listening when nobody speaks: {100 * alone.listening:.1f} % of a core")
    sound = np.concatenate(speech)
    without, with_speech = [], []
    for _ in range(ROUNDS):  # in turn: other programs of the machine then trouble both alike
        without.append(latency(frames, None, SECONDS))
        with_speech.append(latency(frames, sound, SECONDS))
    print(f"frames at {WIDTH}x{HEIGHT}, {FPS} Hz, one face, {ROUNDS} x {SECONDS:.0f} s")
    for name, runs in (("without speech", without), ("with speech", with_speech)):
        p50, p95 = (float(np.median([getattr(run, key) for run in runs])) for key in ("p50_ms", "p95_ms"))
        dropped, said = sum(run.dropped for run in runs), sum(run.utterances for run in runs)
        print(f"  {name:15} p50 {p50:5.1f} ms  p95 {p95:5.1f} ms  dropped {dropped}  utterances {said}")
    ratio = float(np.median([run.p95_ms for run in with_speech]) / np.median([run.p95_ms for run in without]))
    delay_s = float(np.median([run.delay_s for run in with_speech]))
    print(f"  p95 with speech / without: {ratio:.2f} (wanted: at most {LIMIT:.2f})")
    print(f"  words come {delay_s:.1f} s after an utterance's end, {SpeechConfig().pause_s:.1f} s of it are the pause")
    return int(ratio > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
