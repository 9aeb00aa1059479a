"""Recipes: how a network is trained, as YAML.

The files of ``training/recipes`` are found by their names, others by their paths. Every field is checked; an error
names the field, the value and what may stand there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import yaml

RECIPES: Final = Path(__file__).parents[1] / "recipes"

T = TypeVar("T")


class RecipeError(ValueError):
    """A recipe that cannot be followed; the message names field, value and choices."""


@dataclass(frozen=True)
class DataRecipe:
    """Which data: ``name`` as the task understands it, the folder ``root``, and the reader's options."""

    name: str
    root: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NetworkRecipe:
    """What :func:`emo_models.create` builds. ``weights``: part of the network -> file it starts from, as the task reads it."""

    name: str
    preset: str = "paper"
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class OptimiserRecipe:
    """AdamW. Vectors and scalars (biases, norms) have no decay; ``clip``: largest norm of all gradients, 0 for none."""

    lr: float
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip: float = 1.0


@dataclass(frozen=True)
class ScheduleRecipe:
    """Learning rate over all steps: up from 0 during the share ``warmup``, then down to 0 or, ``constant``, not."""

    name: Literal["linear", "cosine", "constant"] = "linear"
    warmup: float = 0.1


@dataclass(frozen=True)
class EvaluateRecipe:
    """``every``: epochs between evaluations, 0 for the end alone. ``keep``: weights of the last or of the best of them."""

    split: Literal["val", "test"] = "val"
    every: int = 1
    keep: Literal["last", "best"] = "last"


@dataclass(frozen=True)
class Recipe:
    """One training.

    ``batch`` is what one step of the optimiser sees, whatever the machine: it is dealt out to the processes, and each
    computes its part in ``accumulate`` pieces where memory is short. ``checkpoint_steps``: steps between checkpoints
    besides those at the end of each epoch; 0 for none.
    """

    task: str
    network: NetworkRecipe
    data: DataRecipe
    optimiser: OptimiserRecipe
    epochs: int
    batch: int
    schedule: ScheduleRecipe = field(default_factory=ScheduleRecipe)
    accumulate: int = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    seed: int = 88
    workers: int = 0
    checkpoint_steps: int = 0
    evaluate: EvaluateRecipe = field(default_factory=EvaluateRecipe)
    #: What only this task understands.
    options: Mapping[str, Any] = field(default_factory=dict)
    #: Where the weights are also put, relative to the cache of weights, so that what needs them finds them.
    publish: str = ""
    #: Folder of the run: checkpoints, logs and weights.
    out: str = ""

    def __post_init__(self) -> None:
        _least(self, epochs=1, batch=1, accumulate=1, workers=0, checkpoint_steps=0, seed=0)
        _least(self.evaluate, "evaluate", every=0)
        _least(self.optimiser, "optimiser", lr=0, weight_decay=0, clip=0)
        if not 0 <= self.schedule.warmup < 1:
            raise RecipeError(f"schedule.warmup: expected a share from 0 to below 1; got {self.schedule.warmup!r}")

    @property
    def folder(self) -> Path:
        """Where the run is kept."""
        if not self.out:
            raise RecipeError("out: expected a folder for the run; give --out DIR")
        return Path(self.out)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as :func:`from_dict` takes them."""
        plain: dict[str, Any] = _plain(dataclasses.asdict(self))
        return plain


def recipe_names() -> tuple[str, ...]:
    """The packaged recipes."""
    return tuple(sorted(path.stem for path in RECIPES.glob("*.yaml")))


def load_recipe(which: str | Path, changes: Sequence[str] = (), out: str | Path | None = None) -> Recipe:
    """A packaged recipe by name or any by path, with ``key=value`` changes (``optimiser.lr=1e-4``).

    Raises :class:`RecipeError` for a file that is not there or no recipe; the message names field, value and choices.
    """
    file = RECIPES / f"{which}.yaml" if str(which) in recipe_names() else Path(which)
    if not file.is_file():
        near = difflib.get_close_matches(str(which), recipe_names(), n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise RecipeError(
            f"no recipe {str(which)!r}{hint}: expected a YAML file or one of {', '.join(recipe_names()) or '(none)'}"
        )
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file}: not YAML: {error}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{file}: expected fields of a recipe, as 'task: er'; got {type(values).__name__}")
    for change in changes:
        _set(values, change)
    if out is not None:
        values["out"] = str(out)
    values.setdefault("out", f"runs/{file.stem}")
    try:
        return from_dict(values)
    except RecipeError as error:
        raise RecipeError(f"{file}: {error}") from None


def from_dict(values: Mapping[str, Any]) -> Recipe:
    """A recipe from plain values. Raises :class:`RecipeError`."""
    return _build(Recipe, values, "")


def read_options(cls: type[T], values: Mapping[str, Any], where: str = "options") -> T:
    """A task's own dataclass from a recipe's ``options`` (or ``data.options``, ...), checked like the recipe itself.

    ``where``: the field's name in errors. Raises :class:`RecipeError`.
    """
    return _build(cls, values, where)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Fields in which two recipes differ, as ``epochs: 3, now 4``."""
    found = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {a!r}, now {b!r}")
    return found


