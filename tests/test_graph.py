"""The table of processes: options in, commands, parameters and topics out."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from emo_perception.config import NODE_CONFIGS, ConfigError, load_profile, read_profile
from emo_perception.files import config_dir, profile_file, profiles
from emo_perception.graph import PERCEPTION_NODES, Backoff, GraphOptions, notes, option_choices, processes
from emo_perception.transport import PROFILE_VARIABLES, fastdds_environment


def table(**options):
    return {process.name: process for process in processes(GraphOptions(**options))}


def test_without_a_source_all_but_the_source_run_on_the_topics_of_others():
    assert list(table()) == ["perception", "caption", "cause"]
    assert notes(GraphOptions()) == ("waiting for image_raw and audio from other nodes",)


def test_a_source_is_a_process_of_its_own_and_publishes_to_perception():
    got = table(source="clip.mp4", loop=True)
    assert list(got) == ["source", "perception", "caption", "cause"]
    assert got["source"].parameters["source"] == {"uri": "clip.mp4", "loop": True}
    assert got["perception"].parameters["perception"]["source_inside"] is False
    assert "source" not in got["perception"].parameters
    assert notes(GraphOptions(source="clip.mp4")) == ()


def test_privacy_opens_the_source_inside_perception_and_turns_the_overlay_off():
    got = table(source="/dev/video0", privacy=True)
    assert list(got) == ["perception", "caption", "cause"]
    assert got["cause"].parameters["cause"]["persist"] is False
    parameters = got["perception"].parameters
    assert parameters["perception"]["source_inside"] is True
    assert parameters["source"] == {"uri": "/dev/video0"}
    assert parameters["overlay"] == {"enabled": False}


def test_privacy_names_the_topics_of_others_that_it_cannot_cover():
    told = " ".join(notes(GraphOptions(privacy=True, image_topic="/camera/image_raw")))
    assert "does not cover /camera/image_raw and audio" in told


def test_the_overlay_can_be_turned_off():
    assert table(overlay=False)["perception"].parameters["overlay"] == {"enabled": False}
    assert "overlay" not in table()["perception"].parameters


@pytest.mark.parametrize(
    ("topic", "transport"), [("/camera/image_raw", None), ("/camera/image_raw/compressed", "compressed")]
)
def test_a_camera_drivers_topic_is_remapped_with_its_compressed_twin(topic, transport):
    perception = table(image_topic=topic, audio_topic="mic")["perception"]
    assert perception.remappings == (
        ("image_raw", "/camera/image_raw"),
        ("image_raw/compressed", "/camera/image_raw/compressed"),
        ("audio", "mic"),
    )
    assert perception.parameters["perception"].get("image_transport") == transport


def test_a_recorder_hears_the_same_topics_and_is_never_started_twice_into_one_bag(tmp_path):
    got = table(image_topic="/camera/image_raw/compressed", record=str(tmp_path / "bag"))
    assert list(got) == ["perception", "caption", "cause", "recorder"]
    assert got["recorder"].parameters == {"recorder": {"folder": str(tmp_path / "bag")}}
    assert got["recorder"].remappings == got["perception"].remappings
    assert [name for name, process in got.items() if not process.restart] == ["recorder"]


def test_sound_of_another_node_silences_the_source():
    assert table(source="/dev/video0", audio_topic="/mic")["source"].parameters["source"]["audio"] is False


def test_the_command_line_never_names_a_node_but_may_set_the_namespace():
    for process in processes(GraphOptions(source="test://", namespace="robot1", log_level="debug")):
        arguments = process.ros_arguments(Path("p.yaml"))
        assert arguments[:5] == ["--ros-args", "--params-file", "p.yaml", "--log-level", "debug"]
        assert "__ns:=/robot1" in arguments
        assert not any("__node" in argument or "__name" in argument for argument in arguments)


def test_simulated_time_reaches_every_node():
    for process in processes(GraphOptions(source="test://", use_sim_time=True)):
        assert yaml.safe_load(process.parameter_file())["/**"] == {"ros__parameters": {"use_sim_time": True}}


def test_the_users_file_lies_over_the_profile_and_ros_parameters_pass_through(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "face:\n  ros__parameters:\n    max_faces: 2\n    qos_overrides:\n      /faces:\n        publisher: {depth: 3}\n"
        "/**/source:\n  ros__parameters: {fps: 10}\n"
    )
    got = table(source="0123", params_file=str(mine))
    assert got["perception"].parameters["face"] == {
        **read_profile(profile_file("start"))["face"],
        "max_faces": 2,
        "qos_overrides": {"/faces": {"publisher": {"depth": 3}}},
    }
    written = yaml.safe_load(got["source"].parameter_file())
    assert written["/**/source"]["ros__parameters"] == {
        "fps": 10,
        "uri": "0123",
    }  # a text, though it looks like a number


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "a.mp4", "image_topic": "/camera/image_raw"}, "exclude each other.*leave one of the two out"),
        ({"source": "a.mp4", "privacy": True, "audio_topic": "/mic"}, "privacy keeps sound off.*leave it out"),
        ({"record": "bag", "privacy": True}, "privacy and record exclude.*open the camera here"),
        ({"loop": True}, "loop plays a file again.*add source"),
        ({"image_topic": "/1camera"}, "image_topic: expected a ROS name.*got '/1camera'.*ros2 topic list"),
        ({"namespace": "a b"}, "namespace: expected a ROS name"),
        ({"profile": "nope"}, "expected a profile out of: .*start.*got 'nope'"),
        ({"params_file": "nope.yaml"}, "nope.yaml: cannot read"),
        ({"log_level": "loud"}, "log_level: expected one of debug, info"),
        ({"privacy": "yes"}, "privacy: expected bool, got str 'yes'"),
    ],
)
def test_options_that_cannot_be_are_refused_with_what_to_do(options, message):
    with pytest.raises(ConfigError, match=message):
        table(**options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("face: {ros__parameters: {max_face: 2}}", "face.max_face: no such parameter; known: .*max_faces"),
        ("face: {ros__parameters: {max_faces: 0}}", r"max_faces: expected a value in \[1, 64\], got 0"),
        ("faces: {ros__parameters: {max_faces: 2}}", "unknown node 'faces'; known: source, perception, face"),
        ("face: {max_faces: 2}", "expected a block 'ros__parameters:'"),
        ("[1, 2]", "expected a mapping of node names, got list"),
        ("a: [", "not a YAML file"),
        ("source: {ros__parameters: {uri: a.mp4}}", "source.uri is not set in a file but by the option source"),
    ],
)
def test_a_users_file_that_cannot_be_is_refused_by_name(tmp_path, text, message):
    mine = tmp_path / "mine.yaml"
    mine.write_text(text)
    with pytest.raises(ConfigError, match=f"mine.yaml: .*{message}"):
        table(params_file=str(mine))


def test_texts_of_launch_arguments_become_options():
    texts = {"source": "test://", "privacy": "True", "overlay": "false", "namespace": ""}
    assert GraphOptions.of_text(texts) == GraphOptions(source="test://", privacy=True, overlay=False)
    with pytest.raises(ConfigError, match=r"graph.privacy: expected bool, got str 'maybe'"):
        GraphOptions.of_text({"privacy": "maybe"})
    with pytest.raises(ConfigError, match=r"graph.sauce: no such parameter; known: .*source"):
        GraphOptions.of_text({"sauce": "x"})


def test_every_option_is_described_and_its_default_is_a_choice():
    for option in dataclasses.fields(GraphOptions):
        assert len(option.metadata["description"]) > 10, option.name
        choices = option_choices(option)
        assert not choices or option.default in choices, option.name


def test_pictures_and_privacy_exclude_each_other(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("visual: {ros__parameters: {pictures: true}}", encoding="utf-8")
    assert table(source="test://", params_file=str(mine))["perception"].parameters["visual"] == {"pictures": True}
    for options in ({"source": "test://"}, {"image_topic": "camera/image"}):
        with pytest.raises(
            ConfigError, match=r"visual\.pictures sends pictures over a topic, and privacy .*leave privacy"
        ):
            table(privacy=True, params_file=str(mine), **options)


def test_every_node_belongs_to_exactly_one_process():
    assert sorted((*PERCEPTION_NODES, "source", "caption", "cause", "recorder")) == sorted(NODE_CONFIGS)


def test_every_profile_loads():
    assert "start" in profiles()
    for name in profiles():
        assert set(load_profile(profile_file(name))) == set(NODE_CONFIGS)


def test_crashes_in_a_row_wait_longer_and_a_good_run_starts_over():
    backoff = Backoff(first_s=1.0, most_s=5.0, healthy_s=60.0)
    assert [backoff.after(ran_s) for ran_s in (0.1, 0.1, 0.1, 0.1, 61.0, 0.1)] == [1.0, 2.0, 4.0, 5.0, 1.0, 2.0]


def test_fast_dds_gets_both_variables_unless_the_user_chose_a_profile():
    ours = fastdds_environment({})
    assert set(ours) == set(PROFILE_VARIABLES)
    assert set(ours.values()) == {str(config_dir() / "fastdds_shm.xml")}
    for name in PROFILE_VARIABLES:
        assert fastdds_environment({name: "/my/profile.xml"}) == {}


def test_the_table_needs_no_ros():
    code = (
        "import sys; from emo_perception.graph import GraphOptions, processes; import emo_perception.tools.run;"
        "processes(GraphOptions(source='test://'));"
        "print([m for m in ('rclpy', 'launch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
