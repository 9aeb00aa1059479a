"""ROS parameters as a view of a configuration dataclass: descriptors, ranges, checks on set, one typed value.

``declare(node, CaptionConfig).current`` is always a whole, valid, frozen configuration; a set that would make it
invalid is refused with the text of :class:`ConfigError`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from emo_perception.config import ROS_OWN, Config, ConfigError

C = TypeVar("C", bound=Config)


class Parameters(Generic[C]):
    """The parameters of one node. ``current`` may be read from any thread: it is replaced, never changed."""

    def __init__(self, node: Node, kind: type[C]) -> None:
        self._node = node
        self._listeners: list[Callable[[C], None]] = []
        self._names = [spec.name for spec in dataclasses.fields(kind)]
        for spec in dataclasses.fields(kind):
            # Taken as it comes, so that the error text for a bad file is the configuration's own.
            node.declare_parameter(spec.name, spec.default, ParameterDescriptor(dynamic_typing=True))
        self.current: C = kind.of({name: _plain(node.get_parameter(name)) for name in self._names})
        for spec in dataclasses.fields(kind):
            node.set_parameters([Parameter(spec.name, value=getattr(self.current, spec.name))])
            node.set_descriptor(spec.name, descriptor(spec))
        node.add_on_set_parameters_callback(self._check)
        post_set = getattr(node, "add_post_set_parameters_callback", None)  # not in Humble
        self._swap_when_checked = post_set is None
        if post_set is not None:
            post_set(self._swap)

    def on_change(self, listener: Callable[[C], None]) -> None:
        """Call ``listener`` with the new configuration after each accepted set, in the executor's thread."""
        self._listeners.append(listener)

    def _changed(self, parameters: Sequence[Parameter]) -> C:
        return self.current.with_values({p.name: _plain(p) for p in parameters if p.name in self._names})

    def _check(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        try:
            self._changed(parameters)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        if self._swap_when_checked:
            self._swap(parameters)
        return SetParametersResult(successful=True)

    def _swap(self, parameters: Sequence[Parameter]) -> None:
        changed = self._changed(parameters)
        if changed != self.current:
            self.current = changed
            for listener in self._listeners:
                listener(changed)


def declare(node: Node, kind: type[C]) -> Parameters[C]:
    """Declare every field of ``kind`` as a parameter of ``node``, with the values that the node was started with.

    Raises :class:`ConfigError` when one of those has a wrong type or is out of range. Names that nobody declares are
    warned about: ROS itself ignores them without a word.
    """
    parameters = Parameters(node, kind)
    known = {spec.name for spec in dataclasses.fields(kind)}
    for name in getattr(node, "_parameter_overrides", {}):
        if name not in known and not name.startswith(ROS_OWN):
            node.get_logger().warning(f"{kind.node}.{name}: no such parameter; known: {', '.join(sorted(known))}")
    return parameters


def descriptor(spec: dataclasses.Field[Any]) -> ParameterDescriptor:
    """The ROS descriptor of a configuration field: description, range, choices, read-only."""
    meta, kind = spec.metadata, type(spec.default)
    result = ParameterDescriptor(
        description=meta["description"],
        read_only=meta["fixed"],
        # A whole number for a float (0 for 0.0) must be accepted; the type is checked by the configuration.
        dynamic_typing=kind is float,
        type=Parameter.Type.from_parameter_value(spec.default).value,
    )
    if meta["choices"]:
        result.additional_constraints = f"one of: {', '.join(meta['choices'])}"
    if meta["low"] is not None and kind is int:
        result.integer_range = [IntegerRange(from_value=int(meta["low"]), to_value=int(meta["high"]), step=0)]
    elif meta["low"] is not None:
        limits = FloatingPointRange(from_value=float(meta["low"]), to_value=float(meta["high"]), step=0.0)
        result.floating_point_range = [limits]
    return result


def _plain(parameter: Parameter) -> Any:
    value = parameter.value
    return value.tolist() if hasattr(value, "tolist") else value
