"""``/diagnostics`` (REP-107) of a node, once a second on the steady clock, also when simulated time stands still."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from emo_perception.nodes.timers import every
from emo_perception.streaming.mailbox import MailboxCounts
from emo_perception.streaming.stats import StatsSnapshot

PERIOD_S = 1.0
STALE_S = 5.0


class Level(IntEnum):
    """Levels of ``diagnostic_msgs/DiagnosticStatus``."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclass(frozen=True)
class Status:
    """What one part of a node says about itself; ``values`` are shown as text, floats with three decimals."""

    name: str
    level: Level = Level.OK
    message: str = "ok"
    values: Mapping[str, object] = field(default_factory=dict)


class WorkStatus:
    """The status of a worker out of its counters: rate and age (steady clock), drops, failures, latency.

    ``stats`` and ``counts`` are those of the worker and of the mailbox before it; ``facts`` are constant (engine,
    backend, precision), ``extra`` is asked each time. Stale without results for five seconds; a warning while inputs
    fail or are dropped.
    """

    def __init__(
        self,
        name: str,
        stats: Callable[[], StatsSnapshot],
        counts: Callable[[], MailboxCounts] | None = None,
        facts: Mapping[str, object] | None = None,
        extra: Callable[[], Mapping[str, object]] | None = None,
    ) -> None:
        self._name, self._stats, self._counts, self._extra = name, stats, counts, extra
        self._facts = dict(facts or {})
        self._asked_s = self._result_s = time.monotonic()
        self._seen = (0, 0, 0)

    def __call__(self) -> Status:
        """The status at this moment; rates are over the time since the last call."""
        now_s, work = time.monotonic(), self._stats()
        counts = self._counts() if self._counts else None
        seen = (work.processed, work.failed, counts.dropped if counts else 0)
        new, failed, dropped = (after - before for after, before in zip(seen, self._seen, strict=True))
        if new:
            self._result_s = now_s
        values: dict[str, object] = {
            "rate_hz": new / max(now_s - self._asked_s, 1e-3),
            "age_s": now_s - self._result_s if work.processed else math.nan,
            "processed": work.processed,
            "failed": work.failed,
            "late": work.late,
            "latency_p50_ms": work.p50_ms,
            "latency_p95_ms": work.p95_ms,
        }
        if counts:
            values |= {"offered": counts.offered, "dropped": counts.dropped, "waiting": counts.waiting}
        values |= self._facts | dict(self._extra() if self._extra else {})
        self._asked_s, self._seen = now_s, seen
        level, message = self._verdict(work.processed, failed, dropped, now_s - self._result_s)
        return Status(self._name, level, message, values)

    @staticmethod
    def _verdict(processed: int, failed: int, dropped: int, age_s: float) -> tuple[Level, str]:
        if failed:
            return Level.WARN, f"{failed} inputs failed since the last report; see the log"
        if dropped:
            return Level.WARN, f"{dropped} inputs dropped since the last report: slower than the input"
        if not processed:
            return Level.STALE, "waiting for the first input"
        if age_s > STALE_S:
            return Level.STALE, f"nothing new for {age_s:.0f} s"
        return Level.OK, "running"


class Diagnostics:
    """Asks every source for its status and publishes them together; a source is called in the executor's thread."""

    def __init__(self, node: Node, *sources: Callable[[], Status]) -> None:
        self._node = node
        self._sources = list(sources)
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._timer = every(node, PERIOD_S, self.publish)

    def add(self, source: Callable[[], Status]) -> None:
        """Ask ``source`` too from now on."""
        self._sources.append(source)

    def publish(self) -> None:
        """Publish now."""
        message = DiagnosticArray(status=[self._message(source()) for source in self._sources])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)

    def _message(self, status: Status) -> DiagnosticStatus:
        values = [KeyValue(key=key, value=_text(value)) for key, value in status.values.items()]
        return DiagnosticStatus(
            level=bytes([status.level]),
            name=f"{self._node.get_fully_qualified_name().lstrip('/')}: {status.name}",
            message=status.message,
            hardware_id="",
            values=values,
        )


def _text(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
