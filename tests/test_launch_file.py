"""The launch file with the real ROS 2 launch, where that is installed (it is not on PyPI): skipped elsewhere."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from emo_perception.config import EXIT_CONFIG
from emo_perception.graph import GraphOptions, option_choices

pytest.importorskip("launch_ros", reason="the ROS 2 launch system is not installed here; it comes with apt")
# From the root of the checkout "import launch" finds our folder; the real one is a package with __init__.py.
from ament_index_python.packages import PackageNotFoundError, get_package_prefix

import launch

FILE = Path(__file__).parents[1] / "launch" / "robot.launch.py"
LIMIT_S = 60.0

#: What ``ros2 launch`` does, without ros2cli.
LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
file, *arguments = sys.argv[1:]
service = LaunchService()
include = IncludeLaunchDescription(
    PythonLaunchDescriptionSource(file), launch_arguments=[tuple(a.split(":=", 1)) for a in arguments]
)
service.include_launch_description(LaunchDescription([include]))
sys.exit(service.run())
"""


def installed():
    try:
        scripts = Path(get_package_prefix("emo_perception"), "lib", "emo_perception")
    except PackageNotFoundError:
        return False
    return (scripts / "perception_node").is_file()


needs_installation = pytest.mark.skipif(not installed(), reason="emo_perception is not installed by colcon: build it")


def description():
    spec = spec_from_file_location("robot_launch", FILE)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


@contextmanager
def launched(*arguments):
    lines = []
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, str(FILE), *arguments],
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    reader = threading.Thread(target=lambda: lines.extend(iter(process.stdout.readline, "")))
    reader.start()
    try:
        yield process, lines
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(LIMIT_S)
        reader.join()
        process.stdout.close()


def test_every_option_is_a_launch_argument_with_its_description_choices_and_default():
    declared = {a.name: a for a in description().get_launch_arguments()}
    assert list(declared) == [option.name for option in dataclasses.fields(GraphOptions)]
    context = launch.LaunchContext()
    defaults = {}
    for option in dataclasses.fields(GraphOptions):
        argument = declared[option.name]
        assert argument.description.startswith(option.metadata["description"])
        assert set(option_choices(option)) <= set(argument.choices or ())
        defaults[option.name] = "".join(part.perform(context) for part in argument.default_value)
    assert GraphOptions.of_text(defaults) == GraphOptions()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("source:=a.mp4", "image_topic:=/camera"), "source 'a.mp4' and image_topic '/camera' exclude each other"),
        (("privacy:=maybe",), '"maybe" is not valid. Valid options are'),
        (("weights:=random",), "weights random is for networks that are built, and profile 'start' runs none"),
        (("profile:=paper",), "emo train ecpa_mafw --deploy paper"),
        (("profile:=toy", "weights:=random"), "build it: emo engines build --profile toy --network detector"),
    ],
)
def test_arguments_that_cannot_be_end_before_anything_starts(arguments, message, monkeypatch, tmp_path):
    monkeypatch.setenv("EMO_CACHE", str(tmp_path))  # there is no network in it
    with launched(*arguments) as (process, lines):
        assert process.wait(LIMIT_S) == 1
    assert message in "".join(lines)
    assert "process started" not in "".join(lines)


@needs_installation
def test_a_killed_node_is_started_again_and_ctrl_c_ends_all(wait_for):
    with launched("source:=test://", "overlay:=false") as (process, lines):
        wait_for(lambda: sum("process started with pid" in line for line in lines) == 3, "three processes", LIMIT_S)
        started = {line.split("[")[2].split("_node")[0]: line for line in lines if "process started" in line}
        assert sorted(started) == ["caption", "cause", "perception", "source"]
        wait_for(lambda: any("playing" in line for line in lines), "the source", LIMIT_S)
        os.kill(int(started["caption"].rpartition("[")[2].strip(" ]\n")), signal.SIGKILL)
        wait_for(
            lambda: any("caption crashed (-9), next attempt in 1 s" in line for line in lines), "the report", LIMIT_S
        )
        wait_for(lambda: sum("process started with pid" in line for line in lines) == 5, "a new caption", LIMIT_S)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(20)
    assert sum("next attempt" in line for line in lines) == 1, "".join(lines)


@needs_installation
def test_a_node_that_cannot_run_as_configured_ends_the_launch(tmp_path):
    taken = tmp_path / "bag"
    taken.mkdir()
    (taken / "metadata.yaml").touch()
    with launched(f"record:={taken}") as (process, lines):
        process.wait(LIMIT_S)
    text = "".join(lines)
    assert f"exit code {EXIT_CONFIG}" in text
    assert "recorder cannot run as it is configured" in text
    assert "next attempt" not in text
