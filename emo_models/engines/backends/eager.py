"""Eager torch: needs no compiler, runs everywhere; what the others are compared with."""

from __future__ import annotations

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
from emo_models.engines.manifest import Manifest, Port
from emo_models.engines.protocol import Arrays, Engine, EngineError, TensorSpec, fed
from emo_models.engines.threads import cpu_threads

if TYPE_CHECKING:
    from emo_models.engines.export import ExportedNetwork

WEIGHTS: Final = "weights.safetensors"


class EagerEngine:
    """A torch module behind the protocol; see :class:`emo_models.engines.Engine`.

    The number of threads is torch's own and counts for the whole process: it is set before each call.
    """

    backend = "eager"
    device = "cpu"

    def __init__(
        self, name: str, module: Any, inputs: Sequence[Port], outputs: Sequence[Port], *, precision: str, threads: int
    ) -> None:
        import torch

        self._torch = torch
        self.name, self.precision = name, precision
        self.version = str(torch.__version__)
        self.threads = threads or cpu_threads(name)
        self.inputs: tuple[TensorSpec, ...] = tuple(port.spec for port in inputs)
        self.outputs: tuple[TensorSpec, ...] = tuple(port.spec for port in outputs)
        self._module = module

    def warmup(self, batch_sizes: Sequence[int] = (1,)) -> None:
        for size in batch_sizes:
            self({s.name: np.zeros([size if d is None else d for d in s.shape], s.dtype) for s in self.inputs})

    def __call__(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        if self._module is None:
            raise EngineError(f"{self.name}: the engine is closed")
        feed = [self._torch.from_numpy(np.ascontiguousarray(array)) for array in fed(self, inputs)]
        if self._torch.get_num_threads() != self.threads:
            self._torch.set_num_threads(self.threads)
        with self._torch.inference_mode():
            values = self._module(*feed)
        return {spec.name: value.numpy() for spec, value in zip(self.outputs, values, strict=True)}

    def close(self) -> None:
        self._module = None


class EagerBackend(Backend):
    """Keeps the tensors of the part; the module is made from the config when it is loaded."""

    name = "eager"
    device = "cpu"
    precisions: tuple[str, ...] = ("fp32", "bf16")
    SETTINGS: Final[Mapping[str, Any]] = {}

    def available(self) -> str:
        return "" if installed("torch") else "torch is not installed; type: make torch"

    def versions(self) -> dict[str, str]:
        return {"torch": version} if (version := installed("torch")) else {}

    def build(self, source: ExportedNetwork, spec: BuildSpec, folder: Path, progress: Progress) -> BuildResult:
        from safetensors.torch import save_file

        settings = settled(self.SETTINGS, spec.settings, self.name)
        progress("writing the tensors")
        state = {name: tensor.detach().clone() for name, tensor in source.part.holder.state_dict().items()}
        save_file(state, str(folder / WEIGHTS))
        return BuildResult(eager_layer_dtypes(source.module(spec.precision)), settings, source.versions())

    def load(self, folder: Path, manifest: Manifest, threads: int) -> Engine:
        return EagerEngine(
            manifest.network, self._module(folder, manifest), manifest.inputs, manifest.outputs,
            precision=manifest.precision, threads=threads,
        )  # fmt: skip

    @staticmethod
    def _module(folder: Path, manifest: Manifest) -> Any:
        from safetensors.torch import load_file

        from emo_models.engines.export import DTYPES, InPrecision
        from emo_models.engines.parts import from_manifest

        part = from_manifest(manifest)
        part.holder.load_state_dict(load_file(str(folder / WEIGHTS)))
        return InPrecision(part.module, DTYPES[manifest.precision]).eval()

    def coverage(self, source: ExportedNetwork) -> Coverage:
        return Coverage(len(source.program().graph.nodes), {}, "every operator is torch's own")


class EagerCudaBackend(EagerBackend):
    """The same on a GPU, with buffers and graphs: the last resort there."""

    name = "eager_cuda"
    device = "cuda"
    precisions = ("fp32", "fp16", "bf16")

    def available(self) -> str:
        if reason := super().available():
            return reason
        from emo_models.engines.machine import this_machine

        if not this_machine().gpu:
            return "no NVIDIA GPU answers here"
        import torch

        return "" if torch.cuda.is_available() else "torch was installed without CUDA"

    def load(self, folder: Path, manifest: Manifest, threads: int) -> Engine:  # noqa: ARG002 - a CPU's
        from emo_models.engines.catalogue import part
        from emo_models.engines.cuda import CudaEngine

        if reason := self.runs():
            raise EngineError(reason)
        import torch

        module = self._module(folder, manifest).to(self.device)
        return CudaEngine(
            manifest.network, lambda _: lambda feed: module(*feed), manifest.inputs, manifest.outputs,
            backend=self.name, version=str(torch.__version__), precision=manifest.precision,
            buckets=part(manifest.network).batches,
        )  # fmt: skip


def eager_layer_dtypes(module: Any) -> dict[str, int]:
    """Type -> number of convolution and linear layers."""
    import torch

    kinds = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
    found = Counter(str(m.weight.dtype).removeprefix("torch.") for m in module.modules() if isinstance(m, kinds))
    return dict(found)
