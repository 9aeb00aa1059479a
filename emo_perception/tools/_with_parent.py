"""Run a command that gets SIGTERM when its parent dies, however that happens: ``_with_parent.py PARENT_PID COMMAND...``.

A program of its own because Python may not run code between fork and exec of a process with threads.
Linux only; imports nothing but the standard library, so it costs a few milliseconds with ``python -I -S``.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h; kept across exec


def main() -> None:
    """Bind this process to its parent, then become the command."""
    parent, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == int(parent):  # else it died before the line above
        os.execvp(command[0], command)


if __name__ == "__main__":
    main()
