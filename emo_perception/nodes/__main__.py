"""The processes of the graph: ``python -m emo_perception.nodes caption --ros-args ...``; installed scripts call these too.

Nodes are imported only here, late, so that a missing ROS or message package ends in one line that says what to do.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys

from emo_perception.config import EXIT_CONFIG, ConfigError
from emo_perception.preflight import require_ros

#: Process -> module with ``make_nodes() -> list[Node]``.
PROCESSES = {
    "source": "emo_perception.nodes.source",
    "perception": "emo_perception.nodes.perception",
    "caption": "emo_perception.nodes.caption",
    "cause": "emo_perception.nodes.cause",
    "recorder": "emo_perception.nodes.recorder",
    "player": "emo_perception.nodes.player",
}


def main(name: str, args: list[str] | None = None) -> int:
    """Run one process of the table; returns its exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # Loading takes seconds, in which nothing is open that would have to be closed. The nodes' own handlers follow.
        signal.signal(number, lambda *_: os._exit(0))
    try:
        require_ros()
    except ConfigError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return EXIT_CONFIG
    from emo_perception.nodes import runtime

    return runtime.run(name, importlib.import_module(PROCESSES[name]).make_nodes, args)


def source() -> None:
    """Console script of the source."""
    sys.exit(main("source"))


def perception() -> None:
    """Console script of the perception process."""
    sys.exit(main("perception"))


def caption() -> None:
    """Console script of the caption process."""
    sys.exit(main("caption"))


def cause() -> None:
    """Console script of the cause process."""
    sys.exit(main("cause"))


def recorder() -> None:
    """Console script of the recorder."""
    sys.exit(main("recorder"))


def player() -> None:
    """Console script of the player of bags."""
    sys.exit(main("player"))


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in PROCESSES:
        sys.exit(f"usage: python -m emo_perception.nodes {{{','.join(PROCESSES)}}} [--ros-args ...]")
    process = sys.argv.pop(1)
    sys.exit(main(process))
