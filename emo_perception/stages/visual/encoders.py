"""Pictures in, tokens out: the two networks behind their engines, with the preprocessing of their training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from emo_models.engines.manifest import Manifest, Port
from emo_models.engines.select import Selection
from emo_models.preprocess import TRANSFORMS, Image, ImageTransform
from emo_perception.config import VisualConfig
from emo_perception.stages.learned import engine_of

Float = NDArray[np.float32]

CLIPS, FRAMES = "video_swin", "clip_frames"
"""Engines of clips and of single frames."""


class Encoder:
    """An engine whose only input is pictures, of the size and normalisation that its manifest says.

    Raises :class:`emo_models.engines.EngineError` where no such engine was built.
    """

    def __init__(self, engine: str, config: VisualConfig) -> None:
        self.selection: Selection = engine_of(engine, config)
        assert self.selection.manifest is not None  # every built engine has one
        self.manifest: Manifest = self.selection.manifest
        (self.port,) = self.manifest.inputs
        self.transform = _transform(self.manifest, self.port)

    @property
    def model(self) -> str:
        """Who computed it, for the messages: engine and preset, and whether its weights are random."""
        random = ", random weights" if self.selection.random else ""
        return f"{self.manifest.network}/{self.manifest.preset}{random}"

    def warmup(self) -> None:
        """Run every shape once."""
        self.selection.engine.warmup((1,))

    def close(self) -> None:
        """Free the engine."""
        self.selection.engine.close()

    def _run(self, pictures: Float, output: str) -> Float:
        """The first row of an output; a copy, for the engine may use its memory again."""
        found = self.selection.engine({self.port.name: pictures})[output]
        return np.array(found[0], np.float32)


class ClipEncoder(Encoder):
    """Video Swin: the visual tokens of a clip, as ECPA reads them."""

    def __init__(self, config: VisualConfig) -> None:
        super().__init__(CLIPS, config)
        self.frames = self.port.max[2]

    def __call__(self, images: Sequence[Image]) -> Float:
        """RGB uint8 [T, H, W, 3], T = ``frames`` -> float32 [M, D]."""
        clip = self.transform.clip(images).transpose(1, 0, 2, 3)
        return self._run(np.ascontiguousarray(clip[None]), "visual")


class FrameEncoder(Encoder):
    """CLIP: the patches of one frame, as FAME-Net pools them."""

    def __init__(self, config: VisualConfig) -> None:
        super().__init__(FRAMES, config)
        self.limit = int(self.manifest.config["frames"])
        """T of FAME-Net: most frames of a dialogue."""

    def __call__(self, image: Image) -> Float:
        """RGB uint8 [H, W, 3] -> float32 [N, D]."""
        return self._run(self.transform(image)[None], "patches")


def _transform(manifest: Manifest, port: Port) -> ImageTransform:
    """That of the network's training: short edge to the size of the input, the middle square of it."""
    size = port.max[-1]
    return replace(TRANSFORMS[manifest.normalisation], resize=size, crop=size)
