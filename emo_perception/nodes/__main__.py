"""The processes of the graph: ``python -m emo_perception.nodes caption --ros-args ...``; installed scripts call these too.

Nodes are imported only here, late, so that a missing ROS or message package ends in one line that says what to do.
"""

from __future__ import annotations

import importlib
import sys

from emo_perception.config import EXIT_CONFIG

#: Process -> module with ``make_nodes() -> list[Node]``, and threads of its executor.
PROCESSES = {
    "source": ("emo_perception.nodes.source", 1),
    "perception": ("emo_perception.nodes.perception", 2),
    "caption": ("emo_perception.nodes.caption", 1),
    "recorder": ("emo_perception.nodes.recorder", 1),
}

BUILD_MESSAGES = (
    "build them with 'colcon build --base-paths src src/<this repository>/emo_msgs' and source install/setup.bash, "
    "or without ROS: 'pip install ./emo_msgs'"
)
INSTALL_ROS = (
    "source /opt/ros/<distro>/setup.bash, or without ROS: "
    "'pip install ros-jazzy-rclpy ros-jazzy-common-interfaces ros-jazzy-rmw-fastrtps-cpp'"
)
ROS_PACKAGES = (
    "rclpy",
    "rosidl_parser",
    "rosidl_pycommon",
    "rpyutils",
    "rcl_interfaces",
    "builtin_interfaces",
    "sensor_msgs",
    "std_msgs",
    "diagnostic_msgs",
    "lifecycle_msgs",
)


def main(name: str, args: list[str] | None = None) -> int:
    """Run one process of the table; returns its exit code."""
    module, threads = PROCESSES[name]
    try:
        # The folder of the sources, found from the repository's root, imports as an empty package.
        if importlib.import_module("emo_msgs.msg").__file__ is None:
            raise ModuleNotFoundError(name="emo_msgs")
        from emo_perception.nodes import runtime

        nodes = importlib.import_module(module)
    except ModuleNotFoundError as error:
        print(f"{name}: {_remedy(error)}", file=sys.stderr)
        return EXIT_CONFIG
    return runtime.run(name, nodes.make_nodes, args, threads=threads)


def _remedy(error: ModuleNotFoundError) -> str:
    missing = (error.name or "").split(".")[0]
    if missing == "emo_msgs":
        return f"the messages emo_msgs are not built: {BUILD_MESSAGES}"
    if missing in ROS_PACKAGES:
        return f"no ROS 2 here ({missing} is missing): {INSTALL_ROS}"
    raise error


def source() -> None:
    """Console script of the source."""
    sys.exit(main("source"))


def perception() -> None:
    """Console script of the perception process."""
    sys.exit(main("perception"))


def caption() -> None:
    """Console script of the caption process."""
    sys.exit(main("caption"))


def recorder() -> None:
    """Console script of the recorder."""
    sys.exit(main("recorder"))


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in PROCESSES:
        sys.exit(f"usage: python -m emo_perception.nodes {{{','.join(PROCESSES)}}} [--ros-args ...]")
    process = sys.argv.pop(1)
    sys.exit(main(process))
