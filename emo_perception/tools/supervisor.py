"""Keeps a set of processes running: starts, restarts after a crash, ends them gently. Free of ROS.

Each child leads a session of its own, so that Ctrl-C in the terminal reaches the supervisor only, which passes it on
once. Children end with the supervisor even when that is killed (Linux).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from emo_perception.config import EXIT_CONFIG
from emo_perception.graph import Backoff
from emo_perception.transport import fastdds_environment

#: What a child is sent to end it, and how many seconds it then has; nodes close by themselves within five.
GENTLE = ((signal.SIGINT, 6.0), (signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0))

EXIT_CRASH = 1

#: Lines already stand behind the process's name, and a terminal needs no nanoseconds.
LOG_FORMAT = "{severity} {name}: {message}"

_BOOTSTRAPPED = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"
_WITH_PARENT = Path(__file__).with_name("_with_parent.py")


def child_environment(command: Sequence[str], base: Mapping[str, str]) -> dict[str, str]:
    """The variables for a child that runs ``command``, made from this process's own (``base``)."""
    environment = {
        "PYTHONUNBUFFERED": "1",
        "RCUTILS_CONSOLE_OUTPUT_FORMAT": LOG_FORMAT,
        **fastdds_environment(base),
        **base,
    }
    if Path(command[0]).parent != Path(sys.executable).parent:
        # The ROS wheels set up each virtual environment once, and take this inherited mark for "done".
        environment.pop(_BOOTSTRAPPED, None)
    if (Path(sys.prefix) / "share" / "ament_index").is_dir():
        environment.setdefault("AMENT_PREFIX_PATH", sys.prefix)  # ROS from wheels: nothing was sourced
    return environment


class Supervisor:
    """Runs each command of ``commands`` (name -> arguments) until it ends well, is stopped, or is configured wrongly.

    A child that ends with 0 has done its work; with :data:`EXIT_CONFIG` it ends the whole run; anything else is a
    crash, which is reported, and after a wait of ``backoff()`` it is started again, except those in ``once``, whose
    crash makes the exit code of the run 1. ``output`` gets every line:
    ``output(name, line)``, from several threads, the reports under the name "emo". Usable as a context manager.
    """

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        output: Callable[[str, str], None],
        *,
        once: Container[str] = (),
        backoff: Callable[[], Backoff] = Backoff,
        gentle: Sequence[tuple[signal.Signals, float]] = GENTLE,
    ) -> None:
        self.exit_code = 0
        self._commands = {name: list(command) for name, command in commands.items()}
        self._unfinished = set(self._commands)
        self._output = output
        self._once = once
        self._backoff = backoff
        self._gentle = gentle
        self._lock = threading.Lock()  # guards _running and the decision to start one more
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._over = threading.Event()
        self._keepers = [threading.Thread(target=self._keep, args=(name,), name=name) for name in self._commands]

    def __enter__(self) -> Supervisor:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start every command, in order. Call it once."""
        for keeper in self._keepers:
            keeper.start()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the run is over (all ended well, or one was configured wrongly); False after ``timeout_s``."""
        return self._over.wait(timeout_s)

    def pid(self, name: str) -> int | None:
        """The process id of a child, None while it does not run."""
        with self._lock:
            child = self._running.get(name)
            return child.pid if child else None

    def finished(self, name: str) -> bool:
        """Whether a child has ended for good: it did its work, or the run is over."""
        with self._lock:
            return name not in self._unfinished

    def stop(self) -> None:
        """End all children, gently at first, and wait until they have ended. Does nothing the second time."""
        self._over.set()
        for number, deadline_s in self._gentle:
            with self._lock:
                alive = dict(self._running)
            for name, child in alive.items():
                if number != self._gentle[0][0]:
                    self._report(f"{name} is still there, sending {number.name}")
                with suppress(ProcessLookupError):
                    child.send_signal(number)
            deadline = time.monotonic() + deadline_s
            for keeper in self._keepers:
                if keeper.ident is not None:  # was started
                    keeper.join(max(0.0, deadline - time.monotonic()))
            if not any(keeper.is_alive() for keeper in self._keepers):
                return
        self._report("could not be ended: " + ", ".join(sorted(self._unfinished)))

    def _keep(self, name: str) -> None:
        """Body of the thread that owns one child."""
        backoff = self._backoff()
        try:
            while not self._over.is_set():
                began = time.monotonic()
                code = self._run(name)
                if code is None or self._ended_for_good(name, code):
                    break
                wait_s = backoff.after(time.monotonic() - began)
                self._report(f"{name} crashed ({describe_exit(code)}), next attempt in {wait_s:g} s")
                self._over.wait(wait_s)
        finally:
            with self._lock:
                self._unfinished.discard(name)
                if not self._unfinished:
                    self._over.set()

    def _ended_for_good(self, name: str, code: int) -> bool:
        if self._over.is_set():
            if code:
                self._report(f"{name} ended with {describe_exit(code)}")
        elif code == 0:
            self._report(f"{name} has ended")
        elif code == EXIT_CONFIG:
            self._report(f"{name} cannot run as it is configured (see its message above), ending all")
            self.exit_code = EXIT_CONFIG
            self._over.set()
        elif name in self._once:
            self._report(f"{name} crashed ({describe_exit(code)}) and cannot be started again")
            self.exit_code = EXIT_CRASH
        else:
            return False
        return True

    def _run(self, name: str) -> int | None:
        """Run a child to its end and return its exit code; None when it was not started because all is over."""
        command = self._commands[name]
        launcher = [sys.executable, "-I", "-S", str(_WITH_PARENT), str(os.getpid())]
        with self._lock:
            if self._over.is_set():
                return None
            child = subprocess.Popen(
                launcher + command if sys.platform == "linux" else command,
                env=child_environment(command, os.environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._running[name] = child
        assert child.stdout is not None
        reader = threading.Thread(target=self._read, args=(name, child.stdout), daemon=True)
        reader.start()
        code = child.wait()
        with self._lock:
            del self._running[name]
        reader.join(1.0)  # longer only when the child left processes of its own that hold the pipe
        return code

    def _read(self, name: str, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                self._say(name, line.decode(errors="replace").rstrip())

    def _report(self, text: str) -> None:
        self._say("emo", text)

    def _say(self, name: str, line: str) -> None:
        try:
            self._output(name, line)
        except OSError:  # nobody reads any more, as after "emo run | head"
            self._over.set()


def describe_exit(code: int) -> str:
    """An exit code in words: ``signal SIGSEGV`` or ``exit code 1``."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
