"""FAME-Net as it explains: g, the rows of the new tokens and the language model, without CLIP, which perception runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from emo_models.engines.threads import cpu_threads
from emo_models.weights import MissingWeights, WeightsError, cache_dir
from emo_perception.config import CauseConfig, ConfigError

if TYPE_CHECKING:
    from emo_models.networks.fame import FAME, FameConfig
    from emo_models.networks.fame.prompt import PromptTokenizer

log = logging.getLogger(__name__)

SEED: Final = 0
#: Words of a tokenizer that is made for random weights: enough for English.
RANDOM_WORDS: Final = 4096
_TEXTS: Final = Path(__file__).parents[1] / "sentences.yaml"
#: What loads with the language model, or is perception's.
_ELSEWHERE: Final = ("clip.", "llm.")
_WHAT_IT_IS: Final = "network fame (FAME-Net)"


@dataclass(frozen=True)
class LoadedFame:
    """The network, ready to explain; ``notes`` of its card; ``random``: its numbers mean nothing."""

    network: FAME
    prompts: PromptTokenizer
    notes: Mapping[str, Any]
    random: bool
    about: str


def load(config: CauseConfig) -> LoadedFame:
    """The network of ``config.preset`` in the weight cache, around ``config.language_model`` where that is given.

    Raises ``WeightsError`` that says what is missing or does not fit and what to do, :class:`ConfigError` for arithmetic
    that a language model has not.
    """
    import torch

    if config.precision == "int8":
        raise ConfigError(f"{config.node}.precision: a language model has no int8 of its own; set quantise to int8")
    torch.set_num_threads(
        1 if config.preset == "toy" and not config.threads else cpu_threads("language", config.threads)
    )
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[config.precision]
    file = cache_dir() / config.preset / "fame.safetensors"
    random = config.weights == "random" and not file.is_file()
    if random:
        network, tokenizer, notes = _random(config, kind)
    else:
        network, tokenizer, notes = _trained(config, file, kind)
    network.add_module("clip", torch.nn.Identity())  # never asked: its tokens come from perception
    network.requires_grad_(False)
    if config.quantise == "int8":
        from emo_models.networks.int8 import quantise

        quantise(network.llm)
    network.to(torch.device("cuda" if torch.cuda.is_available() else "cpu")).eval()
    return LoadedFame(network, network.tokenizer(tokenizer), notes, random, _about(config, random, file))


def _about(config: CauseConfig, random: bool, file: Path) -> str:
    what = "random weights" if random else file.name
    return f"{what}{f' around {config.language_model}' if config.language_model else ''}"


def _random(config: CauseConfig, kind: Any) -> tuple[FAME, Any, Mapping[str, Any]]:
    """The preset with random numbers from one seed, and a tokenizer made of what is at hand."""
    import torch

    from emo_models.networks.fame import FameConfig
    from emo_models.networks.language import train_tokenizer

    torch.manual_seed(SEED)
    fame = FameConfig.from_preset(config.preset)
    if config.language_model:
        llm, tokenizer = _language(config)
    else:
        llm = _llama(fame, kind)
        groups = yaml.safe_load(_TEXTS.read_text(encoding="utf-8"))
        texts = [text for group in groups.values() for part in group.values() for text in part]
        tokenizer = train_tokenizer(texts, min(fame.words, RANDOM_WORDS))
    network = _around(fame, llm.to(kind))
    state = {name: torch.randn(tuple(t.shape)) * 0.02 for name, t in _own(network).items()}
    network.load_state_dict(state, strict=False, assign=True)
    return network, tokenizer, {}


def _trained(config: CauseConfig, file: Path, kind: Any) -> tuple[FAME, Any, Mapping[str, Any]]:
    """The network in the cache. Its own file has a language model; one that is given takes that one's place."""
    from emo_models.checkpoints import CheckpointError, read_card
    from emo_models.networks.fame import FameConfig

    if not file.is_file():
        remedy = "make toy" if config.preset == "toy" else "emo train fame_ecem --set publish=paper/fame.safetensors"
        raise MissingWeights(
            f"the weights of {_WHAT_IT_IS} are missing: expected {file}; type: {remedy}; to measure time and memory "
            "without them set weights to random"
        )
    try:
        card = read_card(file)
        if card.network != "fame":
            raise WeightsError(f"{file} holds {card.network!r}, expected fame; type: emo train fame_{config.preset}")
        fame = FameConfig.from_dict(card.config)
        if config.language_model:
            llm, tokenizer = _language(config)
        else:
            llm, tokenizer = _llama(fame, kind), _tokenizer(file)
        network = _around(fame, llm.to(kind))
        _fill(network, file, whole=not config.language_model)
    except (CheckpointError, ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"{file} cannot be used as {_WHAT_IT_IS}: {error}") from error
    return network, tokenizer, card.notes


