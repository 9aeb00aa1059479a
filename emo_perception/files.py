"""Where profiles lie: in ``config/``, beside the package in a checkout or under ``share/`` once installed, and the user's own."""

from __future__ import annotations

import os
import sys
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


def user_profiles_dir() -> Path:
    """Where profiles of the user lie: ``profiles/`` in ``EMO_CONFIG_DIR``, else in this package's own configuration folder.

    That is ``emo_perception`` in the user's configuration folder (XDG base directories; the platform's own elsewhere).
    """
    if chosen := os.environ.get("EMO_CONFIG_DIR"):
        return Path(chosen).expanduser() / "profiles"
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    elif sys.platform == "win32":
        base = Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming")
    else:
        base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return base / PACKAGE / "profiles"


def packaged_profiles() -> tuple[str, ...]:
    """Names of the profiles of this package: ``start`` for ``config/start.yaml``."""
    return tuple(sorted(path.stem for path in config_dir().glob("*.yaml")))


def profiles() -> tuple[str, ...]:
    """Names of all profiles: those of this package, then the user's own."""
    packaged = packaged_profiles()
    own = sorted(path.stem for path in user_profiles_dir().glob("*.yaml"))
    return (*packaged, *(name for name in own if name not in packaged))


def profile_file(name: str) -> Path:
    """The file of a profile.

    Raises :class:`ConfigError` that lists the choices when there is none of that name, or when the user's own has the
    name of a packaged one, for then it would be a guess which was meant.
    """
    if name not in profiles():
        raise ConfigError(
            f"expected a profile out of: {', '.join(profiles())}; got {name!r} (profiles of yours lie in "
            f"{user_profiles_dir()})"
        )
    own, packaged = user_profiles_dir() / f"{name}.yaml", config_dir() / f"{name}.yaml"
    if own.is_file() and packaged.is_file():
        raise ConfigError(
            f"two profiles are called {name!r}: {packaged} and {own}; give yours another name, or hand its values over "
            "as a parameter file (params_file) on top of the packaged one"
        )
    return own if own.is_file() else packaged
