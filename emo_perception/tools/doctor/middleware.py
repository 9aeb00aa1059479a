"""The ROS middleware and its shared memory."""

from __future__ import annotations

import fcntl
import functools
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from emo_perception.tools.doctor.finding import Context, Finding, Level
from emo_perception.transport import PROFILE_VARIABLES, fastdds_environment

FAST_DDS = "rmw_fastrtps_cpp"
ASK_S = 30.0
IMAGE_BYTES = 1920 * 1080 * 3
"""A raw image that shared memory should be able to hold."""
SEGMENT = re.compile(r"(fastrtps|fastdds)_[0-9a-f]{8,}")
"""Name of the shared memory of one process of Fast DDS; beside it lies NAME_el, locked while the process lives."""
SHM_BYTES = 512 << 20
"""Shared memory for a handful of processes with our profile."""


@functools.cache
def implementation() -> tuple[str, str]:
    """The middleware that is in use, or empty and why it does not load. Asked of another process: rcl would end this one."""
    if find_spec("rclpy") is None:
        return "", "rclpy cannot be imported"
    code = "import rclpy; print(rclpy.get_rmw_implementation_identifier())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=ASK_S, check=False)
    if done.returncode == 0:
        return done.stdout.split()[-1], ""
    lines = (done.stderr or done.stdout or f"exit code {done.returncode}").strip().splitlines()
    return "", lines[-1]


def rmw(_: Context) -> Iterator[Finding]:
    """Whether the chosen middleware loads."""
    name, why = implementation()
    chosen = os.environ.get("RMW_IMPLEMENTATION", "")
    if not name:
        package = f"ros-$ROS_DISTRO-{chosen.replace('_', '-')}"
        command = f"unset RMW_IMPLEMENTATION  # or: sudo apt install {package}" if chosen else "make setup"
        yield Finding(Level.ERROR, f"the ROS middleware {chosen or '(default)'} does not load: {why}", command)
    elif name == FAST_DDS:
        yield Finding(Level.OK, f"middleware {name}")
    else:
        what = f"middleware {name}: our shared-memory profile is for {FAST_DDS} and does nothing here"
        yield Finding(Level.NOTE, what, f"export RMW_IMPLEMENTATION={FAST_DDS}")


def profile(_: Context) -> Iterator[Finding]:
    """The Fast DDS profile with room for images: set, readable, large enough?"""
    given = {name: value for name in PROFILE_VARIABLES if (value := os.environ.get(name))}
    if not given:
        yield Finding(
            Level.NOTE,
            "no Fast DDS profile is set in this shell: emo run and the launch file set ours for their processes, but a "
            "camera driver needs it too, else raw images are lost",
            export_profile() + "  # then start the camera driver from this shell",
        )
    for missing in [n for n in PROFILE_VARIABLES if n not in given] if given else []:
        value = next(iter(given.values()))
        what = f"{missing} is not set, only {next(iter(given))}: Fast DDS 2 (Humble, Jazzy) and 3 read different ones"
        yield Finding(Level.WARN, what, f"export {missing}={value}")
    for name, value in given.items():
        yield from _profile_file(name, Path(value))


def _profile_file(name: str, file: Path) -> Iterator[Finding]:
    try:
        document = ET.parse(file)
    except OSError as error:
        yield Finding(Level.ERROR, f"{name}={file}: cannot be read: {error.strerror}", export_profile())
        return
    except ET.ParseError as error:
        yield Finding(Level.ERROR, f"{name}={file}: is no XML: {error}", export_profile())
        return
    sizes = [int(e.text or 0) for e in document.iter() if e.tag.rpartition("}")[2] == "segment_size"]
    if max(sizes, default=0) < IMAGE_BYTES:
        what = f"{name}={file}: no shared-memory segment as large as an image ({IMAGE_BYTES} bytes): raw ones get lost"
        yield Finding(Level.WARN, what, export_profile())
    else:
        yield Finding(Level.OK, f"{name}={file}: {max(sizes) >> 20} MB of shared memory for each process")


def export_profile() -> str:
    """The command that sets our profile in a shell."""
    return "export " + " ".join(f"{name}={value}" for name, value in fastdds_environment({}).items())


def shared_memory(context: Context) -> Iterator[Finding]:
    """Room in shared memory, and what ended processes left there."""
    if not context.shm.is_dir():
        yield Finding(Level.NOTE, f"no {context.shm}: Fast DDS sends everything through the network stack")
        return
    usage = shutil.disk_usage(context.shm)
    what = f"{context.shm}: {usage.free >> 20} of {usage.total >> 20} MB free"
    if usage.free < SHM_BYTES:
        command = f"sudo mount -o remount,size=1G {context.shm}  # a container: docker run --shm-size=1g"
        yield Finding(Level.WARN, f"{what}: too little for images of several processes", command)
    else:
        yield Finding(Level.OK, what)
    yield from _left_over(context.shm)


def _left_over(folder: Path) -> Iterator[Finding]:
    dead = [p for p in sorted(folder.iterdir()) if SEGMENT.fullmatch(p.name) and not _alive(p)]
    if dead:
        size = sum(p.stat().st_size for p in dead)
        by_hand = "rm -f " + " ".join(f"{p}*" for p in dead)
        what = f"{len(dead)} segments ({size >> 20} MB) in {folder} of processes that were killed"
        yield Finding(Level.WARN, what, "fastdds shm clean" if shutil.which("fastdds") else by_hand)


def _alive(segment: Path) -> bool:
    """Whether its process lives: that holds a lock on the file beside it, which the system takes away at its end."""
    lock = segment.with_name(segment.name + "_el")
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return not segment.exists()
    except OSError:  # locked, or not ours to look at
        return True
    return False
