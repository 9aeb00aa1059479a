"""The supervisor with real child processes: endings, restarts, and that nobody outlives it."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from emo_perception.config import EXIT_CONFIG
from emo_perception.graph import Backoff
from emo_perception.tools.supervisor import EXIT_CRASH, GENTLE, Supervisor, child_environment, describe_exit
from emo_perception.transport import PROFILE_VARIABLES

ROOT = Path(__file__).parents[1]
LIMIT_S = 30.0

#: Says when it is ready, counts its SIGINTs, ends a moment after the first one.
POLITE = """
import os, signal, time
count = 0
def handle(*_):
    global count
    count += 1
signal.signal(signal.SIGINT, handle)
print("ready", os.getpid())
while not count:
    time.sleep(0.01)
time.sleep(0.2)
print("interrupted", count)
"""

#: Runs POLITE children as ``emo run`` runs its nodes.
DRIVER = """
import sys
from emo_perception.tools.run import Console, run_until_ended
from emo_perception.tools.supervisor import Supervisor
console = Console(sys.stdout)
commands = {name: [sys.executable, sys.argv[1]] for name in ("one", "two")}
sys.exit(run_until_ended(Supervisor(commands, console), console))
"""


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def python(code, *arguments):
    return [sys.executable, "-I", "-S", "-u", "-c", code, *map(str, arguments)]


class Lines(list):
    """Collects output; a list may be appended to from several threads."""

    def __call__(self, name, line):
        self.append(f"{name}: {line}")

    def count_of(self, start):
        return sum(line.startswith(start) for line in list(self))


@contextmanager
def driver(tmp_path, wait_for):
    """A supervisor in a process of its own, with two children that are ready; gives it, its lines, the children's pids."""
    script = tmp_path / "polite.py"
    script.write_text(POLITE)
    lines = []
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(script)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    reader = threading.Thread(target=lambda: lines.extend(iter(process.stdout.readline, "")))
    reader.start()
    try:
        wait_for(lambda: sum("ready" in line for line in lines) == 2, "both children ready")
        yield process, lines, [int(line.split()[-1]) for line in lines if "ready" in line]
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join()
        process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_terminals_group_reaches_each_child_once(tmp_path, number, wait_for):
    with driver(tmp_path, wait_for) as (process, lines, pids):
        os.killpg(process.pid, number)
        assert process.wait(LIMIT_S) == 0
        wait_for(lambda: sum("interrupted" in line for line in lines) == 2, "their last words")
        assert sorted(lines[-2:]) == ["[one] interrupted 1\n", "[two] interrupted 1\n"]
        assert not any(alive(pid) for pid in pids)


def test_a_second_ctrl_c_does_not_break_the_end(tmp_path, wait_for):
    with driver(tmp_path, wait_for) as (process, lines, pids):
        process.send_signal(signal.SIGINT)
        wait_for(lambda: any("ending" in line for line in lines), "the first one noticed")
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 0
        assert not any(alive(pid) for pid in pids)
        assert not any("Traceback" in line for line in lines)


@pytest.mark.skipif(sys.platform != "linux", reason="children are bound to their parent by Linux")
def test_children_end_when_the_supervisor_is_killed(tmp_path, wait_for):
    with driver(tmp_path, wait_for) as (process, _, pids):
        process.kill()
        wait_for(lambda: not any(alive(pid) for pid in pids), "the children have ended")


def test_the_run_ends_when_nobody_reads_its_output_any_more(tmp_path):
    script = tmp_path / "chatty.py"
    script.write_text("import time\nwhile True:\n    print('word')\n    time.sleep(0.01)")
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(script)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert b"word" in process.stdout.readline()
    process.stdout.close()
    assert process.wait(LIMIT_S) == 0
    assert process.stderr.read() == b""
    process.stderr.close()


def test_children_that_do_their_work_end_the_run_well(wait_for):
    lines = Lines()
    with Supervisor({"one": python("print('a'); print('b')"), "two": python("print('ü')")}, lines) as supervisor:
        assert supervisor.wait(LIMIT_S)
        wait_for(lambda: supervisor.finished("one") and supervisor.finished("two"), "both finished")
    assert supervisor.exit_code == 0
    assert [line for line in lines if line.startswith("one")] == ["one: a", "one: b"]
    assert "two: ü" in lines
    assert lines.count_of("emo: one has ended") == 1


