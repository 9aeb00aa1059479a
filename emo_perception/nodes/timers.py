"""Timers on the steady clock: simulated time may stand still, and the graph must be looked after all the same."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.timer import Timer

STEADY = Clock(clock_type=ClockType.STEADY_TIME)


def every(node: Node, period_s: float, callback: Callable[[], None]) -> Timer:
    """Call ``callback`` in the executor, first after ``period_s`` seconds; end it with ``node.destroy_timer``."""
    return node.create_timer(period_s, callback, callback_group=MutuallyExclusiveCallbackGroup(), clock=STEADY)
