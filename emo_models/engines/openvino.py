"""Engines on OpenVINO: reads TFLite, ONNX and IR files as they are."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emo_models.engines.protocol import EngineError, TensorSpec

log = logging.getLogger(__name__)

PRECISIONS = {"fp32": "f32", "bf16": "bf16"}


def cpu_threads(requested: int = 0) -> int:
    """Threads for one engine: as asked, or half of the cores, so that no engine takes the machine for itself."""
    return requested or max(1, (os.cpu_count() or 1) // 2)


@cache
def _core() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise EngineError(f"OpenVINO does not import ({error}); install it with: pip install openvino") from None
    return openvino.Core()


class OpenVinoEngine:
    """One compiled network and its only infer request; see :class:`emo_models.engines.Engine`.

    ``inputs`` and ``outputs`` name the tensors in the model's own order. ``batch`` leaves the first dimension of every
    tensor free (the network must allow that); else the shapes of the file are kept. ``threads`` 0 = half the cores.

    Raises :class:`EngineError` when the file cannot be read or does not have that many inputs and outputs.
    """

    backend = "openvino"

    def __init__(
        self,
        name: str,
        path: Path,
        *,
        inputs: Sequence[str],
        outputs: Sequence[str],
        batch: bool = False,
        precision: str = "fp32",
        threads: int = 0,
    ) -> None:
        self.name = name
        self.precision = precision
        self.threads = cpu_threads(threads)
        try:
            model = _core().read_model(path)
        except RuntimeError as error:
            raise EngineError(f"{name}: OpenVINO cannot read {path}: {error}") from None
        for kind, names, ports in (("inputs", inputs, model.inputs), ("outputs", outputs, model.outputs)):
            if len(names) != len(ports):
                raise EngineError(f"{name}: {path} has {len(ports)} {kind}, expected {len(names)} ({', '.join(names)})")
        if batch:
            model.reshape({port: [-1, *list(port.get_partial_shape())[1:]] for port in model.inputs})
        # OpenVINO takes bf16 by itself where the CPU has it: say the precision, always.
        options = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1,
        }
        compiled = _core().compile_model(model, "CPU", options)
        self._request = compiled.create_infer_request()
        self.inputs = tuple(_spec(n, p) for n, p in zip(inputs, compiled.inputs, strict=True))
        self.outputs = tuple(_spec(n, p) for n, p in zip(outputs, compiled.outputs, strict=True))
        log.info("%s: openvino %s, %d threads, %s", name, precision, self.threads, path.name)

    def warmup(self, batch_sizes: Sequence[int] = (1,)) -> None:
        for size in batch_sizes:
            self({s.name: np.zeros([size if d is None else d for d in s.shape], s.dtype) for s in self.inputs})

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if self._request is None:
            raise EngineError(f"{self.name}: the engine is closed")
        feed = {}
        for index, spec in enumerate(self.inputs):
            array = inputs.get(spec.name)
            if array is None or not spec.accepts(array):
                got = "nothing" if array is None else f"{array.dtype} {list(array.shape)}"
                raise EngineError(
                    f"{self.name}: input {spec.name}: expected {spec.dtype} {list(spec.shape)}, got {got}"
                )
            feed[index] = array
        self._request.infer(feed, share_inputs=True)
        return {s.name: self._request.get_output_tensor(i).data for i, s in enumerate(self.outputs)}

    def close(self) -> None:
        self._request = None


def _spec(name: str, port: Any) -> TensorSpec:
    shape = tuple(None if d.is_dynamic else d.get_length() for d in port.get_partial_shape())
    return TensorSpec(name, shape, np.dtype(port.get_element_type().to_dtype()).name)
