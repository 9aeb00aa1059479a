"""The ``emo`` command: help without heavy imports, entry points of other packages, and commands that cannot load."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

from emo_perception.tools import cli

ROOT = Path(cli.__file__).parents[2]


def emo(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``emo`` as a checkout that is not installed does, with a folder of further packages on the path."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(p) for p in (ROOT, path) if p)}
    return subprocess.run(
        [sys.executable, "-m", "emo_perception.tools.cli", *arguments],
        env=environment, cwd=path or ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """An installed package with three subcommands: one that works, one that lacks a dependency, one that is gone."""
    info = tmp_path / "plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[{cli.GROUP}]\ncount = plugin_count:main\nbroken = plugin_broken:main\ngone = plugin_gone:main\n"
    )
    (tmp_path / "plugin_count.py").write_text(
        '"""``emo count``: count the arguments."""\n\ndef main(argv):\n    return len(argv)\n'
    )
    (tmp_path / "plugin_broken.py").write_text('"""Needs more."""\nimport rclpy_is_absent.sub\n')
    return tmp_path


def test_a_checkout_knows_the_commands_that_an_installation_registers() -> None:
    (call,) = (
        node
        for node in ast.walk(ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setup"
    )
    (groups,) = (ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg == "entry_points")
    registered = (entry.split(" = ") for entry in groups[cli.GROUP])
    assert dict(registered) == cli.BUILT_IN


def test_help_lists_every_command_with_a_line_of_its_own() -> None:
    result = emo("--help")
    assert result.returncode == 0
    for name, command in cli.commands().items():
        line = next(line for line in result.stdout.splitlines() if line.startswith(f"  {name} "))
        assert line.split(maxsplit=1)[1] == cli.summary(command) != ""


def test_help_imports_no_command() -> None:
    script = (
        "import sys; from emo_perception.tools import cli; cli.main(['--help']); "
        "print([m for m in sys.modules if m in ('numpy', 'cv2', 'openvino', 'rclpy', 'torch', 'emo_models')])"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_without_a_command_the_usage_is_told_and_the_code_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "weights" in capsys.readouterr().out


def test_an_unknown_command_lists_the_choices() -> None:
    result = emo("wieghts")
    assert result.returncode == 2
    assert "no command 'wieghts' (did you mean 'weights'?); there are:" in result.stderr
    assert all(name in result.stderr for name in cli.commands())


def test_the_version_is_told() -> None:
    result = emo("--version")
    assert result.returncode == 0
    try:
        expected = importlib.metadata.version(cli.DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        expected = "(a checkout, not installed)"
    assert result.stdout == f"emo {expected}\n"


def test_arguments_and_exit_code_pass_through(plugin: Path) -> None:
    assert emo("weights", "pull", "--help").stdout.startswith("usage: emo weights pull")
    assert emo("weights", "show", "nothing").returncode == 1
    assert emo("count", "--version", "-h", "x", path=plugin).returncode == 3


def test_commands_of_other_packages_are_found(plugin: Path) -> None:
    out = emo("--help", path=plugin).stdout
    assert "count    count the arguments." in out
    assert "broken   Needs more." in out
    assert "gone     (cannot be loaded: no module plugin_gone)" in out
    assert "weights  list, pull" in out


def test_a_command_that_cannot_be_loaded_says_why_and_what_to_do(plugin: Path) -> None:
    result = emo("broken", path=plugin)
    assert result.returncode == 3
    assert result.stderr == f"emo: broken: cannot be loaded: No module named 'rclpy_is_absent'; {cli.REMEDY}\n"


def test_missing_ros_and_missing_messages_have_their_own_remedy(plugin: Path) -> None:
    for module, remedy in cli.REMEDIES.items():
        (plugin / "plugin_broken.py").write_text(
            f'"""Needs {module}."""\nraise ModuleNotFoundError("No module named {module}", name="{module}.node")\n'
        )
        assert remedy in emo("broken", path=plugin).stderr
