"""Speed of the eager networks on this computer's CPU, at batch 1 and 4.

Run from the root of the repository::

    python -m benchmarks.networks                # the papers' sizes, some minutes
    python -m benchmarks.networks --preset toy   # seconds

Writes ``networks.md`` and ``networks.json`` into ``--out``. Weights are random: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import emo_models
from emo_models.networks.ecpa.decode import greedy
from emo_models.networks.ecpa.vep import FaceFeatures

Work = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """One line of the table: ``start(batch)`` makes the inputs and returns what is timed."""

    network: str
    preset: str
    what: str
    start: Callable[[int], Work]


@dataclass(frozen=True)
class Timing:
    """Median and best of ``runs`` runs, in seconds for the whole batch."""

    network: str
    preset: str
    what: str
    batch: int
    median_s: float
    best_s: float
    runs: int


def forward_case(name: str, preset: str, what: str, shape: Sequence[int]) -> Case:
    """A network that takes one tensor; ``shape`` without the batch."""

    def start(batch: int) -> Work:
        network, inputs = emo_models.create(name, preset).eval(), torch.randn(batch, *shape)
        return lambda: network(inputs)

    return Case(name, preset, what, start)


def fusion_case(preset: str, *, step: bool) -> Case:
    """All 251 tokens at once, or one more word behind a cache."""

    def start(batch: int) -> Work:
        fusion: Any = emo_models.create("bert_fusion", preset).eval()
        ids = torch.randint(fusion.config.vocab_size, (batch, 50))
        visual = torch.randn(batch, 196, fusion.config.visual_width)
        prompts = torch.randn(batch, 5, fusion.config.hidden)
        if not step:
            return lambda: fusion(ids, visual, prompts)
        context, valid = fusion.context(fusion.embed_visual(visual), prompts)
        cache = fusion.prefill(context, valid, text_length=50)

        def work() -> None:
            cache.length.zero_()
            fusion.step(fusion.embeddings(ids[:, :2]), cache)

        return work

    return Case("bert_fusion", preset, "one word, cached" if step else "50 + 201 tokens", start)


def ecpa_case(preset: str) -> Case:
    """From pixels of the clip and features of the face to 20 words, greedy."""

    def start(batch: int) -> Work:
        model: Any = emo_models.create("ecpa", preset).eval()
        config = model.config
        clip = torch.randn(batch, 3, config.frames, config.image_size, config.image_size)
        width = model.au_net.config.dim
        er_width = model.er_prompting.mlp[0].in_features
        features = FaceFeatures(
            er=torch.randn(batch, config.frames, er_width), au_nodes=torch.rand(batch, config.frames, 27, width),
            au_scores=torch.rand(batch, config.frames, 27), valid=torch.ones(batch, config.frames, dtype=torch.bool),
        )  # fmt: skip
        limits = model.limits(21)
        return lambda: greedy(model.stepper(model.context(clip, features)), batch, limits)

    return Case("ecpa", preset, "clip and face features to 20 words", start)


def fame_cases(preset: str) -> Iterator[Case]:
    """What a frame costs on arrival, and Q_v. The language model runs elsewhere; one small layer stands in for it."""

    def model() -> Any:
        return emo_models.create("fame", preset, layers=1, words=512).eval()

    def frames(batch: int) -> Work:
        fame = model()
        side = fame.clip.config.image
        images = torch.randn(batch, 3, side, side)
        return lambda: fame.frame_features(images).mean(1)

    def tokens(batch: int) -> Work:
        fame = model()
        config = fame.clip.config
        rows = torch.randn(batch, fame.config.frames + config.patches, config.dim)
        return lambda: fame.project(rows)

    yield Case("fame", preset, "one frame: CLIP patches and R_t", frames)
    yield Case("fame", preset, "one clip: Q_v = g(R)", tokens)


def cases(preset: str) -> list[Case]:
    """All lines for the papers' sizes (``paper``), the robot's (``fast``) or the tests' (``toy``)."""
    side, frames = (64, 4) if preset == "toy" else (224, 8)
    return [
        forward_case("video_swin", preset, f"{frames} frames, {side} px", (3, frames, side, side)),
        forward_case("er_resnet", preset, f"face, {side} px", (3, side, side)),
        forward_case("anfl", preset, f"face, {side} px", (3, side, side)),
        forward_case("ddamfn", preset, "face, 112 px", (3, 112, 112)),
        forward_case("scrfd", preset, "image, 640 x 384 px", (3, 384, 640)),
        fusion_case(preset, step=False),
        fusion_case(preset, step=True),
        ecpa_case(preset),
        *fame_cases(preset),
    ]


def measure(case: Case, batch: int, budget_s: float) -> Timing:
    """Warm up once, then run for ``budget_s`` seconds, three times at least."""
    seconds: list[float] = []
    with torch.inference_mode():
        work = case.start(batch)
        work()
        while len(seconds) < 3 or sum(seconds) < budget_s:
            begin = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - begin)
    middle, best = statistics.median(seconds), min(seconds)
    return Timing(case.network, case.preset, case.what, batch, middle, best, len(seconds))


def write(timings: Sequence[Timing], out: Path) -> str:
    """Write both files; returns the Markdown."""
    machine = {
        "processor": platform.processor() or platform.machine(), "cores": os.cpu_count(),
        "threads": torch.get_num_threads(), "torch": torch.__version__, "python": platform.python_version(),
    }  # fmt: skip
    rows = [
        f"| {t.network} | {t.preset} | {t.what} | {t.batch} | {1e3 * t.median_s:.1f} | {1e3 * t.median_s / t.batch:.1f} |"
        for t in timings
    ]
    text = "\n".join([
        "# Eager networks on the CPU", "",
        ", ".join(f"{key} {value}" for key, value in machine.items()), "",
        "| network | preset | work | batch | ms, median | ms an item |", "|---|---|---|---:|---:|---:|", *rows, "",
    ])  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    (out / "networks.md").write_text(text, encoding="utf-8")
    document = {"machine": machine, "timings": [asdict(timing) for timing in timings]}
    (out / "networks.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.networks", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("--preset", default="paper", choices=("paper", "fast", "toy"))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--budget-s", type=float, default=2.0, help="seconds for each line and batch, 3 runs at least")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    options = parser.parse_args(arguments)
    timings = [measure(case, batch, options.budget_s) for case in cases(options.preset) for batch in options.batch]
    print(write(timings, options.out))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
