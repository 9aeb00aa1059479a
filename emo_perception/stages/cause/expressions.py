"""What each face showed between two moments: the mean of its expressions, kept for about a minute."""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

from emo_perception.types import EmotionFeatures

#: Faces in frames that are kept at the most: a minute of eleven people at 30 Hz.
MOST: Final = 20_000


class Expressions:
    """Takes features in order of their stamps; forgets those older than ``keep_ns``."""

    def __init__(self, keep_ns: int) -> None:
        self._keep_ns = keep_ns
        self._seen: deque[tuple[int, int, tuple[str, ...], NDArray[np.float32]]] = deque(maxlen=MOST)

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, features: EmotionFeatures) -> None:
        """Remember the expressions of a frame."""
        for face in features.faces:
            emotion = face.emotion
            self._seen.append((features.stamp_ns, face.track.track_id, emotion.labels, emotion.probabilities))
        while self._seen and self._seen[0][0] < features.stamp_ns - self._keep_ns:
            self._seen.popleft()

    def clear(self) -> None:
        """Forget everything."""
        self._seen.clear()

    def between(self, start_ns: int, end_ns: int) -> dict[int, tuple[str, float]]:
        """Face -> the emotion of the highest mean probability in ``[start_ns, end_ns)`` and that, by track."""
        found: dict[int, list[NDArray[np.float32]]] = {}
        labels: dict[int, tuple[str, ...]] = {}
        for stamp_ns, track_id, names, probabilities in self._seen:
            if start_ns <= stamp_ns < end_ns and labels.setdefault(track_id, names) == names:
                found.setdefault(track_id, []).append(probabilities)
        means = {track_id: np.mean(rows, axis=0) for track_id, rows in sorted(found.items())}
        return {t: (labels[t][int(mean.argmax())], float(mean.max())) for t, mean in means.items()}
