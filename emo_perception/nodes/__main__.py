"""The processes of the graph: ``python -m emo_perception.nodes caption --ros-args ...``; installed scripts call these too.

Nodes are imported only here, late, so that a missing ROS or message package ends in one line that says what to do.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import signal
import sys
from typing import NoReturn

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
    # Read when numpy is loaded, below: its products are of small images, on which more threads wait longer than they work.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        require_ros()
    except ConfigError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return EXIT_CONFIG
    from emo_perception.nodes import runtime

    return runtime.run(name, importlib.import_module(PROCESSES[name]).make_nodes, args)


def _leave(code: int) -> NoReturn:
    """End the process, nodes closed and output written, without tearing down the interpreter.

    A worker may still be inside a library of compiled code (a model being loaded, an utterance being understood). Python
    would stop such a thread at its next step, which that code answers by aborting the process.
    """
    gc.collect()  # nodes lie in cycles; with the last one goes the DDS participant and its shared memory
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def source() -> NoReturn:
    """Console script of the source."""
    _leave(main("source"))


def perception() -> NoReturn:
    """Console script of the perception process."""
    _leave(main("perception"))


def caption() -> NoReturn:
    """Console script of the caption process."""
    _leave(main("caption"))


def cause() -> NoReturn:
    """Console script of the cause process."""
    _leave(main("cause"))


def recorder() -> NoReturn:
    """Console script of the recorder."""
    _leave(main("recorder"))


def player() -> NoReturn:
    """Console script of the player of bags."""
    _leave(main("player"))


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in PROCESSES:
        sys.exit(f"usage: python -m emo_perception.nodes {{{','.join(PROCESSES)}}} [--ros-args ...]")
    process = sys.argv.pop(1)
    _leave(main(process))
