"""The ``emo`` command: finds its subcommands through entry points and runs one of them.

A subcommand is a function ``main(argv) -> int`` registered in the entry-point group ``emo_perception.commands``; the
first line of its module's docstring ("``emo NAME``: what it does.") is its help. Other packages add subcommands the same way.
"""

from __future__ import annotations

import ast
import difflib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Final

from emo_perception.preflight import BUILD_MESSAGES, INSTALL_ROS

GROUP: Final = "emo_perception.commands"
DISTRIBUTION: Final = "emo_perception"

#: The subcommands of this package, for a checkout that is not installed; setup.py registers the same ones.
BUILT_IN: Final = {
    "ablate": "training.tables.command:main",
    "bag": "emo_perception.tools.bag:main",
    "cause": "training.causes:main",
    "data": "training.datasets.command:main",
    "demo": "emo_perception.tools.demo:main",
    "doctor": "emo_perception.tools.doctor.command:main",
    "engines": "emo_perception.tools.engines:main",
    "eval": "training.evaluation.command:main",
    "neutral": "training.neutral:main",
    "run": "emo_perception.tools.run:main",
    "toy": "training.toyworld.command:main",
    "train": "training.trainer.command:main",
    "weights": "emo_perception.tools.weights:main",
}

#: Module that is missing -> what to do about it; for any other, the package's own dependencies.
REMEDIES: Final = {"rclpy": INSTALL_ROS, "emo_msgs": BUILD_MESSAGES}
REMEDY: Final = "in the checkout, type: make setup"

USAGE: Final = "usage: emo [--help] [--version] COMMAND ..."


def commands(group: str = GROUP, built_in: Mapping[str, str] = BUILT_IN) -> dict[str, EntryPoint]:
    """Name -> where the subcommand is, sorted by name; what is installed wins over what is built in."""
    found = {name: EntryPoint(name, target, group) for name, target in built_in.items()}
    found.update({entry.name: entry for entry in importlib.metadata.entry_points(group=group)})
    return dict(sorted(found.items()))


def summary(command: EntryPoint) -> str:
    """First line of the docstring of a subcommand's module, which is read but not imported."""
    try:
        spec = importlib.util.find_spec(command.module)
    except ImportError as error:
        return f"(cannot be loaded: {error})"
    if spec is None or spec.origin is None:
        return f"(cannot be loaded: no module {command.module})"
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return re.sub(rf"^emo (\w+ )?{re.escape(command.name)}: ", "", text.partition("\n")[0].replace("``", ""))


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``emo``; returns the exit code: that of the subcommand, or 2 for a wrong usage, 3 where it cannot load."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    known = commands()
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help(known))
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"emo {_version()}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in known:
        return _fail(2, f"no command {name!r}{_guess(name, known)}; there are: {', '.join(known)}\n{USAGE}")
    return run_command(known[name], rest)


def run_command(command: EntryPoint, arguments: list[str]) -> int:
    """Load a subcommand and run it; returns its exit code, 3 where it cannot be loaded and 130 after Ctrl-C."""
    try:
        function = command.load()
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        return _fail(3, f"{command.name}: cannot be loaded: {error}; {REMEDIES.get(missing, REMEDY)}")
    try:
        code: int = function(arguments)
    except KeyboardInterrupt:
        return 130
    return code


def _help(known: dict[str, EntryPoint]) -> str:
    width = max(len(name) for name in known)
    lines = [f"  {name:<{width}}  {summary(command)}" for name, command in known.items()]
    return "\n".join([USAGE, "", "commands:", *lines, "", "emo COMMAND --help tells more."])


def _version() -> str:
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "(a checkout, not installed)"


def _guess(name: str, known: dict[str, EntryPoint]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _fail(code: int, message: str) -> int:
    print(f"emo: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
