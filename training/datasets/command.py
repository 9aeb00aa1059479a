"""``emo data``: list the data sets that can be read, check one, export one, compare two annotators, label own clips."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_type_hints

from emo_perception.config import EXIT_CONFIG
from training.datasets import READERS, read_dataset, reader_class
from training.datasets.agreement import THRESHOLD, AgreementError, agree, agreement_page
from training.datasets.catalogue import SOURCES
from training.datasets.check import probe, report
from training.datasets.quarantine import write_quarantine
from training.datasets.record import Dataset, DatasetError
from training.datasets.swinbert import write_swinbert
from training.prepare.command import add_actions

EXIT_INCOMPLETE = 1
EXIT_CODES = """\
exit code: 0 all well, 1 something is missing, differs or was left out, 2 wrong usage, 78 nothing could be done"""


def main(argv: Sequence[str] | None = None) -> int:
    """``emo data``; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except (DatasetError, AgreementError) as error:
        print(f"emo data {arguments.action}: {error}", file=sys.stderr)
        return EXIT_CONFIG
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="emo data", description=__doc__, epilog=EXIT_CODES)
    actions = parser.add_subparsers(required=True, dest="action", metavar="ACTION")
    listing = actions.add_parser("list", help="the data sets that can be read, their licences, and whom to ask")
    listing.set_defaults(run=_list)
    check = actions.add_parser("check", help="what is in a data set, what is missing, what is left out and why")
    _add_source(check)
    check.add_argument("--videos", action="store_true", help="decode the first picture of every clip, too")
    check.add_argument(
        "--quarantine", type=Path, metavar="FILE", help="every row that is left out (default: NAME.quarantine.jsonl)"
    )
    check.add_argument("--json", action="store_true", help="for programs")
    check.set_defaults(run=_check)
    export = actions.add_parser("export", help="write a captioned data set in the form of SwinBERT")
    _add_source(export)
    export.add_argument("--to", choices=("swinbert",), required=True, help="the form")
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="where it goes")
    export.set_defaults(run=_export)
    compare = actions.add_parser("agree", help="agreement of two annotators by BERTScore, and what is to be discussed")
    compare.add_argument("sheets", type=Path, nargs=2, metavar="SHEET", help="the filled-in sheet of one annotator")
    compare.add_argument(
        "--threshold", type=float, default=THRESHOLD, metavar="X", help="default: %(default)s, of the FAME-Net paper"
    )
    compare.add_argument("--model", default="", metavar="FOLDER", help="the language model of BERTScore")
    compare.add_argument("--layer", type=int, metavar="N", help="its layer to compare (default: the usual one)")
    compare.add_argument(
        "--out", type=Path, metavar="FILE", help="CSV: each clip with both texts, score and what to do"
    )
    compare.set_defaults(run=_agree)
    label = actions.add_parser("label", help="put agreed texts into the clips that 'emo bag export' made")
    label.add_argument("folder", type=Path, metavar="DIR", help="what 'emo bag export' wrote")
    label.add_argument(
        "sheet", type=Path, metavar="CSV", help="clip, emotion, text; as 'emo data agree --out' wrote it"
    )
    label.set_defaults(run=_label)
    add_actions(actions, _add_source, _read)
    return parser


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help=", ".join(sorted(READERS)))
    parser.add_argument("path", type=Path, metavar="PATH", help="its folder")
    parser.add_argument(
        "--option", action="append", default=[], metavar="K=V", help="of the reader, as fold=2; repeatable"
    )


def _list(_: argparse.Namespace) -> int:
    for name, source in sorted(SOURCES.items()):
        options = ", ".join(f"{key}={default!r}" for key, default in _options(name).items())
        print(
            f"{name}: {source.title}\n  folder   {source.holds}\n  licence  {source.licence}\n  ask      {source.ask}"
        )
        print(f"  options  {options}\n")
    return 0


def _options(name: str) -> dict[str, Any]:
    return {field.name: field.default for field in dataclasses.fields(reader_class(name)) if field.init}


def _read(arguments: argparse.Namespace) -> Dataset:
    """Read as the command line says. Raises :class:`DatasetError` for an option or value that cannot be."""
    return read_dataset(arguments.name, arguments.path, **reader_options(arguments.name, arguments.option))


def reader_options(name: str, given: Sequence[str]) -> dict[str, Any]:
    """Options of a reader out of ``NAME=VALUE`` texts. Raises :class:`DatasetError` for a value that cannot be."""
    kinds = get_type_hints(reader_class(name))
    options: dict[str, Any] = {}
    for entry in given:
        key, sign, text = entry.partition("=")
        if not sign:
            raise DatasetError(f"--option: expected NAME=VALUE, got {entry!r}")
        options[key] = _value(key, text, kinds.get(key, str))
    return options


def _value(key: str, text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise DatasetError(f"{key}: expected true or false, got {text!r}")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError:
        raise DatasetError(f"{key}: expected {kind.__name__}, got {text!r}") from None


def _check(arguments: argparse.Namespace) -> int:
    dataset = _read(arguments)
    if arguments.videos:
        dataset = probe(dataset)
    print(json.dumps(_facts(dataset), ensure_ascii=False) if arguments.json else report(dataset))
    if dataset.quarantined:
        file = arguments.quarantine or Path(f"{dataset.name}.quarantine.jsonl")
        write_quarantine(dataset.quarantined, file)
        print(
            f"emo data check: {len(dataset.quarantined):,} rows left out, each with its reason: {file}", file=sys.stderr
        )
    complete = dataset.records and not (dataset.quarantined or dataset.missing or dataset.mismatches())
    return 0 if complete else EXIT_INCOMPLETE


def _facts(dataset: Dataset) -> dict[str, Any]:
    return {
        "name": dataset.name, "root": str(dataset.root),
        "records": dict(Counter(record.split for record in dataset.records)), "found": dict(dataset.found),
        "expected": dict(dataset.expected), "missing": list(dataset.missing),
        "left_out": dict(Counter(row.reason for row in dataset.quarantined)),
    }  # fmt: skip


def _export(arguments: argparse.Namespace) -> int:
    dataset = _read(arguments)
    written = write_swinbert(dataset.records, arguments.out)
    print(", ".join(f"{split} {number:,}" for split, number in written.items()) + f" clips written to {arguments.out}")
    left = len(dataset.records) - sum(written.values())
    if left:
        print(f"emo data export: {left:,} records without a clip or a caption were left out", file=sys.stderr)
    return EXIT_INCOMPLETE if left else 0


def _agree(arguments: argparse.Namespace) -> int:
    agreement = agree(*arguments.sheets, threshold=arguments.threshold, model=arguments.model, layer=arguments.layer)
    if arguments.out:
        agreement.write(arguments.out)
    print(agreement_page(agreement))
    return 0


def _label(arguments: argparse.Namespace) -> int:
    from training.recordings.layouts import annotated, read_list, write_layout, write_list

    items, troubles = annotated(read_list(arguments.folder), arguments.sheet)
    write_list(items, arguments.folder)
    write_layout(items, arguments.folder)
    clips = [item for item in items if item.clip]
    print(f"{sum(bool(item.emotion) for item in clips)} of {len(clips)} clips annotated in {arguments.folder}")
    for trouble in troubles:
        print(f"emo data label: {arguments.sheet}, {trouble}", file=sys.stderr)
    return EXIT_INCOMPLETE if troubles else 0


if __name__ == "__main__":
    sys.exit(main())
