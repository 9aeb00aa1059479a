"""The real graph, as ``emo run`` starts it, and a listener in this process that counts, times and reads the CPU clock."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.clips import FPS
from emo_perception.config import EXIT_CONFIG
from emo_perception.graph import GraphOptions
from emo_perception.tools.run import supervise
from emo_perception.tools.supervisor import Supervisor
from emo_perception.transport import fastdds_environment
from emo_perception.types import NS_PER_S

SETTLE_FRAMES = 30
"""Frames before the CPU clock and the latencies count: discovery and first pages of memory are not the steady state."""
QUIET_S = 1.0
START_S = 60.0


class BenchError(RuntimeError):
    """A graph that did not run to the end; the message carries what its processes said last."""


@dataclass(frozen=True)
class GraphRun:
    """One run. ``offered``: frames of the clip; ``processed``: frames whose features arrived, each stamp once.

    ``cpu_ms``: CPU time of the perception process per frame; ``latency_ms``: from the acquisition stamp to the
    listener's callback, percentiles 50, 95, 99; ``torch``: whether its library was mapped into the process.
    """

    offered: int
    processed: int
    faces: float
    cpu_ms: float
    latency_ms: tuple[float, float, float]
    torch: bool


@dataclass
class Heard:
    """What the listener has heard so far."""

    stamps_ns: list[int] = field(default_factory=list)
    arrivals_ns: list[int] = field(default_factory=list)
    faces: list[int] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    sent: int | None = None
    """Frames that left the source, known when it has ended: it drops those that it cannot decode in time."""


def prepare_ros() -> None:
    """Settings of this process and its children, before ROS is imported: shared memory, a domain of our own."""
    os.environ.update(fastdds_environment(os.environ))
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))


def measure(clip: Path, frames: int, *, inside: bool) -> GraphRun:
    """Play ``clip``, of so many frames, through the graph once; ``inside``: the perception process opens the source.

    Raises :class:`BenchError` when the graph ends early, does not finish in time, or hardly a frame comes through.
    """
    said: deque[str] = deque(maxlen=30)
    with tempfile.TemporaryDirectory(prefix="emo_bench_") as folder:
        own = Path(folder) / "bench.yaml"  # the user's dialogue memory is none of the bench's business
        own.write_text("/**/cause: {ros__parameters: {persist: false}}\n", encoding="utf-8")
        options = GraphOptions(source=str(clip), privacy=inside, params_file=str(own))
        with supervise(options, Path(folder), lambda name, line: said.append(f"[{name}] {line}")) as supervisor:
            heard, torch = _listen(supervisor, START_S + 2 * frames / FPS, said)
        if supervisor.exit_code == EXIT_CONFIG:
            raise BenchError("the graph cannot run:\n" + "\n".join(said))
    return _result(heard, frames, torch)


def _listen(supervisor: Supervisor, limit_s: float, said: deque[str]) -> tuple[Heard, bool]:
    """Hear a graph to the end of its source."""
    heard = Heard()
    deadline = time.monotonic() + limit_s
    with _Listener(heard, lambda: cpu_s(supervisor.pid("perception"))):
        while not _complete(heard):
            if supervisor.wait(0.1) or time.monotonic() > deadline:
                raise BenchError(f"no end of the clip after {limit_s:.0f} s or an early end:\n" + "\n".join(said))
        return heard, maps_torch(supervisor.pid("perception"))


def _complete(heard: Heard) -> bool:
    if heard.sent is None or not heard.arrivals_ns:
        return False
    quiet_s = (time.time_ns() - heard.arrivals_ns[-1]) / NS_PER_S
    return len(heard.stamps_ns) >= heard.sent or quiet_s > QUIET_S


class _Listener:
    """Subscribes ``emotion_features`` and ``source_state`` in a thread of its own."""

    def __init__(self, heard: Heard, clock: Callable[[], float]) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        from emo_msgs.msg import EmotionFeatures, SourceState
        from emo_perception.nodes import qos

        self._heard, self._clock = heard, clock
        self._ended = SourceState.ENDED
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self._node = rclpy.create_node("benchmark", context=self._context)
        self._node.create_subscription(EmotionFeatures, "emotion_features", self._features, qos.RESULT)
        self._node.create_subscription(SourceState, "source_state", self._state, qos.STATE)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)

    def __enter__(self) -> _Listener:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self._thread.join()
        self._node.destroy_node()
        self._context.try_shutdown()

    def _features(self, message: Any) -> None:
        now_ns = time.time_ns()
        stamp = message.header.stamp
        self._heard.cpu_s.append(self._clock())
        self._heard.stamps_ns.append(stamp.sec * NS_PER_S + stamp.nanosec)
        self._heard.faces.append(len(message.faces))
        self._heard.arrivals_ns.append(now_ns)

    def _state(self, message: Any) -> None:
        if message.state == self._ended:
            self._heard.sent = message.frames


def _result(heard: Heard, frames: int, torch: bool) -> GraphRun:
    if len(heard.stamps_ns) < SETTLE_FRAMES + 2:
        raise BenchError(f"expected features of {frames} frames, heard {len(heard.stamps_ns)}: too few to judge")
    steady = slice(SETTLE_FRAMES, None)
    latency = (np.array(heard.arrivals_ns[steady]) - np.array(heard.stamps_ns[steady])) / 1e6
    p50, p95, p99 = (float(p) for p in np.percentile(latency, (50, 95, 99)))
    cpu = heard.cpu_s[steady]
    return GraphRun(
        offered=frames,
        processed=len(set(heard.stamps_ns)),
        faces=float(np.mean(heard.faces[steady])),
        cpu_ms=(cpu[-1] - cpu[0]) / (len(cpu) - 1) * 1e3,
        latency_ms=(p50, p95, p99),
        torch=torch,
    )


def cpu_s(pid: int | None) -> float:
    """CPU seconds of a process and its threads so far; not a number when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def maps_torch(pid: int | None) -> bool:
    """Whether a process has loaded PyTorch."""
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
