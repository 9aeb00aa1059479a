"""Quality of service of every topic, once.

Subscribers of a sensor are best effort, so that they hear any driver; publishers are reliable, so that any tool hears
them. Results are reliable and deep enough for two seconds of a stalled reader; frames keep the newest only.
"""

from __future__ import annotations

from collections.abc import Sequence

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
VISUAL = _qos(8)  # up to 3 MB each, about one a second
STATE = _qos(1, latched=True)
OVERLAY = _qos(1)


def fitting(offered: Sequence[QoSProfile], depth: int) -> QoSProfile:
    """A subscriber's profile that every publisher meets: reliable and latched only where all of them are."""
    reliable = all(profile.reliability == ReliabilityPolicy.RELIABLE for profile in offered)
    latched = all(profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for profile in offered)
    return _qos(depth, reliable=reliable, latched=latched)


def replayed(*, image: bool, latched: bool) -> QoSProfile:
    """A publisher's profile for a recorded topic: reliable, so that any subscriber hears it; of images the newest."""
    return _qos(1 if image else 64, latched=latched)


def overridable() -> QoSOverridingOptions:
    """History, depth and reliability may be changed by ``qos_overrides.<topic>...`` parameters."""
    return QoSOverridingOptions.with_default_policies(callback=_check)


def _check(profile: QoSProfile) -> SetParametersResult:
    valid = profile.depth > 0
    return SetParametersResult(successful=valid, reason="" if valid else f"expected a depth > 0, got {profile.depth}")
