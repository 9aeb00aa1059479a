"""A whole toy world: folders in the layouts of MAFW, MELD and ECEM, each with the truth about every frame beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import cv2

from training.datasets.record import DatasetError
from training.toyworld.clips import ClipOptions
from training.toyworld.mafw import write_mafw
from training.toyworld.meld import write_dialogues

#: Called after each clip or dialogue with how many are done and how many there will be.
Progress = Callable[[int, int], None]


def make_world(
    out: Path,
    *,
    seed: int,
    clips: int,
    dialogues: int,
    options: ClipOptions | None = None,
    utterance_s: float = 1.6,
    distraction: float = 0.35,
    progress: Progress | None = None,
) -> None:
    """Write ``out/mafw`` with ``clips`` captioned clips, and ``out/meld`` and ``out/ecem`` with ``dialogues``.

    The same seed and options give the same files with the same versions of OpenCV, numpy and PyAV. ``utterance_s``:
    mean length of an utterance; ``distraction``: chance that a dialogue shows a thing that causes nothing. Raises
    :class:`DatasetError` for a folder that is not empty, ``ValueError`` for negative numbers.
    """
    if min(clips, dialogues) < 0 or clips + dialogues == 0 or clips > 99_999:
        raise ValueError(f"expected up to 99999 clips, or dialogues, or both; got {clips} and {dialogues}")
    options = options or ClipOptions()
    for name, count in (("mafw", clips), ("meld", dialogues), ("ecem", dialogues)):
        folder = out / name
        if count and folder.is_dir() and any(folder.iterdir()):
            raise DatasetError(f"{folder} is not empty; delete it, or give another folder with --out")
    done = 0
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        made: list[Iterator[object]] = []
        if clips:
            made.append(write_mafw(out / "mafw", seed, clips, options))
        if dialogues:
            made.append(write_dialogues(out, seed, dialogues, options, seconds=utterance_s, distraction=distraction))
        for _ in chain(*made):
            done += 1
            if progress is not None:
                progress(done, clips + dialogues)
    finally:
        cv2.setNumThreads(threads)
