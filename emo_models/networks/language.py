"""A causal language model of the LLaMA family, as FAME-Net is built around one, and its tokenizer in one file.

Public language models are folders of ``transformers``, model and tokenizer apart. One that is trained here is a weights
file like every other network's: the tokenizer travels in the notes of its card. :func:`load_language` reads both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple, cast

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from emo_models.networks.base import Network
from emo_models.networks.config import NetworkConfig

#: Where a card's notes keep the tokenizer.
TOKENIZER_NOTE: Final = "tokenizer"
_SPECIAL: Final = ("<s>", "</s>", "<unk>", "<pad>")


@dataclass(frozen=True)
class LanguageConfig(NetworkConfig):
    """Architecture of :class:`LanguageModel`: ``paper`` is LLaMA 7B, ``fast`` TinyLlama 1.1B.

    ``words``: of the vocabulary; ``positions``: longest text in tokens; ``kv_heads``: heads of keys and values.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "fast": {"width": 2048, "layers": 22, "kv_heads": 4, "feed_forward": 5632, "positions": 2048},
        "toy": {
            "width": 64, "layers": 2, "heads": 4, "kv_heads": 4, "feed_forward": 128, "words": 320, "positions": 640,
        },
    }  # fmt: skip

    width: int = 4096
    layers: int = 32
    heads: int = 32
    kv_heads: int = 32
    feed_forward: int = 11008
    words: int = 32000
    positions: int = 4096

    def __post_init__(self) -> None:
        if self.width % self.heads or self.heads % self.kv_heads:
            raise ValueError(
                f"LanguageConfig: width {self.width} must be a multiple of heads {self.heads}, and that of kv_heads "
                f"{self.kv_heads}"
            )


class Bags(NamedTuple):
    """Words that share one place in a text, as in a picture much is to be seen at once.

    ``ids`` ``[n]``: the words of all places in order; ``offsets`` ``[m]``: where each place's words begin; ``noise``:
    standard deviation of what is added to them, as a share of that of the word vectors.
    """

    ids: Tensor
    offsets: Tensor
    noise: float = 0.0


class LanguageModel(Network):
    """Ids ``[B, L]`` → scores of the next word ``[B, L, words]``.

    An id of ``words`` or above is a place without a word of its own; its vector is made of the next of the ``bags``:
    their sum, divided by the root of their number, so that it is about as long as that of one word. A language model
    that was trained so can read what a projector later writes there.
    """

    config_class = LanguageConfig

    def __init__(self, config: LanguageConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or LanguageConfig()
        self.llm = llama(
            width=c.width, layers=c.layers, heads=c.heads, kv_heads=c.kv_heads, feed_forward=c.feed_forward,
            words=c.words, positions=c.positions,
        )  # fmt: skip

    def forward(self, ids_BL: Tensor, mask_BL: Tensor, bags: Bags | None = None) -> Tensor:
        llm = cast("Any", self.llm)
        place = ids_BL >= self.config.words
        vectors = llm.get_input_embeddings()(ids_BL.masked_fill(place, 0))
        if bags is not None:
            vectors = vectors.masked_scatter(place[..., None], self._mixed(bags))
        output = llm(inputs_embeds=vectors, attention_mask=mask_BL.long(), use_cache=False)
        return cast("Tensor", output.logits)

    def _mixed(self, bags: Bags) -> Tensor:
        """Vectors of the places ``[m, K]``."""
        table = cast("Any", self.llm).get_input_embeddings().weight
        count = torch.diff(bags.offsets, append=bags.offsets.new_tensor([len(bags.ids)]))
        total = F.embedding_bag(bags.ids, table, bags.offsets, mode="sum") / count.clamp(min=1).sqrt()[:, None]
        return cast("Tensor", total + torch.randn_like(total) * (bags.noise * table.detach().std()))


def llama(
    *, width: int, layers: int, heads: int, kv_heads: int, feed_forward: int, words: int, positions: int
) -> LlamaForCausalLM:
    """A LLaMA of ``transformers`` with random weights."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=words, hidden_size=width, intermediate_size=feed_forward, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=positions,
        )
    )  # fmt: skip


def train_tokenizer(texts: Iterable[str], words: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most ``words`` tokens, which like LLaMA's begins a text with ``<s>`` and can spell anything.

    Raises ``ValueError`` when ``words`` cannot even hold the bytes.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if words < len(_SPECIAL) + len(alphabet):
        raise ValueError(f"a vocabulary of {words} words cannot hold {len(alphabet)} bytes and {len(_SPECIAL)} signs")
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=words, special_tokens=list(_SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return _wrap(tokenizer)


def tokenizer_note(tokenizer: PreTrainedTokenizerFast) -> dict[str, str]:
    """A tokenizer of :func:`train_tokenizer` as an entry of a card's notes."""
    return {TOKENIZER_NOTE: tokenizer.backend_tokenizer.to_str()}


def load_language(where: str | Path) -> tuple[Any, Any]:
    """A causal language model of ``transformers`` and its tokenizer, from a folder or from a weights file of ours.

    Of the folder of a LLaVA its language part is taken; FAME-Net brings CLIP and g.

    Raises ``FileNotFoundError`` where there is neither, and ``CheckpointError`` for a file that is no language model's.
    """
    from emo_models.checkpoints import CheckpointError, load_weights

    path = Path(where).expanduser()
    if path.is_dir():
        return _causal(path), AutoTokenizer.from_pretrained(path, local_files_only=True)
    if not path.is_file():
        raise FileNotFoundError(
            f"no language model at {path}: expected a folder of transformers, or a weights file of the task 'language'; "
            "for the toy world type: make toy"
        )
    network, card = load_weights(path)
    if not isinstance(network, LanguageModel) or TOKENIZER_NOTE not in card.notes:
        raise CheckpointError(f"{path} holds {card.network!r}, expected a language model with its tokenizer")
    return network.llm, _wrap(Tokenizer.from_str(card.notes[TOKENIZER_NOTE]))


def _causal(folder: Path) -> Any:
    """The causal language model of a folder of transformers; of a LLaVA, which has eyes of its own, the language part."""
    if AutoConfig.from_pretrained(folder, local_files_only=True).model_type != "llava":
        return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    from transformers import LlavaForConditionalGeneration

    llava: Any = LlavaForConditionalGeneration.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):
        llm = cast("Any", AutoModelForCausalLM).from_config(llava.config.text_config)
    llm.model, llm.lm_head = llava.model.language_model, llava.lm_head
    llm.generation_config = llava.generation_config
    return llm.eval()


def _wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    kind: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerFast = kind(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )
    return made
