"""A FAME-Net of seconds: a toy network whose language model has learned one answer, in a cache of weights of its own."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

from emo_models import weights

ANSWER = "Ana is scared because Ben left the front door open, and a car came by."
LINES = (
    "I left the front door open.", "Oh no, she will be run over by a car!", "Have you seen the cat today?",
    "It rains.", "What do you want to do now?", "I do not know yet.",
)  # fmt: skip


WORDS = 500


@cache
def _trained():
    """The network, trained; the card of its language model; prompts."""
    import torch

    from emo_models.checkpoints import NetworkCard
    from emo_models.networks.fame import FAME, FameConfig
    from emo_models.networks.fame.model import CauseExample
    from emo_models.networks.fame.prompt import INSTRUCTIONS, CauseQuery, Utterance
    from emo_models.networks.language import LanguageConfig, LanguageModel, tokenizer_note, train_tokenizer

    torch.manual_seed(0)
    torch.set_num_threads(1)
    rng = random.Random(0)
    tokenizer = train_tokenizer(
        [*LINES, ANSWER, *INSTRUCTIONS.values(), "Facial expressions: neutral happy"] * 3, WORDS
    )
    language = LanguageModel(LanguageConfig.from_preset("toy", words=WORDS, positions=4096))
    fame = FAME(FameConfig.from_preset("toy", words=WORDS, positions=4096, max_new_tokens=40), language.llm)
    notes = tokenizer_note(tokenizer)
    card = NetworkCard("language", language.config.to_dict(), (), {}, "CC0-1.0", ("tests",), notes=notes)
    prompts = fame.tokenizer(tokenizer)
    answer = prompts.answer(ANSWER)
    fame.llm.requires_grad_(True)
    optimiser = torch.optim.Adam(fame.llm.parameters(), lr=6e-3)
    for _ in range(40):
        examples = []
        for _ in range(3):
            said = [Utterance(rng.choice(("Ana", "Ben", "Cleo")), rng.choice(LINES)) for _ in range(rng.randint(1, 3))]
            instruction = INSTRUCTIONS[rng.choice(("static", "ecem"))]
            query = CauseQuery(tuple(said[:-1]), said[-1], rng.choice(("fear", "joy")), (), instruction)
            rows = rng.choice((0, 17, 20))
            examples.append(CauseExample(torch.randn(rows, 64), prompts(query, rows, 512), answer))
        optimiser.zero_grad()
        fame(examples).backward()
        optimiser.step()
    return language, card, fame, prompts


def write_fame(cache_dir: Path, *, endless: bool = False, notes=None) -> Path:
    """Write ``toy/fame.safetensors`` and ``toy/language.safetensors`` into a cache; returns the folder ``toy``.

    ``endless``: it never ends an answer, and goes on for thousands of words.
    """
    import dataclasses

    from emo_models.checkpoints import NetworkCard, save_weights

    language, language_card, fame, prompts = _trained()
    folder = cache_dir / "toy"
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(language, folder / "language.safetensors", language_card)
    asked = {"inputs": "V+T+E", "instruction": "static", "face_utterances": 2, "rate_hz": 10.0, **(notes or {})}
    head, config = fame.llm.get_output_embeddings().weight.data, fame.config
    stop = head[prompts.stop].clone()
    if endless:
        head[prompts.stop] = 0.0
        fame.config = dataclasses.replace(config, max_new_tokens=1000)
    card = NetworkCard("fame", fame.config.to_dict(), (), {}, "CC0-1.0", ("tests",), notes=asked)
    save_weights(fame, folder / "fame.safetensors", card)
    head[prompts.stop], fame.config = stop, config
    return folder


def public_files(cache_dir: Path) -> Path:
    """The sentence encoder's files in a cache of weights of one's own; returns that."""
    for name in ("minilm", "minilm_tokenizer"):
        place = cache_dir / weights.card(name).file
        if not place.exists():
            place.symlink_to(weights.path(name))
    return cache_dir


def video(utterance, *, rows=4, seed=0, width=64, patches=16, model="clip_frames/toy", **tensors):
    """The video of an utterance as perception sends it."""
    import numpy as np

    from emo_perception.types import VisualContext

    rng = np.random.default_rng(seed)
    return VisualContext(
        utterance.end_ns, "camera_optical_frame", utterance.start_ns, utterance.end_ns, model,
        {
            "rows": rng.standard_normal((rows, width)).astype(np.float32),
            "patches": rng.standard_normal((patches, width)).astype(np.float32),
            "frames": np.arange(rows), **tensors,
        },
        utterance.id,
    )  # fmt: skip
