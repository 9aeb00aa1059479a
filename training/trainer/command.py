"""``emo train``: trains a network as a recipe says, and goes on where a killed run was.

Across several processes: ``accelerate launch -m training.trainer.command RECIPE``; DeepSpeed and FSDP are chosen in
accelerate's own configuration.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from training.trainer.recipe import Recipe, RecipeError, load_recipe, recipe_names

NEEDED = {"torch", "accelerate", "tensorboard", "tqdm", "transformers", "safetensors", "scipy"}


def main(argv: Sequence[str] | None = None) -> int:
    """``emo train``; returns the exit code."""
    arguments = _parser().parse_args(argv)
    if arguments.recipe is None:
        return _list()
    try:
        recipe = load_recipe(arguments.recipe, arguments.set, arguments.out)
        return _train(recipe, arguments)
    except RecipeError as error:
        return _fail(2, str(error))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in NEEDED:
            raise
        return _fail(3, f"training needs the package {package!r}; in the checkout, type: make train")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="emo train", description=__doc__)
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="a name or a YAML file; without it: list the names")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a field, as optimiser.lr=1e-4"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the run (runs/RECIPE)")
    parser.add_argument(
        "--deploy",
        metavar="PROFILE",
        help="then build the engines of the weights, and let this profile run them: toy, paper, or a name of your own",
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="go on where the run in the folder stopped; the default")
    start.add_argument("--fresh", action="store_true", help="forget the run in the folder and start anew")
    return parser


def _train(recipe: Recipe, arguments: argparse.Namespace) -> int:
    from emo_models.weights import WeightsError
    from training.datasets.record import DatasetError
    from training.trainer.loop import train
    from training.trainer.state import RunError
    from training.trainer.task import DoomedRunError

    if arguments.deploy:
        from training.deploy import check_name

        check_name(arguments.deploy)
    try:
        result = train(recipe, resume=not arguments.fresh)
    except (RunError, DoomedRunError, WeightsError, DatasetError) as error:
        return _fail(1, str(error))
    if int(os.environ.get("RANK", "0")) == 0:
        print(f"{result.steps} steps in {result.seconds:.0f} s; weights: {result.weights}")
        for name, value in result.metrics.items():
            print(f"  {name:<24} {value:.4f}")
        if arguments.deploy:
            from training.deploy import deploy

            try:
                return deploy(recipe.network.name, result.weights, arguments.deploy)
            except RunError as error:
                return _fail(1, str(error))
    return 0


def _list() -> int:
    print("recipes:")
    for name in recipe_names():
        print(f"  {name}")
    print("emo train RECIPE trains; a YAML file of your own is a recipe, too.")
    return 0


def _fail(code: int, message: str) -> int:
    print(f"emo train: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
