"""One validated dataclass for each node is made of these: fields with descriptions, ranges and choices."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

C = TypeVar("C", bound="Config")


EXIT_CONFIG = 78
"""Exit code of a process that was configured wrongly (EX_CONFIG of sysexits.h): starting it again cannot help."""


class ConfigError(ValueError):
    """A value that cannot be; the message names the parameter, what was expected, what came and what to do."""


def param(
    default: bool | int | float | str,
    description: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    fixed: bool = False,
) -> Any:
    """A dataclass field with its description, range ``[low, high]`` or choices; ``fixed``: only at start."""
    meta = {"description": description, "low": low, "high": high, "choices": choices, "fixed": fixed}
    return field(default=default, metadata=meta)


@dataclass(frozen=True)
class Config:
    """Base of all node configurations: checks types, ranges and choices when made."""

    node: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):
            object.__setattr__(self, spec.name, self._checked(spec, getattr(self, spec.name)))

    @classmethod
    def _checked(cls, spec: dataclasses.Field[Any], value: Any) -> Any:
        where = f"{cls.node}.{spec.name}"
        kind = type(spec.default)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not kind:
            raise ConfigError(f"{where}: expected {kind.__name__}, got {type(value).__name__} {value!r}")
        low, high, choices = (spec.metadata[k] for k in ("low", "high", "choices"))
        if low is not None and not low <= value <= high:
            raise ConfigError(f"{where}: expected a value in [{low:g}, {high:g}], got {value!r}")
        if choices and value not in choices:
            raise ConfigError(f"{where}: expected one of {', '.join(choices)}; got {value!r}")
        return value

    @classmethod
    def of(cls: type[C], values: Mapping[str, Any]) -> C:
        """Build from names and values. Raises :class:`ConfigError` for an unknown name, wrong type or range."""
        known = {f.name for f in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise ConfigError(f"{cls.node}.{name}: no such parameter; known: {', '.join(sorted(known))}")
        return cls(**values)

    def with_values(self: C, values: Mapping[str, Any]) -> C:
        """A copy with some values changed, checked as in :meth:`of`."""
        return type(self).of({**dataclasses.asdict(self), **values})


#: A folder of the weight cache: :data:`emo_models.engines.catalogue.PROFILE_NAME`.
_PRESET = re.compile(r"[a-z][a-z0-9_]*")

THREADS = "CPU threads of this engine; 0 = half of the cores, or 1 where the networks are small"


@dataclass(frozen=True)
class LearnedConfig(Config):
    """Of a node that may run networks which are built (``emo engines build``)."""

    preset: str = param(
        "paper",
        "whose networks it runs, where it runs built ones: toy, paper, or a profile that emo train --deploy made",
        fixed=True,
    )
    weights: str = param(
        "trained",
        "random: engines with random numbers do too, to measure time and memory; what they say is marked as invalid",
        choices=("trained", "random"),
        fixed=True,
    )
    precision: str = param(
        "fp32", "arithmetic of its engines; bf16 is faster where the CPU has it, fp16 and int8 for built ones only",
        choices=("fp32", "bf16", "fp16", "int8"), fixed=True,
    )  # fmt: skip
    threads: int = param(0, THREADS, low=0, high=64, fixed=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _PRESET.fullmatch(self.preset):
            raise ConfigError(
                f"{self.node}.preset: expected toy, paper or the name of a deployed profile (small letters, digits and _), "
                f"got {self.preset!r}; 'emo engines list' shows what was built"
            )
