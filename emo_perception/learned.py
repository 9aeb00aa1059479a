"""Which built networks a profile asks for, and what of them is missing: told at once, before anything starts.

Nothing takes the place of a network that is missing: which one does is the user's choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from emo_perception.config import Config, ConfigError, LearnedConfig

if TYPE_CHECKING:
    from emo_models.releases import Origin, PublicFile


@dataclass(frozen=True)
class Choice:
    """A value of a parameter with which a node runs engines that are built from ``network``.

    ``instead``: the value with which it needs none.
    """

    node: str
    parameter: str
    value: str | bool
    network: str
    engines: tuple[str, ...]
    instead: str | bool

    def told(self, value: str | bool) -> str:
        """The parameter with one of its values, as YAML has it: ``visual.clips: true``."""
        return f"{self.node}.{self.parameter}: {str(value).lower() if isinstance(value, bool) else value}"


CHOICES: Final = (
    Choice("face", "detector", "scrfd", "scrfd", ("detector",), "auto"),
    Choice("action_unit", "network", "anfl", "anfl", ("anfl",), "blendshapes"),
    Choice("emotion", "network", "er_resnet", "er_resnet", ("er_resnet",), "fer7"),
    Choice("emotion", "network", "ddamfn", "ddamfn", ("ddamfn",), "fer7"),
    Choice("visual", "clips", True, "ecpa", ("video_swin",), False),
    Choice("visual", "frames", True, "fame", ("clip_frames",), False),
    Choice("caption", "writer", "ecpa", "ecpa", ("prompt_head", "fusion_prefill", "fusion_step"), "evidence"),
    Choice("cause", "explainer", "fame", "fame", ("projector",), "ranking"),
)


@dataclass(frozen=True)
class Need:
    """Engines that a node asks for; ``random``: such with random weights do too."""

    choice: Choice
    preset: str
    precision: str
    random: bool


@dataclass(frozen=True)
class Missing:
    """Engines of one network and preset that cannot be used, ``why`` for each artefact, and the choices that ask for them.

    ``weights``: whether there are weights that they can be built from.
    """

    network: str
    preset: str
    precision: str
    engines: tuple[str, ...]
    choices: tuple[Choice, ...]
    why: tuple[str, ...]
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
            found.append(Need(choice, config.preset, config.precision, config.weights == "random"))
    return tuple(found)


def missing(configs: Mapping[str, Config]) -> tuple[Missing, ...]:
    """What :func:`needs` names and cannot be used here, by network and preset."""
    wanted = needs(configs)
    if not wanted:
        return ()
    from emo_models.engines.stock import stock

    found: list[Missing] = []
    for key in dict.fromkeys((n.choice.network, n.preset, n.precision, n.random) for n in wanted):
        network, preset, precision, random = key
        same = [n for n in wanted if (n.choice.network, n.preset, n.precision, n.random) == key]
        looked = {e: stock(e, preset, precision, random=random) for n in same for e in n.choice.engines}
        lacking = {engine: one for engine, one in looked.items() if not one.usable}
        if lacking:
            choices = tuple(n.choice for n in same if set(n.choice.engines) & set(lacking))
            why = tuple(reason for one in lacking.values() for reason in one.why)
            weights = any(one.weights is not None for one in lacking.values())
            found.append(Missing(network, preset, precision, tuple(lacking), choices, why, weights, random))
    return tuple(found)


def require(configs: Mapping[str, Config]) -> None:
    """Raise :class:`ConfigError` that tells of everything at once: what cannot go together, and networks that are missing."""
    faults = list(contradictions(configs))
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
    if one.weights or one.random:
        lines.append(f"  build it: {one.command}")
    else:
        lines.append(f"  no weights: expected {weights_file(one.network, one.preset)}")
        lines += [f"  {line}" for line in sources(origin, one.preset)]
    lines.append(f"  without it: {', '.join(choice.told(choice.instead) for choice in one.choices)}")
    return lines


def remedy(one: Missing) -> str:
    """The command that makes a missing network usable."""
    if one.weights or one.random:
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
