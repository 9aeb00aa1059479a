"""Which backend opens an address: said aloud, with the reason and the remedy."""

from __future__ import annotations

import logging
import threading
from importlib.util import find_spec

from emo_perception.config import SourceConfig
from emo_perception.sources.base import Kind, Location, Reader, SourceError, locate
from emo_perception.sources.picture import PictureReader
from emo_perception.sources.source import Source

log = logging.getLogger(__name__)

GSTREAMER_COMMAND = (
    "sudo apt install python3-gi python3-gst-1.0 gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-base "
    "gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav gstreamer1.0-alsa"
)
PYAV_COMMAND = "pip install av"


def open_source(config: SourceConfig) -> Source:
    """Check the address and the backend; nothing is opened before the source is iterated or started.

    Raises :class:`SourceError` for an address that is empty, unknown or a missing file, and for a missing backend.
    """
    location = locate(config.uri)
    backend = "picture" if location.kind is Kind.PICTURE else choose_backend(config.backend, location)

    def make_reader(stop: threading.Event) -> Reader:
        if backend == "picture":
            return PictureReader(location, config, stop)
        if backend == "gstreamer":
            from emo_perception.sources.gstreamer import GStreamerReader

            return GStreamerReader(location, config, stop)
        from emo_perception.sources.pyav import PyAVReader

        return PyAVReader(location, config, stop)

    return Source(location, config, backend, make_reader)


def choose_backend(wanted: str, location: Location) -> str:
    """``gstreamer`` or ``pyav``. Raises :class:`SourceError` naming the command that installs what is missing."""
    lacking = "" if wanted == "pyav" else gstreamer_lacks(location)
    pyav_here = find_spec("av") is not None
    if wanted == "gstreamer" and lacking:
        raise SourceError(f"source.backend is gstreamer, but {lacking}: {GSTREAMER_COMMAND}", permanent=True)
    if not pyav_here and (wanted == "pyav" or lacking):
        raise SourceError(
            f"no backend for {location.shown}: {lacking or 'source.backend is pyav'}, and PyAV is not "
            f"installed: {PYAV_COMMAND}, or {GSTREAMER_COMMAND}",
            permanent=True,
        )
    if wanted == "auto" and lacking:
        log.info("%s: read by PyAV, for %s (to change that: %s)", location.shown, lacking, GSTREAMER_COMMAND)
        return "pyav"
    backend = "gstreamer" if wanted == "auto" else wanted
    log.info("%s: read by %s%s", location.shown, backend, "" if wanted == "auto" else ", as source.backend asks")
    return backend


def gstreamer_lacks(location: Location) -> str:
    """What keeps GStreamer from reading this address; empty when nothing does."""
    try:
        from emo_perception.sources import gstreamer
    except (ImportError, ValueError) as error:  # ValueError: gi is there, the typelib of Gst is not
        return f"GStreamer's Python bindings cannot be imported ({error})"
    return gstreamer.lacking(location)
