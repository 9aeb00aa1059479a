"""Is ROS here, and are the messages built? Asked without importing either, so that the answer is one clear line."""

from __future__ import annotations

from importlib.util import find_spec

from emo_perception.config import ConfigError

INSTALL_ROS = (
    "source /opt/ros/<distro>/setup.bash, or without a ROS installation type 'make setup' or "
    "'pip install ros-jazzy-rclpy ros-jazzy-common-interfaces ros-jazzy-rmw-fastrtps-cpp'"
)
BUILD_MESSAGES = (
    "in a colcon workspace type 'colcon build --base-paths src src/<this repository>/emo_msgs' and "
    "'source install/setup.bash', else 'make setup' or 'pip install ./emo_msgs'"
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


def require_ros() -> None:
    """Raise :class:`ConfigError` with the commands to type when ROS 2 or the messages ``emo_msgs`` cannot be imported."""
    for package in ROS_PACKAGES:
        if not _importable(package):
            raise ConfigError(f"no ROS 2 here ({package} is missing): {INSTALL_ROS}")
    if not _importable("emo_msgs.msg"):
        raise ConfigError(f"the messages emo_msgs are not built, or not on the path: {BUILD_MESSAGES}")


def _importable(name: str) -> bool:
    try:
        spec = find_spec(name)
    except ModuleNotFoundError:  # of the parent package
        return False
    # A folder without __init__.py is importable too: in a checkout the sources of emo_msgs are one, without messages.
    return spec is not None and spec.origin is not None
