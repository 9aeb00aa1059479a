"""Every default, once: one validated dataclass per node.

ROS parameters (descriptors, ranges, checks on set), profile files and the documentation are views of these classes.
A profile is an ordinary ROS 2 parameter file, so ``--ros-args --params-file`` reads it too.
"""

from emo_perception.config.bags import PlayerConfig, RecorderConfig
from emo_perception.config.base import EXIT_CONFIG, Config, ConfigError, LearnedConfig, param
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
from emo_perception.config.profile import NODE_CONFIGS, ROS_OWN, configurations, load_profile, read_profile
from emo_perception.config.sentences import CaptionConfig, CauseConfig

__all__ = [
    "EXIT_CONFIG",
    "NODE_CONFIGS",
    "ROS_OWN",
    "ActionUnitConfig",
    "CaptionConfig",
    "CauseConfig",
    "Config",
    "ConfigError",
    "EmotionConfig",
    "FaceConfig",
    "LearnedConfig",
    "OverlayConfig",
    "PerceptionConfig",
    "PlayerConfig",
    "RecorderConfig",
    "SourceConfig",
    "SpeechConfig",
    "VisualConfig",
    "configurations",
    "load_profile",
    "param",
    "read_profile",
]
