"""Where g starts: words for what single pictures show, as the projector of LLaVA, on which FAME-Net is built, does.

LLaVA aligns its projector on pictures with captions before any instruction. A small language model that never wrote a
caption offers no such loss, but it has vectors for words: g starts as the ridge regression from the mean patch of a
picture, a row of R_t, to the caption's words in one place (:class:`emo_models.networks.language.Bags`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from emo_models.networks.fame import FAME
from emo_models.preprocess import ImageTransform, short_edge_crop
from training.tasks.pictures import Picture, in_table
from training.trainer.recipe import RecipeError

#: Strength of the ridge on features of unit spread.
RIDGE: Final = 10.0
BATCH: Final = 64


@torch.no_grad()
def align(network: FAME, tokenizer: Any, transform: ImageTransform, folder: Path) -> None:
    """Set g by the training pictures of ``labels.csv`` (image, split, caption) in ``folder``.

    Raises :class:`RecipeError` for a projector that is not linear, ``DatasetError`` for a folder without such a table.
    """
    g = network.mm_projector
    if not isinstance(g, nn.Linear):
        raise RecipeError(f"options.align: a linear g starts so, this one is {network.config.projector}")
    pictures = in_table(folder, "train", lambda row, _: row["caption"], ("caption",))
    rows = torch.cat(
        [_rows(network, transform, pictures[i : i + BATCH]) for i in range(0, len(pictures), BATCH)]
    ).double()
    words = {text: caption_vector(network, tokenizer, text) for text in {picture.label for picture in pictures}}
    wanted = torch.stack([words[picture.label] for picture in pictures]).double()
    middle, spread, centre = rows.mean(0), rows.std(0).clamp(min=1e-6), wanted.mean(0)
    x = (rows - middle) / spread
    ridge = RIDGE * torch.eye(x.shape[1], dtype=x.dtype)
    weight = torch.linalg.solve(x.T @ x + ridge, x.T @ (wanted - centre)) / spread[:, None]  # [D, K]
    g.weight.copy_(weight.T)
    g.bias.copy_(centre - middle @ weight)


def _rows(network: FAME, transform: ImageTransform, pictures: Sequence[Picture]) -> Tensor:
    side = transform.crop
    images = [transform(short_edge_crop(picture.load(), side, side, transform.kernel)) for picture in pictures]
    return network.frame_features(torch.from_numpy(np.stack(images))).mean(1)


def caption_vector(network: FAME, tokenizer: Any, text: str) -> Tensor:
    """The words of a caption in one place, ``[K]``."""
    ids = tokenizer(" " + text, add_special_tokens=False)["input_ids"]
    return network.embed_words(torch.tensor(ids)).sum(0) / math.sqrt(len(ids))
