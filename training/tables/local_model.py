"""A baseline of FAME-Net's Table 2 that ``transformers`` loads from a folder: a chat model of words, or of pictures too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from training.tables.plan import PlanError

Image = NDArray[np.uint8]
#: As FAME-Net's own answers.
MOST_TOKENS: Final = 64


def local_model(folder: Path, *, pictures: bool) -> Callable[[str, Sequence[Image]], str]:
    """A function from question and pictures to the answer, greedy. Raises :class:`PlanError` for a folder without a model
    or without a chat template, for then nobody knows how it wants to be asked."""
    if not (folder / "config.json").is_file():
        raise PlanError(
            f"options.baseline.folder: expected a model of transformers with its config.json, there is none in {folder}"
        )
    kind: Any = AutoProcessor if pictures else AutoTokenizer
    reader = kind.from_pretrained(folder, local_files_only=True)
    if not getattr(reader, "chat_template", None):
        raise PlanError(f"{folder}: the model has no chat template; take one that was tuned to answer, as ...-Instruct")
    loader: Any = AutoModelForImageTextToText if pictures else AutoModelForCausalLM
    model = loader.from_pretrained(folder, local_files_only=True).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")

    @torch.no_grad()
    def answer(text: str, images: Sequence[Image]) -> str:
        inputs = reader.apply_chat_template(
            _chat(text, images, pictures=pictures), add_generation_prompt=True, tokenize=True, return_dict=True,
            return_tensors="pt",
        ).to(model.device)  # fmt: skip
        made = model.generate(**inputs, do_sample=False, max_new_tokens=MOST_TOKENS)
        new = made[0, inputs["input_ids"].shape[1] :]
        return " ".join(str(reader.decode(new, skip_special_tokens=True)).split())

    return answer


def _chat(text: str, images: Sequence[Image], *, pictures: bool) -> list[dict[str, Any]]:
    if not pictures:
        return [{"role": "user", "content": text}]
    parts: list[dict[str, Any]] = [{"type": "image", "image": image} for image in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]
