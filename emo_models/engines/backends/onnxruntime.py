"""ONNX Runtime on the CPU: where OpenVINO has no build. Reads ONNX files as they are."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
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

MODEL: Final = "model.onnx"
#: Its names for types -> those of numpy.
DTYPES: Final = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16", "tensor(int64)": "int64",
    "tensor(int32)": "int32", "tensor(uint8)": "uint8", "tensor(int8)": "int8", "tensor(bool)": "bool",
}  # fmt: skip
#: Nodes that multiply eight-bit numbers; the session makes them of nodes between dequantisation and quantisation.
EIGHT_BITS: Final = frozenset({
    "QLinearConv", "QLinearMatMul", "QGemm", "MatMulInteger", "MatMulIntegerToFloat", "ConvInteger",
})  # fmt: skip
FLOATS: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "FusedConv", "FusedMatMul", "FusedGemm"})
MULTIPLIES: Final = FLOATS | EIGHT_BITS


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(f"ONNX Runtime does not import ({error}); install it with: pip install onnxruntime") from None
    return onnxruntime


class OnnxRuntimeEngine:
    """One session; see :class:`emo_models.engines.Engine`. Arguments and errors as those of ``OpenVinoEngine``."""

    backend = "onnxruntime"
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
        optimised: Path | None = None,
    ) -> None:
        """``precision`` is a fact about the file; ``optimised``: where to write the graph that is executed."""
        runtime = _runtime()
        self.name, self.precision, self.version = name, precision, str(runtime.__version__)
        self.threads = threads or cpu_threads(name)
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.log_severity_level = 3
        # Threads that wait by spinning take the time of the engines beside them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if optimised is not None:
            options.optimized_model_filepath = str(optimised)
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # it has an exception class for each kind of failure, and no common one
            raise EngineError(f"{name}: ONNX Runtime cannot read {path}: {error}") from None
        takes, gives = self._session.get_inputs(), self._session.get_outputs()
        for kind, names, ports in (("inputs", inputs, takes), ("outputs", outputs, gives)):
            if len(names) != len(ports):
                raise EngineError(f"{name}: {path} has {len(ports)} {kind}, expected {len(names)} ({', '.join(names)})")
        self.inputs = tuple(_spec(n, p) for n, p in zip(inputs, takes, strict=True))
        self.outputs = tuple(_spec(n, p) for n, p in zip(outputs, gives, strict=True))
        self._feed = [port.name for port in takes]
        log.info("%s: onnxruntime %s, %d threads, %s", name, precision, self.threads, log_as or path.name)

    def warmup(self, batch_sizes: Sequence[int] = (1,)) -> None:
        for size in batch_sizes:
            self({s.name: np.zeros([size if d is None else d for d in s.shape], s.dtype) for s in self.inputs})

    def __call__(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        if self._session is None:
            raise EngineError(f"{self.name}: the engine is closed")
        feed = dict(zip(self._feed, fed(self, inputs), strict=True))
        values = self._session.run(None, feed)
        return {spec.name: value for spec, value in zip(self.outputs, values, strict=True)}

    def close(self) -> None:
        self._session = None


def _spec(name: str, port: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else None for size in port.shape)
    return TensorSpec(name, shape, DTYPES.get(port.type, port.type))


class OnnxRuntimeBackend(Backend):
    """Keeps the ONNX file; the session optimises it when it is loaded."""

    name = "onnxruntime"
    device = "cpu"
    precisions: tuple[str, ...] = ("fp32", "int8")
    SETTINGS: Final[Mapping[str, Any]] = {}

    def available(self) -> str:
        try:
            _runtime()
        except EngineError as error:
            return str(error)
        return ""

    def versions(self) -> dict[str, str]:
        return {"onnxruntime": version} if (version := installed("onnxruntime")) else {}

    def build(self, source: ExportedNetwork, spec: BuildSpec, folder: Path, progress: Progress) -> BuildResult:
        settings = settled(self.SETTINGS, spec.settings, self.name)
        progress("writing ONNX")
        save_onnx(self._source(source, spec, progress), folder / MODEL)
        progress("optimising, to read back the precision of the layers")
        dtypes = self._layer_dtypes(source, folder, spec)
        return BuildResult(dtypes, settings, source.versions())

    def load(self, folder: Path, manifest: Manifest, threads: int) -> OnnxRuntimeEngine:
        return self._engine(manifest.network, folder, manifest, precision=manifest.precision, threads=threads)

    def coverage(self, source: ExportedNetwork) -> Coverage:
        import onnx

        return Coverage(
            len(onnx.load(source.onnx(), load_external_data=False).graph.node), {}, "every standard operator"
        )

    @staticmethod
    def _source(source: ExportedNetwork, spec: BuildSpec, progress: Progress) -> Path:
        if spec.precision != "int8":
            return source.onnx()
        from emo_models.engines.quantise import quantised_onnx

        progress(f"quantising by {len(spec.calibration)} inputs")
        return quantised_onnx(source, spec.calibration)

    def _layer_dtypes(self, source: ExportedNetwork, folder: Path, spec: BuildSpec) -> dict[str, int]:
        """Of the graph that the session executes, which it writes for us."""
        import onnx

        executed = source.work / f"{source.name}.executed.onnx"
        self._engine(
            source.name, folder, source, precision=spec.precision, threads=spec.threads, optimised=executed
        ).close()
        return onnx_layer_dtypes(onnx.load(executed, load_external_data=False), MULTIPLIES)

    @staticmethod
    def _engine(
        name: str,
        folder: Path,
        ports: ExportedNetwork | Manifest,
        *,
        precision: str,
        threads: int,
        optimised: Path | None = None,
    ) -> OnnxRuntimeEngine:
        return OnnxRuntimeEngine(
            name,
            folder / MODEL,
            inputs=[p.name for p in ports.inputs],
            outputs=[p.name for p in ports.outputs],
            precision=precision,
            threads=threads,
            log_as=folder.name,
            optimised=optimised,
        )


def save_onnx(source: Path, target: Path) -> None:
    """Copy an ONNX file under another name; its tensors move into it, or into one file beside it where it is large."""
    import onnx

    from emo_models.engines.export import EXTERNAL_BYTES

    model = onnx.load(source)
    large = sum(t.ByteSize() for t in model.graph.initializer) > EXTERNAL_BYTES
    onnx.save_model(model, target, save_as_external_data=large, location=f"{target.name}.data")


def onnx_layer_dtypes(model: Any, multiplies: frozenset[str]) -> dict[str, int]:
    """Type -> number of nodes of the kinds ``multiplies``; a graph without typed values counts by its tensors."""
    import onnx

    graph = model.graph
    types = {t.name: t.data_type for t in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        types.setdefault(value.name, value.type.tensor_type.elem_type)
    found: Counter[str] = Counter()
    for node in graph.node:
        if node.op_type in EIGHT_BITS & multiplies:
            found["int8"] += 1
        elif node.op_type in multiplies:
            known = next((types[name] for name in (*node.input[1:2], node.input[0], *node.output) if name in types), 0)
            name = onnx.helper.tensor_dtype_to_np_dtype(known).name if known else "float32"
            found[name] += 1
    return dict(found)
