"""Tokenizers for ECPA: the published one, or one made of the training captions for small worlds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from emo_models.networks.ecpa.pretrained import load_tokenizer

#: In the order of their ids, so that ``special_ids`` of the network is (2, 3, 0, 4): start, stop, padding, [MASK].
SPECIALS: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
#: Sources that are made of the training captions; anything else is loaded.
MADE: Final = ("words", "pieces")


def make_tokenizer(source: str, captions: Iterable[str], *, size: int = 0) -> PreTrainedTokenizerFast:
    """``words``: all words of the captions, others are [UNK]; ``pieces``: WordPiece learned from them, of ``size``.

    Any other ``source`` is a folder or a name of the model hub, and ``captions`` are not read. Case does not matter.
    ``size``: at most so many entries, the most frequent first; 0: all words, or 512 pieces.
    Raises ``OSError`` with the next step where there is nothing to load.
    """
    if source == "words":
        return _words(captions, size)
    if source == "pieces":
        return _pieces(captions, size or 512)
    return load_tokenizer(source)


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Into a folder that ``load_tokenizer`` reads."""
    tokenizer.save_pretrained(str(folder))


def _words(captions: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    splitter = _empty(models.WordLevel({}, unk_token="[UNK]"))
    count: Counter[str] = Counter()
    for caption in captions:
        normal = splitter.normalizer.normalize_str(caption)
        count.update(word for word, _ in splitter.pre_tokenizer.pre_tokenize_str(normal))
    kept = [word for word, _ in sorted(count.items(), key=lambda pair: (-pair[1], pair[0]))]
    vocabulary = [*SPECIALS, *kept[: size - len(SPECIALS) if size else None]]
    return _wrapped(_empty(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]")))


def _pieces(captions: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    made = _empty(models.WordPiece(unk_token="[UNK]"))
    made.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=list(SPECIALS), show_progress=False, continuing_subword_prefix="##"
    )
    made.train_from_iterator(captions, trainer)
    return _wrapped(made)


def _empty(model: models.Model) -> Tokenizer:
    made = Tokenizer(model)
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made


def _wrapped(made: Tokenizer) -> PreTrainedTokenizerFast:
    pad, unknown, start, stop, mask = SPECIALS
    make: Any = PreTrainedTokenizerFast
    tokenizer: PreTrainedTokenizerFast = make(
        tokenizer_object=made, pad_token=pad, unk_token=unknown, cls_token=start, sep_token=stop, mask_token=mask
    )
    return tokenizer
