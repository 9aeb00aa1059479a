"""Cameras and microphones of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from emo_perception.tools.doctor.finding import Context, Finding, Level

CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))


def cameras(context: Context) -> Iterator[Finding]:
    """Each camera device, and whether it may be opened."""
    from emo_perception.sources.base import SourceError, check_device  # needs OpenCV, which may be what is missing

    devices = sorted(context.dev.glob("video*"))
    for device in devices:
        try:
            check_device(str(device))
        except SourceError as error:
            denied = "permission denied" in str(error)
            yield Finding(Level.WARN, str(error), "sudo usermod -aG video $USER  # then log in again" if denied else "")
        else:
            yield Finding(Level.OK, f"camera {device}")
    if not devices:
        yield Finding(
            Level.NOTE,
            f"no camera in {context.dev}: a file, a stream (rtsp://...) or the images of another node can be used"
            + _in_container("video0"),
            "emo run --source test://",
        )


def microphones(context: Context) -> Iterator[Finding]:
    """A sound server, or each recording device and whether it may be opened."""
    if server := _sound_server():
        yield Finding(Level.OK, f"microphones through the sound server at {server}")
        return
    devices = sorted((context.dev / "snd").glob("pcmC*D*c"))
    for device in devices:
        if os.access(device, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            yield Finding(Level.OK, f"microphone {device}")
        else:
            yield Finding(
                Level.WARN,
                f"{device}: permission denied: images go on without sound",
                "sudo usermod -aG audio $USER  # then log in again",
            )
    if not devices:
        what = f"no microphone in {context.dev / 'snd'} and no sound server: cameras are opened without sound"
        yield Finding(Level.NOTE, what + _in_container("snd"))


def _sound_server() -> str:
    """Address of PulseAudio or of PipeWire in its place; empty where there is none."""
    if server := os.environ.get("PULSE_SERVER"):
        return server
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    socket = Path(runtime) / "pulse" / "native"
    return str(socket) if socket.is_socket() else ""


def _in_container(device: str) -> str:
    inside = any(mark.exists() for mark in CONTAINER_MARKS)
    return f"; in this container only with: docker run --device /dev/{device}" if inside else ""
