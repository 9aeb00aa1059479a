"""What is compiled: each engine of the catalogue as a module from tensors to tensors, with its names and shapes.

Boxes, words and search stay outside. What depends on the size of the input is planned here, before the export.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emo_models.engines import catalogue
from emo_models.engines.fusion import FusionPrefill, FusionStep, PromptHead
from emo_models.engines.manifest import Manifest, Port
from emo_models.labels import OPENGRAPHAU_MAIN, VOCABULARIES
from emo_models.networks.anfl import ANFL, ANFLConfig
from emo_models.networks.clip_vision import ClipVision, ClipVisionConfig
from emo_models.networks.ddamfn import DDAMFN, DDAMFNConfig
from emo_models.networks.ecpa.config import EcpaConfig
from emo_models.networks.ecpa.visual import VisualEncoder
from emo_models.networks.er_resnet import ERResNet, ERResNetConfig
from emo_models.networks.fame.config import FameConfig
from emo_models.networks.fame.pooling import projector, temporal_rows
from emo_models.networks.fusion_mask import FORBIDDEN
from emo_models.networks.scrfd import SCRFD, SCRFDConfig, SCRFDOutput
from emo_models.networks.video_swin import VideoSwin
from emo_models.registry import config_class

#: Fills an input of that shape: ``(generator, shape) -> array``.
Filler = Callable[[np.random.Generator, tuple[int, ...]], Any]
#: Stands for the batch in a shape.
N: Final = -1


@dataclass(frozen=True)
class Part:
    """A module from the tensors of ``inputs`` to a tuple of those of ``outputs``, and what a manifest says of it.

    ``holder``: has the parameters under the names of the network's weights file. ``fillers``: how inputs are drawn that
    are no normal random numbers.
    """

    module: nn.Module
    holder: nn.Module
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    normalisation: str = ""
    labels: tuple[str, ...] = ()
    fillers: Mapping[str, Filler] = field(default_factory=dict)

    def sample(self, generator: np.random.Generator, batch: int = 1) -> dict[str, NDArray[Any]]:
        """Random inputs of that batch size; the same generator gives the same."""
        arrays = {}
        for port in self.inputs:
            shape = tuple(batch if low != high else low for low, high in zip(port.min, port.max, strict=True))
            fill: Filler = self.fillers.get(port.name, _normal)
            arrays[port.name] = np.ascontiguousarray(fill(generator, shape), np.dtype(port.dtype))
        return arrays

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Eager fp32 on the CPU: what every engine is compared with."""
        with torch.no_grad():
            values = self.module(*(torch.from_numpy(inputs[port.name]) for port in self.inputs))
        return {port.name: value.numpy() for port, value in zip(self.outputs, values, strict=True)}


@dataclass(frozen=True)
class Pixels:
    """What the config of a network does not say: the side of an aligned face, and the size of a scene with faces.

    ``near_hw``: a scene for faces that are near, see ``detector_small``.
    """

    face: int = 224
    scene_hw: tuple[int, int] = (480, 640)
    near_hw: tuple[int, int] = (256, 320)


#: The toy detector knows heads of 13 to 27 pixels: those of scenes of 320 x 240 at half their size.
TOY_PIXELS: Final = Pixels(64, (128, 160), (96, 128))
#: SCRFD's coarsest maps have a place for each square of so many pixels.
_COARSEST: Final = 32


