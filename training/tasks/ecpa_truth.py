"""What a toy world knows of its clips, in the words of ECPA's task: where faces are, and which words name a unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from training.datasets import Dataset
from training.prepare.faces import KnownFaces, MakeFinder, content_hash
from training.toyworld.truth import ClipTruth, load_truth

FILE: Final = "truth.jsonl"


@dataclass(frozen=True)
class CaptionPhrase:
    """``text[start:end]`` names the units ``aus``; ``held_out``: in a wording that no training caption has."""

    start: int
    end: int
    aus: tuple[int, ...]
    held_out: bool
