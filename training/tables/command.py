"""``emo ablate``: run a table of the ECPA or FAME-Net paper, and print our row beside the paper's."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from training.tables.engine import Outcome, outcomes
from training.tables.plan import Plan, PlanError, list_plans, load_plan
from training.tables.report import markdown

SYSTEMS = ("ecpa", "fame")


def main(argv: Sequence[str] | None = None) -> int:
    """0: all runs have results; 1: some run was stopped; 2: wrong usage; 3: what it needs is not installed."""
    options = _parser().parse_args(argv)
    if not options.plan:
        print("\n".join(_listing(options.system)))
        return 0
    try:
        plan = _adapted(load_plan(options.system, options.plan), options)
        found = _run(plan, options)
    except PlanError as error:
        print(f"emo ablate: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"emo ablate: {error.name} is missing; in the checkout, type: make setup torch", file=sys.stderr)
        return 3
    _save(plan, found, options.out)
    return 1 if any(outcome.error for outcome in found) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="emo ablate", description=__doc__.partition(": ")[2])
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("plan", nargs="?", help="name of a plan, or a YAML file of your own; without it: list them")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="instead of those of the plan")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="these rows alone")
    parser.add_argument("--out", type=Path, default=Path("tables"), help="results, kept between calls (./tables)")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="change the recipe of every row")
    parser.add_argument("--print", action="store_true", help="run nothing: print what there is")
    return parser


def _listing(system: str) -> list[str]:
    plans = [load_plan(system, name) for name in list_plans(system)]
    return [f"{plan.name.removeprefix(f'{system}_'):16} {plan.title} ({plan.source})" for plan in plans]


def _adapted(plan: Plan, options: argparse.Namespace) -> Plan:
    if options.only:
        plan = plan.only(options.only)
    if options.seeds:
        plan = dataclasses.replace(plan, seeds=tuple(options.seeds))
    changes = dict(_change(text) for text in options.set)
    return dataclasses.replace(plan, set={**plan.set, **changes})


def _change(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise PlanError(f"--set expects NAME=VALUE, such as data.root=/data/mafw; got {text!r}")
    return name, yaml.safe_load(value)


def _run(plan: Plan, options: argparse.Namespace) -> list[Outcome]:
    """All outcomes; the table is written after each, so that what is there can be read while the rest runs."""
    options.out.mkdir(parents=True, exist_ok=True)
    stop: tuple[type[Exception], ...] = ()
    if not options.print:
        from training.trainer.task import DoomedRunError

        stop = (DoomedRunError,)
    found: list[Outcome] = []
    for outcome in outcomes(plan, options.out, run=not options.print, stop=stop):
        found.append(outcome)
        word = outcome.error or ", ".join(
            f"{column.heading} {outcome.metrics[column.metric] * column.scale:.{column.digits}f}"
            for column in plan.columns
            if column.metric in outcome.metrics
        )
        print(f"{outcome.row}, seed {outcome.seed}: {word}", file=sys.stderr)
        _write(plan, found, options.out)
    return found


def _save(plan: Plan, found: Sequence[Outcome], out: Path) -> None:
    print(_write(plan, found, out))
    print(f"written: {out / f'{plan.name}.md'}", file=sys.stderr)


def _write(plan: Plan, found: Sequence[Outcome], out: Path) -> str:
    text = markdown(plan, found)
    (out / f"{plan.name}.md").write_text(text, encoding="utf-8")
    rows = [dataclasses.asdict(outcome) for outcome in found]
    (out / f"{plan.name}.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return text


if __name__ == "__main__":
    sys.exit(main())
