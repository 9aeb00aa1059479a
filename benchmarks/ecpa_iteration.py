"""What the parts of ECPA cost in training: one iteration of each row of the paper's Table IV, in one run.

Run from the root of the repository::

    python -m benchmarks.ecpa_iteration                # the paper's sizes
    python -m benchmarks.ecpa_iteration --preset toy   # seconds

An iteration is forward, backward, clipping and a step of AdamW. Rows take turns, so that what else the machine does
meets all of them. On a CPU its own time is counted, with one thread: others on the machine then disturb least. The
features of the frozen face networks are cached, as training does it, except in the last row, where they are computed
in every iteration. Writes ``ecpa_iteration.md`` and ``ecpa_iteration.json`` into ``--out``.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import emo_models
from emo_models.networks.ecpa.captions import CaptionBatch
from emo_models.networks.ecpa.losses import TotalLoss
from emo_models.networks.ecpa.vep import FaceFeatures

NO_PROMPTS = {"er_prompt": False, "au_prompt": False, "class_prompt": False}
#: Words of a caption, as MAFW's have on average; the paper's seconds are of one RTX 3090 Ti.
WORDS = 20
GOAL = 1.10


@dataclass(frozen=True)
class Variant:
    """One row: options of the network, its losses, and the paper's seconds an iteration."""

    name: str
    options: dict[str, Any]
    losses: tuple[str, ...]
    paper_s: float | None = None
    cached: bool = True


FULL = "+ VEP + TEP + ECA"
VARIANTS = (
    Variant("baseline", NO_PROMPTS, ("mlm",), 0.800),
    Variant("+ VEP", {"class_prompt": False}, ("mlm",), 0.817),
    Variant("+ VEP + TEP", {"class_token_grad": True}, ("mlm",), 0.849),
    Variant(FULL, {}, ("er", "au", "mlm"), 0.952),
    Variant("the same, frozen networks in every iteration", {}, ("er", "au", "mlm"), None, cached=False),
)


@dataclass
class Trained:
    """A network in training and one batch of noise for it: speed does not depend on what is seen."""

    model: Any
    optimiser: torch.optim.Optimizer
    parameters: list[nn.Parameter]
    clip: Tensor
    faces: Tensor
    valid: Tensor
    captions: CaptionBatch
    emotion: Tensor


def trained(options: dict[str, Any], preset: str, batch: int, device: torch.device) -> Trained:
    """Random weights and inputs."""
    torch.manual_seed(0)
    model: Any = emo_models.create("ecpa", preset, **options).to(device).train()
    config = model.config
    clip = torch.randn(batch, 3, config.frames, config.image_size, config.image_size, device=device)
    side = 64 if preset == "toy" else 224
    faces = torch.randn(batch, config.frames, 3, side, side, device=device)
    valid = torch.ones(batch, config.frames, dtype=torch.bool, device=device)
    captions = noise_captions(batch, config.text_length, config.words, config.specials).to(device)
    emotion = torch.randint(len(config.classes), (batch,), device=device)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=1e-4)
    return Trained(model, optimiser, parameters, clip, faces, valid, captions, emotion)


def iteration(variant: Variant, it: Trained) -> Callable[[], None]:
    """A whole training iteration of one row."""
    features = it.model.face_features(it.faces, it.valid) if it.model.au_net is not None else None
    total = TotalLoss("dwa", variant.losses)

    def work() -> None:
        seen: FaceFeatures | None = features if variant.cached else it.model.face_features(it.faces, it.valid)
        out = it.model(it.clip, seen, it.captions, it.emotion)
        loss: Tensor = total(out.losses, out.sparsity, out.pairs, out.positive)
        it.optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(it.parameters, 1.0)
        it.optimiser.step()

    return work


def works(variants: Sequence[Variant], preset: str, batch: int, device: torch.device) -> list[Callable[[], None]]:
    """One for each row; rows of the same network share it."""
    networks: dict[str, Trained] = {}
    found = []
    for variant in variants:
        key = str(variant.options)
        if key not in networks:
            networks[key] = trained(variant.options, preset, batch, device)
        found.append(iteration(variant, networks[key]))
    return found


def noise_captions(batch: int, length: int, words: int, specials: tuple[int, int, int, int]) -> CaptionBatch:
    """Random words, each a content word, a few of which name a unit."""
    count = min(WORDS, length - 2)
    start, stop, pad, _ = specials
    ids = torch.full((batch, length), pad)
    ids[:, 0], ids[:, 1 : count + 1], ids[:, count + 1] = start, torch.randint(words // 2, words, (batch, count)), stop
    word = torch.full((batch, length), -1)
    word[:, 1 : count + 1] = torch.arange(count)
    units = torch.zeros(batch, length, 27, dtype=torch.bool)
    units[:, :count] = torch.rand(batch, count, 27) < 0.05
    return CaptionBatch(ids, torch.full((batch,), count + 2), word, units)


def measure(works: Sequence[Callable[[], None]], rounds: int, device: torch.device) -> list[list[float]]:
    """Seconds of each work in each round, after one round to warm up."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    seconds: list[list[float]] = [[] for _ in works]
    for number in range(rounds + 1):
        for work, found in zip(works, seconds, strict=True):
            begin = clock()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number:
                found.append(clock() - begin)
    return seconds


def report(
    variants: Sequence[Variant], seconds: Sequence[Sequence[float]], what: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Markdown and plain values. A ratio is the median over the rounds, each against the baseline of its own round."""
    rows, lines = (
        [],
        ["| | s an iteration | to the baseline | the paper's s | to its baseline |", "|---|---:|---:|---:|---:|"],
    )
    for variant, found in zip(variants, seconds, strict=True):
        ratios = [mine / base for mine, base in zip(found, seconds[0], strict=True)]
        ratio, middle, paper = statistics.median(ratios), statistics.median(found), variant.paper_s
        rows.append({"name": variant.name, "median_s": middle, "ratio": ratio, "ratios": ratios, "paper_s": paper})
        theirs = f"{paper:.3f} | {paper / 0.8:.2f}" if paper else "– | –"
        lines.append(f"| {variant.name} | {middle:.3f} | {ratio:.3f} | {theirs} |")
    reached = next(row["ratio"] for row in rows if row["name"] == FULL)
    verdict = f"Full ECPA costs {reached:.3f} of its baseline, the goal was {GOAL:.2f} or less, the paper's is 1.19."
    text = "\n".join([", ".join(f"{key} {value}" for key, value in what.items()), "", *lines, "", verdict, ""])
    return text, {"what": what, "rows": rows}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ecpa_iteration", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--preset", default="paper", choices=("paper", "fast", "toy"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="the rows in between not: they need memory of their own")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    options = parser.parse_args(arguments)
    variants = [v for v in VARIANTS if not options.short or v.name in ("baseline", FULL) or not v.cached]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = measure(works(variants, options.preset, options.batch, device), options.rounds, device)
    finally:
        torch.set_num_threads(threads)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU, one thread"
    what = {"on": name, "torch": torch.__version__, "preset": options.preset, "batch": options.batch,
            "rounds": options.rounds, "words": WORDS}  # fmt: skip
    text, document = report(variants, seconds, what)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "ecpa_iteration.md").write_text(text, encoding="utf-8")
    (options.out / "ecpa_iteration.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
