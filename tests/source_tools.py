"""What the tests of the sources share."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from emo_perception.config import SourceConfig
from emo_perception.sources import Source, SourceState, SourceStatus, open_source
from emo_perception.sources.base import Kind, Location
from emo_perception.types import AudioChunk, Frame

try:
    from emo_perception.sources import gstreamer

    GSTREAMER_LACKS = gstreamer.lacking(Location(Kind.FILE, ""))
except (ImportError, ValueError) as error:
    GSTREAMER_LACKS = str(error)
with_gstreamer = pytest.mark.skipif(bool(GSTREAMER_LACKS), reason=f"GStreamer: {GSTREAMER_LACKS}")
each_backend = pytest.mark.parametrize("backend", [pytest.param("gstreamer", marks=with_gstreamer), "pyav"])


def wait_for(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.005)


class Listener:
    """Collects what a live source delivers."""

    def __init__(self, source: Source) -> None:
        self.frames: list[Frame] = []
        self.chunks: list[AudioChunk] = []
        self.states: list[SourceStatus] = []
        source.start(self.frames.append, self.chunks.append, self.states.append)

    def reached(self, state: SourceState) -> bool:
        return any(status.state is state for status in self.states)


def read(backend: str, path: Path | str, **values: object) -> tuple[list[Frame], list[AudioChunk]]:
    items = list(open_source(SourceConfig.of({"uri": str(path), "backend": backend, **values})))
    stamps = [item.stamp_ns for item in items]
    assert stamps == sorted(stamps)
    return [i for i in items if isinstance(i, Frame)], [i for i in items if isinstance(i, AudioChunk)]
