"""Tokenizers, dialogues and weights that the tests of both papers' networks share."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "the",
    "man",
    "woman",
    "with",
    "deep",
    "frown",
    "wide",
    "open",
    "mouth",
    "smil",
    "##es",
    "##ing",
    "##ed",
    "is",
    "raised",
    "eyebrows",
    "his",
    "her",
    "no",
    "and",
    ",",
    ".",
    "sad",
    "happy",
    "looks",
    "##s",
    "anger",
    "disgust",
    "fear",
    "happiness",
    "neutral",
    "sadness",
    "surprise",
    "contempt",
    "anxiety",
    "helpless",
    "##ness",
    "disappoint",
    "##ment",
]


def randomise(module: torch.nn.Module, seed: int = 0, scale: float = 0.3) -> torch.nn.Module:
    """Give every parameter a value large enough to show in the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
    return module.eval()


def word_piece(folder: Path) -> PreTrainedTokenizerFast:
    """A small WordPiece tokenizer, read from a vocabulary file as the real one is."""
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    return BertTokenizerFast.from_pretrained(str(folder))


def byte_level() -> PreTrainedTokenizerFast:
    """A tokenizer of bytes that, like LLaMA's, begins with <s>; it can spell everything."""
    names = ["<s>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={name: index for index, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