def test_a_child_that_crashes_is_started_again_after_longer_and_longer_waits(tmp_path, wait_for):
    code = (
        "import os, pathlib, sys, time; file = pathlib.Path(sys.argv[1]); file.write_text(file.read_text() + 'x');"
        "runs = len(file.read_text())\n"
        "if runs == 1: sys.exit(3)\n"
        "if runs == 2: os.abort()\n"
        "print('runs now'); time.sleep(100)"
    )
    runs = tmp_path / "runs"
    runs.write_text("")
    lines = Lines()
    with Supervisor({"node": python(code, runs)}, lines, backoff=lambda: Backoff(first_s=0.05)) as supervisor:
        wait_for(lambda: "node: runs now" in lines, "the third run")
        first = supervisor.pid("node")
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: lines.count("node: runs now") == 2, "the fourth run")
        assert supervisor.pid("node") != first
        assert not supervisor.finished("node")
    assert [line for line in lines if "crashed" in line] == [
        "emo: node crashed (exit code 3), next attempt in 0.05 s",
        "emo: node crashed (signal SIGABRT), next attempt in 0.1 s",
        "emo: node crashed (signal SIGKILL), next attempt in 0.2 s",
    ]
    assert supervisor.exit_code == 0
    assert supervisor.pid("node") is None


def test_a_wrong_configuration_ends_the_whole_run_with_its_code():
    lines = Lines()
    commands = {
        "bad": python(f"import sys; print('face.max_faces: expected ...'); sys.exit({EXIT_CONFIG})"),
        "good": python("import time; time.sleep(100)"),
    }
    with Supervisor(commands, lines) as supervisor:
        assert supervisor.wait(LIMIT_S)
    assert supervisor.exit_code == EXIT_CONFIG
    assert lines[0] == "bad: face.max_faces: expected ..."
    assert lines.count_of("emo: bad cannot run as it is configured") == 1
    assert supervisor.pid("good") is None


def test_a_child_that_runs_once_is_not_started_again():
    lines = Lines()
    with Supervisor({"recorder": python("import sys; sys.exit(1)")}, lines, once={"recorder"}) as supervisor:
        assert supervisor.wait(LIMIT_S)
    assert lines == ["emo: recorder crashed (exit code 1) and cannot be started again"]
    assert supervisor.exit_code == EXIT_CRASH


@pytest.mark.parametrize("ignored", [("SIGINT",), ("SIGINT", "SIGTERM")])
def test_a_child_that_does_not_listen_is_ended_the_hard_way(ignored, wait_for):
    code = "import signal, sys, time\nfor n in sys.argv[1:]: signal.signal(signal.Signals[n], signal.SIG_IGN)\n"
    command = python(code + "print('ready'); time.sleep(100)", *ignored)
    lines = Lines()
    gentle = [(number, 0.3 if number.name in ignored else LIMIT_S) for number, _ in GENTLE]
    with Supervisor({"deaf": command}, lines, gentle=gentle):
        wait_for(lambda: "deaf: ready" in lines, "ready")
    sent = ["SIGTERM", "SIGKILL"][: len(ignored)]
    assert lines[1:] == [
        *(f"emo: deaf is still there, sending {number}" for number in sent),
        f"emo: deaf ended with signal {sent[-1]}",
    ]


def test_stopping_does_not_wait_for_the_next_attempt(wait_for):
    lines = Lines()
    crash = {"node": python("import sys; sys.exit(1)")}
    with Supervisor(crash, lines, backoff=lambda: Backoff(first_s=1000.0, most_s=1000.0)) as supervisor:
        wait_for(lambda: lines.count_of("emo: node crashed") == 1, "the crash")
    assert supervisor.finished("node")


def test_ends_take_seconds_not_minutes():
    assert sum(deadline_s for _, deadline_s in GENTLE) < 15


def test_a_child_of_another_environment_sets_up_its_own_libraries():
    base = {"_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1", "HOME": "/home/me"}
    same = child_environment([sys.executable, "-m", "x"], base)
    other = child_environment(["/somewhere/else/bin/python", "-m", "x"], base)
    assert same["_ROS_WHEELS_BOOTSTRAP_COMPLETE"] == "1"
    assert "_ROS_WHEELS_BOOTSTRAP_COMPLETE" not in other
    assert set(PROFILE_VARIABLES) < set(same)
    assert other["HOME"] == "/home/me"


def test_what_the_user_has_set_for_ros_stays():
    base = {"AMENT_PREFIX_PATH": "/opt/ros/jazzy", PROFILE_VARIABLES[0]: "/my/profile.xml"}
    environment = child_environment([sys.executable], base)
    assert environment["AMENT_PREFIX_PATH"] == "/opt/ros/jazzy"
    assert environment[PROFILE_VARIABLES[0]] == "/my/profile.xml"
    assert PROFILE_VARIABLES[1] not in environment


def test_exit_codes_in_words():
    assert describe_exit(1) == "exit code 1"
    assert describe_exit(-11) == "signal SIGSEGV"
    assert describe_exit(-1000) == "signal 1000"
