"""Eight bits by NNCF: on the CPU's backends, and as TensorRT reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="engines are built with torch")
onnx = pytest.importorskip("onnx", reason="what is quantised comes from ONNX: make engines")
pytest.importorskip("nncf", reason="NNCF quantises: make engines")

from emo_models.engines import EngineError  # noqa: E402
from emo_models.engines.backends import backend  # noqa: E402
from emo_models.engines.backends.base import BuildSpec, precision_fault  # noqa: E402
from emo_models.engines.build import Options, build  # noqa: E402
from emo_models.engines.golden import calibration_inputs  # noqa: E402
from emo_models.engines.manifest import Port  # noqa: E402
from emo_models.engines.quantise import _singles, make_signed, quantised_onnx  # noqa: E402
from emo_models.engines.select import select  # noqa: E402


@pytest.mark.parametrize("backend_name", ["openvino", "onnxruntime"])
def test_a_network_in_eight_bits(store: Path, toy: Callable[[str], Any], backend_name: str) -> None:
    made = build(toy("er_resnet"), Options(backend_name, "int8", threads=1, timing_s=0.02), lambda _: None)
    manifest = made.manifest
    assert made.folder.parent == store
    assert manifest.precision == "int8"
    assert sum(n for dtype, n in manifest.layer_dtypes.items() if dtype in ("int8", "uint8")) >= 16
    assert manifest.calibration_sha256
    assert manifest.parity is not None
    assert 1e-3 < manifest.parity.relative <= manifest.tolerance.relative
    engine = select("er_resnet", "toy", precision="int8", threads=1, random=True).engine
    assert (engine.backend, engine.precision) == (backend_name, "int8")
    engine.close()


def test_what_tensorrt_reads_is_signed_and_symmetric(toy: Callable[[str], Any], tmp_path: Path) -> None:
    source = toy("er_resnet")
    calibration = calibration_inputs(source.part)[:2]
    model = onnx.load(quantised_onnx(source, calibration, signed=True))
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    zeros = [constants[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert len(zeros) > 16
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    rtx = backend("tensorrt_rtx")
    if reason := rtx.available():
        pytest.skip(reason)
    spec = BuildSpec("int8", calibration, {"capabilities": ("8.9",), "optimization_level": 0})
    found = rtx.build(source, spec, tmp_path, lambda _: None).layer_dtypes
    assert not precision_fault("int8", found)
    assert found["int8"] >= 16


@pytest.mark.parametrize("origin", [np.uint8(0), np.uint8(100), np.uint8(200), np.int8(-20)])
def test_signed_ranges_hold_what_the_old_ones_held(origin: Any) -> None:
    step = np.float32(0.1)
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in (("s", step), ("z", origin))]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    model = helper.make_model(helper.make_graph(nodes, "one", [], [], tensors))
    limits = np.iinfo(origin.dtype)
    ends = [(end - int(origin)) * float(step) for end in (limits.min, limits.max)]
    make_signed(model)
    scale, zero = (numpy_helper.to_array(tensor) for tensor in model.graph.initializer)
    assert (zero.dtype, int(zero)) == (np.int8, 0)
    assert float(scale) * 127 == pytest.approx(max(map(abs, ends)))


def test_calibration_inputs_are_taken_apart_along_their_own_axes() -> None:
    ports = (
        Port("word", "int64", "N", (1,), (1,), (4,)),
        Port("keys", "float32", "LNC", (2, 1, 3), (2, 1, 3), (2, 4, 3)),
        Port("position", "int64", "1", (1,), (1,), (1,)),
    )
    source: Any = SimpleNamespace(name="step", inputs=ports)
    keys = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    found = _singles(source, [{"word": np.array([7, 8]), "keys": keys, "position": np.array([5])}])
    assert [one["word"].tolist() for one in found] == [[7], [8]]
    assert [one["position"].tolist() for one in found] == [[5], [5]]
    for index, one in enumerate(found):
        np.testing.assert_array_equal(one["keys"], keys[:, index : index + 1])
    with pytest.raises(EngineError, match="int8 needs calibration inputs"):
        _singles(source, [])


@pytest.mark.parametrize(
    ("asked", "layers", "fault"),
    [
        ("int8", {"int8": 9, "float32": 3}, ""),
        ("int8", {"int8": 4, "uint8": 4, "float32": 2}, ""),
        ("int8", {"int8": 8, "float32": 3}, "asked for int8 (at least 75% of them, the rest float32), but"),
        ("int8", {"int8": 9, "bfloat16": 1}, "run 9 in int8, 1 in bfloat16"),
        ("int8", {"float32": 1}, "run 1 in float32"),
        (
            "fp16",
            {"float16": 9, "float32": 1},
            "asked for fp16, but the convolutions and matrix products run 9 in float16",
        ),
        ("fp32", {"float32": 1}, ""),
        ("fp32", {}, "none found"),
    ],
)
def test_the_share_of_layers_that_may_stay_in_fp32(asked: str, layers: dict[str, int], fault: str) -> None:
    found = precision_fault(asked, layers)
    assert fault in found
    assert bool(fault) == bool(found)
