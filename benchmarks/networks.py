"""Speed of the eager networks on this CPU: ``python -m benchmarks.networks [seconds per row]``."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import emo_models

#: Network, preset, shape of one input without the batch.
CASES = (
    ("video_swin", "tiny", (3, 8, 224, 224)),
    ("video_swin", "base", (3, 8, 224, 224)),
    ("er_resnet", "resnet50", (3, 224, 224)),
    ("anfl", "resnet50", (3, 224, 224)),
    ("anfl", "swin_tiny", (3, 224, 224)),
    ("ddamfn", "affectnet8", (3, 112, 112)),
)
BATCHES = (1, 4)


@dataclass(frozen=True)
class Row:
    """One network: its size, the cost of one input, and the median time of a batch."""

    name: str
    parameters_m: float
    gflop: float
    batch_ms: tuple[float, ...]

    def __str__(self) -> str:
        times = "".join(f"{ms:>12.1f}" for ms in self.batch_ms)
        return f"{self.name:<24}{self.parameters_m:>10.2f}{self.gflop:>10.1f}{times}"


def measure(name: str, preset: str, shape: tuple[int, ...], seconds: float) -> Row:
    """Build a network with random weights and time it; each batch size runs for about ``seconds``."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    network = emo_models.create(name, preset).eval()
    with torch.inference_mode():
        # Counted without computing; a multiplication and an addition are two operations.
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            emo_models.create(name, preset).eval()(torch.empty(1, *shape))
        batches = [torch.randn(batch, *shape) for batch in BATCHES]
        times = tuple(median_ms(lambda x=x: network(x), seconds) for x in batches)  # type: ignore[misc]
    parameters = sum(p.numel() for p in network.parameters())
    return Row(f"{name} {preset}", parameters / 1e6, counter.get_total_flops() / 1e9, times)


def median_ms(call: Callable[[], object], seconds: float) -> float:
    """Median of at least three calls after one to warm up, in milliseconds."""
    call()
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - started < seconds:
        before = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - before))
    return statistics.median(times)


def main(seconds: float = 3.0) -> None:
    """Print the table, or why there is none."""
    try:
        import torch
    except ImportError:
        print("networks: not measured, torch is not installed; run: pip install -e '.[torch]'")
        return
    columns = "".join(f"{f'batch {batch} ms':>12}" for batch in BATCHES)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32")
    print(f"{'network':<24}{'Mparam':>10}{'GFLOP':>10}{columns}")
    for case in CASES:
        print(measure(*case, seconds), flush=True)


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]))
