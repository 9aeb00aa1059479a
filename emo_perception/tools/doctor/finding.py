"""What every check gets and gives. A check looks at one thing and mends nothing: it names the command that does."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from emo_perception.config import Config, load_profile
from emo_perception.files import profile_file


class Level(IntEnum):
    """How much a finding matters: ``NOTE`` is worth knowing, ``WARN`` costs quality, with ``ERROR`` something cannot work."""

    OK = 0
    NOTE = 1
    WARN = 2
    ERROR = 3


@dataclass(frozen=True)
class Finding:
    """One thing that was found. ``command`` is what to type to mend it, as it is; empty where nothing is to be done."""

    level: Level
    what: str
    command: str = ""


@dataclass(frozen=True)
class Context:
    """What is asked for, and the folders of the system that are looked into.

    ``image_topic``: measure this one only; ``measure_s``: for so many seconds. The graph is taken as discovered when
    nothing new has come for ``calm_s``: participants of Fast DDS announce themselves every three seconds.
    """

    profile: str = "start"
    image_topic: str = ""
    measure_s: float = 3.0
    calm_s: float = 3.5
    dev: Path = Path("/dev")
    shm: Path = Path("/dev/shm")
    cgroup: Path = Path("/sys/fs/cgroup")

    @functools.cached_property
    def configs(self) -> dict[str, Config]:
        """The configuration of each node in the profile. Raises :class:`emo_perception.config.ConfigError`."""
        return load_profile(profile_file(self.profile))


@dataclass(frozen=True)
class Check:
    """A line of the table of checks. ``graph``: it joins the ROS graph and takes seconds."""

    name: str
    run: Callable[[Context], Iterator[Finding]]
    graph: bool = False

    def findings(self, context: Context) -> Iterator[Finding]:
        """What it finds; a check that fails itself is a finding too."""
        try:
            yield from self.run(context)
        except Exception as error:
            yield Finding(Level.WARN, f"could not be checked: {type(error).__name__}: {error}")


@dataclass(frozen=True)
class Told:
    """A finding and the name of the check it is of."""

    check: str
    finding: Finding

    def as_json(self) -> dict[str, str]:
        """For ``--json``."""
        values = dataclasses.asdict(self.finding)
        return {"check": self.check, **values, "level": self.finding.level.name.lower()}


def set_parameter(node: str, values: str) -> str:
    """The command that runs the graph with other parameters: ``values`` in YAML's braces."""
    return f"printf '/**/{node}:\\n  ros__parameters: {values}\\n' > mine.yaml && emo run --params-file mine.yaml"
