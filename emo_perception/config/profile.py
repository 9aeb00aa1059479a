"""Profiles: parameter files of ROS 2 that say what differs from the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from emo_perception.config.bags import RecorderConfig
from emo_perception.config.base import Config, ConfigError
from emo_perception.config.perception import (
    ActionUnitConfig,
    EmotionConfig,
    FaceConfig,
    OverlayConfig,
    PerceptionConfig,
    SourceConfig,
    SpeechConfig,
    VisualConfig,
)
from emo_perception.config.sentences import CaptionConfig, CauseConfig

NODE_CONFIGS: dict[str, type[Config]] = {
    c.node: c
    for c in (
        SourceConfig,
        PerceptionConfig,
        FaceConfig,
        ActionUnitConfig,
        EmotionConfig,
        VisualConfig,
        SpeechConfig,
        CaptionConfig,
        CauseConfig,
        OverlayConfig,
        RecorderConfig,
    )
}


#: Parameters of ROS itself, which a profile may set for any node.
ROS_OWN = ("use_sim_time", "start_type_description_service", "qos_overrides")


def read_profile(path: Path) -> dict[str, dict[str, Any]]:
    """Read what a profile (a ROS 2 parameter file) sets: node -> parameter -> value, each checked.

    Keys are node names, with or without a namespace (``face``, ``/**/face``). Raises :class:`ConfigError` for a file
    that is missing or malformed, an unknown node or parameter, a wrong type or range.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"{path}: cannot read this profile file: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a YAML file: {error}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected a mapping of node names, got {type(document).__name__}")
    given: dict[str, dict[str, Any]] = {}
    for key, block in document.items():
        name = str(key).rsplit("/", 1)[-1]
        if name not in NODE_CONFIGS:
            raise ConfigError(f"{path}: unknown node {key!r}; known: {', '.join(NODE_CONFIGS)}")
        if not isinstance(block, dict) or not isinstance(block.get("ros__parameters"), dict):
            raise ConfigError(f"{path}: {key}: expected a block 'ros__parameters:' with names and values")
        given.setdefault(name, {}).update(block["ros__parameters"])
    for name, values in given.items():
        try:
            NODE_CONFIGS[name].of(_own(values))
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
    return given


def load_profile(*paths: Path) -> dict[str, Config]:
    """Read profiles, the later on top, into one configuration per node; absent values are the defaults.

    Raises as :func:`read_profile`.
    """
    given: dict[str, dict[str, Any]] = {}
    for path in paths:
        for name, values in read_profile(path).items():
            given.setdefault(name, {}).update(values)
    return configurations(given)


def configurations(given: Mapping[str, Mapping[str, Any]]) -> dict[str, Config]:
    """One configuration per node of what is given for some, as :func:`read_profile` has it; absent values are the defaults.

    Raises :class:`ConfigError`.
    """
    return {name: cls.of(_own(given.get(name, {}))) for name, cls in NODE_CONFIGS.items()}


def _own(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if str(name).split(".")[0] not in ROS_OWN}
