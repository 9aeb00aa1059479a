"""What can be checked of torch-tensorrt without it: the gate of its arguments, and what is read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emo_models.engines import EngineError
from emo_models.engines.backends import backend
from emo_models.engines.backends.torch_tensorrt import accepted, inspector_layer_dtypes, program_layer_dtypes
from emo_models.engines.build import Options, build


def compile_of_today(
    program: Any, *, optimization_level: int = 3, timing_cache_path: str = "/tmp/x", **kwargs: Any
) -> Any:
    return program, optimization_level, timing_cache_path, kwargs


def test_only_arguments_that_are_named_are_passed_on() -> None:
    wanted = {"optimization_level": 5, "timing_cache_path": "/cache/timing.bin", "use_explicit_typing": True}
    assert accepted(compile_of_today, wanted) == {"optimization_level": 5, "timing_cache_path": "/cache/timing.bin"}


def test_an_argument_that_would_be_swallowed_is_an_error() -> None:
    with pytest.raises(EngineError, match=r"does not know hardware_compatible; see docs/engines\.md"):
        accepted(compile_of_today, {"hardware_compatible": True, "optimization_level": 5})


def layer(kind: str, dtype: str) -> dict[str, Any]:
    return {"LayerType": kind, "Inputs": [{"Name": "x", "Format/Datatype": dtype}, {"Format/Datatype": "FP32"}]}


def test_the_inspectors_layers_are_counted_by_the_type_of_what_they_multiply() -> None:
    layers = [
        layer("CaskConvolution", "Row major linear FP16 format"),
        layer("Convolution", "Half"),
        layer("gemm", "BF16"),
        layer("MatrixMultiply", "Float"),
        layer("CaskConvolution", "Channel major INT8 format"),
        layer("Reformat", "FP32"),
        "a layer by name alone",
    ]
    found = inspector_layer_dtypes(json.dumps({"Layers": layers}))
    assert found == {"float16": 2, "bfloat16": 1, "float32": 1, "int8": 1}


def test_types_unknown_to_the_table_are_shown_as_they_are() -> None:
    assert inspector_layer_dtypes(json.dumps({"Layers": [layer("gemm", "E4M3")]})) == {"E4M3": 1}
    assert inspector_layer_dtypes("{}") == {}


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", "float32"), ("fp16", "float16"), ("bf16", "bfloat16")])
def test_a_program_multiplies_in_the_precision_it_was_exported_in(
    toy: Callable[[str], Any], precision: str, dtype: str
) -> None:
    found = program_layer_dtypes(toy("er_resnet").program(precision))
    assert set(found) == {dtype}
    assert sum(found.values()) == 18


def test_it_says_what_is_missing_or_builds(store: Path, toy: Callable[[str], Any]) -> None:
    if backend("torch_tensorrt").available():
        with pytest.raises(
            EngineError, match=r"torch_tensorrt: (torch-tensorrt is not installed|no NVIDIA GPU|.* import)"
        ):
            build(toy("projector"), Options("torch_tensorrt"), lambda _: None)
        return
    made = build(toy("projector"), Options("torch_tensorrt", timing_s=0.02), lambda _: None)
    assert made.folder.parent == store
    assert made.manifest.parity is not None
