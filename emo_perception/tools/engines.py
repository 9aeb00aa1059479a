"""``emo engines``: build, list, check and explain the compiled networks.

Building needs torch (``make torch``); everything else does without, so that it works on a robot.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from emo_models.engines import EngineError, catalogue, describe
from emo_models.engines.backends import TABLE, backend, in_order
from emo_models.engines.backends.base import misfits
from emo_models.engines.explain import explain
from emo_models.engines.select import golden_faults, open_card
from emo_models.engines.store import Artefact, artefacts, root
from emo_models.weights import WeightsError

DESCRIPTION = """\
Networks are built into engines once, on the machine that runs them or one like it, compared with eager torch and kept
in the cache (EMO_CACHE). A robot only loads them: the preferred one that is whole and fits. Profile start needs no
building: OpenVINO reads its public files as they are."""
EXIT_CODES = "exit code: 0 all well, 1 something was not built, is damaged or does not fit, 2 wrong usage"
NEEDS_TORCH = "this needs torch; in the checkout, type: make torch"


def main(argv: Sequence[str] | None = None) -> int:
    """``emo engines``; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except (EngineError, WeightsError) as error:
        print(f"emo engines {arguments.action}: {error}", file=sys.stderr)
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="emo engines",
        description=DESCRIPTION,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(required=True, dest="action", metavar="ACTION")
    _add_build(actions.add_parser("build", help="build the engines of a profile, or tell what could be (--dry-run)"))
    listing = actions.add_parser("list", help="all artefacts in the cache, and whether they can be used here")
    listing.set_defaults(run=_list)
    verify = actions.add_parser("verify", help="check files and fields, and run the golden inputs again")
    _add_which(verify)
    verify.set_defaults(run=_verify)
    why = actions.add_parser("explain", help="in words, field by field: why an engine is or is not usable here")
    _add_which(why)
    _add_precision(why)
    why.set_defaults(run=_explain)
    bench = actions.add_parser("bench", help="time the engines against eager torch, both in one run")
    _add_which(bench)
    bench.add_argument("--precision", nargs="+", choices=tuple(catalogue.TOLERANCES), default=["fp32"])
    bench.add_argument("--batch", type=int, nargs="+", default=[1, 4], metavar="N")
    bench.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads of both (default: 1)")
    bench.set_defaults(run=_bench)
    return parser


def _add_which(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--profile", choices=catalogue.profiles(), default="start", help="whose engines (default: %(default)s)"
    )
    parser.add_argument("--network", action="append", default=[], metavar="NAME", help="only this engine; repeatable")


def _add_precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--precision", choices=tuple(catalogue.TOLERANCES), default="fp32", help="default: %(default)s")


def _add_build(parser: argparse.ArgumentParser) -> None:
    _add_which(parser)
    _add_precision(parser)
    parser.add_argument(
        "--backend", choices=("auto", "all", *TABLE), default="auto", help="auto: the preferred one here"
    )
    parser.add_argument(
        "--weights", type=Path, action="append", default=[], metavar="PATH",
        help="NETWORK.safetensors or a folder with such files; without: those in the cache, else random numbers",
    )  # fmt: skip
    parser.add_argument("--calibration", type=Path, metavar="DIR", help="pictures that int8 is calibrated on")
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], type=_setting, metavar="KEY=VALUE",
        help="setting of the backend; repeatable",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads while it is timed")
    parser.add_argument("--dry-run", action="store_true", help="only tell which operators each backend can convert")
    parser.add_argument("--strict", action="store_true", help="stop at the first engine that cannot be built")
    parser.set_defaults(run=_build)


def _setting(text: str) -> tuple[str, Any]:
    import yaml

    key, sign, value = text.partition("=")
    if not (key and sign):
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, as optimization_level=3; got {text!r}")
    return key, yaml.safe_load(value)


def _names(arguments: argparse.Namespace) -> tuple[str, ...]:
    known = catalogue.names(arguments.profile)
    if unknown := [name for name in arguments.network if name not in known]:
        raise EngineError(f"profile {arguments.profile} has no engine {unknown[0]!r}; it has: {', '.join(known)}")
    return tuple(arguments.network) or known


def _require_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise EngineError(NEEDS_TORCH)


# -- build -------------------------------------------------------------------------------------------------------------


def _build(arguments: argparse.Namespace) -> int:
    names = _names(arguments)
    if arguments.profile == "start":
        print("nothing to build: the public files of profile start are read as they are")
        return _open_cards(names)
    _require_torch()
    from emo_models.engines.source import network
    from emo_models.engines.store import workspace

    failed = 0
    with workspace() as work:
        for number, name in enumerate(names, 1):
            progress = _progress(f"[{number}/{len(names)}] {name}")
            try:
                source = network(name, arguments.profile, work, arguments.weights)
                progress(f"weights: {source.weights.origin}")
                (_dry_run if arguments.dry_run else _build_one)(source, arguments, progress)
            except EngineError as error:
                failed += 1
                print(f"emo engines build: {error}", file=sys.stderr)
                if arguments.strict:
                    break
    if failed:
        print(f"emo engines build: {failed} of {len(names)} not built", file=sys.stderr)
    return 1 if failed else 0


def _build_one(source: Any, arguments: argparse.Namespace, progress: Callable[[str], None]) -> None:
    from emo_models.engines.build import Options, build

    for name in _backends(source, arguments):
        options = Options(name, arguments.precision, dict(arguments.settings), arguments.calibration, arguments.threads)
        done = build(source, options, progress)
        manifest = done.manifest
        times = "".join(f", {t.p50_ms:.2f} ms at batch {t.batch}" for t in manifest.latency)
        error = "not compared yet" if manifest.parity is None else f"relative error {manifest.parity.relative:.2g}"
        state = "built" if done.fresh else "was there"
        progress(f"{state}: {manifest.backend} {manifest.precision}, {error}{times}")
        progress(f"  {done.folder}")


