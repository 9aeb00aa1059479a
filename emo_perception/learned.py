"""Which built networks a profile asks for, and what of them is missing: told at once, before anything starts.

Nothing takes the place of a network that is missing: which one does is the user's choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from emo_perception.config import Config, ConfigError, FaceConfig, LearnedConfig

if TYPE_CHECKING:
    from emo_models.releases import Origin, PublicFile


#: The language model that a FAME-Net was trained around, where ``cause.language_model`` names no other.
LANGUAGE: Final = "language.safetensors"


@dataclass(frozen=True)
class Choice:
    """A value of a parameter with which a node runs ``network``: engines that are built from it, or the weights themselves.

    ``instead``: the value with which it needs none; ``files``: what it reads in the preset's folder of the weight cache,
    unless random weights will do; ``torch``: the node computes with it.
    """

    node: str
    parameter: str
    value: str | bool
    network: str
    engines: tuple[str, ...]
    instead: str | bool
    files: tuple[str, ...] = ()
    torch: bool = False

    def told(self, value: str | bool) -> str:
        """The parameter with one of its values, as YAML has it: ``visual.clips: true``."""
        return f"{self.node}.{self.parameter}: {str(value).lower() if isinstance(value, bool) else value}"


CHOICES: Final = (
    Choice("face", "detector", "scrfd", "scrfd", ("detector",), "auto"),
    Choice("action_unit", "network", "anfl", "anfl", ("anfl",), "blendshapes"),
    Choice("emotion", "network", "er_resnet", "er_resnet", ("er_resnet",), "fer7"),
    Choice("emotion", "network", "ddamfn", "ddamfn", ("ddamfn",), "fer7"),
    Choice("visual", "clips", True, "ecpa", ("video_swin",), False),
    Choice("visual", "frames", True, "fame", ("clip_frames",), False, torch=True),
    Choice(
        "caption", "writer", "ecpa", "ecpa", ("prompt_head", "fusion_prefill", "fusion_step"), "evidence",
        files=("ecpa/tokenizer",), torch=True,
    ),
    Choice("cause", "explainer", "fame", "fame", (), "ranking", files=("fame.safetensors", LANGUAGE), torch=True),
)  # fmt: skip


@dataclass(frozen=True)
class Need:
    """Engines and ``files`` that a node asks for; ``random``: engines with random weights do too, and no files."""

    choice: Choice
    engines: tuple[str, ...]
    preset: str
    precision: str
    random: bool
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Missing:
    """Engines of one network and preset that cannot be used, ``why`` for each artefact, and the choices that ask for them.

    ``files``: those that are not there; ``weights``: whether there are weights that engines can be built from.
    """

    network: str
    preset: str
    precision: str
    engines: tuple[str, ...]
    choices: tuple[Choice, ...]
    why: tuple[str, ...]
    files: tuple[Path, ...]
    weights: bool
    random: bool

    @property
    def command(self) -> str:
        """What builds the engines, where there is something to build them from."""
        chosen = " ".join(f"--network {name}" for name in self.engines)
        precision = "" if self.precision == "fp32" else f" --precision {self.precision}"
        return f"emo engines build --profile {self.preset} {chosen}{precision}"


def needs(configs: Mapping[str, Config]) -> tuple[Need, ...]:
    """The built networks that nodes with these configurations ask for; none for a profile without any."""
    found = []
    for choice in CHOICES:
        config = configs.get(choice.node)
        if config is not None and getattr(config, choice.parameter) == choice.value:
            assert isinstance(config, LearnedConfig)
            random = config.weights == "random"
            other = getattr(config, "language_model", "")
            files = () if random else tuple(file for file in choice.files if not (other and file == LANGUAGE))
            engines = (config.scrfd_engine,) if isinstance(config, FaceConfig) else choice.engines
            found.append(Need(choice, engines, config.preset, config.precision, random, files))
    return tuple(found)


def missing(configs: Mapping[str, Config]) -> tuple[Missing, ...]:
    """What :func:`needs` names and cannot be used here, by network and preset."""
    wanted = needs(configs)
    if not wanted:
        return ()
    keys = dict.fromkeys((n.choice.network, n.preset, n.precision, n.random) for n in wanted)
    looked = (
        _looked(tuple(n for n in wanted if (n.choice.network, n.preset, n.precision, n.random) == key)) for key in keys
    )
    return tuple(one for one in looked if one is not None)


def _looked(same: tuple[Need, ...]) -> Missing | None:
    """What is missing for needs of one network, preset, precision and kind of weights; None where nothing is."""
    from emo_models.engines.catalogue import weights_file
    from emo_models.engines.stock import stock

    first, network = same[0], same[0].choice.network
    looked = {e: stock(e, first.preset, first.precision, random=first.random) for n in same for e in n.engines}
    lacking = {engine: one for engine, one in looked.items() if not one.usable}
    weights = weights_file(network, first.preset)
    files = [weights.parent / file for need in same for file in need.files]
    absent = tuple(file for file in dict.fromkeys(files) if not file.exists())
    if not (lacking or absent):
        return None
    choices = tuple(n.choice for n in same if set(n.engines) & set(lacking) or n.files)
    why = tuple(reason for one in lacking.values() for reason in one.why)
    return Missing(
        network, first.preset, first.precision, tuple(lacking), choices, why, absent, weights.is_file(), first.random
    )


def licences(configs: Mapping[str, Config]) -> dict[str, str]:
    """``network (preset)`` -> the licence of its weights, of the engines that nodes with these configurations would load."""
    wanted = needs(configs)
    if not wanted:
        return {}
    from emo_models.engines.stock import stock

    found = {}
    for need in wanted:
        for engine in need.engines:
            manifest = stock(engine, need.preset, need.precision, random=need.random).manifest
            if manifest is not None:
                found[f"{need.choice.network} ({need.preset})"] = manifest.weights.licence
    return found


def require(configs: Mapping[str, Config]) -> None:
    """Raise :class:`ConfigError` that tells of everything at once: what cannot go together, and networks that are missing."""
    faults = [*contradictions(configs), *_without_torch(configs)]
    lacking = missing(configs)
    if not (faults or lacking):
        return
    lines = ["; ".join(faults)] if faults else []
    if lacking:
        names = ", ".join(dict.fromkeys(one.network for one in lacking))
        lines.append(f"networks are missing, and no others run in their place: {names}")
        lines += [line for one in lacking for line in describe(one)]
        lines.append("what needs nothing of this: profile start" + _measure(lacking))
    raise ConfigError("\n".join(lines))


def _measure(lacking: tuple[Missing, ...]) -> str:
    if all(one.random for one in lacking):
        return ""
    return "; to measure time and memory without weights: weights random (emo run --weights random, launch weights:=random)"


def _without_torch(configs: Mapping[str, Config]) -> Iterator[str]:
    asks = [need.choice.told(need.choice.value) for need in needs(configs) if need.choice.torch]
    if asks and find_spec("torch") is None:
        yield f"{', '.join(asks)}: computed with torch, which is not installed; type: make torch"


def contradictions(configs: Mapping[str, Config]) -> Iterator[str]:
    """Nodes that wait for what another one is not told to give."""

    def value(node: str, parameter: str) -> object:
        config = configs.get(node)
        return getattr(config, parameter, None)

    if value("caption", "writer") == "ecpa":
        for node, parameter, wanted in (
            ("visual", "clips", True), ("perception", "embeddings", True), ("action_unit", "network", "anfl"),
        ):  # fmt: skip
            if value(node, parameter) != wanted:
                shown = str(wanted).lower() if wanted is True else wanted
                yield f"caption.writer is ecpa, which needs {node}.{parameter}: {shown}"
    if value("face", "detector") == "scrfd" and value("action_unit", "network") == "blendshapes":
        yield "action_unit.network is blendshapes, which needs a mesh, and face.detector: scrfd gives none"
    if value("cause", "explainer") == "fame" and not value("visual", "frames"):
        yield "cause.explainer is fame, which needs visual.frames: true"


def describe(one: Missing) -> list[str]:
    """Lines about a network that is missing: what would get it, its licence, and what would do without it."""
    from emo_models.engines.catalogue import weights_file
    from emo_models.releases import releases

    origin = releases().origins[one.network]
    asks = ", ".join(choice.told(choice.value) for choice in one.choices)
    lines = [f"{one.network}: {origin.about}; asked for by {asks}"]
    lines += [f"  passed over: {reason}" for reason in one.why]
    if (one.weights or one.random) and one.engines:
        lines.append(f"  build it: {one.command}")
    if one.weights and one.files:
        lines.append(f"  not beside its weights: {', '.join(map(str, one.files))}; {_beside(one)}")
    if not (one.weights or one.random):
        lines.append(f"  no weights: expected {weights_file(one.network, one.preset)}")
        lines += [f"  {line}" for line in sources(origin, one.preset)]
    lines.append(f"  without it: {', '.join(choice.told(choice.instead) for choice in one.choices)}")
    return lines


def _beside(one: Missing) -> str:
    """What brings the files that belong to weights that are there."""
    if one.preset == "toy":
        return "type: make toy"
    named = (
        "; cause.language_model can name a folder of transformers instead"
        if LANGUAGE in [f.name for f in one.files]
        else ""
    )
    return f"emo train RECIPE --deploy {one.preset} brings them along{named}"


def remedy(one: Missing) -> str:
    """The command that makes a missing network usable."""
    if (one.weights or one.random) and one.engines:
        return one.command
    if one.preset == "toy":
        return "make toy"
    from emo_models.releases import releases

    return f"emo train {releases().origins[one.network].recipe} --deploy {one.preset}"


def sources(origin: Origin, preset: str) -> Iterator[str]:
    """Lines that say where the weights of a network come from."""
    if preset == "toy":
        yield "train it: make toy (weights CC0-1.0: everything it learns from is drawn)"
        return
    for file in origin.holds:
        yield f"published: {_file(file)}; then: emo weights import {file.name} FILE --profile {preset}"
    if origin.note:
        yield f"{'besides' if origin.holds else 'no public file'}: {origin.note}"
    yield f"train it: emo train {origin.recipe} --deploy {preset} (its weights are as restricted as the data)"
    for file in origin.starts_from:
        yield f"  its training can start from: {_file(file)}"


def _file(file: PublicFile) -> str:
    return f"{file.about}, {file.file}, {file.address}, licence: {file.licence}"
