"""All backends by name, and the order in which they are preferred. A backend is registered by one line of TABLE."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any, Final, cast

from emo_models.engines.backends.base import Backend
from emo_models.engines.protocol import EngineError

#: Name -> ``module:class``, the preferred one first: those of a GPU, then those of the CPU.
TABLE: Final = {
    "torch_tensorrt": "emo_models.engines.backends.torch_tensorrt:TorchTensorRtBackend",
    "tensorrt": "emo_models.engines.backends.tensorrt:TensorRtBackend",
    "tensorrt_rtx": "emo_models.engines.backends.tensorrt:TensorRtRtxBackend",
    "eager_cuda": "emo_models.engines.backends.eager:EagerCudaBackend",
    "openvino": "emo_models.engines.backends.openvino:OpenVinoBackend",
    "onnxruntime": "emo_models.engines.backends.onnxruntime:OnnxRuntimeBackend",
    "eager": "emo_models.engines.backends.eager:EagerBackend",
}


@cache
def backend(name: str) -> Backend:
    """The backend of that name. Raises :class:`EngineError` that lists the names."""
    if name not in TABLE:
        raise EngineError(f"no backend {name!r}; choose one of: {', '.join(TABLE)}")
    module, _, kind = TABLE[name].partition(":")
    return cast("Backend", cast("Any", getattr(importlib.import_module(module), kind))())


def in_order() -> tuple[Backend, ...]:
    """All backends, the preferred one first."""
    return tuple(backend(name) for name in TABLE)
