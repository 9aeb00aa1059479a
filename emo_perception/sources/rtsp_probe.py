"""Asking an RTSP server whether it is there, in a way that can be interrupted at any moment."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from urllib.parse import urlsplit

from emo_perception.sources.base import Location, SourceError

POLL_S = 0.1


def await_rtsp_answer(location: Location, timeout_s: float, stop: threading.Event) -> None:
    """Return when the server has answered an OPTIONS request (RFC 2326) or ``stop`` is set.

    ffmpeg, once it is told to open an address that does not answer, cannot be stopped before its time limit; this can.
    Raises :class:`SourceError` when nobody answers in time.
    """
    parts = urlsplit(location.address)
    host, port = parts.hostname or "", parts.port or (322 if parts.scheme == "rtsps" else 554)
    deadline = time.monotonic() + timeout_s
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as link:
            link.setblocking(False)
            link.connect_ex(address)
            if not _ready(link, deadline, stop, write=True):
                return
            code = link.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
            if parts.scheme == "rtsps":  # inside TLS: that somebody listens has to do
                return
            link.sendall(f"OPTIONS rtsp://{host}:{port}{parts.path} RTSP/1.0\r\nCSeq: 1\r\n\r\n".encode())
            if _ready(link, deadline, stop, write=False) and not link.recv(1):
                raise OSError("the server hangs up")
    except OSError as error:
        raise SourceError(f"{location.shown}: {host}:{port}: {error.strerror or error}") from None


def _ready(link: socket.socket, deadline: float, stop: threading.Event, *, write: bool) -> bool:
    """Wait for the socket; False once stopped."""
    while not stop.is_set():
        readable, writable, _ = select.select([] if write else [link], [link] if write else [], [], POLL_S)
        if readable or writable:
            return True
        if time.monotonic() > deadline:
            raise OSError("no answer")
    return False
