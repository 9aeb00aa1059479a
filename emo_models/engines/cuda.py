"""Engines on an NVIDIA GPU: batch buckets, buffers that are allocated once, CUDA graphs; the same for every backend.

A backend only says how to run one batch size on tensors of the device. Torch holds the memory: it allocates, copies and
captures, so that engines of several backends pass tensors on without a way over the host.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emo_models.engines.manifest import Port
from emo_models.engines.protocol import Arrays, EngineError, TensorSpec, fed

log = logging.getLogger(__name__)

#: Launches the work of one call on the current stream; input and output tensors in the order of the ports.
Run = Callable[[Sequence[Tensor]], Sequence[Tensor]]

#: Runs before a capture, in which libraries choose kernels and allocate (docs of ``torch.cuda.CUDAGraph``).
WARM_RUNS: Final = 3


class _Bucket:
    """One batch size: its buffers, and on a GPU the graph that fills them."""

    def __init__(self, run: Run, inputs: Sequence[Tensor], *, graphs: bool) -> None:
        self._run = run
        self.inputs = inputs
        self._graph: torch.cuda.CUDAGraph | None = None
        #: Why there is no graph; empty where there is one, or none was wanted.
        self.trouble = ""
        if graphs:
            self._capture()
        self.outputs = list(run(inputs)) if self._graph is None else self._captured
        self.host = [torch.empty(t.shape, dtype=t.dtype, pin_memory=t.is_cuda) for t in self.outputs]

    def __call__(self) -> list[Tensor]:
        """Outputs for what the inputs hold now, in buffers that the next call fills again."""
        if self._graph is not None:
            self._graph.replay()
        else:
            for buffer, value in zip(self.outputs, self._run(self.inputs), strict=True):
                buffer.copy_(value)
        return self.outputs

    def _capture(self) -> None:
        for _ in range(WARM_RUNS):
            self._run(self.inputs)
        torch.cuda.current_stream().synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
                self._captured = list(self._run(self.inputs))
        except RuntimeError as error:  # an operator that waits for the GPU, say: it runs all the same, only slower
            self.trouble = str(error).partition("\n")[0]
            return
        self._graph = graph


class CudaEngine:
    """An engine on a GPU; see :class:`emo_models.engines.DeviceEngine`.

    ``run_for(size)`` gives what runs one batch size, asked once for each of ``buckets``; a batch between two of them is
    padded to the larger. ``graphs``: replay CUDA graphs. ``device`` ``cpu`` does everything but the graphs there.
    """

    threads = 0

    def __init__(
        self, name: str, run_for: Callable[[int], Run], inputs: Sequence[Port], outputs: Sequence[Port], *,
        backend: str, version: str, precision: str, buckets: Sequence[int] = (1,), graphs: bool = True,
        device: str = "cuda",
    ) -> None:  # fmt: skip
        self.name, self.backend, self.version, self.precision = name, backend, version, precision
        self.device = device
        self.inputs: tuple[TensorSpec, ...] = tuple(port.spec for port in inputs)
        self.outputs: tuple[TensorSpec, ...] = tuple(port.spec for port in outputs)
        self._ports = tuple(inputs)
        self._axes = tuple(_batch_axis(port) for port in inputs)
        self._output_axes = tuple(_batch_axis(port) for port in outputs)
        self._sizes = tuple(sorted(buckets))
        self._run_for: Callable[[int], Run] | None = run_for
        self._graphs = graphs and device != "cpu"
        self._stream: Any = getattr(torch.cuda, "Stream")() if device != "cpu" else None  # noqa: B009 - untyped in torch
        self._buckets: dict[int, _Bucket] = {}

    def warmup(self, batch_sizes: Sequence[int] = (1,)) -> None:
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            for size in batch_sizes:
                self._bucket(self._fitting(size))()
        if self._stream is not None:
            self._stream.synchronize()

    def __call__(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        feed = [torch.from_numpy(np.ascontiguousarray(array)) for array in fed(self, inputs)]
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            size, bucket, values = self._launch(feed)
            for host, value in zip(bucket.host, values, strict=True):
                host.copy_(value, non_blocking=True)
            if self._stream is not None:
                self._stream.synchronize()
            return self._named([host.numpy() for host in bucket.host], size)

    def on_device(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As a call, with tensors on the device; nothing waits for the GPU, and nothing is copied to the host."""
        feed = self._checked(inputs)
        if self._stream is None:
            with torch.inference_mode():
                size, _, values = self._launch(feed)
            return self._named(values, size)
        callers = torch.cuda.current_stream()
        self._stream.wait_stream(callers)
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            size, _, values = self._launch(feed)
        callers.wait_stream(self._stream)
        return self._named(values, size)

    def close(self) -> None:
        self._run_for = None
        self._buckets.clear()

    @property
    def trouble(self) -> tuple[str, ...]:
        """Why batch sizes run without a graph, where one was wanted."""
        return tuple(f"batch {size}: {b.trouble}" for size, b in self._buckets.items() if b.trouble)

    def _checked(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """The tensors in the engine's order. Raises :class:`EngineError` naming the one that does not fit."""
        feed = []
        for spec in self.inputs:
            tensor = inputs.get(spec.name)
            if tensor is None or tensor.device.type != self.device or not _accepts(spec, tensor):
                got = "nothing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)} on {tensor.device}"
                wanted = f"torch.{spec.dtype} {list(spec.shape)} on {self.device}"
                raise EngineError(f"{self.name}: input {spec.name}: expected {wanted}, got {got}")
            feed.append(tensor)
        return feed

    def _launch(self, feed: Sequence[Tensor]) -> tuple[int, _Bucket, list[Tensor]]:
        size = self._batch(feed)
        bucket = self._bucket(self._fitting(size))
        for buffer, value, axis in zip(bucket.inputs, feed, self._axes, strict=True):
            # What lies behind the batch in a larger bucket is computed too, and given to nobody.
            target = buffer if axis is None else buffer.narrow(axis, 0, size)
            target.copy_(value, non_blocking=True)
        return size, bucket, bucket()

    def _batch(self, feed: Sequence[Tensor]) -> int:
        sizes = {p.name: x.shape[a] for p, x, a in zip(self._ports, feed, self._axes, strict=True) if a is not None}
        if len(set(sizes.values())) > 1:
            raise EngineError(f"{self.name}: its inputs have different batches: {sizes}")
        return next(iter(sizes.values()), self._sizes[0])

    def _bucket(self, size: int) -> _Bucket:
        if self._run_for is None:
            raise EngineError(f"{self.name}: the engine is closed")
        if size not in self._buckets:
            bucket = _Bucket(
                self._run_for(size), [self._buffer(port, size) for port in self._ports], graphs=self._graphs
            )
            if bucket.trouble:
                log.warning("%s: batch %d runs without a CUDA graph: %s", self.name, size, bucket.trouble)
            self._buckets[size] = bucket
        return self._buckets[size]

    def _fitting(self, size: int) -> int:
        place = bisect_left(self._sizes, size)
        if place == len(self._sizes):
            raise EngineError(
                f"{self.name}: got a batch of {size}, built for {', '.join(map(str, self._sizes))}; give it in parts"
            )
        return self._sizes[place]

    def _buffer(self, port: Port, size: int) -> Tensor:
        shape = [size if a != b else a for a, b in zip(port.min, port.max, strict=True)]
        return torch.zeros(shape, dtype=getattr(torch, port.dtype), device=self.device)

    def _named(self, values: Sequence[Any], size: int) -> dict[str, Any]:
        found = {}
        for spec, value, axis in zip(self.outputs, values, self._output_axes, strict=True):
            found[spec.name] = value if axis is None else value[(slice(None),) * axis + (slice(size),)]
        return found


def _batch_axis(port: Port) -> int | None:
    """The axis that may vary; ``None`` where none does."""
    return next((i for i, (low, high) in enumerate(zip(port.min, port.max, strict=True)) if low != high), None)


def _accepts(spec: TensorSpec, tensor: Tensor) -> bool:
    shapes = zip(spec.shape, tensor.shape, strict=False)
    return (
        tensor.dtype == getattr(torch, spec.dtype)
        and tensor.ndim == len(spec.shape)
        and all(want is None or want == got for want, got in shapes)
    )
