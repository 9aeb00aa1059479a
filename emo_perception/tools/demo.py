"""``emo demo``: run the graph on a video, a picture or a camera, and leave video, results and a summary."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from emo_models import weights
from emo_models.fetch import Puller, PullError
from emo_perception.bags import BagError
from emo_perception.config import EXIT_CONFIG, ConfigError, load_profile
from emo_perception.files import profile_file, profiles
from emo_perception.graph import GraphOptions
from emo_perception.learned import require
from emo_perception.report import Run, load_run, summary, write_video
from emo_perception.tools.run import Console, supervise
from emo_perception.tools.weights import Terminal

DESCRIPTION = "Run the graph on a video, a picture or a camera, and leave video, results and a summary."
SAMPLE = "ravdess_angry"
RESULTS = (
    "overlay.mp4", "features.jsonl", "captions.jsonl", "utterances.jsonl", "causes.jsonl", "summary.md", "bag",
)  # fmt: skip

#: On top of the profile: the images go into the bag as JPEG, no frame is lost to a slow start, the dialogue is of this
#: run only, and the recorder ends with the source.
PARAMETERS: dict[str, dict[str, object]] = {
    "source": {"encoding": "both", "wait_for_subscriber_s": 60.0},
    "cause": {"persist": False},
    "recorder": {"until_end": True},
}


def main(argv: Sequence[str] | None = None) -> int:
    """``emo demo``; returns the exit code: 0 also when nobody is in the picture, 1 when the source failed."""
    arguments = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        require(load_profile(profile_file(arguments.profile)))
        source = _sources(arguments.profile, arguments.source)
        _clear(arguments.out)
        code = _record(arguments, source)
        run = load_run(arguments.out / "bag")
    except (BagError, ConfigError, PullError) as error:
        print(f"emo demo: {error}", file=sys.stderr)
        return EXIT_CONFIG
    _write(run, arguments.out, arguments.profile)
    if run.source_state == "FAILED":
        print(f"emo demo: the source failed: {run.source.detail}", file=sys.stderr)
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="emo demo", description=DESCRIPTION)
    parser.add_argument(
        "--source",
        default="",
        metavar="X",
        help=f"device, file, rtsp://, picture or test:// (default: the clip {SAMPLE})",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo/out"), metavar="DIR", help="where the results go (default: %(default)s)"
    )
    parser.add_argument(
        "--profile", choices=profiles(), default="start", help="which networks run (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=0.0,
        metavar="S",
        help="end after so long of the source (default: at its end, or Ctrl-C)",
    )
    return parser


def _sources(profile: str, source: str) -> str:
    """Pull the profile's weights, and the sample clip when no source is given; returns what to open."""
    with Puller(listener=Terminal()) as puller:
        for name in weights.needed_by(profile):
            puller.pull(weights.card(name))
        return source or str(puller.pull(weights.card(SAMPLE)))


def _clear(out: Path) -> None:
    """Remove the results of an earlier run, and nothing else."""
    out.mkdir(parents=True, exist_ok=True)
    for name in RESULTS:
        old = out / name
        if (old / "metadata.yaml").is_file():
            shutil.rmtree(old)
        elif not old.is_dir():  # a folder that is no bag is somebody's: the recorder will refuse it
            old.unlink(missing_ok=True)


def _record(arguments: argparse.Namespace, source: str) -> int:
    """Run the graph until the recorder has ended, or Ctrl-C; returns the supervisor's exit code."""
    console = Console(sys.stdout)
    with tempfile.TemporaryDirectory(prefix="emo_demo_") as folder:
        file = Path(folder) / "demo.yaml"
        parameters = {**PARAMETERS, "recorder": {**PARAMETERS["recorder"], "seconds": arguments.seconds}}
        blocks = {f"/**/{node}": {"ros__parameters": values} for node, values in parameters.items()}
        file.write_text(yaml.safe_dump(blocks), encoding="utf-8")
        record = str((arguments.out / "bag").resolve())
        options = GraphOptions(profile=arguments.profile, source=source, record=record, params_file=str(file))
        with supervise(options, Path(folder), console) as supervisor:
            try:
                while not (supervisor.wait(0.2) or supervisor.finished("recorder")):
                    pass
            except KeyboardInterrupt:
                console("emo", "ending")
    return supervisor.exit_code


def _write(run: Run, out: Path, profile: str) -> None:
    run.write_jsonl(out)
    if not write_video(out / "overlay.mp4", run.overlay, run.audio):
        print("emo demo: no overlay picture was drawn, so there is no overlay.mp4", file=sys.stderr)
    page = summary(run, profile)
    (out / "summary.md").write_text(page, encoding="utf-8")
    print(f"\n{page}\nResults in {out}: {', '.join(name for name in RESULTS if (out / name).exists())}")
