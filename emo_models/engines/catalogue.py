"""Which engines a profile consists of. Nothing here imports torch: the robot reads it too.

``start`` reads public files as they are (:data:`CARDS`); the other profiles are built from the papers' networks
(:data:`PARTS`), each of which is one row here and one function of :mod:`emo_models.engines.parts`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from emo_models.engines.manifest import Tolerance
from emo_models.engines.protocol import EngineError
from emo_models.weights import cache_dir

#: Profiles that are built, and the preset of the registry that they take of each network.
BUILT_PROFILES: Final = ("toy", "paper")
PROFILES: Final = ("start", *BUILT_PROFILES)
#: What a profile of one's own may be called: a folder of that name in the weight cache has its networks.
PROFILE_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")

#: Precision -> how far from eager fp32. Sums in another order make up for fp32; for the others see docs/engines.md.
TOLERANCES: Final[Mapping[str, Tolerance]] = {
    "fp32": Tolerance(relative=1e-3, cosine=0.99999, label_agreement=0.99),
    "bf16": Tolerance(relative=0.08, cosine=0.995, label_agreement=0.9),
    "fp16": Tolerance(relative=0.03, cosine=0.999, label_agreement=0.95),
    "int8": Tolerance(relative=0.25, cosine=0.97, label_agreement=0.85),
}


@dataclass(frozen=True)
class PartEntry:
    """One engine that is built from a network.

    ``network``: in the registry, whose weights file ``NETWORK.safetensors`` is used. ``batches``: sizes that it is
    built and warmed up for; several make the first dimension of the ports marked so vary. ``classes``: output whose
    largest value is the answer. ``fp32_only``: small, and it ranks, which must not depend on rounding.
    ``attention``: made of it, which int8 treats with more care. ``alignment``: how the faces that it takes are aligned, a
    key of :data:`emo_models.preprocess.ALIGNMENTS`, in training as at run time. ``tolerances``: where those of :data:`TOLERANCES` do not fit, with the reason beside it.
    """

    name: str
    network: str
    about: str
    batches: tuple[int, ...] = (1,)
    classes: str = ""
    fp32_only: bool = False
    attention: bool = False
    alignment: str = ""
    tolerances: Mapping[str, Tolerance] = field(default_factory=dict)

    def tolerance(self, precision: str) -> Tolerance:
        """How far it may be from eager fp32."""
        return self.tolerances.get(precision, TOLERANCES[precision])

    def precision(self, asked: str) -> str:
        """The precision that it is built and run in where ``asked`` is that of its profile."""
        return "fp32" if self.fp32_only else asked


FACES: Final = (1, 2, 4, 8)
#: ANFL's graph links each unit with its nearest ones: where two are about as near, rounding decides, and a node jumps.
_GRAPH: Final = {
    precision: Tolerance(relative=0.5, cosine=0.97, label_agreement=0.0) for precision in ("bf16", "fp16", "int8")
}

PARTS: Final[Mapping[str, PartEntry]] = {
    entry.name: entry
    for entry in (
        PartEntry("detector", "scrfd", "raw maps of faces, 640 x 480"),
        PartEntry("detector_small", "scrfd", "raw maps of near faces, 320 x 256"),
        PartEntry("anfl", "anfl", "action units of faces", FACES, alignment="arcface", tolerances=_GRAPH),
        PartEntry("ddamfn", "ddamfn", "expression of faces, for FAME-Net", FACES, classes="logits", alignment="poses"),
        PartEntry(
            "er_resnet", "er_resnet", "expression of faces, for ECPA", FACES, classes="logits", alignment="arcface"
        ),
        PartEntry("video_swin", "ecpa", "visual tokens of a clip", attention=True),
        PartEntry(
            "prompt_head", "ecpa", "face features of a clip to prompts and emotion", classes="emotion", fp32_only=True
        ),
        PartEntry("fusion_prefill", "ecpa", "keys and values of a clip", attention=True),
        PartEntry("fusion_step", "ecpa", "scores of the next word", (1, 4), classes="scores", attention=True),
        PartEntry("clip_frames", "fame", "patches of frames by CLIP", (1, 4), attention=True),
        PartEntry("projector", "fame", "visual features to the language model's width"),
    )
}


@dataclass(frozen=True)
class CardEntry:
    """One engine that is a public file, read as it is: the weight card of the same name.

    ``inputs`` and ``outputs`` name the tensors in the file's own order; ``stage``: whose threads it gets, see
    :mod:`.threads`.
    """

    name: str
    stage: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


CARDS: Final[Mapping[str, CardEntry]] = {
    entry.name: entry
    for entry in (
        CardEntry("face_detector_near", "face", ("image",), ("boxes", "scores")),
        CardEntry("face_mesh", "face", ("crops",), ("points", "presence", "tongue")),
        CardEntry("face_blendshapes", "action_unit", ("points",), ("coefficients",)),
        CardEntry("fer7", "emotion", ("face",), ("probabilities",)),
        CardEntry("voice_activity", "voice_activity", ("samples", "h", "c"), ("voice", "h", "c")),
        CardEntry("minilm", "cause", ("input_ids", "attention_mask", "token_type_ids"), ("last_hidden_state",)),
    )
}


def weights_file(network: str, preset: str) -> Path:
    """Where the weights of a network that engines are built of lie, or will: ``anfl`` of ``toy``, ..."""
    return cache_dir() / preset / f"{network}.safetensors"


def deployed() -> tuple[str, ...]:
    """Names of folders in the weight cache, other than those of :data:`BUILT_PROFILES`, that have weights for engines."""
    networks = {entry.network for entry in PARTS.values()}
    folders = sorted(cache_dir().iterdir()) if cache_dir().is_dir() else []
    own = (f.name for f in folders if PROFILE_NAME.fullmatch(f.name) and f.name not in PROFILES)
    return tuple(name for name in own if any(weights_file(network, name).is_file() for network in networks))


def profiles() -> tuple[str, ...]:
    """Profiles that have engines: those of this package, then those that were deployed."""
    return (*PROFILES, *deployed())


def names(profile: str) -> tuple[str, ...]:
    """The engines of a profile; of a deployed one those whose weights it has.

    Raises :class:`EngineError` that lists the profiles.
    """
    if profile not in profiles():
        raise EngineError(f"no profile {profile!r}; choose one of: {', '.join(profiles())}")
    if profile in PROFILES:
        return tuple(CARDS if profile == "start" else PARTS)
    return tuple(name for name, entry in PARTS.items() if weights_file(entry.network, profile).is_file())


def part(name: str) -> PartEntry:
    """The row of a built engine. Raises :class:`EngineError` that lists the names."""
    if name not in PARTS:
        raise EngineError(f"no engine {name!r} is built; there are: {', '.join(PARTS)}")
    return PARTS[name]
