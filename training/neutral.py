"""``emo neutral``: measure the neutral face of a population from clips, for the calibration of action units."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from emo_models import blendshapes
from emo_models.labels import AU_NAMES
from emo_models.weights import WeightsError
from emo_perception.config import ActionUnitConfig, FaceConfig, SourceConfig
from emo_perception.sources import SourceError, open_source
from emo_perception.stages.action_units import ActionUnitStage
from emo_perception.stages.face import FaceStage
from emo_perception.types import Frame

DESCRIPTION = """\
Each clip must show one person with a neutral, silent face. Prints, for every action unit, mean and standard deviation
over the people of its raw value: what emo_models/blendshapes.py calls neutral and spread. The more people, the better:
with fewer than ten the spread says little."""


def main(argv: Sequence[str] | None = None) -> int:
    """``emo neutral``; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="emo neutral", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", nargs="+", metavar="CLIP", help="video or picture of one person")
    arguments = parser.parse_args(argv)
    try:
        people = np.array([neutral_of(clip) for clip in arguments.clips])
    except (SourceError, WeightsError) as error:
        print(f"emo neutral: {error}", file=sys.stderr)
        return 1
    print(f"{len(people)} people\n  AU  neutral  spread  in use         name")
    for source, mean, spread in zip(
        blendshapes.SOURCES, people.mean(0), people.std(0, ddof=min(1, len(people) - 1)), strict=True
    ):
        print(
            f"{source.au:4d}  {mean:7.3f}  {spread:6.3f}  {source.neutral:5.2f} {source.spread:6.2f}   {AU_NAMES[source.au]}"
        )
    return 0


def neutral_of(clip: str) -> NDArray[np.float32]:
    """Mean raw action units float32 [A] of the one person in a clip.

    Raises :class:`SourceError` when the clip cannot be read or does not show exactly one person.
    """
    face, units = FaceStage(FaceConfig()), ActionUnitStage(ActionUnitConfig())
    try:
        values: list[NDArray[np.float32]] = []
        for frame in open_source(SourceConfig(uri=clip, audio=False, realtime=False)):
            assert isinstance(frame, Frame)
            found = face(frame).faces
            if len(found) > 1:
                raise SourceError(f"{clip}: expected one person, found {len(found)} at {frame.stamp_ns / 1e9:.1f} s")
            values.extend(units.raw(f.landmarks) for f in found if f.landmarks is not None)
        if not values:
            raise SourceError(f"{clip}: expected one person, found nobody")
        return np.asarray(np.mean(values, 0), np.float32)
    finally:
        face.close()
        units.close()
