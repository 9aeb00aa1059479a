"""Feeds frames at their own speed: code that works in bursts costs more than code that is never interrupted."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from emo_perception.types import NS_PER_S, Frame


def paced(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Each frame when it is due by its stamp; whoever is too slow gets the next one at once."""
    began_s = time.monotonic()
    first_ns = None
    for frame in frames:
        first_ns = frame.stamp_ns if first_ns is None else first_ns
        due_s = began_s + (frame.stamp_ns - first_ns) / NS_PER_S
        time.sleep(max(0.0, due_s - time.monotonic()))
        yield frame
