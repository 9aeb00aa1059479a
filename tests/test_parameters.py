"""ROS parameters as views of the configuration, on real nodes; QoS, diagnostics and the processes' exit codes."""

from __future__ import annotations

import dataclasses
import logging
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import Log
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

from emo_perception.config import EXIT_CONFIG, NODE_CONFIGS, CaptionConfig, ConfigError, FaceConfig
from emo_perception.nodes.__main__ import PROCESSES
from emo_perception.nodes.diagnostics import Diagnostics, Level, Status, WorkStatus
from emo_perception.nodes.parameters import declare
from emo_perception.nodes.runtime import RosLogHandler
from emo_perception.streaming.mailbox import DropPolicy, Mailbox
from emo_perception.streaming.stats import StageStats

ROOT = Path(__file__).parents[1]


@contextmanager
def ros_node(name="caption", *arguments):
    """A real node in a context of its own, started with command line parameters ``name:=value``."""
    context = Context()
    args = [word for argument in arguments for word in ("-p", argument)]
    rclpy.init(args=["--ros-args", *args] if args else [], context=context)
    node = rclpy.create_node(name, context=context)
    try:
        yield node
    finally:
        node.destroy_node()
        context.try_shutdown()


def spin_until(nodes, condition, deadline_s=20.0):
    executor = SingleThreadedExecutor(context=nodes[0].context)
    for node in nodes:
        executor.add_node(node)
    end = time.monotonic() + deadline_s
    while not condition() and time.monotonic() < end:
        executor.spin_once(timeout_sec=0.1)
    executor.shutdown()
    assert condition()


@pytest.mark.parametrize("kind", NODE_CONFIGS.values(), ids=NODE_CONFIGS.keys())
def test_every_field_is_a_described_parameter_with_its_default(kind):
    with ros_node(kind.node) as node:
        assert declare(node, kind).current == kind()
        for spec in dataclasses.fields(kind):
            descriptor = node.describe_parameter(spec.name)
            assert node.get_parameter(spec.name).value == spec.default
            assert descriptor.description == spec.metadata["description"]
            assert descriptor.read_only == spec.metadata["fixed"]
            ranges = [*descriptor.integer_range, *descriptor.floating_point_range]
            low, high = spec.metadata["low"], spec.metadata["high"]
            assert [(r.from_value, r.to_value) for r in ranges] == ([] if low is None else [(low, high)])
            assert all(choice in descriptor.additional_constraints for choice in spec.metadata["choices"])


def test_values_given_at_start_are_used_and_a_whole_number_stands_for_a_float():
    with ros_node("caption", "stride_s:=2", "max_people:=5") as node:
        assert declare(node, CaptionConfig).current == CaptionConfig(stride_s=2.0, max_people=5)
        assert node.get_parameter("stride_s").type_ is Parameter.Type.DOUBLE


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("stride_s:=soon", r"caption\.stride_s: expected float, got str 'soon'"),
        ("stride_s:=[1.0, 2.0]", r"caption\.stride_s: expected float, got list"),
        ("stride_s:=99.0", r"caption\.stride_s: expected a value in \[0\.1, 60\], got 99\.0"),
        ("max_people:=2.5", r"caption\.max_people: expected int, got float 2\.5"),
        ("publish_abstentions:=1", r"caption\.publish_abstentions: expected bool, got int 1"),
    ],
)
def test_a_wrong_value_at_start_is_a_configuration_error(argument, text):
    with ros_node("caption", argument) as node, pytest.raises(ConfigError, match=text):
        declare(node, CaptionConfig)


def test_a_set_swaps_the_whole_configuration_or_changes_nothing():
    with ros_node() as node:
        parameters = declare(node, CaptionConfig)
        heard = []
        parameters.on_change(heard.append)
        before = parameters.current

        def accepted(**values):
            return node.set_parameters_atomically([Parameter(k, value=v) for k, v in values.items()]).successful

        assert accepted(stride_s=3, max_people=2)
        assert parameters.current == before.with_values({"stride_s": 3.0, "max_people": 2})
        assert heard == [parameters.current]
        for bad in ({"stride_s": 0.0}, {"stride_s": "x"}, {"max_people": 0}, {"min_confidence": float("nan")}):
            assert not accepted(window_s=9.0, **bad)
        assert parameters.current.window_s == before.window_s
        assert len(heard) == 1


def test_the_reason_of_a_refusal_names_the_parameter():
    with ros_node() as node:
        declare(node, CaptionConfig)
        result = node.set_parameters([Parameter("stride_s", value="x")])[0]
        assert result.reason == "caption.stride_s: expected float, got str 'x'"
        assert "stride_s out of range" in node.set_parameters([Parameter("stride_s", value=99.0)])[0].reason


