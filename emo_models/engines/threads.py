"""How many CPU threads each engine gets, from the machine's cores; the one place where this is decided.

Engines run side by side. If each took every core they would wait for each other: two of them at once are many times
slower than one after the other.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

CGROUP: Final = Path("/sys/fs/cgroup")

#: Stages whose networks take a millisecond or two: several threads would only wait for each other.
ONE_THREAD: Final = frozenset({"action_unit", "emotion", "cause", "voice_activity"})
#: Part of the usable cores for any other.
SHARE: Final = 0.5


def cpu_threads(stage: str, requested: int = 0, cores: float | None = None) -> int:
    """Threads for an engine of that stage: as requested, or by the rule of this module. ``cores``: those that are usable."""
    if requested:
        return requested
    return 1 if stage in ONE_THREAD else max(1, int((usable_cores() if cores is None else cores) * SHARE))


def usable_cores(cgroup: Path = CGROUP) -> float:
    """Cores that this process may use: its affinity, and the quota of a container (cgroup v2 ``cpu.max``)."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    try:
        quota, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()
        return min(cores, int(quota) / int(period))
    except (OSError, ValueError):  # no cgroup v2, or "max": no quota
        return cores
