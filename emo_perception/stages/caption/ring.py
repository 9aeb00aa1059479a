"""What was measured of every face in the last seconds: a caption network asks for it by the stamps of its clip."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from emo_perception.types import EmotionFeatures, FaceFeatures

#: Frames that are kept at the most, however long the window: a minute at 60 Hz. Beyond that the oldest go.
MOST_FRAMES: Final = 3600


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One face in one frame: ``size`` of its box in px², ``units``: FACS number -> intensity, ``embeddings`` as in
    :class:`FaceFeatures`."""

    size: float
    units: Mapping[int, float]
    embeddings: Mapping[str, NDArray[Any]]

    @classmethod
    def of(cls, face: FaceFeatures) -> Seen:
        _, _, width, height = face.track.box_xywh.tolist()
        units: dict[int, float] = {}
        for au, intensity in zip(face.action_units.au, face.action_units.intensity.tolist(), strict=True):
            units[au] = max(units.get(au, 0.0), intensity)  # of both sides, the stronger
        return cls(width * height, units, face.embeddings)


class FaceRing:
    """Faces of the frames of the last ``keep_ns``, at most :data:`MOST_FRAMES`, by stamp and track.

    A track that expired is forgotten when the last frame that showed it is.
    """

    def __init__(self, keep_ns: int) -> None:
        self.keep_ns = keep_ns
        self._faces: dict[int, dict[int, Seen]] = {}
        self._stamps: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._stamps)

    @property
    def newest_ns(self) -> int | None:
        """Stamp of the newest frame."""
        return self._stamps[-1] if self._stamps else None

    def add(self, features: EmotionFeatures) -> None:
        """The next frame; its stamp is newer than all before."""
        self._stamps.append(features.stamp_ns)
        self._faces[features.stamp_ns] = {face.track.track_id: Seen.of(face) for face in features.faces}
        while features.stamp_ns - self._stamps[0] > self.keep_ns or len(self._stamps) > MOST_FRAMES:
            del self._faces[self._stamps.popleft()]

    def at(self, stamps: Sequence[int]) -> list[Mapping[int, Seen] | None]:
        """The faces of these frames, by track; None for a frame that is not kept."""
        return [self._faces.get(stamp) for stamp in stamps]

    def peaks(self, track_id: int, start_ns: int, end_ns: int) -> dict[int, float]:
        """FACS number -> the highest intensity that was measured on a face within a window."""
        highest: dict[int, float] = {}
        for seen in self._of(track_id, start_ns, end_ns):
            for au, intensity in seen.units.items():
                highest[au] = max(highest.get(au, 0.0), intensity)
        return highest

    def _of(self, track_id: int, start_ns: int, end_ns: int) -> Iterator[Seen]:
        for stamp in self._stamps:
            if start_ns <= stamp <= end_ns and (seen := self._faces[stamp].get(track_id)) is not None:
                yield seen


def network_inputs(
    row: Sequence[Seen | None], *, er: str, widths: tuple[int, int], units: int
) -> dict[str, NDArray[Any]]:
    """One face over the T frames of a clip as ``prompt_head`` reads it; zeros, and not valid, where it was not seen.

    ``er``: which embedding is the expression; ``widths``: De and Da; ``units``: of the action unit network.
    """
    frames, (er_width, au_width) = len(row), widths
    inputs: dict[str, NDArray[Any]] = {
        "er": np.zeros((1, frames, er_width), np.float32),
        "au_nodes": np.zeros((1, frames, units, au_width), np.float32),
        "au_scores": np.zeros((1, frames, units), np.float32),
        "valid": np.array([[seen is not None for seen in row]]),
    }
    for index, seen in enumerate(row):
        if seen is not None:
            for name in ("au_nodes", "au_scores"):
                inputs[name][0, index] = seen.embeddings[name]
            inputs["er"][0, index] = seen.embeddings[er]
    return inputs
