"""Shared memory large enough for images: the Fast DDS profile of every process of the graph."""

from __future__ import annotations

from collections.abc import Mapping

from emo_perception.files import config_dir

#: Fast DDS 2 (Humble, Jazzy) reads the first, Fast DDS 3 (Kilted and later) the second.
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


def fastdds_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables to add to ``environment``; none if one of them is already set there: the user's own profile wins.

    Without it a raw 640x480 image does not fit into shared memory, and best-effort readers lose most of them.
    """
    if any(environment.get(name) for name in PROFILE_VARIABLES):
        return {}
    return dict.fromkeys(PROFILE_VARIABLES, str(config_dir() / "fastdds_shm.xml"))
