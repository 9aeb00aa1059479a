"""OpenVINO: the CPU's fastest. Reads TFLite, ONNX and its own IR files as they are."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from emo_models.engines.backends.base import (
    Backend,
    BuildResult,
    BuildSpec,
    Coverage,
    Progress,
    installed,
    settled,
)
from emo_models.engines.manifest import Manifest
from emo_models.engines.protocol import Arrays, EngineError, TensorSpec, fed
from emo_models.engines.threads import cpu_threads

if TYPE_CHECKING:
    from emo_models.engines.export import ExportedNetwork

log = logging.getLogger(__name__)

MODEL: Final = "model.xml"
#: Precision -> hint. OpenVINO takes bf16 by itself where the CPU has it: say the precision, always. Eight-bit weights
#: stand in the model; what is left of it runs in fp32.
HINTS: Final = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
#: Layers of the executable graph that multiply matrices or convolve.
MULTIPLIES: Final = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul"})
#: Its names for types -> those of numpy and torch.
DTYPES: Final = {"f32": "float32", "bf16": "bfloat16", "f16": "float16", "i8": "int8", "u8": "uint8"}
#: Extensions without which a CPU does not compute in bf16.
BF16_NEEDS: Final = "avx512_bf16|amx_bf16|bf16"


@cache
def _core() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise EngineError(f"OpenVINO does not import ({error}); install it with: pip install openvino") from None
    return openvino.Core()


class OpenVinoEngine:
    """One compiled network and its only infer request; see :class:`emo_models.engines.Engine`.

    ``inputs`` and ``outputs`` name the tensors in the model's own order. ``threads`` 0: by the rule of
    :mod:`emo_models.engines.threads`.

    Raises :class:`EngineError` when the file cannot be read or does not have that many inputs and outputs.
    """

    backend = "openvino"
    device = "cpu"

    def __init__(
        self,
        name: str,
        path: Path,
        *,
        inputs: Sequence[str],
        outputs: Sequence[str],
        precision: str = "fp32",
        threads: int = 0,
        log_as: str = "",
    ) -> None:
        self.name = name
        self.precision = precision
        self.threads = threads or cpu_threads(name)
        self.version = installed("openvino")
        core = _core()
        try:
            model = core.read_model(path)
        except RuntimeError as error:
            raise EngineError(f"{name}: OpenVINO cannot read {path}: {error}") from None
        for kind, names, ports in (("inputs", inputs, model.inputs), ("outputs", outputs, model.outputs)):
            if len(names) != len(ports):
                raise EngineError(f"{name}: {path} has {len(ports)} {kind}, expected {len(names)} ({', '.join(names)})")
        options = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1,
        }
        self._compiled = core.compile_model(model, "CPU", options)
        self._request = self._compiled.create_infer_request()
        self.inputs = tuple(_spec(n, p) for n, p in zip(inputs, self._compiled.inputs, strict=True))
        self.outputs = tuple(_spec(n, p) for n, p in zip(outputs, self._compiled.outputs, strict=True))
        log.info("%s: openvino %s, %d threads, %s", name, precision, self.threads, log_as or path.name)

    def warmup(self, batch_sizes: Sequence[int] = (1,)) -> None:
        for size in batch_sizes:
            self({s.name: np.zeros([size if d is None else d for d in s.shape], s.dtype) for s in self.inputs})

    def __call__(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        if self._request is None:
            raise EngineError(f"{self.name}: the engine is closed")
        feed = dict(enumerate(fed(self, inputs)))
        try:
            self._request.infer(feed, share_inputs=True)
        except RuntimeError as error:
            raise EngineError(f"{self.name}: OpenVINO: {' '.join(str(error).split())}") from None
        return {s.name: self._request.get_output_tensor(i).data for i, s in enumerate(self.outputs)}

    def close(self) -> None:
        self._request = self._compiled = None

    def layer_dtypes(self) -> dict[str, int]:
        """Type -> number of convolutions and matrix products that run in it, as the executable graph says."""
        found: Counter[str] = Counter()
        for operation in self._compiled.get_runtime_model().get_ops():
            facts = operation.get_rt_info()
            if "layerType" in facts and facts["layerType"].astype(str) in MULTIPLIES:
                dtype = facts["runtimePrecision"].astype(str)
                found[DTYPES.get(dtype, dtype)] += 1
        return dict(found)


def _spec(name: str, port: Any) -> TensorSpec:
    shape = tuple(None if d.is_dynamic else d.get_length() for d in port.get_partial_shape())
    return TensorSpec(name, shape, np.dtype(port.get_element_type().to_dtype()).name)


class OpenVinoBackend(Backend):
    """Builds IR out of ONNX."""

    name = "openvino"
    device = "cpu"
    precisions: tuple[str, ...] = ("fp32", "bf16", "int8")
    SETTINGS: Final[Mapping[str, Any]] = {}

    def available(self) -> str:
        try:
            _core()
        except EngineError as error:
            return str(error)
        return ""

    def versions(self) -> dict[str, str]:
        return {"openvino": version} if (version := installed("openvino")) else {}

    def build(self, source: ExportedNetwork, spec: BuildSpec, folder: Path, progress: Progress) -> BuildResult:
        import openvino

        settings = settled(self.SETTINGS, spec.settings, self.name)
        progress("converting for OpenVINO")
        model = openvino.convert_model(source.onnx())
        # ONNX only names the axis that varies.
        model.reshape({i: openvino.PartialShape(_sizes(port)) for i, port in enumerate(source.inputs)})
        if spec.precision == "int8":
            from emo_models.engines.quantise import quantised_openvino

            progress(f"quantising by {len(spec.calibration)} inputs")
            model = quantised_openvino(model, source, spec.calibration)
        openvino.save_model(model, folder / MODEL, compress_to_fp16=False)
        progress("compiling, to read back the precision of the layers")
        engine = self._engine(source.name, folder, source, spec.precision, spec.threads)
        dtypes = engine.layer_dtypes()
        engine.close()
        requires = (BF16_NEEDS,) if spec.precision == "bf16" else ()
        return BuildResult(dtypes, settings, source.versions(), requires)

    def load(self, folder: Path, manifest: Manifest, threads: int) -> OpenVinoEngine:
        return self._engine(manifest.network, folder, manifest, manifest.precision, threads)

    def coverage(self, source: ExportedNetwork) -> Coverage:
        import openvino

        try:
            model = openvino.convert_model(source.onnx())
        except Exception as error:  # what cannot be converted raises errors of many kinds
            return Coverage(0, {}, f"OpenVINO cannot convert it: {error}")
        return Coverage(len(model.get_ops()), {}, "converted whole")

    @staticmethod
    def _engine(
        name: str, folder: Path, ports: ExportedNetwork | Manifest, precision: str, threads: int
    ) -> OpenVinoEngine:
        return OpenVinoEngine(
            name,
            folder / MODEL,
            inputs=[p.name for p in ports.inputs],
            outputs=[p.name for p in ports.outputs],
            precision=precision,
            threads=threads,
            log_as=folder.name,
        )


def _sizes(port: Any) -> list[Any]:
    return [low if low == high else (low, high) for low, high in zip(port.min, port.max, strict=True)]
