"""How long an explanation takes after the words are known: the cause process over DDS, and its stage alone."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import scenes
from benchmarks.graph import START_S, BenchError
from benchmarks.page import Goal, Part, table
from emo_perception.config import CauseConfig
from emo_perception.stages.cause.stage import CauseStage
from emo_perception.tools.supervisor import Supervisor
from emo_perception.types import NS_PER_S, Utterance

PART = "heldout"
OTHERS, OTHERS_SAID = "train", 10
"""Said until the process listens; other words, for it remembers how it read a text."""
GAP_S = 20.0
"""Between two dialogues, in the time of their stamps."""
FRAMES_BETWEEN, FPS = 4, 30
"""Frames of features before each utterance, published at the rate of a camera."""
QUIET_S = 0.0
"""Every emotional utterance is explained, also where the same emotion of that person was explained a moment ago."""
MOST_P95_MS = 100.0
"""Beside the pause that ends an utterance, and its recognition, an explanation takes no time that anybody notices."""
LIMIT_S = 2.0
"""An explanation that takes longer than this has not come."""


@dataclass(frozen=True)
class CauseRun:
    """Milliseconds from publishing an emotional utterance to hearing its explanation, percentiles 50 and 95.

    ``stage_ms``: of the stage alone, on the same inputs; ``explained`` of the ``emotional`` utterances that the stage
    alone explains (or abstains from, aloud) were heard of.
    """

    latency_ms: tuple[float, float]
    stage_ms: tuple[float, float]
    emotional: int
    explained: int


def measure(said: Sequence[Utterance] | None = None) -> CauseRun:
    """Play the dialogues through the stage alone, then through the process. Raises :class:`BenchError`."""
    said = scenes.utterances(PART, GAP_S) if said is None else said
    alone = _alone(said)
    if not alone:
        raise BenchError(f"expected emotional utterances to explain, found none among {len(said)}")
    heard = _over_dds(said, set(alone))
    if not heard:
        raise BenchError(f"no explanation of {len(alone)} emotional utterances was heard within {LIMIT_S:.0f} s each")
    return CauseRun(_percentiles(heard), _percentiles(list(alone.values())), len(alone), len(heard))


def part(run: CauseRun) -> Part:
    """The figures as a part of the report."""
    (p50, p95), (stage_p50, stage_p95) = run.latency_ms, run.stage_ms
    text = "\n\n".join(
        (
            "## Causes, milliseconds from an utterance's words to its explanation",
            table(
                ("", "p50", "p95"),
                [
                    ("cause process, over DDS", f"{p50:.1f}", f"{p95:.1f}"),
                    ("its stage alone", f"{stage_p50:.1f}", f"{stage_p95:.1f}"),
                ],
            ),
            f"{run.emotional} emotional utterances of the held-out dialogues, without a chat server. The words come "
            "after the utterance's end by the delay given under Speech.",
        )
    )
    goals = (
        Goal("emotional utterances explained over DDS", "all", f"{run.explained} of {run.emotional}",
             run.explained == run.emotional),
        Goal("words to explanation, p95", f"< {MOST_P95_MS:.0f} ms", f"{p95:.1f} ms", p95 < MOST_P95_MS),
    )  # fmt: skip
    return Part("dialogue", goals, text, dataclasses.asdict(run))


def _percentiles(values: Sequence[float]) -> tuple[float, float]:
    p50, p95 = np.percentile(values, (50, 95))
    return float(p50), float(p95)


def _alone(said: Sequence[Utterance]) -> dict[str, float]:
    """Milliseconds of the stage for each utterance that it explains, by its id."""
    stage = CauseStage(CauseConfig(quiet_s=QUIET_S))
    stage.warmup()
    took_ms: dict[str, float] = {}
    before_ns = said[0].start_ns - NS_PER_S
    for utterance in said:
        for frame in scenes.between(before_ns, utterance.end_ns, FRAMES_BETWEEN):
            stage(frame)
        begin = time.perf_counter()
        causes = stage(utterance)
        if any(cause.target_utterance == utterance.id for cause in causes):
            took_ms[utterance.id] = (time.perf_counter() - begin) * 1e3
        before_ns = utterance.end_ns
    stage.close()
    return took_ms


def _over_dds(said: Sequence[Utterance], emotional: set[str]) -> list[float]:
    """Milliseconds for each utterance whose explanation was heard."""
    printed: deque[str] = deque(maxlen=30)
    with tempfile.TemporaryDirectory(prefix="emo_bench_") as folder:
        parameters = {"memory_file": Path(folder) / "dialogue.json", "quiet_s": QUIET_S}
        given = [part for name, value in parameters.items() for part in ("-p", f"{name}:={value}")]
        command = [sys.executable, "-m", "emo_perception.nodes", "cause", "--ros-args", *given]
        with Supervisor({"cause": command}, lambda name, line: printed.append(f"[{name}] {line}")) as process:
            peer = _Peer()
            try:
                if not peer.connect(said[0].start_ns, lambda: process.wait(0)):
                    raise BenchError(f"no explanation within {START_S:.0f} s:\n" + "\n".join(printed))
                return peer.play(said, emotional)
            finally:
                peer.close()


class _Peer:
    """Publishes features and utterances, hears explanations; in the thread that calls it."""

    def __init__(self) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        from emo_msgs.msg import EmotionCause, EmotionFeatures, Utterance
        from emo_perception.nodes import convert, qos

        self._convert = convert
        self._context = rclpy.Context()
        rclpy.init(args=[], context=self._context)
        self._node = rclpy.create_node("benchmark", context=self._context)
        self._features = self._node.create_publisher(EmotionFeatures, "emotion_features", qos.RESULT)
        self._utterances = self._node.create_publisher(Utterance, "utterances", qos.RESULT)
        self._node.create_subscription(EmotionCause, "emotion_cause", self._hear, qos.CAPTION)
        self._heard_ns: dict[str, int] = {}
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)

    def connect(self, before_ns: int, ended: Callable[[], bool]) -> bool:
        """Say other things, before the time of the dialogues, until an explanation comes; False when none comes."""
        others = scenes.utterances(OTHERS, GAP_S)[:OTHERS_SAID]
        for second in range(round(START_S)):
            if ended():
                return False
            end_ns = before_ns - (round(START_S) - second + 1) * NS_PER_S
            for said in others:
                self._say(replace(said, id=f"{second}/{said.id}", start_ns=end_ns - NS_PER_S, end_ns=end_ns))
            if self._spin(lambda: bool(self._heard_ns), 1.0):
                self._spin(lambda: False, 1.0)  # the others of this second
                return True
        return False

    def play(self, said: Sequence[Utterance], emotional: set[str]) -> list[float]:
        """Everything in order; after an emotional utterance nothing is said until its explanation has come."""
        took_ms: list[float] = []
        before_ns = said[0].start_ns - NS_PER_S
        for utterance in said:
            for frame in scenes.between(before_ns, utterance.end_ns, FRAMES_BETWEEN):
                self._features.publish(self._convert.frame_msgs(frame).features)
                self._spin(lambda: False, 1 / FPS)
            begin_ns = time.perf_counter_ns()
            self._say(utterance)
            if utterance.id in emotional and self._spin(lambda key=utterance.id: key in self._heard_ns, LIMIT_S):  # type: ignore[misc]
                took_ms.append((self._heard_ns[utterance.id] - begin_ns) / 1e6)
            before_ns = utterance.end_ns
        return took_ms

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def _say(self, utterance: Utterance) -> None:
        self._utterances.publish(self._convert.utterance_msg(utterance))

    def _hear(self, message: Any) -> None:
        self._heard_ns.setdefault(message.target_utterance, time.perf_counter_ns())

    def _spin(self, until: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not until():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._executor.spin_once(timeout_sec=left)
        return True
