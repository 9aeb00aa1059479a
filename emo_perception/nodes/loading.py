"""What a node says of itself while its engines are being loaded."""

from __future__ import annotations

from emo_perception.nodes.diagnostics import Level, Status

LOADING = "loading"
"""Begins the message of a status while engines are being loaded."""


def loading_status(name: str, what: str, trouble: str) -> Status:
    """The node's line in the diagnostics while nothing is loaded; ``trouble``: why, where something is wrong."""
    return Status(name, Level.ERROR if trouble else Level.STALE, trouble or f"{LOADING} {what}")
