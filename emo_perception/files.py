"""Where the files of ``config/`` lie: beside the package in a checkout, under ``share/`` once installed."""

from __future__ import annotations

from pathlib import Path

from emo_perception.config import ConfigError

PACKAGE = "emo_perception"
_HERE = Path(__file__).resolve()


def config_dir() -> Path:
    """The folder with the profiles.

    Found from the place of this file, without ROS: ``<checkout>/config``, or ``<prefix>/share/emo_perception/config``
    of the prefix that pip or colcon installed this package into. Raises :class:`ConfigError` when neither exists.
    """
    candidates = [_HERE.parents[1] / "config", *(p / "share" / PACKAGE / "config" for p in _HERE.parents)]
    for folder in candidates:
        if (folder / "fastdds_shm.xml").is_file():
            return folder
    raise ConfigError(
        f"the folder config/ of {PACKAGE} is missing: expected {candidates[0]} (checkout) or share/{PACKAGE}/config in "
        f"a folder above {_HERE.parent} (installation); install again with 'pip install .' or 'colcon build'"
    )


def profiles() -> tuple[str, ...]:
    """Names of the profiles that exist: ``start`` for ``config/start.yaml``."""
    return tuple(sorted(path.stem for path in config_dir().glob("*.yaml")))


def profile_file(name: str) -> Path:
    """The file of a profile. Raises :class:`ConfigError` that lists the choices when there is none of that name."""
    if name not in profiles():
        raise ConfigError(f"expected a profile out of: {', '.join(profiles())}; got {name!r}")
    return config_dir() / f"{name}.yaml"
