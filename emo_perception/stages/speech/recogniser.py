"""What was said: Whisper (Radford et al., 2022) through faster-whisper, on a CPU."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from emo_models.engines import EngineError
from emo_models.engines.threads import cpu_threads
from emo_models.weights import path as weight_path
from emo_perception.config import SpeechConfig
from emo_perception.streaming.resample import RATE_HZ

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Models that have weight cards: file of the CTranslate2 model -> card.
MODELS: Final = {
    "tiny.en": {
        "model.bin": "whisper_tiny_en",
        "config.json": "whisper_tiny_en_config",
        "tokenizer.json": "whisper_tiny_en_tokenizer",
        "vocabulary.txt": "whisper_tiny_en_vocabulary",
    }
}
NEEDED: Final = ("model.bin", "config.json", "tokenizer.json")
"""What a folder with a model must hold; without its tokenizer faster-whisper would ask the network for one."""

LOOPS = 2.4
"""Text that compresses better than this repeats itself: what Whisper makes of music and noise (its own limit)."""
TOKENS_PER_S, MORE_TOKENS = 10, 24
"""Nobody says more; ends a loop early."""
NICENESS = 10
"""Recognition takes what the frames leave: with this the kernel gives it a tenth where cores are short."""
UNWANTED: Final = ("torch", "transformers", "tensorflow")
"""Frameworks that CTranslate2 loads where they are installed, for converting models only."""


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """A word; times in seconds from the beginning of the sound."""

    text: str
    start_s: float
    end_s: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Spoken:
    """What was understood. ``confidence``: mean probability of the words."""

    text: str
    language: str
    confidence: float
    words: tuple[SpokenWord, ...]


class Recogniser:
    """A Whisper model, ready. ``name``: a key of :data:`MODELS` or a folder with a CTranslate2 model.

    Raises :class:`EngineError`, :class:`emo_models.weights.MissingWeights` or ``CorruptWeights``, which say what to do.
    """

    backend = "ctranslate2"
    device = "cpu"

    def __init__(self, name: str, threads: int = 0) -> None:
        self.name = Path(name).name
        self.threads = cpu_threads("speech", threads)
        whisper = _whisper()
        place, files = _files(name)

        def load() -> Any:
            opened = {file: path.read_bytes() for file, path in files.items()} or None
            return whisper(place, device="cpu", compute_type="int8", cpu_threads=self.threads, files=opened)

        try:
            # The model's own threads inherit this thread's niceness; the caller, who holds Python's lock, keeps its own.
            self._model: Any = _in_a_nice_thread(load)
        except (RuntimeError, ValueError, OSError) as error:
            raise EngineError(f"speech.model {name}: faster-whisper cannot load it: {error}") from None
        self.precision = str(self._model.model.compute_type)
        self.version = importlib.metadata.version("ctranslate2")
        log.info("speech: whisper %s, ctranslate2 %s, %d threads", self.name, self.precision, self.threads)

    def __call__(self, samples: NDArray[np.int16], config: SpeechConfig) -> Spoken | None:
        """What int16 [N] at 16 kHz says; None when it is nothing or only noise. The same sound gives the same text."""
        if self._model is None:
            raise EngineError("speech: the recogniser is closed")
        segments, info = self._model.transcribe(
            samples.astype(np.float32) / 32768,
            language=config.language or None,
            beam_size=config.beam_size,
            temperature=0.0,  # the fallback to higher ones is random, and takes six times as long on noise
            condition_on_previous_text=False,
            word_timestamps=True,
            max_new_tokens=min(TOKENS_PER_S * len(samples) // RATE_HZ + MORE_TOKENS, 224),
        )
        said = [s for s in segments if s.text.strip() and s.words and s.compression_ratio <= LOOPS]
        words = tuple(
            SpokenWord(w.word.strip(), float(w.start), float(w.end), float(w.probability))
            for s in said
            for w in s.words
        )
        if not words:
            return None
        text = " ".join(s.text.strip() for s in said)
        return Spoken(text, str(info.language), float(np.mean([w.confidence for w in words])), words)

    def close(self) -> None:
        """Free the model."""
        self._model = None


def _whisper() -> Any:
    try:
        with _hidden(UNWANTED):
            from faster_whisper import WhisperModel
    except ImportError as error:
        raise EngineError(
            f"faster-whisper does not import ({error}); install it with: pip install 'faster-whisper==1.2.*', "
            "or do without speech: set speech.enabled to false"
        ) from None
    # It tells of every piece of sound at the level of what users should know.
    logging.getLogger("faster_whisper").setLevel(logging.WARNING)
    return WhisperModel


def _files(name: str) -> tuple[str, dict[str, Path]]:
    """The folder of a model, or the files of one that has cards."""
    if name in MODELS:
        return name, {file: weight_path(card) for file, card in MODELS[name].items()}
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise EngineError(
            f"speech.model {name!r}: expected {', '.join(MODELS)} or a folder with a CTranslate2 model; no such folder"
        )
    lacking = [file for file in NEEDED if not (folder / file).is_file()]
    if lacking:
        raise EngineError(
            f"speech.model {folder}: expected a CTranslate2 model of Whisper, {' and '.join(lacking)} missing; make one "
            "with: ct2-transformers-converter --model openai/whisper-base --copy_files tokenizer.json "
            "preprocessor_config.json --quantization int8 --output_dir FOLDER"
        )
    return str(folder), {}


@contextmanager
def _hidden(names: tuple[str, ...]) -> Iterator[None]:
    """Imports of these modules fail inside the block, unless they were loaded before."""
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type] # None there means: cannot be imported
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def _in_a_nice_thread(work: Callable[[], T]) -> T:
    """Run ``work`` in a thread that yields to others, and return what it returns or raise what it raises."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        if sys.platform == "linux":  # elsewhere this would mean the whole process
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="emo-speech-load")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
