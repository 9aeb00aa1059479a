"""The rest of the graph for tests of node processes: real DDS, in the domain of the session (see conftest.py)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile

ROOT = Path(__file__).parents[1]
DEADLINE_S = 30.0


class Peer:
    """Publishes, subscribes and waits, in the test's own thread."""

    def __init__(self, name: str = "peer") -> None:
        self.context = Context()
        rclpy.init(args=[], context=self.context)
        self.node = rclpy.create_node(name, context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.diagnostics: dict[str, DiagnosticStatus] = {}
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._diagnose, 50)

    def hear(self, kind: type[Any], topic: str, profile: QoSProfile | int) -> list[Any]:
        """Subscribe; the list fills while waiting."""
        heard: list[Any] = []
        self.node.create_subscription(kind, topic, heard.append, profile)
        return heard

    def until(self, condition: Callable[[], object], what: str, again: Callable[[], object] | None = None) -> None:
        """Spin until ``condition()`` holds; fails after the deadline with what was waited for.

        ``again`` is called at once and then every second: what is sent with best effort may get lost.
        """
        begin = time.monotonic()
        calls = 0
        while not condition():
            passed_s = time.monotonic() - begin
            assert passed_s < DEADLINE_S, f"not within {DEADLINE_S:.0f} s: {what}"
            if again is not None and passed_s >= calls:
                calls += 1
                again()
            self.executor.spin_once(timeout_sec=0.02)

    def value(self, status: str, key: str) -> str:
        """A value of the newest diagnostics of a status; empty while there is none."""
        values = self.diagnostics[status].values if status in self.diagnostics else []
        return next((v.value for v in values if v.key == key), "")

    def close(self) -> None:
        """Leave the graph."""
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()

    def _diagnose(self, message: DiagnosticArray) -> None:
        self.diagnostics.update({status.name: status for status in message.status})


def start(process: str, *ros_arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start one process of the graph; its output is kept for :func:`end`."""
    command = [sys.executable, "-m", "emo_perception.nodes", process]
    if ros_arguments:
        command += ["--ros-args", *ros_arguments]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> str:
    """End it gently and return everything it printed."""
    if process.poll() is None:
        process.send_signal(number)
    if process.stdout is None or process.stdout.closed:
        return ""  # ended before
    try:
        output, _ = process.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        raise AssertionError(f"did not end within 10 s of {number.name}:\n{output}") from None
    return output


@contextmanager
def peer() -> Iterator[Peer]:
    """A peer that leaves at the end."""
    made = Peer()
    try:
        yield made
    finally:
        made.close()
