"""The space key of a terminal, while the process is in its foreground."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
from collections.abc import Callable


class SpaceKey:
    """Calls ``pressed`` from a thread of its own on each space; does nothing where standard input is no terminal."""

    def __init__(self, pressed: Callable[[], None]) -> None:
        self._pressed = pressed
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        try:
            import termios
        except ImportError:  # not a POSIX system
            return
        if not sys.stdin.isatty() or os.getpgrp() != os.tcgetpgrp(sys.stdin.fileno()):
            return
        self._terminal, self._before = termios, termios.tcgetattr(sys.stdin)
        silent = termios.tcgetattr(sys.stdin)
        silent[3] &= ~(termios.ICANON | termios.ECHO)  # each key at once and unseen; Ctrl-C stays what it is
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, silent)
        self._thread = threading.Thread(target=self._listen, name="space-key", daemon=True)
        self._thread.start()

    @property
    def listening(self) -> bool:
        """Whether there is a terminal to press a key on."""
        return self._thread is not None

    def close(self) -> None:
        """Give the terminal back as it was. Safe to call twice."""
        self._stop.set()
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        with contextlib.suppress(self._terminal.error):  # the terminal may have gone
            self._terminal.tcsetattr(sys.stdin, self._terminal.TCSADRAIN, self._before)

    def _listen(self) -> None:
        while not self._stop.is_set():
            if not select.select([sys.stdin], [], [], 0.1)[0]:
                continue
            typed = os.read(sys.stdin.fileno(), 64)
            if not typed:
                return
            for _ in range(typed.count(b" ")):
                self._pressed()
