"""Quality of service of every topic, once.

Subscribers of a sensor are best effort, so that they hear any driver; publishers are reliable, so that any tool hears
them. Results are reliable and deep enough for two seconds of a stalled reader; frames keep the newest only.
"""

from __future__ import annotations

from rcl_interfaces.msg import SetParametersResult
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions


def _qos(depth: int, *, reliable: bool = True, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


IMAGE_PUB = _qos(1)
IMAGE_SUB = _qos(1, reliable=False)
AUDIO_PUB = _qos(32)
AUDIO_SUB = _qos(32, reliable=False)
RESULT = _qos(64)  # faces, action_units, emotions, emotion_features: 30 Hz
CAPTION = _qos(16)
STATE = _qos(1, latched=True)
OVERLAY = _qos(1)


def overridable() -> QoSOverridingOptions:
    """History, depth and reliability may be changed by ``qos_overrides.<topic>...`` parameters."""
    return QoSOverridingOptions.with_default_policies(callback=_check)


def _check(profile: QoSProfile) -> SetParametersResult:
    valid = profile.depth > 0
    return SetParametersResult(successful=valid, reason="" if valid else f"expected a depth > 0, got {profile.depth}")
