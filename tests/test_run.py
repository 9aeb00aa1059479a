"""``emo run`` with the real nodes: parameters and topics arrive, errors say what to do, nobody is left behind."""

import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
import rclpy
from rclpy.context import Context

from emo_perception.config import EXIT_CONFIG, read_profile
from emo_perception.files import profile_file
from emo_perception.graph import GraphOptions, processes
from emo_perception.preflight import ROS_PACKAGES, require_ros
from emo_perception.tools import run
from emo_perception.tools.supervisor import child_environment
from emo_perception.transport import PROFILE_VARIABLES

ROOT = Path(__file__).parents[1]
LIMIT_S = 60.0


@contextmanager
def ros_nodes(process, folder):
    """Real nodes with the names of those in ``process``, all in one context, as in the process itself."""
    file = folder / f"{process.name}.yaml"
    file.write_text(process.parameter_file())
    context = Context()
    rclpy.init(args=process.ros_arguments(file), context=context)
    nodes = {name: rclpy.create_node(name, context=context) for name in ("perception", "face", "overlay", "source")}
    try:
        yield nodes
    finally:
        for node in nodes.values():
            node.destroy_node()
        context.try_shutdown()


@pytest.mark.parametrize("namespace", ["", "/robot1"])
def test_each_node_of_a_process_gets_its_own_parameters_in_any_namespace(tmp_path, namespace):
    mine = tmp_path / "mine.yaml"
    mine.write_text("face:\n  ros__parameters: {max_faces: 2}\n")
    options = GraphOptions(
        source="123", privacy=True, namespace=namespace, params_file=str(mine), use_sim_time=True, log_level="warn"
    )
    (perception, *_) = processes(options)
    with ros_nodes(perception, tmp_path) as nodes:
        face = nodes["face"]
        assert face.get_fully_qualified_name() == f"{namespace}/face"
        assert face.declare_parameter("max_faces", 6).value == 2
        profile = read_profile(profile_file("start"))
        for node, name in (("face", "detector"), ("perception", "window_s")):
            value = profile[node][name]
            assert nodes[node].declare_parameter(name, type(value)()).value == value
        assert nodes["source"].declare_parameter("uri", "").value == "123"
        assert nodes["overlay"].declare_parameter("enabled", True).value is False
        assert nodes["perception"].declare_parameter("max_faces", 6).value == 6
        assert all(node.get_parameter("use_sim_time").value is True for node in nodes.values())


def test_a_camera_drivers_topics_reach_every_node_of_the_process(tmp_path):
    options = GraphOptions(image_topic="/camera/image_raw", audio_topic="mic", namespace="robot1")
    with ros_nodes(processes(options)[0], tmp_path) as nodes:
        resolve = nodes["perception"].resolve_topic_name
        assert resolve("image_raw") == "/camera/image_raw"
        assert resolve("image_raw/compressed") == "/camera/image_raw/compressed"
        assert resolve("audio") == "/robot1/mic"
        assert resolve("faces") == "/robot1/faces"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--source", "a.mp4", "--image-topic", "/camera"],
            "emo run: source 'a.mp4' and image_topic '/camera' exclude",
        ),
        (["--params-file", "nowhere.yaml"], "emo run: nowhere.yaml: cannot read"),
        (["--loop"], "emo run: loop plays a file again, but there is no source"),
    ],
)
def test_options_that_cannot_be_end_before_anything_starts(capsys, arguments, message):
    assert run.main(arguments) == EXIT_CONFIG
    assert message in capsys.readouterr().err


def test_help_names_every_option_and_its_default(capsys):
    with pytest.raises(SystemExit, match="0"):
        run.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for words in ("--image-topic", "--privacy | --no-privacy", "--params-file", "(default: start)", "rtsp://"):
        assert words in text


