"""What a backend is: it builds an exported network into files, and makes an engine of these files again."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from emo_models.engines.machine import this_machine
from emo_models.engines.manifest import Manifest
from emo_models.engines.protocol import Arrays, Engine, EngineError

if TYPE_CHECKING:
    from emo_models.engines.export import ExportedNetwork

#: What is told while something takes long, a line at a time.
Progress = Callable[[str], None]

#: Precision asked -> types in which convolutions and matrix products may then run (names of numpy and torch).
ALLOWED_DTYPES: Final[Mapping[str, frozenset[str]]] = {
    "fp32": frozenset({"float32"}),
    "bf16": frozenset({"bfloat16"}),
    "fp16": frozenset({"float16"}),
    "int8": frozenset({"int8", "uint8"}),
}
#: NNCF leaves layers in fp32 where eight bits would cost too much, as the products inside of attention. Below this share
#: of eight-bit layers the name ``int8`` would be a lie.
INT8_SHARE: Final = 0.75


def precision_fault(asked: str, layer_dtypes: Mapping[str, int]) -> str:
    """What is wrong with the types in which convolutions and matrix products run; empty where nothing is."""
    seen = ", ".join(f"{count} in {name}" for name, count in layer_dtypes.items()) or "none found"
    allowed, total = ALLOWED_DTYPES[asked], sum(layer_dtypes.values())
    share = sum(count for name, count in layer_dtypes.items() if name in allowed) / max(total, 1)
    others = set(layer_dtypes) - allowed
    if asked == "int8" and others <= {"float32"} and share >= INT8_SHARE:
        return ""
    if total and not others:
        return ""
    least = f" (at least {INT8_SHARE:.0%} of them, the rest float32)" if asked == "int8" else ""
    return f"asked for {asked}{least}, but the convolutions and matrix products run {seen}"


@dataclass(frozen=True)
class BuildSpec:
    """What is asked of a build.

    ``calibration``: inputs for int8, as many as there are; ``settings``: options of the backend by their own names, of
    which an unknown one is an error; ``threads``: CPU threads.
    """

    precision: str = "fp32"
    calibration: Sequence[Arrays] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 0


@dataclass(frozen=True)
class BuildResult:
    """What a build left in its folder.

    ``layer_dtypes``: type -> number of convolutions and matrix products, read back from what was built; ``settings``:
    all that were used, defaults included; ``versions``: what took part only in the build (exporter, opset);
    ``requires``: see :class:`Manifest`.
    """

    layer_dtypes: Mapping[str, int]
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    requires: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A field of a manifest, what it was built for and what is here; ``fits``: whether that does."""

    name: str
    expected: str
    found: str
    fits: bool

    def __str__(self) -> str:
        return f"{self.name}: built for {self.expected}, here is {self.found}"


@dataclass(frozen=True)
class Coverage:
    """What a backend says of a network before building: operators it cannot convert, name -> how many of them."""

    operators: int
    missing: Mapping[str, int] = field(default_factory=dict)
    #: How it was found out, or why it could not be.
    note: str = ""


class Backend(Protocol):
    """One way to run networks. Making one imports nothing heavy; the library is imported when it is used."""

    name: str
    #: ``cpu`` or ``cuda``.
    device: str
    precisions: tuple[str, ...]

    def available(self) -> str:
        """Empty where it can build here, else the reason and what to install."""

    def runs(self) -> str:
        """Empty where its engines run here; some can be built on machines that cannot run them."""
        return self.available()

    def versions(self) -> dict[str, str]:
        """Package -> version, of all that a loaded artefact depends on; empty where not available."""

    def build(self, source: ExportedNetwork, spec: BuildSpec, folder: Path, progress: Progress) -> BuildResult:
        """Write the artefact's files into ``folder``. Raises :class:`EngineError`."""

    def load(self, folder: Path, manifest: Manifest, threads: int) -> Engine:
        """The engine of an artefact that was verified. Raises :class:`EngineError`."""

    def compare(self, manifest: Manifest) -> list[Comparison]:
        """The fields on which it depends whether this machine can run the artefact, those that fit and those that do not.

        Of any backend: platform, versions, instruction set and, on a GPU, its compute capability.
        """
        here, there = this_machine(), manifest.machine
        found = [Comparison("machine.platform", there.platform, here.platform, here.platform == there.platform)]
        for package, version in self.versions().items():
            built = manifest.versions.get(package, "no version of it")
            found.append(Comparison(f"versions.{package}", built, version, built == version))
        for needed in manifest.requires:
            has = [name for name in needed.split("|") if name in here.instruction_set]
            known = ", ".join(has or here.instruction_set) or "none known"
            found.append(Comparison("machine.instruction_set", needed.replace("|", " or "), known, bool(has)))
        if self.device == "cuda":
            same = here.capability == there.capability
            found.append(Comparison("machine.capability", there.capability, here.capability or "no GPU", same))
        return found

    def coverage(self, source: ExportedNetwork) -> Coverage:
        """Which operators of the network it can convert, without building."""


def installed(package: str) -> str:
    """Version of a package, read without importing it; empty where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def settled(defaults: Mapping[str, Any], asked: Mapping[str, Any], backend: str) -> dict[str, Any]:
    """Settings of a build: the defaults with what was asked. Raises :class:`EngineError` for a name there is not."""
    if unknown := sorted(set(asked) - set(defaults)):
        known = ", ".join(defaults) or "none"
        raise EngineError(f"{backend} has no setting {', '.join(unknown)}; it has: {known}")
    return {**defaults, **asked}


def misfits(manifest: Manifest, backend: Backend) -> list[Comparison]:
    """What does not fit."""
    return [comparison for comparison in backend.compare(manifest) if not comparison.fits]
