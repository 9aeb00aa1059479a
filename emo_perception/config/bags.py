"""Recorder and player of bags: every default of theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from emo_perception.config.base import Config, param


@dataclass(frozen=True)
class RecorderConfig(Config):
    """Writes a run into a bag."""

    node: ClassVar[str] = "recorder"
    folder: str = param("", "the bag's folder; must not exist yet", fixed=True)
    storage: str = param("mcap", "format of the bag", choices=("mcap", "sqlite3"), fixed=True)
    topics: str = param(
        "", "topics to record, separated by spaces; none, regex or all: those of this graph", fixed=True
    )
    regex: str = param("", "record every topic in whose name this regular expression is found", fixed=True)
    all: bool = param(False, "record every topic", fixed=True)
    raw_images: bool = param(
        False, "regex and all take raw images too, 27 MB/s for 640x480 at 30 Hz; topics named singly always", fixed=True
    )
    until_end: bool = param(False, "end when the source has ended and nothing more comes", fixed=True)
    seconds: float = param(
        0.0, "end so long after the source began to play; 0 = no limit", low=0.0, high=1e6, fixed=True
    )
    quiet_s: float = param(
        2.0, "silence after the source's end that counts as nothing more, seconds", low=0.1, high=60.0, fixed=True
    )


@dataclass(frozen=True)
class PlayerConfig(Config):
    """Plays a bag. Not a part of the graph: no profile configures it."""

    node: ClassVar[str] = "player"
    bag: str = param("", "the bag's folder, or one .mcap or .db3 file", fixed=True)
    rate: float = param(1.0, "speed: 2 is twice as fast as it was recorded", low=0.01, high=100.0)
    paused: bool = param(False, "stand still; on a terminal the space key changes it")
    loop: bool = param(False, "play again from the start at the end", fixed=True)
    offset_s: float = param(0.0, "leave out the first seconds", low=0.0, high=1e6, fixed=True)
    topics: str = param("", "topics to play, separated by spaces, as recorded; empty = all", fixed=True)
    regex: str = param("", "play every topic in whose name this regular expression is found", fixed=True)
    clock_hz: float = param(
        0.0, "publish /clock so often, for use_sim_time; 0 = never", low=0.0, high=1000.0, fixed=True
    )
    wait_s: float = param(
        0.0, "begin when every topic has a subscriber, or after so many seconds", low=0.0, high=3600.0, fixed=True
    )
    wait_for: str = param(
        "",
        "nodes, separated by spaces, that must have loaded too before it begins, by what they say on /diagnostics",
        fixed=True,
    )
    state: bool = param(
        False, "publish source_state as a source does: playing, then ended, so that the last words are said", fixed=True
    )
