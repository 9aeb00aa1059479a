"""Torch-TensorRT: an exported program compiled whole for the GPU it is built on, kept as a program again."""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emo_models.engines.backends.base import (
    Backend,
    BuildResult,
    BuildSpec,
    Coverage,
    Progress,
    installed,
    settled,
)
from emo_models.engines.machine import this_machine
from emo_models.engines.manifest import Manifest
from emo_models.engines.protocol import Engine, EngineError

if TYPE_CHECKING:
    from emo_models.engines.export import ExportedNetwork

PROGRAM: Final = "model.ep"
#: Parts of TensorRT's names of data types -> those of torch.
DTYPES: Final = {
    "FP32": "float32",
    "FLOAT": "float32",
    "HALF": "float16",
    "FP16": "float16",
    "BF16": "bfloat16",
    "INT8": "int8",
}
MULTIPLIES: Final = ("convolution", "deconvolution", "matrix", "gemm", "einsum", "attention")
#: Operators of an exported program that multiply.
ATEN: Final = ("convolution", "conv1d", "conv2d", "conv3d", "linear", "mm", "bmm", "addmm", "matmul", "attention")


class TorchTensorRtBackend(Backend):
    """The dynamo path. Precision lives in the program: wishes about it are ignored by some versions, so none is passed."""

    name = "torch_tensorrt"
    device = "cuda"
    precisions: tuple[str, ...] = ("fp32", "fp16", "bf16")
    SETTINGS: Final[Mapping[str, Any]] = {
        "optimization_level": 3, "workspace_size": 0, "min_block_size": 1, "require_full_compilation": True,
        "hardware_compatible": False, "version_compatible": False,
    }  # fmt: skip

    def available(self) -> str:
        if not installed("torch-tensorrt"):
            return "torch-tensorrt is not installed; see docs/engines.md for the version that fits your torch"
        if not this_machine().gpu:
            return "no NVIDIA GPU answers here, and torch-tensorrt does not import without one"
        try:
            self._library()
        except EngineError as error:
            return str(error)
        return ""

    def versions(self) -> dict[str, str]:
        names = ("torch", "torch-tensorrt", "tensorrt")
        return {n: v for n in names if (v := installed(n))} if installed("torch-tensorrt") else {}

    def build(self, source: ExportedNetwork, spec: BuildSpec, folder: Path, progress: Progress) -> BuildResult:
        library = self._library()
        settings = settled(self.SETTINGS, spec.settings, self.name)
        program = source.program(spec.precision)
        inputs = [
            library.Input(min_shape=p.min, opt_shape=p.opt, max_shape=p.max, dtype=_torch_dtype(p.dtype))
            for p in source.inputs
        ]
        progress("compiling the program with torch-tensorrt")
        compile_ = library.dynamo.compile
        module = compile_(program, arg_inputs=tuple(inputs), **accepted(compile_, self._arguments(settings, folder)))
        dtypes, read = _layer_dtypes(module)
        if not dtypes:
            dtypes, read = program_layer_dtypes(program), "program"
        examples = tuple(x.cuda() for x in source.examples())
        library.save(module, str(folder / PROGRAM), output_format="exported_program", arg_inputs=examples)
        return BuildResult(dtypes, {**settings, "layer_dtypes_from": read}, source.versions())

    def load(self, folder: Path, manifest: Manifest, threads: int) -> Engine:  # noqa: ARG002 - a CPU's
        import torch

        from emo_models.engines.catalogue import part
        from emo_models.engines.cuda import CudaEngine

        library = self._library()
        module = torch.export.load(str(folder / PROGRAM)).module()

        def run(feed: Any) -> list[Any]:
            made = module(*feed)
            return list(made) if isinstance(made, (tuple, list)) else [made]

        return CudaEngine(
            manifest.network, lambda _: run, manifest.inputs, manifest.outputs, backend=self.name,
            version=str(library.__version__), precision=manifest.precision, buckets=part(manifest.network).batches,
        )  # fmt: skip

    def coverage(self, source: ExportedNetwork) -> Coverage:
        """By a dry run, which converts and builds nothing."""
        library = self._library()
        program = source.program()
        operators = [node for node in program.graph.nodes if node.op == "call_function"]
        supported = library.dynamo.partitioning._adjacency_partitioner.OpSupportTester()
        missing = Counter(str(n.target) for n in operators if not supported.is_node_supported({}, n))
        return Coverage(len(operators), dict(missing), f"by torch-tensorrt {library.__version__}")

    def _library(self) -> Any:
        try:
            import torch_tensorrt
        except (ImportError, OSError, RuntimeError) as error:
            raise EngineError(f"torch-tensorrt does not import ({error}); see docs/engines.md") from None
        return torch_tensorrt

    @staticmethod
    def _arguments(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """What is asked of the compiler. Its caches would lie in /tmp, where everybody may write."""
        return {
            **settings,
            "timing_cache_path": str(folder.parent / "timing.bin"),
            "cache_built_engines": False,
            "reuse_cached_engines": False,
            "use_explicit_typing": True,
        }


#: Not known to every version, and without effect where it is missing: typing is explicit there in any case.
_OPTIONAL: Final = frozenset(
    {"use_explicit_typing", "cache_built_engines", "reuse_cached_engines", "timing_cache_path"}
)


def accepted(function: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that a function names; ``**kwargs`` would swallow the others in silence.

    Raises :class:`EngineError` for one that changes the result and is not named.
    """
    names = inspect.signature(function).parameters
    if lost := sorted(set(arguments) - set(names) - _OPTIONAL):
        raise EngineError(f"this version of torch-tensorrt does not know {', '.join(lost)}; see docs/engines.md")
    return {name: value for name, value in arguments.items() if name in names}


def program_layer_dtypes(program: Any) -> dict[str, int]:
    """Type -> number of operators of an exported program that multiply."""
    found: Counter[str] = Counter()
    for node in program.graph.nodes:
        if node.op == "call_function" and str(node.target).split(".")[-2:-1] and _multiplies(str(node.target)):
            found[str(node.meta["val"].dtype).removeprefix("torch.")] += 1
    return dict(found)


def inspector_layer_dtypes(text: str) -> dict[str, int]:
    """Type -> number of layers that multiply, out of the JSON of TensorRT's engine inspector."""
    found: Counter[str] = Counter()
    for layer in json.loads(text).get("Layers", []):
        if not isinstance(layer, dict) or not any(
            kind in str(layer.get("LayerType", "")).lower() for kind in MULTIPLIES
        ):
            continue
        form = " ".join(str(port.get("Format/Datatype", "")) for port in layer.get("Inputs", [])[:1]).upper()
        found[next((name for part, name in DTYPES.items() if part in form), form or "unknown")] += 1
    return dict(found)


def _multiplies(target: str) -> bool:
    return any(target.split(".")[1].startswith(name) for name in ATEN)


def _layer_dtypes(module: Any) -> tuple[dict[str, int], str]:
    """Out of the compiled parts, where this version lets one look into them."""
    found: Counter[str] = Counter()
    for part in module.modules():
        if hasattr(part, "get_layer_info"):
            try:
                found.update(inspector_layer_dtypes(part.get_layer_info()))
            except (RuntimeError, ValueError):  # without a detailed profile there is nothing to read
                return {}, "program"
    return dict(found), "inspector"


def _torch_dtype(name: str) -> Any:
    import torch

    return getattr(torch, name)
