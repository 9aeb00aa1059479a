"""From a network to what backends compile: an exported program, and ONNX made of it; each once, when first asked for.

The precision lives in the graph: ``bf16`` and ``fp16`` are exported with fp32 inputs and outputs and everything between
them in that type, because builders ignore most wishes about precision. Backends that lower the precision by themselves
ask for ``fp32``.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch._decomp import get_decompositions

from emo_models.checkpoints.own import weights_hash
from emo_models.engines.catalogue import PartEntry
from emo_models.engines.manifest import Port, Weights
from emo_models.engines.parts import Part
from emo_models.engines.protocol import EngineError

OPSET: Final = 20
DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
#: What the ONNX parser of TensorRT knows in fp32 and fp16 only: exported in parts.
NOT_IN_BF16: Final = (torch.ops.aten.hardswish,)
#: Larger graphs keep their tensors in a file beside the ONNX file, whose format ends at 2 GB.
EXTERNAL_BYTES: Final = 1_500_000_000


class InPrecision(nn.Module):
    """A module that computes in one type behind fp32 inputs and outputs."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module = module if dtype == torch.float32 else copy.deepcopy(module).to(dtype)
        self.dtype = dtype

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        values = self.module(*(x.to(self.dtype) if x.is_floating_point() else x for x in inputs))
        return tuple(x.float() if x.is_floating_point() else x for x in values)


@dataclass
class ExportedNetwork:
    """A network on its way into an artefact. ``work``: folder for what is made on the way."""

    entry: PartEntry
    preset: str
    config: dict[str, Any]
    part: Part
    weights: Weights
    work: Path
    _programs: dict[str, torch.export.ExportedProgram] = field(default_factory=dict)
    _onnx: dict[str, Path] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the engine, in the catalogue."""
        return self.entry.name

    @property
    def inputs(self) -> tuple[Port, ...]:
        """The inputs, in the order of the graph."""
        return self.part.inputs

    @property
    def outputs(self) -> tuple[Port, ...]:
        """The outputs, in the order of the graph."""
        return self.part.outputs

    def module(self, precision: str = "fp32") -> nn.Module:
        """The eager module that computes in that precision."""
        return InPrecision(self.part.module, DTYPES[precision]).eval()

    def program(self, precision: str = "fp32") -> torch.export.ExportedProgram:
        """The exported program. Raises :class:`EngineError` where torch cannot export the network."""
        if precision not in self._programs:
            try:
                with quiet(), torch.no_grad():
                    # One element for the module's *inputs, and in it one for each of them.
                    self._programs[precision] = torch.export.export(
                        self.module(precision), self.examples(), dynamic_shapes=(self._dynamic(),), strict=False
                    )
            except Exception as error:  # torch.export raises whatever it stumbles over
                raise EngineError(f"{self.name}: torch cannot export the network in {precision}: {error}") from error
        return self._programs[precision]

    def onnx(self, precision: str = "fp32") -> Path:
        """An ONNX file of the program, with the ports' names. Raises :class:`EngineError`."""
        if precision not in self._onnx:
            program = self.program(precision)
            self.work.mkdir(parents=True, exist_ok=True)
            path = self.work / f"{self.name}.{precision}.onnx"
            try:
                with quiet():
                    if precision == "bf16":
                        program = program.run_decompositions(get_decompositions(NOT_IN_BF16))
                    made = torch.onnx.export(
                        program, dynamo=True, opset_version=OPSET, verbose=False,
                        input_names=[p.name for p in self.inputs], output_names=[p.name for p in self.outputs],
                    )  # fmt: skip
            except Exception as error:
                raise EngineError(f"{self.name}: no ONNX can be made of the network: {error}") from error
            _in_one_type(cast("Any", made).model)
            cast("Any", made).save(str(path), external_data=self.bytes > EXTERNAL_BYTES)
            self._onnx[precision] = path
        return self._onnx[precision]

    @property
    def bytes(self) -> int:
        """Size of the parameters in memory."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.part.holder.state_dict().values())

    @property
    def graph_sha256(self) -> str:
        """SHA-256 over the fp32 graph: operations, shapes and all tensors."""
        program = self.program()
        digest = hashlib.sha256(program.graph_module.code.encode())
        for node in program.graph.nodes:
            if node.op == "placeholder":
                value = node.meta.get("val")
                digest.update(f"{node.name} {getattr(value, 'dtype', '')} {list(getattr(value, 'shape', ()))}".encode())
        tensors = {name: value for name, value in program.constants.items() if isinstance(value, Tensor)}
        digest.update(weights_hash({**program.state_dict, **tensors}).encode())
        return digest.hexdigest()

    @staticmethod
    def versions() -> dict[str, str]:
        """What makes the graph: torch, and the writers of ONNX where they are installed."""
        found = {"torch": torch.__version__, "onnx opset": str(OPSET)}
        for package in ("onnx", "onnxscript"):
            try:
                found[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue
        return found

    def examples(self) -> tuple[Tensor, ...]:
        """Inputs to trace with. A batch that varies is traced with 2, for 1 would be taken as a constant."""
        shapes = (tuple(2 if low != high else low for low, high in zip(p.min, p.max, strict=True)) for p in self.inputs)
        return tuple(torch.zeros(s, dtype=getattr(torch, p.dtype)) for p, s in zip(self.inputs, shapes, strict=True))

    def _dynamic(self) -> tuple[dict[int, Any], ...]:
        def axes(port: Port) -> Iterator[tuple[int, Any]]:
            for axis, (low, high) in enumerate(zip(port.min, port.max, strict=True)):
                if low != high:
                    yield axis, torch.export.Dim("batch", min=low, max=high)

        return tuple(dict(axes(port)) for port in self.inputs)


def _in_one_type(model: Any) -> None:
    """Give the kernels of convolutions the type of what they convolve.

    Where batch normalisation is folded into a bf16 convolution, torch's exporter computes the new kernel in fp32, for
    numpy has no bf16, and leaves it so: no valid ONNX.
    """
    import onnx_ir as ir

    for node in model.graph:
        if node.op_type not in ("Conv", "ConvTranspose") or node.inputs[0].dtype is None:
            continue
        dtype = node.inputs[0].dtype
        for value in node.inputs[1:]:
            if value is not None and value.const_value is not None and value.const_value.dtype != dtype:
                array = value.const_value.numpy().astype(dtype.numpy())
                value.const_value, value.dtype = ir.Tensor(array, dtype=dtype, name=value.name), dtype


@contextmanager
def quiet() -> Iterator[None]:
    """Exporters tell of every decision they take."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export", "torch.__trace")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def shapes_of(ports: Sequence[Port]) -> str:
    """Ports as a line for people: ``faces [1..8, 3, 224, 224]``."""

    def one(port: Port) -> str:
        sizes = (str(a) if a == b else f"{a}..{b}" for a, b in zip(port.min, port.max, strict=True))
        return f"{port.name} [{', '.join(sizes)}]"

    return ", ".join(map(one, ports))
