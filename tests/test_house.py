"""The rules of the house, executable: who imports whom, how large things are, and that the packaging agrees."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = ("emo_models", "emo_perception", "training", "benchmarks", "launch", "tests")
FILES = [*sorted(p for folder in CODE for p in (ROOT / folder).rglob("*.py")), ROOT / "setup.py"]
PACKAGES = [p for p in FILES if p.relative_to(ROOT).parts[0] in ("emo_models", "emo_perception", "training")]

ROS = {
    "action_msgs", "ament_index_python", "audio_common_msgs", "builtin_interfaces", "diagnostic_msgs", "emo_msgs",
    "geometry_msgs", "hri_msgs", "launch", "launch_ros", "lifecycle_msgs", "rcl_interfaces", "rclpy",
    "ros2doctor", "rosgraph_msgs", "rosidl_runtime_py", "sensor_msgs", "std_msgs", "std_srvs",
}  # fmt: skip
#: ROS packages that the code uses where they are present, and does without where they are not.
OPTIONAL_ROS = {"audio_common_msgs", "hri_msgs", "ros2doctor"}
#: What the start profile must never load.
HEAVY = ("torch", "torchvision", "transformers", "tensorflow", "mediapipe")
MAX_FILE_LINES = 450
MAX_FUNCTION_LINES = 70


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path):
    """Every module that a file imports, anywhere in it: ``{"a.b", ...}``, relative imports resolved."""
    package = module_of(path) if path.stem == "__init__" else module_of(path).rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
    return found


def tops(path):
    return {name.partition(".")[0] for name in imports(path)}


def belongs(path, *folders):
    return any(name_of(path).startswith(folder) for folder in folders)


@pytest.mark.parametrize("path", PACKAGES, ids=name_of)
def test_imports_run_one_way(path):
    """training -> emo_perception -> emo_models; ROS only in the nodes and the doctor."""
    forbidden = set()
    if belongs(path, "emo_models/"):
        forbidden |= {"emo_perception", "training"} | ROS
    elif belongs(path, "emo_perception/"):
        forbidden |= {"training"}
        if not belongs(path, "emo_perception/nodes/", "emo_perception/tools/doctor"):
            forbidden |= ROS
    else:
        forbidden |= ROS
    assert not tops(path) & forbidden


ROS_FREE = [p for p in PACKAGES if not belongs(p, "emo_perception/nodes/", "emo_perception/tools/doctor")]


@pytest.mark.parametrize("path", ROS_FREE, ids=name_of)
def test_nobody_reaches_ros_through_the_nodes(path):
    """The core starts nodes as processes; importing one would bring in ROS by the back door."""
    assert not [name for name in imports(path) if name.startswith("emo_perception.nodes")]


#: Imports every module of the start profile; prints which were imported, which lacked an optional part of the system
#: (ROS, GStreamer), and which heavy packages anybody so much as tried to load.
PROBE = """
import importlib, json, pkgutil, sys
heavy, optional = set(json.loads(sys.argv[1])), set(json.loads(sys.argv[2]))
tried, imported, lacking = set(), [], []

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in heavy:
            tried.add(name)

sys.meta_path.insert(0, Watch())
import emo_perception
for module in pkgutil.walk_packages(emo_perception.__path__, "emo_perception."):
    try:
        importlib.import_module(module.name)
        imported.append(module.name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in optional:
            raise
        lacking.append(module.name)
tried |= heavy & set(sys.modules)
print(json.dumps({"tried": sorted(tried), "imported": imported, "lacking": lacking}))
"""


def test_start_profile_never_imports_torch():
    """Nor any other framework that only training and the networks of the papers need."""
    command = [sys.executable, "-c", PROBE, json.dumps(HEAVY), json.dumps(sorted(ROS | {"gi"}))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["tried"] == []
    everything = {module_of(p) for p in PACKAGES if belongs(p, "emo_perception/")} - {"emo_perception"}
    assert everything == {*seen["imported"], *seen["lacking"]}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_size(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_FILE_LINES
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {n.name: n.end_lineno - n.lineno + 1 for n in functions}
    assert {name: lines for name, lines in long.items() if lines > MAX_FUNCTION_LINES} == {}


def setup_arguments():
    """What setup.py hands to setup(), as far as it is literal."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "setup"]
    literal = {}
    for keyword in calls[0].keywords:
        try:
            literal[keyword.arg] = ast.literal_eval(keyword.value)
        except ValueError:
            continue
    return literal


def manifest(folder):
    return ET.parse(ROOT / folder / "package.xml").getroot()


def test_versions_agree():
    messages = (ROOT / "emo_msgs" / "pyproject.toml").read_text(encoding="utf-8")
    versions = {
        "setup.py": setup_arguments()["version"],
        "package.xml": manifest(".").findtext("version"),
        "emo_msgs/package.xml": manifest("emo_msgs").findtext("version"),
        "emo_msgs/pyproject.toml": re.search(r'^version = "(.+)"$', messages, re.MULTILINE)[1],
    }
    assert len(set(versions.values())) == 1, versions


def test_every_interface_is_built():
    """Each .msg and .action file is named in CMakeLists.txt, and nothing else is."""
    folder = ROOT / "emo_msgs"
    present = [p.relative_to(folder).as_posix() for p in (*folder.glob("msg/*"), *folder.glob("action/*"))]
    listed = re.findall(r'"((?:msg|action)/[^"]+)"', (folder / "CMakeLists.txt").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(present)


def test_manifest_names_every_ros_package_in_use():
    used = {name for p in FILES if belongs(p, "emo_perception/", "launch/") for name in tops(p) & ROS}
    declared = {e.text for e in manifest(".").iter("exec_depend")}
    assert used - OPTIONAL_ROS <= declared


def entry_points():
    return [(group, *line.split(" = ")) for group, lines in setup_arguments()["entry_points"].items() for line in lines]


@pytest.mark.parametrize(("group", "name", "target"), entry_points())
def test_entry_point_exists(group, name, target):
    """Each command and each node of setup.py is a function or class that is there."""
    module, function = target.split(":")
    tree = ast.parse((ROOT / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8"))
    assert function in {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}


def test_commands_of_a_checkout_are_those_of_an_installation():
    from emo_perception.tools.cli import BUILT_IN, GROUP

    assert {name: target for group, name, target in entry_points() if group == GROUP} == BUILT_IN


def test_actions_of_emo_bag_in_a_checkout_are_those_of_an_installation():
    from emo_perception.tools.bag import BUILT_IN, GROUP

    assert {name: target for group, name, target in entry_points() if group == GROUP} == BUILT_IN


def test_every_process_of_the_graph_is_installed():
    from emo_perception.graph import GraphOptions, processes

    scripts = {name for group, name, _ in entry_points() if group == "console_scripts"}
    assert {p.executable for p in processes(GraphOptions(source="test://"))} <= scripts
