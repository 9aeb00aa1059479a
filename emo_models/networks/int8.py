"""Eight-bit integers for the linear layers of a language model, by torch alone.

Weights are rounded once, one scale for each output; what comes in is rounded as it comes, one scale for each token
(Dettmers et al., "LLM.int8()", 2022, without its outliers). A quarter of fp32's memory, and no calibration.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_STEPS: Final = 127
#: Fewer rows than this cuBLAS does not multiply as integers.
_FEWEST_ON_CUDA: Final = 17


class Int8Linear(nn.Module):
    """``nn.Linear`` with weights in int8: ``[..., in] -> [..., out]`` of the input's type."""

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        exact = linear.weight.detach().float()
        scale = exact.abs().amax(1).clamp(min=1e-12) / _STEPS
        self.register_buffer("weight", (exact / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2)
        if rows.is_cuda and len(rows) < _FEWEST_ON_CUDA:
            product = F.linear(rows, self.weight.to(rows.dtype)).float()
        else:
            step = rows.float().abs().amax(1, keepdim=True).clamp(min=1e-12) / _STEPS
            whole = (rows.float() / step).round().to(torch.int8)
            product = torch._int_mm(whole, self.weight.t()).float() * step
        y: Tensor = (product * self.scale).to(x.dtype).reshape(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias


def quantise(model: nn.Module, keep: tuple[str, ...] = ("lm_head",)) -> int:
    """Replace the linear layers of a model in place; returns how many. ``keep``: names that stay exact: the last layer
    ranks words."""
    found = 0
    for name, child in model.named_children():
        if isinstance(child, nn.Linear):
            if name not in keep:
                setattr(model, name, Int8Linear(child))
                found += 1
        else:
            found += quantise(child, keep)
    return found


def megabytes(model: nn.Module) -> float:
    """Memory of all parameters and buffers."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum(t.numel() * t.element_size() for t in tensors) / 1e6
