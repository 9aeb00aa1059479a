"""``emo toy``: makes a world of drawn people, to train and measure every part without anybody's data."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from training.datasets.record import DatasetError


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``emo toy``; returns 0, or 2 for a request that cannot be met."""
    parser = argparse.ArgumentParser(prog="emo toy", description="A world of drawn people: see docs/toy_world.md.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_world(commands)
    _add_pictures(commands)
    _add_train(commands)
    arguments = parser.parse_args(argv)
    code: int = arguments.run(arguments)
    return code


def _add_world(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    world = commands.add_parser(
        "world", help="draw clips and dialogues as data sets of MAFW's, MELD's and ECEM's layout"
    )
    world.add_argument(
        "--out", type=Path, default=Path("toy/world"), help="folder for mafw, meld and ecem; default: %(default)s"
    )
    world.add_argument("--seed", type=int, default=0, help="another number, another world; default: %(default)s")
    world.add_argument("--clips", type=int, default=400, help="captioned clips; default: %(default)s")
    world.add_argument("--dialogues", type=int, default=100, help="default: %(default)s")
    world.add_argument("--size", default="320x240", help="pixels of a clip; default: %(default)s")
    world.add_argument("--fps", type=int, default=10, help="images per second; default: %(default)s")
    world.add_argument("--seconds", type=float, default=2.0, help="mean length of a clip; default: %(default)s")
    world.add_argument("--people", type=int, default=60, help="different people in training; default: %(default)s")
    world.set_defaults(run=_world)


def _add_pictures(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    drawn = {
        "faces": "draw single faces in folders by what they show",
        "scenes": "draw single scenes with a sentence that says what happens",
    }
    for kind, about in drawn.items():
        pictures = commands.add_parser(kind, help=about)
        pictures.add_argument("--out", type=Path, default=Path("toy") / kind, help="folder; default: %(default)s")
        pictures.add_argument("--seed", type=int, default=6, help="default: %(default)s")
        pictures.add_argument("--pictures", type=int, default=2400, help="default: %(default)s")
        pictures.set_defaults(run=_pictures, kind=kind)


def _pictures(arguments: argparse.Namespace) -> int:
    if arguments.out.is_dir() and any(arguments.out.iterdir()):
        print(f"emo toy: {arguments.out} is not empty; delete it, or give another folder with --out", file=sys.stderr)
        return 2
    from training.toyworld.pictures import write_faces, write_scenes

    if arguments.kind == "faces":
        counts = write_faces(arguments.out, arguments.seed, arguments.pictures)
        print(", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    else:
        print(f"{write_scenes(arguments.out, arguments.seed, arguments.pictures)} different captions")
    return 0


def _add_train(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    trained = commands.add_parser(
        "train", help="train small versions of all networks on drawn worlds, as make toy does"
    )
    trained.add_argument(
        "--out", type=Path, default=Path("toy/out"), help="metrics, report, runs; default: %(default)s"
    )
    trained.add_argument("--worlds", type=Path, default=Path("toy"), help="folder of the worlds; default: %(default)s")
    trained.add_argument("--jobs", type=int, default=0, help="steps side by side; default: one on each core")
    trained.set_defaults(run=_train)


def _train(arguments: argparse.Namespace) -> int:
    try:
        from training.toy import ToyError, train_toys
    except ImportError as error:
        print(f"emo toy: {error}; in the checkout, type: make train", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a kill ends as Ctrl-C does: with checkpoints
    try:
        train_toys(arguments.worlds, arguments.out, jobs=arguments.jobs)
    except (ToyError, OSError) as error:
        print(f"emo toy: {error}", file=sys.stderr)
        return 1
    return 0


def _world(arguments: argparse.Namespace) -> int:
    try:
        from training.toyworld.clips import ClipOptions
        from training.toyworld.world import make_world
    except ImportError as error:
        print(f"emo toy: {error}; in the checkout, type: make train", file=sys.stderr)
        return 2
    started = time.monotonic()
    try:
        options = ClipOptions(
            size_wh=_size(arguments.size), fps=arguments.fps, seconds=arguments.seconds, people=arguments.people
        )
        make_world(
            arguments.out, seed=arguments.seed, clips=arguments.clips, dialogues=arguments.dialogues, options=options,
            progress=_show,
        )  # fmt: skip
    except (DatasetError, ValueError, OSError) as error:
        print(f"emo toy: {error}", file=sys.stderr)
        return 2
    print(f"\n{arguments.out}: made in {time.monotonic() - started:.0f} s; look at it: emo data check mafw "
          f"{arguments.out / 'mafw'}" if arguments.clips else f"\n{arguments.out}: made")  # fmt: skip
    return 0


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise ValueError(f"--size: expected WIDTHxHEIGHT as 320x240, got {text!r}")
    return int(width), int(height)


def _show(done: int, total: int) -> None:
    if sys.stderr.isatty() or done == total:
        print(f"\r{done} of {total}", end="", file=sys.stderr, flush=True)
