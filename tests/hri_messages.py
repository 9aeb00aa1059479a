"""A small ``hri_msgs``, generated for the tests as ``emo_msgs`` is built: no wheel of the real one exists.

Fields, order and types are those of the messages that Humble, Jazzy and Lyrical release (REP-155).
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEADER = "std_msgs/Header header\n"
MESSAGES = {
    "IdsList": HEADER + "string[] ids\n",
    "Expression": HEADER + "string expression\nfloat32 valence\nfloat32 arousal\nfloat32 confidence\n",
    "LiveSpeech": HEADER + "string incremental\nstring final\nfloat64 confidence\nstring locale\n",
    "FacialActionUnits": HEADER + "float32[99] intensity\nfloat32[99] confidence\n",
    "NormalizedRegionOfInterest2D": HEADER
    + "".join(f"float32 {name}\n" for name in ("xmin", "ymin", "xmax", "ymax", "c")),
}
CMAKE = """\
cmake_minimum_required(VERSION 3.16)
project(%s)
find_package(ament_cmake REQUIRED)
find_package(rosidl_default_generators REQUIRED)
find_package(std_msgs REQUIRED)
rosidl_generate_interfaces(${PROJECT_NAME} %s DEPENDENCIES std_msgs)
ament_package()
"""


def build(folder: Path, package: str = "hri_msgs", messages: Mapping[str, str] = MESSAGES) -> dict[str, str]:
    """Generate and build the messages below ``folder`` (about a minute); returns the environment that imports them."""
    source = folder / package
    (source / "msg").mkdir(parents=True)
    (source / "cmake").mkdir()
    for name in ("pyproject.toml", "package.xml", "cmake/ros_wheels.cmake"):
        text = (ROOT / "emo_msgs" / name).read_text(encoding="utf-8")
        (source / name).write_text(text.replace("emo_msgs", package), encoding="utf-8")
    for name, text in messages.items():
        (source / "msg" / f"{name}.msg").write_text(text, encoding="utf-8")
    files = " ".join(f'"msg/{name}.msg"' for name in messages)
    (source / "CMakeLists.txt").write_text(CMAKE % (package, files), encoding="utf-8")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob(f"{package}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    (prefix,) = folder.glob(f"{package}-*.data/data")
    (modules,) = prefix.glob("lib/python*/site-packages")
    before = {"PYTHONPATH": modules, "LD_LIBRARY_PATH": prefix / "lib", "AMENT_PREFIX_PATH": prefix}
    return {name: os.pathsep.join([str(path), *filter(None, [os.environ.get(name)])]) for name, path in before.items()}
