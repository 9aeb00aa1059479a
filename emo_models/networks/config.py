"""What the configs of all networks have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from emo_models.registry import UnknownNetworkError

ConfigT = TypeVar("ConfigT", bound="NetworkConfig")


@dataclass(frozen=True)
class NetworkConfig:
    """Base of the networks' configs: frozen dataclasses of plain values, so that they travel in a weight card.

    A subclass lists its presets in :attr:`PRESETS`, each a dictionary of the fields that differ from the defaults.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}}

    @classmethod
    def from_preset(cls: type[ConfigT], preset: str, **options: Any) -> ConfigT:
        """A preset with some fields changed. Raises :class:`UnknownNetworkError` naming the presets or the fields."""
        if preset not in cls.PRESETS:
            choices = ", ".join(sorted(cls.PRESETS))
            raise UnknownNetworkError(f"unknown preset {preset!r} of {cls.__name__}; choose one of: {choices}")
        return cls.from_dict({**cls.PRESETS[preset], **options})

    @classmethod
    def from_dict(cls: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
        """The inverse of :meth:`to_dict`; lists become tuples. Unknown names raise :class:`UnknownNetworkError`."""
        fields = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - fields):
            raise UnknownNetworkError(
                f"unknown option {', '.join(map(repr, unknown))} of {cls.__name__}; "
                f"choose among: {', '.join(sorted(fields))}"
            )
        return cls(**{name: _frozen(value) for name, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return dataclasses.asdict(self)

    def _require(self, field: str, allowed: Collection[Any]) -> None:
        """Raise ``ValueError`` unless the field's value is one of ``allowed``."""
        value = getattr(self, field)
        if value not in allowed:
            choices = ", ".join(map(str, allowed))
            raise ValueError(f"{type(self).__name__}.{field} is {value!r}; choose one of: {choices}")


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value
