"""The engine of a GPU on the CPU's memory, which does everything but the graphs; and on a GPU where there is one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="buffers are torch's: make torch")

from emo_models.engines import EngineError  # noqa: E402
from emo_models.engines.build import Options, build  # noqa: E402
from emo_models.engines.cuda import CudaEngine  # noqa: E402
from emo_models.engines.manifest import Port, read_golden  # noqa: E402
from emo_models.engines.measure import parity  # noqa: E402
from emo_models.engines.select import select  # noqa: E402

#: The batch is the first axis of one input and the second of the other, as the word and the keys of a decoder.
WORDS = Port("words", "int64", "N", (1,), (1,), (4,))
KEYS = Port("keys", "float32", "LNC", (2, 1, 3), (2, 1, 3), (2, 4, 3))
SCALE = Port("scale", "float32", "1", (1,), (1,), (1,))
SUMS = Port("sums", "float32", "LN", (2, 1), (2, 1), (2, 4))


def engine(asked: list[int], buckets: tuple[int, ...] = (1, 2, 4)) -> CudaEngine:
    """Sums of the keys, times the words and a scale; ``asked`` gets the batch size of each bucket and of each run."""

    def run_for(size: int) -> Callable[[Any], list[Any]]:
        asked.append(size)

        def run(feed: Any) -> list[Any]:
            words, keys, scale = feed
            assert keys.shape == (2, size, 3)
            return [keys.sum(2) * words * scale]

        return run

    return CudaEngine(
        "step", run_for, (WORDS, KEYS, SCALE), (SUMS,), backend="test", version="1", precision="fp32",
        buckets=buckets, device="cpu",
    )  # fmt: skip


def inputs(size: int, seed: int = 0) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    keys = draw.standard_normal((2, size, 3)).astype(np.float32)
    return {"words": np.arange(1, size + 1), "keys": keys, "scale": np.array([2], np.float32)}


def expected(feed: dict[str, Any]) -> Any:
    return feed["keys"].sum(2) * feed["words"] * feed["scale"]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_a_batch_is_padded_and_cut_again_along_its_own_axes(size: int) -> None:
    made, feed = engine([]), inputs(size)
    np.testing.assert_allclose(made(feed)["sums"], expected(feed), rtol=1e-6)


def test_what_a_larger_batch_left_behind_is_given_to_nobody() -> None:
    made = engine([], (4,))
    made(inputs(4, seed=1))
    out = made(inputs(2))["sums"]
    assert out.shape == (2, 2)
    np.testing.assert_allclose(out, expected(inputs(2)), rtol=1e-6)


def test_a_bucket_is_made_once_and_its_buffers_are_kept() -> None:
    asked: list[int] = []
    made = engine(asked)
    made.warmup((1, 2, 3, 4))
    assert asked == [1, 2, 4]
    first, second = made(inputs(3, 1))["sums"], made(inputs(3, 2))["sums"]
    assert asked == [1, 2, 4]
    assert np.shares_memory(first, second)
    assert made.trouble == ()


def test_too_large_a_batch_names_what_it_was_built_for() -> None:
    with pytest.raises(EngineError, match="got a batch of 5, built for 1, 2, 4; give it in parts"):
        engine([])(inputs(5))


def test_different_batches_are_an_error_and_not_spread_over_each_other() -> None:
    feed = {**inputs(4), "words": np.array([1])}
    with pytest.raises(EngineError, match=r"different batches: .*'words': 1, 'keys': 4"):
        engine([])(feed)


def test_tensors_of_the_device_stay_there() -> None:
    made, feed = engine([]), inputs(3)
    out = made.on_device({name: torch.from_numpy(value) for name, value in feed.items()})["sums"]
    assert isinstance(out, torch.Tensor)
    np.testing.assert_allclose(out.numpy(), expected(feed), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"keys": torch.zeros(2, 1, 3, dtype=torch.float16)},
            r"input keys: expected torch.float32 .* got torch.float16",
        ),
        ({"keys": torch.zeros(2, 1)}, r"input keys: .* got torch.float32 \[2, 1\] on cpu"),
        ({"scale": torch.zeros(1, device="meta")}, r"input scale: .* on cpu, got .* on meta"),
    ],
)
def test_tensors_that_do_not_fit_are_named(change: dict[str, Any], text: str) -> None:
    feed = {name: torch.from_numpy(value) for name, value in inputs(1).items()} | change
    with pytest.raises(EngineError, match=text):
        engine([]).on_device(feed)


def test_an_input_that_is_missing_is_named() -> None:
    with pytest.raises(EngineError, match=r"input words: expected .* got nothing"):
        engine([]).on_device({})


def test_a_closed_engine_says_so() -> None:
    made = engine([])
    made(inputs(1))
    made.close()
    made.close()
    with pytest.raises(EngineError, match="step: the engine is closed"):
        made(inputs(1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("name", ["er_resnet", "anfl", "fusion_step", "prompt_head"])
def test_eager_torch_on_a_gpu_by_graphs(store: Path, toy: Callable[[str], Any], name: str, precision: str) -> None:
    made = build(toy(name), Options("eager_cuda", precision, timing_s=0.02), lambda _: None)
    chosen = select(name, "toy", precision=precision, backend="eager_cuda", random=True).engine
    assert isinstance(chosen, CudaEngine)
    assert chosen.trouble == ()
    for feed, want in read_golden(made.folder):
        relative = made.manifest.tolerance.relative
        assert parity([(chosen(feed), want)]).relative <= relative
        there = chosen.on_device({n: torch.from_numpy(v).cuda() for n, v in feed.items()})
        assert all(value.is_cuda for value in there.values())
        assert parity([({n: v.cpu().numpy() for n, v in there.items()}, want)]).relative <= relative
    chosen.close()
