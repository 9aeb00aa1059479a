"""The Python class of a message type that is only known by its name: of a topic that was found, or one in a bag."""

from __future__ import annotations

import importlib
from typing import Any


class UnknownTypeError(LookupError):
    """A message type whose Python class is not installed here; the message says what to do."""


def message_class(kind: str) -> type[Any]:
    """The class of ``package/msg/Name``, ready to be published. Raises :class:`UnknownTypeError`."""
    package, _, name = kind.partition("/msg/")
    try:
        found: Any = getattr(importlib.import_module(f"{package}.msg"), name)
        if found.__class__._TYPE_SUPPORT is None:
            found.__class__.__import_type_support__()
        if found.__class__._TYPE_SUPPORT is None:
            raise ImportError("its type support cannot be loaded")
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownTypeError(
            f"no {kind} here ({error}): install its package (sudo apt install ros-$ROS_DISTRO-{package.replace('_', '-')}) "
            "or source the workspace that has it"
        ) from None
    message_type: type[Any] = found
    return message_type