def _language(config: CauseConfig) -> tuple[Any, Any]:
    """The language model of the parameter."""
    from emo_models.networks.language import load_language

    where = Path(config.language_model).expanduser()
    try:
        return load_language(where)
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{config.node}.language_model: expected a folder with a causal language model and its tokenizer as "
            f"transformers saves them (save_pretrained), got {where}: {error}"
        ) from error


def _tokenizer(file: Path) -> Any:
    """That of the language model that the network was trained around, which lies beside it."""
    from emo_models.networks.language import load_language

    beside = file.with_name("language.safetensors")
    if not beside.is_file():
        raise MissingWeights(
            f"the tokenizer of {file.name} is missing: expected {beside}; type: make toy, or name the language model's "
            "folder by cause.language_model"
        )
    return load_language(beside)[1]


def _llama(fame: FameConfig, kind: Any) -> Any:
    import torch

    from emo_models.networks.language import llama

    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)  # so that the largest is never there in fp32 first
    try:
        return llama(
            width=fame.width, layers=fame.layers, heads=fame.heads, kv_heads=fame.kv_heads,
            feed_forward=fame.feed_forward, words=fame.words, positions=fame.positions,
        )  # fmt: skip
    finally:
        torch.set_default_dtype(before)


def _around(fame: FameConfig, llm: Any) -> FAME:
    """FAME-Net without numbers of its own, and without CLIP's memory."""
    import torch

    from emo_models.networks.fame import FAME

    with torch.device("meta"):
        return FAME(fame, llm)


def _own(network: FAME) -> dict[str, Any]:
    return {name: t for name, t in network.state_dict().items() if not name.startswith(_ELSEWHERE)}


def _fill(network: FAME, file: Path, *, whole: bool) -> None:
    """Read what is wanted and nothing else; ``whole``: the language model too. Raises ``WeightsError``."""
    from safetensors import safe_open

    skipped = ("clip.",) if whole else _ELSEWHERE
    wanted = {name: t for name, t in network.state_dict().items() if not name.startswith(skipped)}
    found: dict[str, Any] = {}
    with safe_open(str(file), framework="pt") as opened:
        present = set(opened.keys())
        if missing := sorted(set(wanted) - present):
            raise WeightsError(
                f"{file}: expected tensor {missing[0]!r}, which is not there; it is another network's file"
            )
        for name, tensor in wanted.items():
            stored = opened.get_tensor(name)
            if stored.shape != tensor.shape:
                raise WeightsError(
                    f"{file}: tensor {name!r} is {list(stored.shape)}, the network needs {list(tensor.shape)}; the "
                    "weights are of another size, or of another language model: change cause.preset or "
                    "cause.language_model"
                )
            found[name] = stored if name.startswith("llm.") else stored.float()
    own = {name: t for name, t in found.items() if not name.startswith("llm.")}
    network.load_state_dict(own, strict=False, assign=True)
    if whole:
        network.llm.load_state_dict({name[4:]: t for name, t in found.items() if name.startswith("llm.")})
