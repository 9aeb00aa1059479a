"""Python, ROS, the messages, processor and disk."""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from emo_models import weights
from emo_models.engines.threads import cpu_threads, usable_cores
from emo_perception.config import ConfigError
from emo_perception.preflight import require_ros
from emo_perception.tools.doctor.finding import Context, Finding, Level, set_parameter

WHEEL_PYTHONS = ((3, 10), (3, 13))
"""Oldest and newest Python that ROS 2 wheels exist for; all are for x86-64."""
CHECKOUT = Path(__file__).resolve().parents[3]
ROS_INSTALLATIONS = Path("/opt/ros")
SPARE_BYTES = 500_000_000
FIELD = re.compile(r"^\s*[A-Za-z]\w*(?:/\w+)?(?:\[\d*\])?\s+([a-z]\w*)\s*(?:#.*)?$", re.MULTILINE)
"""A field of a .msg file, with its name."""


def python(_: Context) -> Iterator[Finding]:
    """Whether ROS exists for this Python."""
    place = f"virtual environment {sys.prefix}" if sys.prefix != sys.base_prefix else f"system, {sys.executable}"
    what = f"Python {platform.python_version()} on {platform.machine()} ({place})"
    wheels = WHEEL_PYTHONS[0] <= sys.version_info[:2] <= WHEEL_PYTHONS[1] and platform.machine() == "x86_64"
    if wheels or find_spec("rclpy") is not None:
        yield Finding(Level.OK, what)
    else:
        oldest, newest = (".".join(map(str, version)) for version in WHEEL_PYTHONS)
        yield Finding(
            Level.ERROR,
            f"{what}: no ROS 2 here, and its wheels are for Python {oldest} to {newest} on x86_64",
            "make setup PYTHON=python3.12",
        )


def ros(_: Context) -> Iterator[Finding]:
    """Where ROS comes from, and whether two of them are mixed."""
    spec = find_spec("rclpy")
    if spec is None or spec.origin is None:
        installed = sorted(ROS_INSTALLATIONS.glob("*/setup.bash"))
        command = f"source {installed[-1]}" if installed else "make setup"
        yield Finding(Level.ERROR, "no ROS 2 here: rclpy cannot be imported", command)
        return
    from_wheels = Path(spec.origin).is_relative_to(sys.prefix) and sys.prefix != sys.base_prefix
    yield Finding(Level.OK, f"ROS 2 {'from wheels' if from_wheels else 'installation'}: {Path(spec.origin).parent}")
    others = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p and p != sys.prefix]
    if from_wheels and any(Path(p).is_relative_to(ROS_INSTALLATIONS) for p in others):
        yield Finding(
            Level.WARN,
            f"a ROS installation is sourced ({others[0]}) beside the wheels: libraries of both get mixed",
            "env -u AMENT_PREFIX_PATH -u PYTHONPATH -u LD_LIBRARY_PATH emo run",
        )


def messages(_: Context) -> Iterator[Finding]:
    """Whether ``emo_msgs`` is built, and out of these sources."""
    build = "make setup" if (CHECKOUT / "Makefile").is_file() else "pip install ./emo_msgs"
    if "AMENT_PREFIX_PATH" in os.environ and "COLCON_PREFIX_PATH" in os.environ:
        build = "colcon build --packages-select emo_msgs && source install/setup.bash"
    try:
        require_ros()
        built = importlib.import_module("emo_msgs.msg")
    except (ConfigError, ImportError) as error:
        yield Finding(Level.ERROR, str(error), build)
        return
    stale = list(_stale(built, CHECKOUT / "emo_msgs" / "msg"))
    if stale:
        yield Finding(Level.ERROR, f"emo_msgs was built from older sources: {', '.join(stale)} differ", build)
    else:
        yield Finding(Level.OK, "emo_msgs is built")


def _stale(built: object, sources: Path) -> Iterator[str]:
    for source in sorted(sources.glob("*.msg")):
        kind = getattr(built, source.stem, None)
        declared = FIELD.findall(source.read_text(encoding="utf-8"))
        if kind is None or list(kind.get_fields_and_field_types()) != declared:
            yield source.stem


def processor(context: Context) -> Iterator[Finding]:
    """Threads of the engines against the cores there are."""
    cores = usable_cores(context.cgroup)
    engines = {n: cpu_threads(n, c.threads, cores) for n, c in context.configs.items() if hasattr(c, "threads")}
    told = ", ".join(f"{name} {threads}" for name, threads in engines.items())
    yield Finding(Level.OK, f"{cores:g} usable cores; threads of the engines: {told}")
    for name, threads in engines.items():
        if threads > max(1.0, cores):
            yield Finding(
                Level.WARN,
                f"{name} would use {threads} threads on {cores:g} usable cores: they wait for each other",
                set_parameter(name, f"{{threads: {max(1, int(cores))}}}"),
            )


def disk(context: Context) -> Iterator[Finding]:
    """Room in the cache for what is still to be fetched."""
    folder = weights.cache_dir()
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    cards = [weights.card(name) for name in weights.needed_by(context.profile)]
    wanted = sum(card.size for card in cards if not (folder / card.file).exists())
    what = f"cache {folder}: {free / 1e9:.1f} GB free, {wanted / 1e6:.0f} MB still to be fetched"
    if not os.access(existing, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        yield Finding(Level.ERROR if wanted else Level.NOTE, f"{what}; not writable", "export EMO_CACHE=~/emo_cache")
    elif free < wanted:
        yield Finding(Level.ERROR, f"{what}: too little", "export EMO_CACHE=/folder/on/a/larger/disk")
    elif free < wanted + SPARE_BYTES:
        yield Finding(
            Level.WARN, f"{what}: little is left for bags and reports", "export EMO_CACHE=/folder/on/a/larger/disk"
        )
    else:
        yield Finding(Level.OK, what)
