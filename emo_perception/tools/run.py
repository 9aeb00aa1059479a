"""``emo run``: start the graph where there is no ``ros2 launch``."""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TextIO

from emo_perception.config import EXIT_CONFIG, ConfigError
from emo_perception.graph import GraphOptions, configs_of, notes, option_choices, processes
from emo_perception.learned import require
from emo_perception.preflight import require_ros
from emo_perception.tools.supervisor import Supervisor

END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_COLOURS = {"source": 36, "perception": 32, "caption": 35, "emo": 33}


class Console:
    """Prints lines of several processes, each behind its name; with colours on a terminal."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._coloured = out.isatty() and not os.environ.get("NO_COLOR")
        self._lock = threading.Lock()

    def __call__(self, name: str, line: str) -> None:
        head = f"[{name}]"
        if self._coloured:
            head = f"\033[{_COLOURS.get(name, 0)}m{head}\033[0m"
        with self._lock:
            try:
                print(head, line, file=self._out, flush=True)
            except BrokenPipeError:
                # Python flushes once more at its end, and would complain.
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())
                raise


def supervise(options: GraphOptions, folder: Path, output: Callable[[str, str], None]) -> Supervisor:
    """A supervisor, not started yet, for the graph of ``options``; its parameter files are written into ``folder``.

    Raises :class:`ConfigError` when the options contradict each other, or ROS, the messages or networks are missing.
    """
    table = processes(options)
    require_ros()
    require(configs_of(options))
    commands = {}
    for process in table:
        file = folder / f"{process.name}.yaml"
        file.write_text(process.parameter_file(), encoding="utf-8")
        module = [sys.executable, "-m", "emo_perception.nodes", process.name]
        commands[process.name] = [*module, *process.ros_arguments(file)]
    for note in notes(options):
        output("emo", note)
    return Supervisor(commands, output, once={process.name for process in table if not process.restart})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One option for each field of :class:`GraphOptions`."""
    for spec in dataclasses.fields(GraphOptions):
        flag, text = "--" + spec.name.replace("_", "-"), spec.metadata["description"].replace("%", "%%")
        if isinstance(spec.default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=spec.default, help=text)
        else:
            choices = option_choices(spec) or None
            text += f" (default: {spec.default})" if spec.default else ""
            parser.add_argument(
                flag, choices=choices, default=spec.default, help=text, metavar=None if choices else "X"
            )


def run(arguments: argparse.Namespace) -> int:
    """Run the graph until Ctrl-C, SIGTERM or a configuration error; returns the exit code."""
    names = [spec.name for spec in dataclasses.fields(GraphOptions)]
    console = Console(sys.stdout)
    with tempfile.TemporaryDirectory(prefix="emo_perception_") as folder:
        try:
            options = GraphOptions.of({name: getattr(arguments, name) for name in names})
            supervisor = supervise(options, Path(folder), console)
        except ConfigError as error:
            print(f"emo run: {error}", file=sys.stderr)
            return EXIT_CONFIG
        return run_until_ended(supervisor, console)


def run_until_ended(supervisor: Supervisor, console: Console) -> int:
    """Start the supervisor and wait; Ctrl-C, SIGTERM and a closed terminal end it gently. Returns its exit code."""
    for number in END_SIGNALS:
        signal.signal(number, _interrupt_once)
    try:
        supervisor.start()
        supervisor.wait()
    except KeyboardInterrupt:
        console("emo", "ending")
    finally:
        supervisor.stop()
    return supervisor.exit_code


def _interrupt_once(*_: object) -> NoReturn:
    """Raise, for setting an event in a handler can deadlock with the wait; later signals change nothing any more."""
    for each in END_SIGNALS:
        signal.signal(each, lambda *_: None)
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``emo run``."""
    parser = argparse.ArgumentParser(prog="emo run", description="Start the graph; Ctrl-C ends it.")
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
