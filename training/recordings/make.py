"""``emo bag make``: turn a split of a data set, or of a drawn world, into bags, each with what is right about it inside."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from emo_perception.bags import STORAGES, BagError
from emo_perception.config import EXIT_CONFIG
from training.datasets import READERS
from training.datasets.command import reader_options
from training.datasets.record import SPLITS, DatasetError
from training.prepare.video import UnreadableVideo

if TYPE_CHECKING:
    from training.recordings.scenes import Scene

EXIT_INCOMPLETE = 1
TOY = "toy"
DEFAULT_TOY_LIMIT = 5
#: One clip in five of a drawn world is for tests, and of its dialogues two in ten.
TOY_SHARE = 5
#: Neutral and compound clips have no caption: so many more are drawn than are wanted.
UNCAPTIONED = 1.25


def main(argv: Sequence[str] | None = None) -> int:
    """``emo bag make``; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return _make(arguments)
    except (BagError, DatasetError) as error:
        print(f"emo bag make: {error}", file=sys.stderr)
    except ImportError as error:
        print(f"emo bag make: {error}; in the checkout, type: make train", file=sys.stderr)
    except OSError as error:
        print(f"emo bag make: {error.filename or arguments.out}: {error.strerror}", file=sys.stderr)
    return EXIT_CONFIG


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="emo bag make", description=(__doc__ or "").replace("``", ""),
        epilog="exit code: 0 all well, 1 a clip could not be used, 2 wrong usage, 78 nothing could be done",
    )  # fmt: skip
    names = ", ".join(sorted(READERS))
    parser.add_argument("--dataset", required=True, metavar="NAME", help=f"{TOY}: a drawn world; or one of {names}")
    parser.add_argument(
        "--data", type=Path, metavar="ROOT", help=f"its folder; of {TOY}, what 'emo toy world' made (default: draw one)"
    )
    parser.add_argument("--option", action="append", default=[], metavar="K=V", help="of the reader; repeatable")
    parser.add_argument("--split", choices=SPLITS, default="test", help="which part (default: %(default)s)")
    parser.add_argument(
        "--limit", type=_count, metavar="N",
        help=f"bags at the most, of each kind (default: all; of a world drawn here {DEFAULT_TOY_LIMIT})",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="new folder, for the folders of the bags"
    )
    parser.add_argument(
        "--images", choices=("auto", "raw", "jpeg", "png"), default="auto",
        help=f"form of the images; raw and png keep every pixel (default: raw of {TOY}, else jpeg)",
    )  # fmt: skip
    parser.add_argument("--storage", choices=tuple(STORAGES), default="mcap", help="format (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the world that is drawn (default: %(default)s)")
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text}")
    return value


def _make(arguments: argparse.Namespace) -> int:
    out: Path = arguments.out
    if out.exists() and any(out.iterdir()):
        raise BagError(f"{out} is not empty: choose another folder, or move it away")
    from training.recordings.staging import write_scene

    images = arguments.images
    if images == "auto":
        images = "raw" if arguments.dataset == TOY else "jpeg"
    kinds: Counter[str] = Counter()
    troubles: list[str] = []
    bags = 0
    with ExitStack() as stack:
        for scene in _scenes(arguments, stack):
            try:
                references = write_scene(scene, out / scene.name, storage=arguments.storage, images=images)
            except UnreadableVideo as error:
                troubles.append(f"{scene.name}: {error}")
                _remove(out / scene.name)
                continue
            bags += 1
            kinds.update(reference.kind for reference in references)
            if scene.lacking:
                troubles.append(f"{scene.name}: without {', '.join(scene.lacking)}, whose clips are not there")
    if not bags:
        raise BagError(f"no bag: none of the clips can be decoded; the first: {troubles[0]}")
    told = ", ".join(f"{count} {kind}s" for kind, count in sorted(kinds.items()))
    print(f"{bags} bags in {out}, with references for {told}; then: emo bag eval {out} --profile start --out results")
    for trouble in troubles:
        print(f"emo bag make: {trouble}", file=sys.stderr)
    return EXIT_INCOMPLETE if troubles else 0


def _scenes(arguments: argparse.Namespace, stack: ExitStack) -> Iterator[Scene]:
    """What is to be made into bags. Raises :class:`DatasetError`."""
    from training.recordings.scenes import TOY_PARTS, scenes_of

    root, name = arguments.data, arguments.dataset
    if name != TOY:
        options = reader_options(name, arguments.option)
        if root is None:
            raise DatasetError(f"expected the folder of {name}; name it with --data DIR")
        yield from islice(scenes_of(name, root, arguments.split, options), arguments.limit)
        return
    if arguments.option:
        raise DatasetError(f"--option belongs to the reader of a data set; {TOY} has none, got {arguments.option[0]!r}")
    limit = arguments.limit
    if root is None:
        limit = limit or DEFAULT_TOY_LIMIT
        root = _drawn(stack, arguments.seed, limit)
    parts = [part for part in TOY_PARTS if (root / part).is_dir()]
    if not parts:
        raise DatasetError(
            f"{root}: expected a drawn world with {' or '.join(TOY_PARTS)}; make one: emo toy world --out {root}"
        )
    for part in parts:
        yield from islice(scenes_of(part, root / part, arguments.split, {}), limit)


def _drawn(stack: ExitStack, seed: int, limit: int) -> Path:
    """A world with enough tests, in a folder that goes when the stack is closed."""
    from training.toyworld.world import make_world

    root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emo_world_")))
    print(f"drawing a world for {limit} clips and {limit} dialogues", file=sys.stderr)
    make_world(root, seed=seed, clips=TOY_SHARE * round(limit * UNCAPTIONED + 2), dialogues=TOY_SHARE * limit)
    return root


def _remove(folder: Path) -> None:
    """Remove a bag that was not finished."""
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


if __name__ == "__main__":
    sys.exit(main())
