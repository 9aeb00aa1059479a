"""FAME-Net out of its frozen parts: a language model, CLIP's vision tower, and beside them the face network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from emo_models.checkpoints import LAYOUTS, CheckpointError, load_checkpoint, load_weights
from emo_models.engines import catalogue
from emo_models.networks.ddamfn import DDAMFN
from emo_models.networks.fame import FAME, FameConfig
from emo_models.networks.language import load_language
from emo_models.preprocess import ALIGNMENTS, TRANSFORMS, ImageTransform
from emo_models.weights import cache_dir
from training.tasks.ecpa_weights import find
from training.tasks.pictures import form_of
from training.trainer.recipe import NetworkRecipe, RecipeError

#: Key of ``network.weights`` -> what it is.
PARTS: Final = {
    "language": "the language model: a folder of transformers, or a file of the task language",
    "clip": "the vision tower: a file of CLIP, or of the task clip",
    "projector": "g, where it does not start at random",
    "faces": "the face network: a file of DDAMFN, or of the task ddamfn",
}
#: Field of our config -> that of the language model's own.
_SIZES: Final = {
    "width": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads", "feed_forward": "intermediate_size", "words": "vocab_size",
    "positions": "max_position_embeddings",
}  # fmt: skip


def build(recipe: NetworkRecipe) -> tuple[FAME, Any]:
    """The network with its language model and vision tower, and the language model's tokenizer.

    Raises :class:`RecipeError` for an unknown or missing part, ``CheckpointError`` for a file that does not fit.
    """
    if unknown := sorted(set(recipe.weights) - set(PARTS)):
        choices = "; ".join(f"{name}: {what}" for name, what in PARTS.items())
        raise RecipeError(f"network.weights: no part {', '.join(unknown)}; there are {choices}")
    llm, tokenizer = load_language(_place(recipe.weights, "language"))
    sizes = {ours: getattr(llm.config, theirs) for ours, theirs in _SIZES.items() if hasattr(llm.config, theirs)}
    network = FAME(FameConfig.from_preset(recipe.preset, **{**sizes, **recipe.options}), llm)
    layout, file = _layout(recipe.weights, "clip", "clip")
    load_checkpoint(network.clip, file, layout)
    if "projector" in recipe.weights:
        layout, file = _layout(recipe.weights, "projector", "llava_projector")
        load_checkpoint(network.mm_projector, file, layout)
    return network, tokenizer


def face_network(weights: Mapping[str, str]) -> tuple[DDAMFN, ImageTransform, str]:
    """The face network, its preprocessing and its alignment, a key of :data:`emo_models.preprocess.ALIGNMENTS`.

    Raises as :func:`build`.
    """
    layout, colon, _ = _required(weights, "faces").partition(":")
    if colon and layout in LAYOUTS:
        network = DDAMFN().freeze()
        load_checkpoint(network, _layout(weights, "faces", layout)[1], layout)
        return network, TRANSFORMS["ddamfn112"], catalogue.part("ddamfn").alignment
    file = find(weights["faces"], "faces")
    loaded, card = load_weights(file)
    if not isinstance(loaded, DDAMFN):
        raise CheckpointError(f"{file} holds {card.network!r}, expected ddamfn")
    name, size, alignment = (card.preprocessing.get(key) for key in ("faces", "size", "alignment"))
    if name not in TRANSFORMS or not isinstance(size, int) or alignment not in ALIGNMENTS:
        raise CheckpointError(f"{file}: the card does not say how faces are cut out, but {dict(card.preprocessing)}")
    return loaded.freeze(), form_of(name, size), alignment


def _place(weights: Mapping[str, str], part: str) -> Path:
    source = _required(weights, part)
    for folder in (Path(source).expanduser(), cache_dir() / source):
        if folder.is_dir():
            return folder
    return find(source, part)


def _layout(weights: Mapping[str, str], part: str, default: str) -> tuple[str, Path]:
    source = _required(weights, part)
    layout, colon, file = source.partition(":")
    if colon and layout in LAYOUTS:
        return layout, find(file, part)
    return default, find(source, part)


def _required(weights: Mapping[str, str], part: str) -> str:
    if part not in weights:
        raise RecipeError(f"network.weights.{part}: missing; it is {PARTS[part]}")
    return weights[part]
