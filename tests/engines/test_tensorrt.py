"""Plans of TensorRT for RTX, really built, without a GPU; what needs one is skipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="engines are built with torch")
pytest.importorskip("onnxscript", reason="torch writes ONNX with onnxscript: make engines")

from emo_models.engines import EngineError, catalogue
from emo_models.engines.backends import backend
from emo_models.engines.backends.base import BuildSpec
from emo_models.engines.backends.tensorrt import PLAN
from emo_models.engines.build import Options, build
from emo_models.engines.explain import explain
from emo_models.engines.select import select
from emo_models.engines.source import network

rtx = backend("tensorrt_rtx")
needs_rtx = pytest.mark.skipif(bool(rtx.available()), reason=rtx.available())
#: One architecture is enough to see whether a plan can be built.
ONE = {"capabilities": ("8.9",)}


def dtypes(source: Any, precision: str, folder: Path, calibration: Any = ()) -> dict[str, int]:
    """Build a plan of optimisation level 0; the types in which it multiplies."""
    spec = BuildSpec(precision, calibration, {**ONE, "optimization_level": 0})
    result = rtx.build(source, spec, folder, lambda _: None)
    assert (folder / PLAN).stat().st_size > 10_000
    assert result.settings["capabilities"] == ("8.9",)
    return dict(result.layer_dtypes)


@needs_rtx
@pytest.mark.parametrize(
    ("name", "precision", "dtype"),
    [
        ("projector", "fp32", "float32"),
        ("er_resnet", "bf16", "bfloat16"),  # batch normalisation folded into its convolutions
        ("fusion_step", "fp16", "float16"),
    ],
)
def test_a_plan_multiplies_in_the_precision_asked(
    toy: Callable[[str], Any], tmp_path: Path, name: str, precision: str, dtype: str
) -> None:
    assert set(dtypes(toy(name), precision, tmp_path)) == {dtype}


@needs_rtx
@pytest.mark.skipif(not rtx.runs(), reason="here it runs, and is compared at once")
def test_a_plan_that_cannot_run_here_is_kept_and_passed_over(store: Path, toy: Callable[[str], Any]) -> None:
    told: list[str] = []
    settings = {**ONE, "optimization_level": 0}
    made = build(toy("projector"), Options("tensorrt_rtx", "fp16", settings), told.append)
    assert made.folder.parent == store
    assert made.manifest.parity is None
    assert made.manifest.latency == ()
    assert any("not compared here" in line for line in told)
    with pytest.raises(EngineError, match="tensorrt_rtx: no NVIDIA GPU answers here: it can build, not run"):
        select("projector", "toy", precision="fp16", random=True)
    text = "\n".join(explain("projector", "toy", "fp16"))
    assert "differs settings.capabilities: built for 8.9, here is no GPU" in text
    assert "it is compared when it is loaded" in text


@needs_rtx
def test_an_architecture_it_does_not_know_is_an_error(toy: Callable[[str], Any], tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"no capability 9\.0; it has: 7\.5, 8\.0"):
        rtx.build(toy("projector"), BuildSpec(settings={"capabilities": (9.0,)}), tmp_path, lambda _: None)
    with pytest.raises(EngineError, match="tensorrt_rtx has no setting kapabilities; it has: optimization_level"):
        rtx.build(toy("projector"), BuildSpec(settings={"kapabilities": ()}), tmp_path, lambda _: None)


@needs_rtx
@pytest.mark.parametrize("name", ["detector_small", "prompt_head"])
def test_its_parser_says_what_it_converts(toy: Callable[[str], Any], name: str) -> None:
    found = rtx.coverage(toy(name))
    assert found.operators > 20
    assert not found.missing
    assert "by the parser of tensorrt_rtx" in found.note


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_where_it_is_missing_it_says_what_to_install(name: str) -> None:
    if "does not import" not in (reason := backend(name).available()):
        pytest.skip(f"{name} is installed")
    assert "install" in reason


@pytest.mark.engines
@needs_rtx
@pytest.mark.parametrize("name", catalogue.PARTS)
def test_every_network_at_paper_size(tmp_path: Path, name: str) -> None:
    source = network(name, "paper", tmp_path)
    found = rtx.coverage(source)
    assert not found.missing, found
    for precision, dtype in (("fp32", "float32"), ("fp16", "float16"), ("bf16", "bfloat16")):
        folder = tmp_path / precision
        folder.mkdir()
        read = dtypes(source, precision, folder)
        print(f"{name} {precision}: {read}, {(folder / PLAN).stat().st_size / 1e6:.1f} MB")
        assert set(read) == {dtype}
        (folder / PLAN).unlink()


@pytest.mark.skipif(bool(backend("tensorrt").runs()), reason=backend("tensorrt").runs() or "none")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("name", ["er_resnet", "fusion_step", "prompt_head"])
def test_plain_tensorrt_on_a_gpu(store: Path, toy: Callable[[str], Any], name: str, precision: str) -> None:
    made = build(toy(name), Options("tensorrt", precision, timing_s=0.02), lambda _: None)
    assert made.folder.parent == store
    assert made.manifest.parity is not None
    chosen = select(name, "toy", precision=precision, backend="tensorrt", random=True)
    assert chosen.engine.backend == "tensorrt"
    chosen.engine.close()
