"""TensorRT from ONNX: the plain one, as JetPack and data-centre images bring it, and its RTX flavour.

Networks are strongly typed: the precision lives in the ONNX graph, and no builder flag can change it silently. TensorRT
for RTX builds on a machine without a GPU; what it built can be compared with eager fp32 only where it runs.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from emo_models.engines.backends.base import (
    Backend,
    BuildResult,
    BuildSpec,
    Comparison,
    Coverage,
    Progress,
    settled,
)
from emo_models.engines.machine import this_machine
from emo_models.engines.manifest import Manifest, Port
from emo_models.engines.protocol import Engine, EngineError

if TYPE_CHECKING:
    from torch import Tensor

    from emo_models.engines.cuda import Run
    from emo_models.engines.export import ExportedNetwork

PLAN: Final = "model.plan"
#: Older ones have no strongly typed networks with 64-bit indices.
OLDEST_MAJOR: Final = 10
#: Layers that multiply matrices or convolve, by the names of ``trt.LayerType``.
MULTIPLIES: Final = frozenset({"CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "EINSUM", "ATTENTION"})
#: Layers that only give their input another shape.
MOVES: Final = frozenset({"SHUFFLE", "IDENTITY", "SQUEEZE", "UNSQUEEZE"})
#: Names of ``trt.DataType`` -> those of numpy and torch.
DTYPES: Final = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT8": "int8", "FP8": "float8"}


class TensorRtBackend(Backend):
    """Plans of plain TensorRT: valid for its version and the GPU they were built on, unless the settings widen that."""

    name = "tensorrt"
    module = "tensorrt"
    device = "cuda"
    precisions: tuple[str, ...] = ("fp32", "fp16", "bf16", "int8")
    #: ``optimization_level`` 0 to 5; ``workspace_mb`` 0 leaves it to TensorRT; ``hardware_compatible``: any GPU from Ampere
    #: on; ``version_compatible``: later versions of TensorRT.
    SETTINGS: Mapping[str, Any] = {
        "optimization_level": 3, "workspace_mb": 0, "hardware_compatible": False, "version_compatible": False,
    }  # fmt: skip

    def available(self) -> str:
        try:
            version = str(self._library().__version__)
        except EngineError as error:
            return str(error)
        if self._outdated(version):
            return f"{self.module} {version} is too old: {OLDEST_MAJOR}.0 or later is needed (JetPack 6)"
        return self._without_gpu()

    def runs(self) -> str:
        """Empty where plans run here, else the reason."""
        return self.available() or self._without_gpu() or _torch_without_cuda()

    def versions(self) -> dict[str, str]:
        try:
            return {self.module: str(self._library().__version__)}
        except EngineError:
            return {}

    def build(self, source: ExportedNetwork, spec: BuildSpec, folder: Path, progress: Progress) -> BuildResult:
        settings = settled(self.SETTINGS, spec.settings, self.name)
        trt, logger = self._library(), self._logger()
        builder = trt.Builder(logger)
        progress(f"reading ONNX into {self.module}")
        network = _parsed(trt, builder, logger, self._onnx(source, spec))
        dtypes = network_layer_dtypes(network)
        config = builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)  # or fp32 would not be
        _add_profile(builder, config, source.inputs)
        self._configure(trt, config, settings)
        progress(f"building the plan of {network.num_layers} layers")
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise EngineError(f"{source.name}: {self.module} builds no plan: {logger.text()}")
        (folder / PLAN).write_bytes(memoryview(plan))
        return BuildResult(dtypes, settings, source.versions())

    def load(self, folder: Path, manifest: Manifest, threads: int) -> Engine:  # noqa: ARG002 - a CPU's
        from emo_models.engines.catalogue import part
        from emo_models.engines.cuda import CudaEngine

        if reason := self.runs():
            raise EngineError(reason)
        trt, logger = self._library(), self._logger()
        plan = trt.Runtime(logger).deserialize_cuda_engine((folder / PLAN).read_bytes())
        if plan is None:
            raise EngineError(f"{manifest.network}: {self.module} cannot load {folder.name}: {logger.text()}")
        return CudaEngine(
            manifest.network, lambda _: _context_run(plan, manifest.inputs, manifest.outputs), manifest.inputs,
            manifest.outputs, backend=self.name, version=str(trt.__version__), precision=manifest.precision,
            buckets=part(manifest.network).batches,
        )  # fmt: skip

    def coverage(self, source: ExportedNetwork) -> Coverage:
        """By the parser alone: neither a GPU nor a build is needed."""
        trt, logger = self._library(), self._logger()
        import onnx

        path = source.onnx()
        operators = len(onnx.load(path, load_external_data=False).graph.node)
        network = _network(trt, trt.Builder(logger))
        parser = trt.OnnxParser(network, logger)
        parser.parse_from_file(str(path))
        missing = Counter(parser.get_error(i).node_operator() or "?" for i in range(parser.num_errors))
        return Coverage(operators, dict(missing), f"by the parser of {self.module} {trt.__version__}")

    def _configure(self, trt: Any, config: Any, settings: Mapping[str, Any]) -> None:
        config.builder_optimization_level = settings["optimization_level"]
        if settings["workspace_mb"]:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings["workspace_mb"] << 20)
        if settings["hardware_compatible"]:
            config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
        if settings["version_compatible"]:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)

    def _onnx(self, source: ExportedNetwork, spec: BuildSpec) -> Path:
        if spec.precision != "int8":
            return source.onnx(spec.precision)
        from emo_models.engines.quantise import quantised_onnx

        return quantised_onnx(source, spec.calibration, signed=True)

    def _library(self) -> Any:
        try:
            return importlib.import_module(self.module)
        except (ImportError, OSError) as error:
            raise EngineError(f"{self.module} does not import ({error}); {self._remedy()}") from None

    def _remedy(self) -> str:
        return "it comes with JetPack, NVIDIA's container images or: pip install tensorrt"

    def _outdated(self, version: str) -> bool:
        return int(version.partition(".")[0]) < OLDEST_MAJOR

    def _without_gpu(self) -> str:
        """Plain TensorRT tries kernels on the GPU while it builds."""
        return "" if this_machine().gpu else "no NVIDIA GPU answers here"

    def _logger(self) -> Any:
        return _make_logger(self._library())


class TensorRtRtxBackend(TensorRtBackend):
    """TensorRT for RTX: GPUs of RTX workstations and laptops. Builds without a GPU, for the architectures it is told."""

    name = "tensorrt_rtx"
    module = "tensorrt_rtx"
    #: ``capabilities``: compute capabilities that the plan is for; empty: that of the GPU here, or all without one.
    SETTINGS: Mapping[str, Any] = {"optimization_level": 3, "workspace_mb": 0, "capabilities": ()}
    #: Compute capabilities that it knows (its support matrix), by the names of ``trt.ComputeCapability``.
    CAPABILITIES: Final = {"7.5": "SM75", "8.0": "SM80", "8.6": "SM86", "8.9": "SM89", "12.0": "SM120", "12.1": "SM121"}

    def runs(self) -> str:
        here = this_machine().capability
        if here and here not in self.CAPABILITIES:
            known = ", ".join(self.CAPABILITIES)
            return (
                f"{self.module} runs on compute capability {known}; this GPU has {here}: use torch_tensorrt or tensorrt"
            )
        if not here:
            return "no NVIDIA GPU answers here: it can build, not run"
        return super().runs()

    def compare(self, manifest: Manifest) -> list[Comparison]:
        """As plain TensorRT, but the architectures are those that were asked for, whatever machine built the plan."""
        found = [one for one in super().compare(manifest) if one.name != "machine.capability"]
        built = [str(name) for name in manifest.settings.get("capabilities", ())]
        here = this_machine().capability
        found.append(Comparison("settings.capabilities", ", ".join(built), here or "no GPU", here in built))
        return found

    def build(self, source: ExportedNetwork, spec: BuildSpec, folder: Path, progress: Progress) -> BuildResult:
        here = this_machine().capability
        asked = tuple(map(str, spec.settings.get("capabilities", ())))
        wanted = asked or ((here,) if here in self.CAPABILITIES else tuple(self.CAPABILITIES))
        if unknown := sorted(set(wanted) - set(self.CAPABILITIES)):
            raise EngineError(
                f"{self.name}: no capability {', '.join(unknown)}; it has: {', '.join(self.CAPABILITIES)}"
            )
        settings = {**spec.settings, "capabilities": wanted}
        return super().build(
            source, BuildSpec(spec.precision, spec.calibration, settings, spec.threads), folder, progress
        )

    def _configure(self, trt: Any, config: Any, settings: Mapping[str, Any]) -> None:
        config.builder_optimization_level = settings["optimization_level"]
        if settings["workspace_mb"]:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings["workspace_mb"] << 20)
        config.num_compute_capabilities = len(settings["capabilities"])
        for index, name in enumerate(settings["capabilities"]):
            config.set_compute_capability(getattr(trt.ComputeCapability, self.CAPABILITIES[name]), index)

    def _remedy(self) -> str:
        return "install it with: pip install tensorrt-rtx-cu13"

    def _outdated(self, version: str) -> bool:  # noqa: ARG002 - all of its releases are typed
        return False

    def _without_gpu(self) -> str:
        return ""


def network_layer_dtypes(network: Any) -> dict[str, int]:
    """Type -> number of layers that multiply: of a strongly typed network, which the plan has to keep."""
    found: Counter[str] = Counter()
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    makers = {layer.get_output(i).name: layer for layer in layers for i in range(layer.num_outputs)}
    for layer in layers:
        if layer.type.name in MULTIPLIES:
            names = {_computed_in(layer.get_input(i), makers) for i in range(min(2, layer.num_inputs))}
            # One factor in eight bits alone is dequantised before it is multiplied.
            name = names.pop() if len(names) == 1 else next(iter(names - {"INT8"}))
            found[DTYPES.get(name, name.lower())] += 1
    return dict(found)


def _computed_in(tensor: Any, makers: Mapping[str, Any]) -> str:
    """Type of a factor; one that comes out of a dequantisation is multiplied in the type before that."""
    dtype = str(tensor.dtype.name)
    while tensor is not None and (maker := makers.get(tensor.name)) is not None:
        if maker.type.name == "DEQUANTIZE":
            return str(maker.get_input(0).dtype.name)
        if maker.type.name not in MOVES:
            break
        tensor = maker.get_input(0)
    return dtype


def _network(trt: Any, builder: Any) -> Any:
    return builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))


def _parsed(trt: Any, builder: Any, logger: Any, path: Path) -> Any:
    network = _network(trt, builder)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        faults = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise EngineError(f"{path.name}: {trt.__name__} cannot convert it: {faults}")
    return network


def _add_profile(builder: Any, config: Any, inputs: Sequence[Port]) -> None:
    profile = builder.create_optimization_profile()
    for port in inputs:
        profile.set_shape(port.name, port.min, port.opt, port.max)
    config.add_optimization_profile(profile)


def _context_run(plan: Any, inputs: Sequence[Port], outputs: Sequence[Port]) -> Run:
    """What runs one batch size; each has a context of its own, for a captured graph must be the only one to use it."""
    import torch

    context = plan.create_execution_context()

    def run(feed: Sequence[Tensor]) -> list[Tensor]:
        for port, tensor in zip(inputs, feed, strict=True):
            context.set_input_shape(port.name, tuple(tensor.shape))
            context.set_tensor_address(port.name, tensor.data_ptr())
        made = []
        for port in outputs:
            shape = tuple(context.get_tensor_shape(port.name))
            made.append(torch.empty(shape, dtype=getattr(torch, port.dtype), device="cuda"))
            context.set_tensor_address(port.name, made[-1].data_ptr())
        if not context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise EngineError("TensorRT could not start the network; its log says why")
        return made

    return run


def _torch_without_cuda() -> str:
    import torch

    return "" if torch.cuda.is_available() else "torch, which holds the memory, was installed without CUDA"


def _make_logger(trt: Any) -> Any:
    """A logger that keeps errors, so that they can be told in the exception that follows."""

    class Logger(trt.ILogger):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, text: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(text)

        def text(self) -> str:
            return "; ".join(self.errors[-3:]) or "it gives no reason"

    return Logger()
