"""``emo bag eval``: recordings through all stages or the live graph, measured against what is right about them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from emo_models.engines import EngineError
from emo_models.weights import WeightsError
from emo_perception.bags import BagError
from emo_perception.config import EXIT_CONFIG, ConfigError, load_profile
from emo_perception.files import profile_file
from training.datasets.record import DatasetError
from training.metrics.base import MetricError

if TYPE_CHECKING:
    from training.evaluation.bags.runner import Outcome, Target
    from training.evaluation.report import Set

EXIT_DAMAGED = 1
EXAMPLES = 12


def main(argv: Sequence[str] | None = None) -> int:
    """``emo bag eval``; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return _compare(arguments) if arguments.compare else _evaluate(arguments)
    except (BagError, ConfigError, DatasetError, EngineError, MetricError, WeightsError) as error:
        print(f"emo bag eval: {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("emo_models", "emo_perception", "training"):
            raise
        print(f"emo bag eval: it needs the package {error.name!r}; in the checkout, type: make train", file=sys.stderr)
    except OSError as error:
        print(f"emo bag eval: {error.filename or arguments.out}: {error.strerror}", file=sys.stderr)
    return EXIT_CONFIG


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="emo bag eval", description=(__doc__ or "").replace("``", ""),
        epilog="exit code: 0 all well, 1 a bag is damaged: what could be read was used, 2 wrong usage, 78 nothing could be done",
    )  # fmt: skip
    parser.add_argument("bags", type=Path, nargs="*", metavar="BAG", help="a bag, or a folder of bags")
    parser.add_argument("--compare", type=Path, nargs=2, metavar="RUN", help="instead: two evaluations side by side")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder for everything")
    parser.add_argument("--refs", type=Path, metavar="FILE", help="references (default: refs.jsonl inside the bag)")
    parser.add_argument("--profile", default="start", help="which networks run (default: %(default)s)")
    parser.add_argument("--params-file", type=Path, metavar="FILE", help="your values, on top of the profile")
    parser.add_argument(
        "--live", action="store_true", help="through the graph, in real time, instead of the stages alone"
    )
    parser.add_argument(
        "--target-emotion", choices=("gold", "perceived"),
        help="what is explained: the annotated emotion (default), or what the stages perceive (live always)",
    )  # fmt: skip
    parser.add_argument(
        "--stride", choices=("clip", "profile"), default="clip",
        help="captions: one of each whole clip, or as the profile has them (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--ungrounded", choices=("withheld", "said"), default="withheld",
        help="sentences that claim what was not measured: withheld as in the graph, or measured all the same (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--image-topic", default="", metavar="TOPIC", help="needed where a bag has several cameras")
    parser.add_argument("--audio-topic", default="", metavar="TOPIC", help="needed where a bag has several microphones")
    parser.add_argument("--utterance-topic", default="", metavar="TOPIC", help="take these words instead of listening")
    parser.add_argument(
        "--examples", type=int, default=EXAMPLES, metavar="N", help="recordings on the page (%(default)s)"
    )
    parser.add_argument("--no-plots", action="store_true", help="a page without plots, which need matplotlib")
    parser.add_argument("--no-meteor", action="store_true", help="without METEOR, which starts Java")
    return parser


def _compare(arguments: argparse.Namespace) -> int:
    from training.evaluation.bags.results import compare
    from training.evaluation.measure import Options

    if arguments.bags:
        raise BagError("--compare takes two evaluations and no bags; evaluate the bags first")
    _new(arguments.out)
    first, second = arguments.compare
    names = (first.name, second.name) if first.name != second.name else (str(first), str(second))
    runs = dict(zip(names, arguments.compare, strict=True))
    options = Options(meteor=not arguments.no_meteor)
    written = compare(runs, arguments.out, options, examples=arguments.examples, draw=not arguments.no_plots)
    print(f"page: {written}")
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from training.evaluation.bags.gather import Topics, clip_s, recordings
    from training.evaluation.bags.live import run_live
    from training.evaluation.bags.matching import match
    from training.evaluation.bags.results import write_results
    from training.evaluation.bags.runner import Plan, run_offline
    from training.evaluation.measure import Options

    if arguments.live and arguments.target_emotion == "gold":
        raise BagError("--live explains what the graph perceives; leave --target-emotion gold out, or --live")
    if not arguments.bags:
        raise BagError("expected a bag or a folder of bags; make some: emo bag make --dataset toy --out bags")
    found = recordings(arguments.bags, arguments.refs)
    files = [profile_file(arguments.profile), *([arguments.params_file] if arguments.params_file else [])]
    configs = load_profile(*files)
    _new(arguments.out)
    topics = Topics(arguments.image_topic, arguments.audio_topic, arguments.utterance_topic)
    target: Target = arguments.target_emotion or ("perceived" if arguments.live else "gold")
    plan = Plan(arguments.profile, configs, topics, target, arguments.stride, clip_s(found))
    run = run_live if arguments.live else run_offline
    outcome = run(found, plan, arguments.out, print)
    matched = match(outcome.stories, found, gold=target == "gold", ungrounded=arguments.ungrounded == "said")
    title = f"{len(found)} recordings, profile {arguments.profile}, {'live' if arguments.live else 'offline'}"
    options = Options(meteor=not arguments.no_meteor)
    page, sets, absent = write_results(
        arguments.out, title, outcome, matched, options, examples=arguments.examples, draw=not arguments.no_plots
    )
    _tell(outcome, sets, absent)
    print(f"page: {page}")
    return EXIT_DAMAGED if outcome.troubles else 0


def _new(out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        raise BagError(f"{out} is not empty: choose another folder, or move it away")


def _tell(outcome: Outcome, sets: Sequence[Set], absent: Sequence[str]) -> None:
    for name, ways in outcome.settings.items():
        print(f"{name}: {' / '.join(ways)}")
    for one in sets:
        print(f"{one.name}:")
        for figure, value in one.values.items():
            print(f"  {figure:<36} {value:.4f}")
    for stage, found in outcome.latencies().items():
        shown = ", ".join(f"{mark} {found[mark]:.1f}" for mark in ("p50", "p95", "p99") if mark in found)
        print(f"latency {stage}: {shown} ms")
    if not sets:
        print("; ".join(absent) or "no references: nothing was measured; refs.jsonl inside a bag would hold them")
    for trouble in outcome.troubles:
        print(f"emo bag eval: {trouble}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