def pixels_of(preset: str, preprocessing: Mapping[str, Any]) -> Pixels:
    """Sizes for a preset: those of the toy world, the papers', or what the card of the weights says of its training."""
    if preset in catalogue.BUILT_PROFILES:
        return TOY_PIXELS if preset == "toy" else Pixels()
    default = Pixels()
    height, width = preprocessing.get("size_hw", default.scene_hw)
    # Larger scenes than in training cost time; smaller ones lose the faces that it was taught.
    scene = (min(height, default.scene_hw[0]), min(width, default.scene_hw[1]))
    near = tuple(max(_COARSEST, side // 2 // _COARSEST * _COARSEST) for side in scene)
    return Pixels(preprocessing.get("size", default.face), scene, (near[0], near[1]))


@dataclass(frozen=True)
class _Size:
    """Batches and pixels that a part is made for."""

    batches: Sequence[int]
    pixels: Pixels

    @property
    def face(self) -> int:
        """Side of an aligned face for networks without a size of their own."""
        return self.pixels.face


def make(name: str, pixels: Pixels, config: Any) -> Part:
    """The part of an engine, randomly initialised, in evaluation mode. ``config``: of the entry's network."""
    part: Part = _MAKERS[name](config, _Size(catalogue.part(name).batches, pixels))
    part.module.eval()
    return part


def from_manifest(manifest: Manifest) -> Part:
    """As :func:`make`, for the same network and sizes as an artefact was built from."""
    values = config_class(catalogue.part(manifest.network).network).from_dict(manifest.config)
    height, width = manifest.inputs[0].max[-2:] if len(manifest.inputs[0].max) > 1 else (0, 0)
    return make(manifest.network, Pixels(width, (height, width), (height, width)), values)


def _normal(generator: np.random.Generator, shape: tuple[int, ...]) -> NDArray[Any]:
    return generator.standard_normal(shape)


def _port(name: str, layout: str, *shape: int, batches: Sequence[int] = (1,), dtype: str = "float32") -> Port:
    low, high = ([each if size == N else size for size in shape] for each in (min(batches), max(batches)))
    best = [max(1, min(batches)) if size == N else size for size in shape]
    return Port(name, dtype, layout, tuple(low), tuple(best), tuple(high))


class _Tuple(nn.Module):
    """A network whose named outputs become a plain tuple."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.network(*inputs))


# -- faces -------------------------------------------------------------------------------------------------------------


def _detector(scene: Callable[[Pixels], tuple[int, int]]) -> Callable[[Any, _Size], Part]:
    def make_detector(config: SCRFDConfig, size: _Size) -> Part:
        network = SCRFD(config)
        h, w = scene(size.pixels)
        anchors = {stride: 2 * (h // stride) * (w // stride) for stride in (8, 16, 32)}
        outputs = []
        for field_name in SCRFDOutput._fields:
            kind, _, stride = field_name.partition("_")
            tail = {"score": (), "box": (4,), "points": (10,)}[kind]
            outputs.append(_port(field_name, "NAC"[: 2 + len(tail)], 1, anchors[int(stride)], *tail))
        return Part(_Tuple(network), network, (_port("image", "NCHW", 1, 3, h, w),), tuple(outputs), "fit_into")

    return make_detector


def _anfl(config: ANFLConfig, size: _Size) -> Part:
    network, pixels, batches = ANFL(config), size.face, size.batches
    network.plan(pixels, pixels)
    nodes = sum(not output.side for output in config.outputs)
    names = tuple(output.name for output in config.outputs)
    outputs = (
        _port("nodes", "NKC", N, nodes, config.dim, batches=batches),
        _port("pooled", "NC", N, config.dim, batches=batches),
        _port("scores", "NK", N, len(names), batches=batches),
    )
    faces = _port("faces", "NCHW", N, 3, pixels, pixels, batches=batches)
    return Part(_Tuple(network), network, (faces,), outputs, "opengraphau224", names)


def _expression(network: Any, pixels: int, width: int, normalisation: str, batches: Sequence[int]) -> Part:
    labels = VOCABULARIES[network.config.vocabulary]
    outputs = (
        _port("logits", "NC", N, len(labels), batches=batches),
        _port("features", "NC", N, width, batches=batches),
    )
    faces = _port("faces", "NCHW", N, 3, pixels, pixels, batches=batches)
    return Part(_Tuple(network), network, (faces,), outputs, normalisation, labels)


def _ddamfn(config: DDAMFNConfig, size: _Size) -> Part:
    return _expression(DDAMFN(config), 112, 8 * config.width, "ddamfn112", size.batches)


def _er_resnet(config: ERResNetConfig, size: _Size) -> Part:
    return _expression(ERResNet(config), size.face, 32 * config.width, "imagenet224", size.batches)


# -- ECPA --------------------------------------------------------------------------------------------------------------


class _Visual(nn.Module):
    def __init__(self, config: EcpaConfig) -> None:
        super().__init__()
        self.visual = VisualEncoder(config)
        if isinstance(self.visual.encoder, VideoSwin):
            self.visual.encoder.plan(config.frames, config.image_size, config.image_size)

    def forward(self, clip: Tensor) -> tuple[Tensor, ...]:
        return (cast("Tensor", self.visual(clip)),)


def _video_swin(c: EcpaConfig, size: _Size) -> Part:
    module, batches = _Visual(c), size.batches
    clip = _port("clip", "NCTHW", N, 3, c.frames, c.image_size, c.image_size, batches=batches)
    tokens = _port("visual", "NMC", N, module.visual.tokens, c.visual_width, batches=batches)
    return Part(module, module, (clip,), (tokens,), "imagenet224" if c.visual == "video_swin" else "clip224")


def _prompt_head(c: EcpaConfig, _: _Size) -> Part:
    module = PromptHead(c)
    units, prompts = len(OPENGRAPHAU_MAIN), 2 + c.au_tokens
    inputs = (
        _port("er", "NTC", 1, c.frames, module.er_width),
        _port("au_nodes", "NTKC", 1, c.frames, units, module.au_width),
        _port("au_scores", "NTK", 1, c.frames, units),
        _port("valid", "NT", 1, c.frames, dtype="bool"),
    )
    outputs = (
        _port("prompts", "NPC", 1, prompts, c.hidden),
        _port("prompts_valid", "NP", 1, prompts, dtype="bool"),
        _port("emotion", "NC", 1, len(c.classes)),
        _port("au_tokens", "NKC", 1, c.au_tokens, c.hidden),
        _port("au_index", "NK", 1, c.au_tokens, dtype="int64"),
    )
    fillers: dict[str, Filler] = {"au_nodes": _positive, "au_scores": _share, "valid": _mostly}
    return Part(module, module, inputs, outputs, labels=c.classes, fillers=fillers)


def _fusion_prefill(c: EcpaConfig, _: _Size) -> Part:
    tokens, prompts = visual_tokens(c), 2 + c.au_tokens
    module = FusionPrefill(c, tokens)
    inputs = (
        _port("visual", "NMC", 1, tokens, c.visual_width),
        _port("prompts", "NPC", 1, prompts, c.hidden),
        _port("prompts_valid", "NP", 1, prompts, dtype="bool"),
    )
    rows = (c.layers, 1, c.heads, tokens + prompts, c.hidden // c.heads)
    outputs = (
        _port("keys", "LNHSD", *rows),
        _port("values", "LNHSD", *rows),
        _port("bias", "NS", 1, tokens + prompts),
    )
    return Part(module, module, inputs, outputs, fillers={"prompts_valid": _mostly})


def _fusion_step(c: EcpaConfig, size: _Size) -> Part:
    tokens, batches = visual_tokens(c), size.batches
    module = FusionStep(c, tokens)
    context = tokens + 2 + c.au_tokens
    slots, width = context + c.text_length, c.hidden // c.heads
    cache = (c.layers, N, c.heads, slots, width)
    inputs = (
        _port("word", "N", N, batches=batches, dtype="int64"),
        _port("position", "1", 1, dtype="int64"),
        _port("keys", "LNHSD", *cache, batches=batches),
        _port("values", "LNHSD", *cache, batches=batches),
        _port("bias", "NS", N, slots, batches=batches),
    )
    new = (c.layers, N, c.heads, width)
    outputs = (
        _port("scores", "NV", N, c.words, batches=batches),
        _port("new_keys", "LNHD", *new, batches=batches),
        _port("new_values", "LNHD", *new, batches=batches),
        _port("vector", "NC", N, c.hidden, batches=batches),
    )
    words = c.text_length // 2

    def bias(_: np.random.Generator, shape: tuple[int, ...]) -> NDArray[Any]:
        filled = np.zeros(shape)
        filled[:, context + words :] = FORBIDDEN
        return filled

    fillers: dict[str, Filler] = {
        "word": lambda generator, shape: generator.integers(0, c.words, shape),
        "position": lambda _, shape: np.full(shape, words),
        "bias": bias,
    }
    return Part(module, module, inputs, outputs, fillers=fillers)


def visual_tokens(c: EcpaConfig) -> int:
    """M, the visual tokens of a clip of this ECPA."""
    with torch.device("meta"):
        return VisualEncoder(c).tokens


# -- FAME-Net ----------------------------------------------------------------------------------------------------------


class _ClipFrames(nn.Module):
    def __init__(self, config: ClipVisionConfig) -> None:
        super().__init__()
        self.clip = ClipVision(config)

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        patches = self.clip(frames)
        return patches, temporal_rows(patches)


def _clip_frames(c: FameConfig, size: _Size) -> Part:
    config, batches = ClipVisionConfig.from_preset(c.clip), size.batches
    module = _ClipFrames(config)
    frames = _port("frames", "NCHW", N, 3, config.image, config.image, batches=batches)
    outputs = (
        _port("patches", "NPC", N, config.patches, config.dim, batches=batches),
        _port("row", "NC", N, config.dim, batches=batches),
    )
    return Part(module, module, (frames,), outputs, "clip224" if config.image == 224 else "clip336")


class _Projector(nn.Module):
    def __init__(self, kind: str, visual: int, language: int) -> None:
        super().__init__()
        self.mm_projector = projector(kind, visual, language)

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        return (cast("Tensor", self.mm_projector(features)),)


def _projector(c: FameConfig, _: _Size) -> Part:
    clip = ClipVisionConfig.from_preset(c.clip)
    module = _Projector(c.projector, clip.dim, c.width)
    rows = c.frames + clip.patches
    return Part(module, module, (_port("features", "MC", rows, clip.dim),), (_port("visual", "MC", rows, c.width),))


def _positive(generator: np.random.Generator, shape: tuple[int, ...]) -> NDArray[Any]:
    return np.maximum(generator.standard_normal(shape), 0)


def _share(generator: np.random.Generator, shape: tuple[int, ...]) -> NDArray[Any]:
    return generator.random(shape)


def _mostly(generator: np.random.Generator, shape: tuple[int, ...]) -> NDArray[Any]:
    return generator.random(shape) < 0.8


_MAKERS: Final[Mapping[str, Callable[[Any, _Size], Part]]] = {
    "detector": _detector(lambda pixels: pixels.scene_hw),
    "detector_small": _detector(lambda pixels: pixels.near_hw),
    "anfl": _anfl,
    "ddamfn": _ddamfn,
    "er_resnet": _er_resnet,
    "video_swin": _video_swin,
    "prompt_head": _prompt_head,
    "fusion_prefill": _fusion_prefill,
    "fusion_step": _fusion_step,
    "clip_frames": _clip_frames,
    "projector": _projector,
}
