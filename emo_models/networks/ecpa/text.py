"""Text encoders of ECPA (TE of Section III-A, Table VII): BERT, or the towers of CLIP, T5 and GPT-2.

The paper does not say how a tower meets a fusion that generates by filling a [MASK]. Here:

* Words are those of the tower's own tokenizer, and so are the words that the fusion's head scores.
* A tower is *causal*: CLIP's and GPT-2's are, T5's encoder is given a causal mask. A word's feature then depends on
  nothing behind it, as in generation, where nothing is behind it yet.
* The towers know no [MASK]. They read the caption as it is; the feature at a masked position is then replaced by a
  learned vector. What causality leaves in earlier features cannot betray the masked word.
* ``F_T = LN(W TE(T) + position + type)``: the projection W and the fusion's positions are trained, also with a frozen
  tower.

BERT needs none of this: its embedding layer, F_T, is the fusion's own ("shared fusion").
"""

from __future__ import annotations

from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    GPT2Config,
    GPT2Model,
    PreTrainedModel,
    T5Config,
    T5EncoderModel,
)

from emo_models.networks.ecpa.config import EcpaConfig
from emo_models.networks.fusion_mask import FORBIDDEN

#: Sizes of Table I: width, layers, heads, positions.
PAPER_SIZES: Final = {"clip": (512, 12, 8, 77), "t5": (1024, 24, 16, 512), "gpt2": (768, 12, 12, 1024)}
TOY_SIZE: Final = (32, 2, 2, 64)


class TowerText(nn.Module):
    """``W TE(T)`` with [MASK] in place, for CLIP's text tower, T5's encoder or GPT-2; ``ids [B, L] -> [B, L, hidden]``.

    The fusion adds position, type and norm.
    """

    def __init__(self, config: EcpaConfig) -> None:
        super().__init__()
        self.kind, self.frozen = config.text, config.freeze_text
        _, _, self.pad_id, self.mask_id = config.specials
        self.tower = _tower(config)
        self.project = nn.Linear(self.words.shape[1], config.hidden)
        self.mask = nn.Parameter(torch.randn(config.hidden) * 0.02)
        if self.frozen:
            self.tower.requires_grad_(False)
            self.tower.train(mode=False)

    @property
    def words(self) -> Tensor:
        """Word embeddings ``[V, width]`` of the tower."""
        return cast("Tensor", cast("Any", self.tower).get_input_embeddings().weight)

    def forward(self, ids_BL: Tensor, original_BL: Tensor | None = None) -> Tensor:
        """``original``: the ids before masking, for the masked positions; without them the padding is read there."""
        masked = ids_BL == self.mask_id
        real = torch.full_like(ids_BL, self.pad_id) if original_BL is None else original_BL
        features = self.project(self._run(torch.where(masked, real, ids_BL)))
        return torch.where(masked[..., None], self.mask, features)

    def pair(self, prefix_Bt: Tensor) -> Tensor:
        """Features ``[B, 2, hidden]`` of the last of t words and of a [MASK] behind it.

        The tower reads the whole prefix again; only the fusion has a cache.
        """
        last = self.project(self._run(prefix_Bt)[:, -1:])
        return torch.cat((last, self.mask.expand_as(last)), 1)

    def train(self, mode: bool = True) -> TowerText:
        super().train(mode)
        if self.frozen:
            self.tower.train(mode=False)
        return self

    def _run(self, ids_BL: Tensor) -> Tensor:
        # Padding needs no mask: what stands behind a word does not reach it.
        mask = torch.ones_like(ids_BL)
        if self.kind == "t5":
            size = ids_BL.shape[1]
            causal = torch.full((size, size), FORBIDDEN, device=ids_BL.device, dtype=self.words.dtype).triu(1)
            mask = causal.expand(len(ids_BL), 1, -1, -1)
        output = cast("Any", self.tower)(input_ids=ids_BL, attention_mask=mask)
        return cast("Tensor", output.last_hidden_state)


def _tower(config: EcpaConfig) -> PreTrainedModel:
    width, layers, heads, positions = PAPER_SIZES[config.text] if config.text_preset == "paper" else TOY_SIZE
    start, stop, pad, _ = config.specials
    words = config.words
    if config.text == "clip":
        return CLIPTextModel(
            CLIPTextConfig(
                vocab_size=words, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
                num_attention_heads=heads, max_position_embeddings=positions, bos_token_id=start, eos_token_id=stop,
                pad_token_id=pad,
            )
        )  # fmt: skip
    if config.text == "t5":
        return T5EncoderModel(
            T5Config(
                vocab_size=words, d_model=width, d_kv=width // heads, d_ff=4 * width, num_layers=layers,
                num_heads=heads, pad_token_id=pad, eos_token_id=stop,
            )
        )  # fmt: skip
    return GPT2Model(
        GPT2Config(
            vocab_size=words, n_embd=width, n_layer=layers, n_head=heads, n_positions=positions, bos_token_id=start,
            eos_token_id=stop, pad_token_id=pad,
        )
    )  # fmt: skip