def test_a_fixed_parameter_cannot_be_set_while_running():
    with ros_node("face") as node:
        parameters = declare(node, FaceConfig)
        assert "read-only" in node.set_parameters([Parameter("precision", value="bf16")])[0].reason
        assert parameters.current.precision == "fp32"


def heard_log(node, logs):
    node.create_subscription(Log, "/rosout", logs.append, 100)


def test_an_unknown_name_is_warned_about_on_rosout():
    with ros_node("caption", "strid_s:=2.0") as node:
        logs: list[Log] = []
        heard_log(node, logs)
        spin_until([node], lambda: node.count_publishers("/rosout") and node.count_subscribers("/rosout"))
        declare(node, CaptionConfig)
        spin_until(
            [node],
            lambda: any("caption.strid_s: no such parameter; known: deadline_s, max_people" in x.msg for x in logs),
        )


def test_core_logging_reaches_rosout_at_its_severity():
    with ros_node() as node:
        logs: list[Log] = []
        heard_log(node, logs)
        spin_until([node], lambda: node.count_publishers("/rosout") and node.count_subscribers("/rosout"))
        handler = RosLogHandler(node.get_logger())
        for level, text in ((logging.WARNING, "slow"), (logging.ERROR, "broken"), (logging.INFO, "fine")):
            handler.emit(logging.LogRecord("emo_perception.x", level, "f", 1, "%s stage", (text,), None))
        wanted = {("slow stage", 30), ("broken stage", 40), ("fine stage", 20)}
        spin_until([node], lambda: wanted <= {(log.msg, log.level) for log in logs})


def test_diagnostics_are_published_every_second_even_when_simulated_time_stands_still():
    with ros_node("caption", "use_sim_time:=true") as node:
        received: list[DiagnosticArray] = []
        node.create_subscription(DiagnosticArray, "/diagnostics", received.append, 10)
        diagnostics = Diagnostics(node, lambda: Status("stage", Level.WARN, "slow", {"rate_hz": 29.97, "dropped": 3}))
        diagnostics.add(lambda: Status("other"))
        spin_until([node], lambda: len(received) >= 2)
        stage, other = received[-1].status
        assert (stage.name, stage.level, stage.message) == ("caption: stage", b"\x01", "slow")
        assert {v.key: v.value for v in stage.values} == {"rate_hz": "29.970", "dropped": "3"}
        assert (other.name, other.level) == ("caption: other", b"\x00")


def test_the_status_of_a_worker_follows_its_counters():
    stats, box = StageStats(), Mailbox[int]("box", DropPolicy.KEEP_LATEST)
    status = WorkStatus("face", stats.snapshot, box.counts, {"backend": "openvino"}, lambda: {"faces": 2})
    assert status().level is Level.STALE
    with stats.measured(1):
        pass
    now = status()
    assert (now.level, now.values["processed"], now.values["backend"], now.values["faces"]) == (
        Level.OK, 1, "openvino", 2,
    )  # fmt: skip
    assert now.values["rate_hz"] > 0
    box.offer(1)
    box.offer(2)
    dropping = status()
    assert (dropping.level, dropping.values["offered"], dropping.values["dropped"]) == (Level.WARN, 2, 1)
    assert "1 inputs dropped" in dropping.message
    assert status().level is Level.OK  # only what is new since the last report
    with pytest.raises(ZeroDivisionError), stats.measured(2):
        _ = 1 / 0
    assert "1 inputs failed" in status().message


# Processes


def run_python(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("make", ["sys.modules['emo_msgs'] = None", "sys.modules['emo_msgs'] = sources()"])
def test_messages_that_were_not_built_are_named_with_the_command(make):
    """Absent altogether, or shadowed by the folder of their sources, which imports as an empty package."""
    code = f"""
import sys, importlib.util as util, importlib.machinery as machinery
def sources():
    package = util.module_from_spec(machinery.PathFinder.find_spec('emo_msgs', [{str(ROOT)!r}]))
    package.__path__ = [{str(ROOT / "emo_msgs")!r}]
    return package
{make}
from emo_perception.nodes.__main__ import main
sys.exit(main('caption', []))
"""
    result = run_python("-c", code)
    assert result.returncode == EXIT_CONFIG
    assert len(result.stderr.splitlines()) == 1
    assert "colcon build --base-paths src src/" in result.stderr
    assert "pip install ./emo_msgs" in result.stderr


def test_ros_that_is_missing_is_named_with_the_command():
    code = "import sys; sys.modules['rclpy'] = None\nfrom emo_perception.nodes.__main__ import main\nsys.exit(main('caption', []))"
    result = run_python("-c", code)
    assert result.returncode == EXIT_CONFIG
    assert "no ROS 2 here (rclpy is missing)" in result.stderr


def test_an_unknown_process_lists_the_choices():
    result = run_python("-m", "emo_perception.nodes", "kettle")
    assert result.returncode == 1
    assert all(process in result.stderr for process in ("usage:", *PROCESSES))
