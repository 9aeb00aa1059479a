"""ros2 launch emo_perception robot.launch.py source:=/dev/video0; --show-args lists the arguments.

Which processes start, with which parameters and remappings, is decided in emo_perception/graph.py, as for "emo run".
"""

import atexit
import dataclasses
import os
import shutil
import tempfile
import time
from pathlib import Path

from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction, SetEnvironmentVariable, Shutdown, TimerAction
from launch_ros.actions import Node

from emo_perception.config import EXIT_CONFIG
from emo_perception.files import PACKAGE
from emo_perception.graph import Backoff, GraphOptions, configs_of, notes, option_choices, processes
from emo_perception.learned import require
from emo_perception.transport import fastdds_environment
from launch import LaunchDescription

OPTIONS = dataclasses.fields(GraphOptions)


def argument(option):
    """The launch argument for one field of GraphOptions."""
    flag = isinstance(option.default, bool)
    return DeclareLaunchArgument(
        option.name,
        default_value=str(option.default).lower() if flag else option.default,
        description=option.metadata["description"],
        choices=["true", "false", "True", "False"] if flag else list(option_choices(option)) or None,
    )


def start(process, file, backoff):
    """The action that runs a process, and runs it again after a crash.

    Not launch's own respawn: that starts again whatever ended well or was configured wrongly, and always at one rate.
    """
    began = time.monotonic()

    def ended(event, context):
        if context.is_shutdown or event.returncode == 0:
            return None
        if event.returncode == EXIT_CONFIG:
            reason = f"{process.name} cannot run as it is configured (see its message above)"
            return [LogInfo(msg=reason), Shutdown(reason=reason)]
        if not process.restart:
            return LogInfo(msg=f"{process.name} crashed ({event.returncode}) and cannot be started again")
        wait_s = backoff.after(time.monotonic() - began)
        again = OpaqueFunction(function=lambda _: [start(process, file, backoff)])
        return [
            LogInfo(msg=f"{process.name} crashed ({event.returncode}), next attempt in {wait_s:g} s"),
            TimerAction(period=wait_s, actions=[again]),
        ]

    return Node(
        package=PACKAGE,
        executable=process.executable,
        namespace=process.namespace or None,
        parameters=[str(file)],
        remappings=list(process.remappings),
        ros_arguments=["--log-level", process.log_level],
        output="screen",
        emulate_tty=True,
        on_exit=ended,
    )


def graph(context):
    """All actions for the options that the user has chosen."""
    options = GraphOptions.of_text({option.name: context.launch_configurations[option.name] for option in OPTIONS})
    table = processes(options)
    require(configs_of(options))
    folder = Path(tempfile.mkdtemp(prefix=f"{PACKAGE}_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    actions = [LogInfo(msg=note) for note in notes(options)]
    for process in table:
        file = folder / f"{process.name}.yaml"
        file.write_text(process.parameter_file(), encoding="utf-8")
        actions.append(start(process, file, Backoff()))
    return actions


def generate_launch_description():
    """Entry point of ros2 launch."""
    variables = fastdds_environment(os.environ).items()
    return LaunchDescription(
        [
            *map(argument, OPTIONS),
            *(SetEnvironmentVariable(name, value) for name, value in variables),
            OpaqueFunction(function=graph),
        ]
    )
