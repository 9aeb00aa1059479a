"""A still picture, shown for a while as if it were a silent video."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import cv2
import numpy as np

from emo_perception.config import SourceConfig
from emo_perception.sources.base import Item, Location, SourceError
from emo_perception.sources.shaping import scaled_size
from emo_perception.types import NS_PER_S, Frame

DEFAULT_FPS = 10.0


class PictureReader:
    """Reads the picture once and yields it ``picture_s * fps`` times (10 a second by default), turned as EXIF says."""

    def __init__(self, location: Location, config: SourceConfig, stop: threading.Event) -> None:
        self._path = location.address
        self._config = config
        self._stop = stop
        self.dropped = self.duration_ns = 0

    def items(self) -> Iterator[Item]:
        bgr = cv2.imread(self._path, cv2.IMREAD_COLOR)
        if bgr is None:
            raise SourceError(
                f"{self._path}: begins like a picture but cannot be decoded: is it cut off?", permanent=True
            )
        rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        size_wh = scaled_size((rgb.shape[1], rgb.shape[0]), self._config.width, self._config.height)
        if size_wh != (rgb.shape[1], rgb.shape[0]):
            rgb = cv2.resize(rgb, size_wh, interpolation=cv2.INTER_AREA)
        image = np.ascontiguousarray(rgb, np.uint8)
        fps = self._config.fps or DEFAULT_FPS
        for index in range(max(1, round(self._config.picture_s * fps))):
            if self._stop.is_set():
                return
            yield Frame(round(index * NS_PER_S / fps), image, self._config.frame_id)

    def age_ns(self, item: Item) -> int:  # noqa: ARG002 - a picture is never live
        return 0
