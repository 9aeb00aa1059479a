"""``emo eval``: measure predictions or trained weights, compare two, and write a page about them.

emo eval PREDICTIONS.jsonl --refs REFERENCES     a file of predictions (docs/evaluation.md)
emo eval RUN                                     the weights that emo train left in a folder
emo eval ours=A.jsonl theirs=B.jsonl             several, side by side; the first two are compared
emo eval rate --help                             a blinded rating sheet for people
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.metrics.base import MetricError

if TYPE_CHECKING:
    from training.evaluation.measure import Options
    from training.evaluation.report import Set
    from training.metrics.captions import ExtraScorer

NEEDED = {
    "torch", "transformers", "accelerate", "tensorboard", "tqdm", "safetensors", "scipy", "matplotlib", "pycocoevalcap",
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """``emo eval``; returns the exit code: 1 for what cannot be measured, 2 for a wrong usage."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["rate"]:
        from training.evaluation import rating

        return rating.main(given[1:])
    arguments = _parser().parse_args(given)
    try:
        return _evaluate(arguments)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in NEEDED:
            raise
        return _fail(3, f"evaluation needs the package {package!r}; in the checkout, type: make train")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="emo eval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="+", metavar="[NAME=]PATH", help="files of predictions and folders of runs")
    parser.add_argument(
        "--refs", type=Path, metavar="FILE", help="references: JSON lines, an object of lists, or COCO's"
    )
    parser.add_argument("--data", nargs=2, metavar=("NAME", "FOLDER"), help="references out of a data set")
    parser.add_argument("--split", default="test", help="which part of the data (test)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the page (beside the first PATH)")
    parser.add_argument("--protocol", choices=("coco", "obg"), default="coco", help="obg: raw strings, as for ECGF")
    parser.add_argument("--no-meteor", action="store_true", help="spare the seconds of METEOR's Java program")
    parser.add_argument("--bertscore", type=Path, metavar="DIR", help="folder of a model for BERTScore")
    parser.add_argument("--bertscore-layer", type=int, metavar="N", help="its hidden layer (the authors' choice)")
    parser.add_argument("--bleurt", type=Path, metavar="DIR", help="folder of a BLEURT checkpoint")
    parser.add_argument(
        "--emotion-words", type=Path, metavar="DIR", help="EmVidCap's word lists, for Acc_sw, Acc_c, BFS, CFS"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a run's recipe")
    parser.add_argument("--examples", type=int, default=12, metavar="N", help="clips to show (12)")
    parser.add_argument("--maps", type=int, default=2, metavar="N", help="clips to look into the network of (2)")
    parser.add_argument("--no-plots", action="store_true", help="figures and examples only")
    return parser


def _evaluate(arguments: argparse.Namespace) -> int:
    from training.datasets.record import DatasetError
    from training.evaluation import document, report
    from training.trainer.recipe import RecipeError

    try:
        named = _named(arguments.what)
        references = _references(arguments)
        options = _options(arguments)
        sets = [_one(name, path, references, options, arguments) for name, path in named.items()]
        title = " and ".join(named) if len(named) < 3 else f"{len(named)} sets of predictions"
        page = report.blocks(sets, title=title, examples=arguments.examples, draw=not arguments.no_plots)
        out = arguments.out or _beside(next(iter(named.values())), arguments.split)
        written, _ = document.write(out, page)
        _write_figures(out / "report.json", sets)
    except (MetricError, RecipeError, DatasetError, OSError) as error:
        return _fail(1, str(error))
    _tell(sets)
    print(f"page: {written}")
    return 0


def _named(what: Sequence[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for entry in what:
        name, equals, path = entry.partition("=")
        if not equals or Path(entry).exists():
            name, path = Path(entry).stem if Path(entry).is_file() else Path(entry).name, entry
        if name in found:
            raise MetricError(f"two sets are called {name!r}; name them: first={found[name]} second={path}")
        if not Path(path).exists():
            raise MetricError(f"{path}: no such file or folder")
        found[name] = Path(path)
    return found


def _references(arguments: argparse.Namespace) -> dict[str, tuple[str, ...]] | None:
    if arguments.refs and arguments.data:
        raise MetricError("references come from --refs or from --data, not from both")
    if arguments.refs:
        from training.evaluation.predictions import read_references

        return read_references(arguments.refs)
    if arguments.data:
        from training.datasets import read_dataset

        name, folder = arguments.data
        records = read_dataset(name, Path(folder)).split(arguments.split)
        found = {record.clip_id: record.captions for record in records if record.captions}
        if not found:
            raise MetricError(f"the split {arguments.split!r} of {name} in {folder} has no captions")
        return found
    return None


def _options(arguments: argparse.Namespace) -> Options:
    from training.evaluation.measure import Options
    from training.metrics.bertscore import BertScorer
    from training.metrics.bleurt import BleurtScorer
    from training.metrics.emvidcap import read_emotion_words

    extra: list[ExtraScorer] = []
    if arguments.bertscore:
        extra.append(BertScorer(arguments.bertscore, arguments.bertscore_layer))
    if arguments.bleurt:
        extra.append(BleurtScorer(arguments.bleurt))
    words = read_emotion_words(arguments.emotion_words) if arguments.emotion_words else {}
    return Options(arguments.protocol, meteor=not arguments.no_meteor, extra=tuple(extra), emotion_words=words)


def _one(
    name: str,
    path: Path,
    references: Mapping[str, Sequence[str]] | None,
    options: Options,
    arguments: argparse.Namespace,
) -> Set:
    from training.evaluation.measure import measure
    from training.evaluation.predictions import read_predictions
    from training.evaluation.report import Set
    from training.evaluation.runs import evaluate_run, is_run, training_facts

    if path.is_file():
        measured = measure(name, read_predictions(path), references, options)
        return Set(name, measured, facts={"predictions": str(path)})
    if not is_run(path):
        raise MetricError(
            f"{path}: expected a file of predictions or the folder of a run of emo train (with recipe.yaml)"
        )
    plots = not arguments.no_plots
    run = evaluate_run(path, arguments.split, arguments.set, maps=arguments.maps if plots else 0, curves=plots)
    facts = {"run": str(path), "weights": run.weights, "split": arguments.split, **training_facts(path)}
    found = measure(name, run.predictions, references, options) if run.predictions else None
    return Set(name, found, run.metrics, run.curves, run.maps, facts)


def _beside(path: Path, split: str) -> Path:
    return path / f"eval-{split}" if path.is_dir() else path.with_name(f"{path.stem}-eval")


def _write_figures(file: Path, sets: Sequence[Set]) -> None:
    from training.evaluation.report import differences

    content = {
        "sets": {
            s.name: {
                "figures": s.values,
                "absent": s.measured.absent if s.measured else {},
                "made_with": {**s.facts, **(s.measured.versions if s.measured else {})},
                "coverage": s.measured.notes if s.measured else [],
            }
            for s in sets
        },
        "differences": {name: dataclasses.asdict(found) for name, found in differences(sets).items()},
    }
    file.write_text(json.dumps(_plain(content), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """The same with None for what JSON has no number for."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _tell(sets: Sequence[Set]) -> None:
    for s in sets:
        print(f"{s.name}:")
        for figure, value in s.values.items():
            print(f"  {figure:<36} {value:.4f}")
        for note in s.measured.notes if s.measured else ():
            print(f"  {note}")
        for figure, why in (s.measured.absent if s.measured else {}).items():
            print(f"  {figure}: absent, {why}")


def _fail(code: int, message: str) -> int:
    print(f"emo eval: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
