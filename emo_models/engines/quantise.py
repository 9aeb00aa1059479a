"""Eight-bit integers by NNCF: weights and activations, ranges measured on calibration inputs.

Where it pays and what it costs in accuracy is different for each network: the build compares the result with eager fp32
as any other, see :mod:`.build`.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emo_models.engines.protocol import Arrays, EngineError

if TYPE_CHECKING:
    from emo_models.engines.export import ExportedNetwork


def quantised_openvino(model: Any, source: ExportedNetwork, calibration: Sequence[Arrays]) -> Any:
    """An OpenVINO model in int8. Raises :class:`EngineError` without NNCF or calibration inputs."""
    order = [port.name for port in source.inputs]
    return _quantised(model, source, [[sample[name] for name in order] for sample in _singles(source, calibration)])


def quantised_onnx(source: ExportedNetwork, calibration: Sequence[Arrays], *, signed: bool = False) -> Path:
    """An ONNX file with QuantizeLinear and DequantizeLinear. Errors as above.

    ``signed``: only symmetric ranges and signed integers, which is all that TensorRT knows.
    """
    import onnx

    names = [port.name for port in source.inputs]
    samples = [{name: sample[name] for name in names} for sample in _singles(source, calibration)]
    path = source.work / f"{source.name}.int8.onnx"
    model = _quantised(onnx.load(source.onnx()), source, samples)
    if signed:
        make_signed(model)
    onnx.save_model(model, path)
    return path


def make_signed(model: Any) -> None:
    """Widen the ranges of an ONNX model's activations to symmetric ones and quantise to signed integers, in place.

    NNCF itself offers that for no device. Where all values are positive it costs one bit.
    """
    import onnx

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for scale, zero in {tuple(node.input[1:3]) for node in model.graph.node if node.op_type == "QuantizeLinear"}:
        step, origin = (onnx.numpy_helper.to_array(constants[name]) for name in (scale, zero))
        limits = np.iinfo(origin.dtype)
        # The larger end of the old range becomes that of the new one, 127 steps from 0.
        reach = np.maximum(limits.max - origin.astype(np.int32), origin.astype(np.int32) - limits.min)
        if origin.dtype == np.int8 and not origin.any():
            continue
        constants[scale].CopyFrom(onnx.numpy_helper.from_array((step * reach / 127).astype(step.dtype), scale))
        constants[zero].CopyFrom(onnx.numpy_helper.from_array(np.zeros_like(origin, np.int8), zero))


def _singles(source: ExportedNetwork, calibration: Sequence[Arrays]) -> list[dict[str, Any]]:
    """Calibration inputs one by one: ranges must not depend on how they were batched."""
    if not calibration:
        raise EngineError(
            f"{source.name}: int8 needs calibration inputs, and there are none; name a folder of pictures: --calibration DIR"
        )
    axes = {port.name: axis for port in source.inputs for axis, size in enumerate(port.max) if size != port.min[axis]}
    singles = []
    for sample in calibration:
        count = next((sample[name].shape[axis] for name, axis in axes.items()), 1)
        for index in range(count):
            one = {n: np.take(v, [index], axes[n]) if n in axes else v for n, v in sample.items()}
            singles.append(one)
    return [{name: np.ascontiguousarray(value) for name, value in single.items()} for single in singles]


def _quantised(model: Any, source: ExportedNetwork, samples: Sequence[Any]) -> Any:
    try:
        import nncf
    except ImportError as error:
        raise EngineError(f"int8 needs NNCF, which does not import ({error}); type: pip install nncf") from None
    # Attention is less robust than convolutions: NNCF then leaves alone what it must.
    kind = nncf.ModelType.TRANSFORMER if source.entry.attention else None
    try:
        with _quiet():
            return nncf.quantize(model, nncf.Dataset(samples), model_type=kind, subset_size=len(samples))
    except Exception as error:  # whatever its passes stumble over
        raise EngineError(f"{source.name}: NNCF cannot quantise it: {error}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """NNCF draws progress bars and counts its operations aloud."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