@pytest.mark.parametrize(
    ("packages", "message"),
    [
        ((), r"no ROS 2 here \(rclpy is missing\): source /opt/ros.*make setup"),
        (ROS_PACKAGES, "messages emo_msgs are not built.*colcon build --base-paths src.*emo_msgs.*make setup"),
    ],
    ids=["no ROS", "no messages"],
)
def test_missing_ros_or_messages_are_said_once_with_what_to_type(tmp_path, packages, message):
    for package in ("yaml", *packages):
        (tmp_path / package).symlink_to(Path(find_spec(package).origin).parent)
    # From the root of the checkout the folder emo_msgs is importable, although there are no messages in it.
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n"
        "from emo_perception.config import ConfigError\n"
        "from emo_perception.preflight import require_ros\n"
        "try:\n    require_ros()\nexcept ConfigError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert re.search(message, done.stdout)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="looks at shared memory as Linux shows it")
@pytest.mark.skipif("fastrtps" not in os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp"), reason="not Fast DDS")
def test_fast_dds_reads_the_profile_and_gives_images_room():
    """The largest segment that a participant maps: 64 MB with the profile, half of one without."""
    code = (
        "import rclpy; rclpy.init(); node = rclpy.create_node('sizes')\n"
        "words = [line.split() for line in open('/proc/self/maps') if '/dev/shm/fast' in line]\n"
        "ends = [[int(end, 16) for end in word[0].split('-')] for word in words]\n"
        "print(max(end - begin for begin, end in ends)); node.destroy_node(); rclpy.shutdown()"
    )
    command = [sys.executable, "-c", code]
    bare = {name: value for name, value in os.environ.items() if name not in PROFILE_VARIABLES}
    sizes = {}
    for name, environment in (("bare", bare), ("ours", child_environment(command, bare))):
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        assert "XML" not in done.stderr
        sizes[name] = int(done.stdout)
    assert sizes["bare"] < 1 << 20 < 1 << 26 <= sizes["ours"]


def test_ros_and_messages_are_found_where_they_are():
    require_ros()


@contextmanager
def emo_run(*arguments):
    """``emo run`` as a process; gives it and its lines."""
    lines = []
    process = subprocess.Popen(
        [sys.executable, "-m", "emo_perception.tools.run", *arguments],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in PROFILE_VARIABLES},
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
            process.terminate()
        process.wait(LIMIT_S)
        reader.join()
        process.stdout.close()


def nodes_of(parent):
    """Process name -> id of the children of ``emo run`` that run one of the nodes."""
    found = {}
    for pid in Path(f"/proc/{parent}/task").glob("*/children"):
        for child in pid.read_text().split():
            words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
            if "emo_perception.nodes" in words and "_with_parent.py" not in " ".join(words):
                found[words[words.index("emo_perception.nodes") + 1]] = int(child)
    return found


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks at the processes as Linux shows them")
def test_the_graph_survives_a_killed_child_and_ends_with_ctrl_c(wait_for):
    with emo_run("--source", "test://", "--no-overlay") as (process, lines):
        wait_for(
            lambda: any(line.startswith("[source]") and "playing" in line for line in lines), "the source", LIMIT_S
        )
        children = nodes_of(process.pid)
        assert sorted(children) == ["caption", "cause", "perception", "source"]
        for pid in children.values():
            environment = Path(f"/proc/{pid}/environ").read_text()
            assert all(f"{name}={ROOT / 'config' / 'fastdds_shm.xml'}" in environment for name in PROFILE_VARIABLES)
        os.kill(children["caption"], signal.SIGKILL)
        crash = "[emo] caption crashed (signal SIGKILL), next attempt in 1 s\n"
        wait_for(lambda: crash in lines, "the report", LIMIT_S)
        wait_for(
            lambda: nodes_of(process.pid).get("caption") not in (None, children["caption"]), "a new caption", LIMIT_S
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 0, "".join(lines)
        assert not any(Path(f"/proc/{pid}").exists() for pid in children.values())


def test_a_node_that_cannot_run_as_configured_ends_the_run(tmp_path):
    taken = tmp_path / "bag"
    taken.mkdir()
    (taken / "metadata.yaml").touch()
    with emo_run("--record", str(taken)) as (process, lines):
        assert process.wait(LIMIT_S) == EXIT_CONFIG, "".join(lines)
    assert any(line.startswith("[recorder]") and str(taken) in line for line in lines), "".join(lines)
    assert "[emo] recorder cannot run as it is configured (see its message above), ending all\n" in lines