def _backends(source: Any, arguments: argparse.Namespace) -> list[str]:
    if arguments.backend != "all":
        return [arguments.backend]
    precision = source.entry.precision(arguments.precision)
    return [one.name for one in in_order() if not one.runs() and precision in one.precisions]


def _dry_run(source: Any, arguments: argparse.Namespace, progress: Callable[[str], None]) -> None:
    for one in in_order() if arguments.backend in ("auto", "all") else (backend(arguments.backend),):
        if reason := one.available():
            progress(f"{one.name}: {reason}")
            continue
        found = one.coverage(source)
        lacking = ", ".join(f"{count} {name}" for name, count in found.missing.items())
        told = f"; cannot convert {lacking}" if lacking else ""
        progress(f"{one.name}: {found.operators} operators{told} ({found.note})")


def _progress(who: str) -> Callable[[str], None]:
    began = time.monotonic()

    def tell(text: str) -> None:
        print(f"{who} {time.monotonic() - began:5.1f} s  {text}", flush=True)

    return tell


# -- what is there -----------------------------------------------------------------------------------------------------


def _list(_: argparse.Namespace) -> int:
    found = artefacts()
    if not found:
        print(f"no artefact in {root()} yet; type: emo engines build --profile toy")
    rows: list[tuple[str, ...]] = [("ENGINE", "PRESET", "BACKEND", "PRECISION", "MB", "WEIGHTS", "STATE")]
    rows += [_row(artefact) for artefact in found]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows if found else ():
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _row(artefact: Artefact) -> tuple[str, ...]:
    size = sum(file.stat().st_size for file in artefact.folder.rglob("*") if file.is_file()) / 1e6
    manifest = artefact.manifest
    if manifest is None:
        return artefact.folder.name, "", "", "", f"{size:.1f}", "", f"unreadable: {artefact.problem}"
    faults = list(_faults(artefact))
    state = f"not usable here: {'; '.join(faults)}" if faults else "usable"
    return (
        manifest.network, manifest.preset, manifest.backend, manifest.precision, f"{size:.1f}", manifest.weights.origin,
        state,
    )  # fmt: skip


def _faults(artefact: Artefact) -> Iterator[str]:
    """Why an artefact cannot be used here."""
    try:
        manifest = artefact.verify()
        one = backend(manifest.backend)
    except EngineError as error:
        yield str(error)
        return
    yield from ([reason] if (reason := one.runs()) else map(str, misfits(manifest, one)))


def _verify(arguments: argparse.Namespace) -> int:
    names = _names(arguments)
    if arguments.profile == "start":
        return _open_cards(names)
    mine = [a for a in artefacts() if a.title.startswith(tuple(f"{n}-{arguments.profile}-" for n in names))]
    if not mine:
        raise EngineError(
            f"nothing of profile {arguments.profile} in {root()}; type: emo engines build --profile {arguments.profile}"
        )
    bad = 0
    for artefact in mine:
        faults = list(_faults(artefact)) or list(_golden(artefact))
        bad += bool(faults)
        print(f"{artefact.folder.name}  {'; '.join(faults) or 'ok'}")
    return 1 if bad else 0


def _golden(artefact: Artefact) -> list[str]:
    """Run the golden inputs through an artefact that can be used here; what is out of tolerance."""
    manifest = artefact.verify()
    engine = backend(manifest.backend).load(artefact.folder, manifest, 0)
    try:
        return golden_faults(engine, artefact.folder, manifest)
    finally:
        engine.close()


def _open_cards(names: Sequence[str]) -> int:
    """Load and run the engines of public files once."""
    bad = 0
    for name in names:
        try:
            chosen = open_card(name)
            chosen.engine.warmup()
        except (EngineError, WeightsError) as error:
            bad += 1
            print(f"{name}  {error}")
            continue
        facts = describe(chosen.engine)
        passed = f"; passed over {'; '.join(chosen.why)}" if chosen.why else ""
        print(
            f"{name}  {facts['backend']} {facts['backend_version']} {facts['precision']}, {facts['threads']} threads{passed}"
        )
        chosen.engine.close()
    return 1 if bad else 0


def _explain(arguments: argparse.Namespace) -> int:
    names = _names(arguments)
    if arguments.profile == "start":
        return _open_cards(names)
    for name in names:
        print("\n".join(explain(name, arguments.profile, arguments.precision)), end="\n\n")
    return 0


def _bench(arguments: argparse.Namespace) -> int:
    names = _names(arguments)
    if arguments.profile == "start":
        raise EngineError("profile start has no eager networks to compare with; type: make bench")
    _require_torch()
    from emo_models.engines.bench import bench
    from emo_models.engines.store import workspace

    print(
        "| engine | backend | precision | batch | ms | eager ms | CPU time to eager fp32 |\n|---|---|---|---:|---:|---:|---:|"
    )
    count = 0
    with workspace() as work:
        for name in names:
            for row in bench(
                name, arguments.profile, work, precisions=arguments.precision, batches=arguments.batch,
                threads=arguments.threads,
            ):  # fmt: skip
                count += 1
                print(
                    f"| {row.network} | {row.backend} | {row.precision} | {row.batch} | {row.ms:.2f} | {row.eager_ms:.2f} "
                    f"| {row.ratio:.2f} |",
                    flush=True,
                )
    if not count:
        raise EngineError(f"nothing to time; type: emo engines build --profile {arguments.profile} --backend all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
