"""ECPA's captions through its engines: clip and face features in, words out, as the network itself would write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emo_models.engines.protocol import Arrays, Engine
from emo_models.networks.ecpa.decode import DecodeLimits, Generated, beam_search, greedy
from emo_models.networks.fusion_mask import FORBIDDEN

#: The engines that it takes; ``fusion_step`` takes as many beams as its largest batch.
PARTS: Final = ("video_swin", "prompt_head", "fusion_prefill", "fusion_step")


class EngineStepper:
    """:class:`~emo_models.networks.ecpa.decode.Stepper` over ``fusion_step``; the cache of keys and values lies here.

    ``keys``, ``values [layers, B, heads, S, d]`` and ``bias [B, S]``, of which the first ``context`` places are filled.
    """

    def __init__(
        self, step: Engine, keys: NDArray[Any], values: NDArray[Any], bias: NDArray[Any], context: int
    ) -> None:
        self._step, self._keys, self._values, self._bias, self._context = step, keys, values, bias, context

    @classmethod
    def begin(cls, step: Engine, context: Arrays) -> EngineStepper:
        """A cache with room for all words behind the context that ``fusion_prefill`` gave."""
        shape = next(spec.shape for spec in step.inputs if spec.name == "keys")
        whole = [size or 1 for size in shape]  # the batch varies; one clip
        keys, values = np.zeros(whole, np.float32), np.zeros(whole, np.float32)
        filled = context["keys"].shape[3]
        keys[:, :, :, :filled], values[:, :, :, :filled] = context["keys"], context["values"]
        bias = np.full((1, whole[3]), FORBIDDEN, np.float32)
        bias[:, :filled] = context["bias"]
        return cls(step, keys, values, bias, filled)

    def __call__(self, prefix_Bt: Tensor) -> Tensor:
        """Scores ``[B, V]`` of the next word; called with one word more each time."""
        position = prefix_Bt.shape[1] - 1
        out = self._step({
            "word": prefix_Bt[:, -1].numpy().copy(), "position": np.array([position]), "keys": self._keys,
            "values": self._values, "bias": self._bias,
        })  # fmt: skip
        place = self._context + position
        self._keys[:, :, :, place], self._values[:, :, :, place] = out["new_keys"], out["new_values"]
        self._bias[:, place] = 0
        return torch.from_numpy(out["scores"].copy())

    def select(self, rows: Tensor) -> EngineStepper:
        """The same for other rows, with a cache of their own."""
        chosen = rows.numpy()
        keys, values = (np.ascontiguousarray(cache[:, chosen]) for cache in (self._keys, self._values))
        return EngineStepper(self._step, keys, values, self._bias[chosen], self._context)


def write(
    engines: Mapping[str, Engine], clip: NDArray[Any], features: Arrays, limits: DecodeLimits, *, beams: int = 1
) -> tuple[Generated, NDArray[Any]]:
    """One caption and the probabilities ``[C]`` of its emotions.

    ``engines``: those of :data:`PARTS`; ``clip [1, 3, T, h, w]``; ``features``: the inputs of ``prompt_head``; ``limits``
    as :meth:`emo_models.networks.ecpa.ECPA.limits`.
    """
    visual = engines["video_swin"]({"clip": clip})["visual"]
    head = engines["prompt_head"](features)
    context = engines["fusion_prefill"]({
        "visual": visual, "prompts": head["prompts"], "prompts_valid": head["prompts_valid"],
    })  # fmt: skip
    stepper = EngineStepper.begin(engines["fusion_step"], context)
    found = greedy(stepper, 1, limits) if beams == 1 else beam_search(stepper, 1, limits, beams=beams)
    return found[0], head["emotion"][0].copy()