def _set(values: dict[str, Any], change: str) -> None:
    name, equals, text = change.partition("=")
    if not equals or not name:
        raise RecipeError(f"--set: expected key=value, as optimiser.lr=1e-4; got {change!r}")
    place = values
    *path, last = name.split(".")
    for part in path:
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise RecipeError(f"--set {change}: {part} is a value, it has no fields")
    place[last] = yaml.safe_load(text)


def _build(cls: type[T], values: Any, where: str) -> T:
    if not isinstance(values, Mapping):
        raise RecipeError(f"{where or 'recipe'}: expected fields, got {values!r}")
    fields = {item.name: item for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    prefix = f"{where}." if where else ""
    for name in values:
        if name not in fields:
            near = difflib.get_close_matches(str(name), fields, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise RecipeError(f"{prefix}{name}: no such field{hint}; there are: {', '.join(fields)}")
    for name, item in fields.items():
        missing = dataclasses.MISSING
        if name not in values and item.default is missing and item.default_factory is missing:
            raise RecipeError(f"{prefix}{name}: missing; give {_words(hints[name])}")
    return cls(**{name: _value(hints[name], value, f"{prefix}{name}") for name, value in values.items()})


def _value(hint: Any, value: Any, where: str) -> Any:  # noqa: PLR0911 - one line per kind of field
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast("type[Any]", hint), value, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal and value in arguments:
        return value
    if origin in (types.UnionType, typing.Union):
        for kind in arguments:
            with contextlib.suppress(RecipeError):
                return _value(kind, value, where)
    elif hint in (bool, type(None)) and isinstance(value, hint):
        return value
    elif hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-4 as a word
        except ValueError:
            pass
    elif hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    elif hint is str and isinstance(value, (str, int, float)):
        return str(value)
    elif origin is tuple and arguments[-1] is Ellipsis and isinstance(value, (list, tuple)):
        return tuple(_value(arguments[0], each, where) for each in value)
    elif origin is tuple and isinstance(value, (list, tuple)) and len(value) == len(arguments):
        return tuple(_value(kind, each, where) for kind, each in zip(arguments, value, strict=True))
    elif origin not in (Literal, tuple) and isinstance(value, Mapping) and _is_mapping(hint):
        return _plain(dict(value))
    raise RecipeError(f"{where}: expected {_words(hint)}; got {value!r}")


def _is_mapping(hint: Any) -> bool:
    return isinstance(typing.get_origin(hint), type) and issubclass(typing.get_origin(hint), Mapping)


def _words(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"
    if typing.get_origin(hint) is tuple:
        return "a list" if Ellipsis in typing.get_args(hint) else f"{len(typing.get_args(hint))} values"
    if dataclasses.is_dataclass(hint):
        return f"its fields: {', '.join(item.name for item in dataclasses.fields(hint))}"
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return " or ".join(_words(each) for each in typing.get_args(hint))
    words = {bool: "true or false", type(None): "null", int: "a whole number", float: "a number", str: "a text"}
    return words.get(hint, "fields" if isinstance(hint, types.GenericAlias) or _is_mapping(hint) else str(hint))


def _least(holder: Any, where: str = "", **least: float) -> None:
    for name, bound in least.items():
        if not getattr(holder, name) >= bound:
            prefix = f"{where}." if where else ""
            raise RecipeError(f"{prefix}{name}: expected {bound} or more; got {getattr(holder, name)!r}")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value
