"""ECPA's captions through its engines: visual tokens and face features in, words out, as the network itself would write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emo_models.engines.protocol import Arrays, Engine
from emo_models.networks.ecpa.decode import DecodeLimits, Generated, beam_search, greedy
from emo_models.networks.fusion_mask import FORBIDDEN

#: The engines that write, and the one that sees; ``fusion_step`` takes as many rows as its largest batch.
WRITERS: Final = ("prompt_head", "fusion_prefill", "fusion_step")
PARTS: Final = ("video_swin", *WRITERS)


class EngineStepper:
    """:class:`~emo_models.networks.ecpa.decode.Stepper` over ``fusion_step``; the cache of keys and values lies here.

    ``keys``, ``values [layers, B, heads, S, d]`` and ``bias [B, S]``, of which the first ``context`` places are filled;
    ``vectors``: t_j ``[B, hidden]`` of each word so far.
    """

    def __init__(
        self, step: Engine, keys: NDArray[Any], values: NDArray[Any], bias: NDArray[Any], context: int,
        *, vectors: Iterable[NDArray[Any]] = (),
    ) -> None:  # fmt: skip
        self._step, self._keys, self._values, self._bias, self._context = step, keys, values, bias, context
        self._vectors = list(vectors)

    @classmethod
    def begin(cls, step: Engine, contexts: Iterable[Arrays], rows: int = 1) -> EngineStepper:
        """A cache with room for all words behind the contexts, one a row, that ``fusion_prefill`` gives one by one."""
        shape = next(spec.shape for spec in step.inputs if spec.name == "keys")
        whole = [size or rows for size in shape]  # only the batch varies
        keys, values = np.zeros(whole, np.float32), np.zeros(whole, np.float32)
        bias = np.full((rows, whole[3]), FORBIDDEN, np.float32)
        filled = 0
        for row, context in enumerate(contexts):
            filled = context["keys"].shape[3]
            keys[:, row, :, :filled], values[:, row, :, :filled] = context["keys"][:, 0], context["values"][:, 0]
            bias[row, :filled] = context["bias"][0]
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
        self._vectors.append(out["vector"].copy())
        return torch.from_numpy(out["scores"].copy())

    def select(self, rows: Tensor) -> EngineStepper:
        """The same for other rows, with a cache of their own."""
        chosen = rows.numpy()
        keys, values = (np.ascontiguousarray(cache[:, chosen]) for cache in (self._keys, self._values))
        vectors = [vector[chosen] for vector in self._vectors]
        return EngineStepper(self._step, keys, values, self._bias[chosen], self._context, vectors=vectors)

    def vectors(self, row: int) -> Tensor:
        """t_j ``[n, hidden]`` of the n words that a row was asked to go on from."""
        return torch.from_numpy(np.stack([vector[row] for vector in self._vectors]).astype(np.float32))


def prompt(engines: Mapping[str, Engine], features: Arrays) -> dict[str, NDArray[Any]]:
    """What ``prompt_head`` makes of one person's face; ``features``: its inputs."""
    return {name: value.copy() for name, value in engines["prompt_head"](features).items()}


def begin(
    engines: Mapping[str, Engine], visual: NDArray[Any], prompts: Iterable[Arrays], rows: int = 1
) -> EngineStepper:
    """Captions of one clip, ``visual [1, M, visual_width]``, one for each person of whom :func:`prompt` gave ``prompts``."""
    contexts = (
        engines["fusion_prefill"]({
            "visual": visual, "prompts": one["prompts"], "prompts_valid": one["prompts_valid"],
        })
        for one in prompts
    )  # fmt: skip
    return EngineStepper.begin(engines["fusion_step"], contexts, rows)


def write(
    engines: Mapping[str, Engine], visual: NDArray[Any], features: Arrays, limits: DecodeLimits, *, beams: int = 1
) -> tuple[Generated, NDArray[Any]]:
    """One caption and the probabilities ``[C]`` of its emotions.

    ``engines``: those of :data:`WRITERS`; ``visual``: what ``video_swin`` makes of a clip; ``features``: the inputs of
    ``prompt_head``; ``limits`` as :meth:`emo_models.networks.ecpa.ECPA.limits`.
    """
    head = prompt(engines, features)
    stepper = begin(engines, visual, [head])
    found = greedy(stepper, 1, limits) if beams == 1 else beam_search(stepper, 1, limits, beams=beams)
    return found[0], head["emotion"][0]
