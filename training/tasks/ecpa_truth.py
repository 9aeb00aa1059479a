"""Which words of a caption name an action unit: exactly, where a toy world knows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from training.datasets import Dataset
from training.prepare.truth import truth_of
from training.toyworld.truth import FILE


@dataclass(frozen=True)
class CaptionPhrase:
    """``text[start:end]`` names the units ``aus``; ``held_out``: in a wording that no training caption has."""

    start: int
    end: int
    aus: tuple[int, ...]
    held_out: bool


class CaptionTruths:
    """Captions of a toy world with their phrases."""

    def __init__(self, root: Path) -> None:
        self._clips = truth_of(root)

    def of(self, clip_id: str) -> list[tuple[str, list[CaptionPhrase]]]:
        """All right captions of a clip, also those that the data set does not hold, each with its phrases."""
        return [
            (caption.text, [CaptionPhrase(p.start, p.end, p.aus, p.held_out) for p in caption.phrases])
            for caption in self._clips[clip_id].captions
        ]


def caption_truths(data: Dataset) -> CaptionTruths | None:
    """The truths of a toy world, None for any other data."""
    return CaptionTruths(data.root) if (data.root / FILE).is_file() else None
