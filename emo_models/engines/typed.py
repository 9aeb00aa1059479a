"""Frozen dataclasses to plain JSON and back, every value checked against the type of its field."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, Union, cast, get_args, get_origin

T = TypeVar("T")


class SchemaError(ValueError):
    """A field is unknown, missing or of another type; the message names it by its path, as ``parity.max_abs``."""


def to_plain(value: Any) -> Any:
    """A dataclass as dictionaries, lists and plain values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    return value


def from_plain(kind: type[T], value: Any, where: str = "") -> T:
    """The inverse of :func:`to_plain` for a dataclass ``kind``. Raises :class:`SchemaError`."""
    _require(isinstance(value, Mapping), "an object", value, where or kind.__name__)
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(cast("Any", kind))]
    if unknown := sorted(set(value) - set(names)):
        raise SchemaError(f"{_path(where, unknown[0])}: no such field")
    if missing := [name for name in names if name not in value]:
        raise SchemaError(f"{_path(where, missing[0])}: missing")
    return kind(**{name: _checked(hints[name], value[name], _path(where, name)) for name in names})


def _checked(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any or (value is None and type(None) in arguments):
        return value
    if origin in (Union, types.UnionType):
        (only,) = (argument for argument in arguments if argument is not type(None))
        return _checked(only, value, where)
    if origin is tuple:
        _require(isinstance(value, list), "a list", value, where)
        return tuple(_checked(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        _require(isinstance(value, Mapping), "an object", value, where)
        return {key: _checked(arguments[1], item, _path(where, key)) for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return from_plain(cast("type[Any]", kind), value, where)
    whole = kind is float and type(value) is int
    _require(whole or type(value) is kind, kind.__name__, value, where)
    return kind(value)


def _require(fits: bool, expected: str, value: Any, where: str) -> None:
    if not fits:
        raise SchemaError(f"{where}: expected {expected}, got {type(value).__name__} {value!r:.40}")


def _path(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
