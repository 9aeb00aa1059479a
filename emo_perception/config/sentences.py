"""Captions and causes: every default of theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from emo_perception.config.base import LearnedConfig, param


@dataclass(frozen=True)
class CaptionConfig(LearnedConfig):
    """Sentences about what the faces do."""

    node: ClassVar[str] = "caption"
    writer: str = param(
        "evidence",
        "who writes: evidence = sentences out of what was measured; ecpa = the built network",
        choices=("evidence", "ecpa"),
        fixed=True,
    )
    stride_s: float = param(
        1.0, "time between two captions, seconds; a network's come with its clips (visual.stride_s)", low=0.1, high=60.0
    )
    window_s: float = param(
        4.0, "how far back a caption looks, seconds; a network's as far as its clips", low=0.5, high=60.0
    )
    min_confidence: float = param(0.35, "below this a caption abstains", low=0.0, high=1.0)
    min_intensity: float = param(
        0.25, "weakest action unit that is worth a phrase, or proves one of a network", low=0.05, high=1.0
    )
    max_people: int = param(3, "people described in one sentence, or captioned by a network", low=1, high=16)
    deadline_s: float = param(
        2.0,
        "a network's caption goes out this long after its clip at the latest, as far as it got; 0 = no limit",
        low=0.0,
        high=600.0,
    )
    publish_abstentions: bool = param(True, "publish abstentions on emotion_caption (never on /text)")


@dataclass(frozen=True)
class CauseConfig(LearnedConfig):
    """The memory of the dialogue, and why somebody shows an emotion."""

    node: ClassVar[str] = "cause"
    explainer: str = param(
        "ranking",
        "who explains: ranking = triggers by likelihood; fame = the built network; server = the server of chat_url",
        choices=("ranking", "fame", "server"),
        fixed=True,
    )
    language_model: str = param(
        "", "folder of the language model of fame, as transformers saves it; empty = the one in its weights", fixed=True
    )
    quantise: str = param("none", "arithmetic of that language model", choices=("none", "int8"), fixed=True)
    answer_s: float = param(
        20.0,
        "an explanation by fame or the server takes so long at the most, seconds; 0 = no limit",
        low=0.0,
        high=600.0,
    )
    send_pictures: bool = param(
        False, "let the server of chat_url see the picture of an utterance (visual.pictures)", fixed=True
    )
    memory_min: float = param(
        10.0, "how long words and events are remembered, minutes", low=0.1, high=240.0, fixed=True
    )
    memory_tokens: int = param(2000, "how much is remembered, tokens", low=50, high=100_000, fixed=True)
    persist: bool = param(
        True, "keep the memory (words, names, expressions; no picture or sound) in a file over a restart", fixed=True
    )
    memory_file: str = param("", "that file; empty = dialogue.json in the user's state folder", fixed=True)
    window_s: float = param(60.0, "how far before its effect a cause is sought, seconds", low=1.0, high=600.0)
    min_emotion: float = param(0.5, "least probability of an emotion that is explained", low=0.05, high=1.0)
    min_confidence: float = param(0.3, "below this an explanation abstains", low=0.0, high=1.0)
    settle_s: float = param(
        2.0, "a changed face waits so long for the words that were being said, seconds", low=0.0, high=30.0
    )
    quiet_s: float = param(
        5.0, "the same emotion of a person is not explained again for so long, seconds", low=0.0, high=600.0
    )
    publish_abstentions: bool = param(True, "publish abstentions on emotion_cause (never on /text)")
    max_questions: int = param(
        8, "questions to explain_emotion that may wait; further ones are refused", low=1, high=256, fixed=True
    )
    chat_url: str = param(
        "",
        "base URL of an OpenAI-compatible server that rephrases, as http://localhost:8080/v1; empty = none",
        fixed=True,
    )
    chat_model: str = param("", "model that this server is asked for", fixed=True)
    chat_timeout_s: float = param(4.0, "a rephrasing takes so long at the most, seconds", low=0.1, high=120.0)
