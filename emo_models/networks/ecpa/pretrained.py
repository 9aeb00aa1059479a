"""Published text encoders and their tokenizers, from a local folder or, by name, from the model hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from transformers import AutoTokenizer, BertForMaskedLM, PreTrainedTokenizerFast

from emo_models.checkpoints import LoadReport, load_state
from emo_models.networks.bert_fusion import BertFusion
from emo_models.networks.ecpa.text import TowerText

T = TypeVar("T")


def load_tokenizer(source: str | Path = "bert-base-uncased") -> PreTrainedTokenizerFast:
    """A tokenizer. Raises ``OSError`` with the next step when there is none at ``source``."""
    load = AutoTokenizer.from_pretrained
    return cast("PreTrainedTokenizerFast", _read(lambda: load(str(source), use_fast=True), source, "tokenizer.json"))


def load_bert(fusion: BertFusion, source: str | Path = "bert-base-uncased") -> LoadReport:
    """Start the fusion from a BERT; its image embedding stays as it is.

    Raises ``OSError`` with the next step when there is none at ``source``, ``CheckpointError`` when its sizes are
    others.
    """
    load = BertForMaskedLM.from_pretrained
    theirs = _read(lambda: load(str(source), use_safetensors=True), source, "model.safetensors")
    return load_state(fusion, theirs.state_dict(), "bert")


def load_tower(text: TowerText, source: str | Path) -> None:
    """Give a text tower its published weights.

    Raises ``OSError`` with the next step when there are none at ``source``, ``ValueError`` when its sizes are others.
    """
    load = type(text.tower).from_pretrained
    theirs = _read(lambda: load(str(source), use_safetensors=True), source, "model.safetensors").state_dict()
    ours = text.tower.state_dict()
    found, wanted = ({name: tuple(value.shape) for name, value in state.items()} for state in (theirs, ours))
    wrong = [f"{n}: {found.get(n)} for {wanted.get(n)}" for n in found | wanted if found.get(n) != wanted.get(n)]
    if wrong:
        raise ValueError(f"{source!s} is another {text.kind} than this network's, {len(wrong)} tensors: {wrong[0]}")
    text.tower.load_state_dict(theirs)


def _read(load: Callable[[], T], source: str | Path, file: str) -> T:
    try:
        return load()
    except (OSError, ValueError) as error:
        raise OSError(
            f"nothing to load at {source!s}: expected a folder with {file} and its configuration, or a name that the "
            "model hub can be asked for. Copy the files into a folder and pass its path"
        ) from error
