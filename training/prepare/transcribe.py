"""What is said in a clip, by speech recognition, beside what the data set says: to correct its texts, as ECEM's authors did.

Both texts are kept with the word error rate between them. Recognised words are *chosen* where they look like the same
sentence heard more exactly: they differ from the given text, but in no more than half of its words, and the recogniser
was sure. Otherwise the given text stays: a clip may hold other voices, laughter or music as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from emo_models.weights import card, sha256_of
from emo_perception.config import SourceConfig, SpeechConfig
from emo_perception.sources import SourceError, open_source
from emo_perception.stages.speech.recogniser import MODELS, Recogniser
from emo_perception.types import NS_PER_S, AudioChunk
from training.datasets.record import Record, Span, Utterance, has_words
from training.prepare.ledger import Ledger
from training.prepare.pool import Failure, results
from training.prepare.video import UnreadableVideo

#: Recognised words stand for the given ones up to this word error rate...
MOST_WER: Final = 0.5
#: ... and from this mean probability of its words on.
LEAST_CONFIDENCE: Final = 0.6
#: Whisper hears 30 s at a time; more than this in one clip is not one utterance.
LONGEST_S: Final = 60.0
TEXTS: Final = ("chosen", "recognised", "original")
_WORD: Final = re.compile(r"\w+(?:'\w+)*")


@dataclass(frozen=True)
class Transcript:
    """One clip. ``wer``: of ``recognised`` against ``original``; ``chosen``: ``original`` or ``recognised``.

    ``failure``: why nothing was recognised; empty otherwise.
    """

    clip_id: str
    original: str
    recognised: str
    wer: float
    confidence: float
    chosen: str
    failure: str = ""

    def text(self, which: str) -> str:
        """``chosen``, ``original``, or ``recognised`` (the original where no word was). Raises ``ValueError``."""
        if which not in TEXTS:
            raise ValueError(f"expected one of {', '.join(TEXTS)}; got {which!r}")
        name = self.chosen if which == "chosen" else which
        return self.recognised if name == "recognised" and has_words(self.recognised) else self.original


def words(text: str) -> list[str]:
    """Words of a text for comparison: lower case, without punctuation, one kind of apostrophe."""
    return _WORD.findall(text.lower().replace("’", "'").replace("`", "'"))


def word_error_rate(original: str, recognised: str) -> float:
    """Words to exchange, add and remove, by the number of words of ``original``; infinite against none."""
    given, heard = words(original), words(recognised)
    costs = list(range(len(heard) + 1))
    for row, word in enumerate(given, 1):
        before, costs[0] = costs[0], row
        for column, other in enumerate(heard, 1):
            before, costs[column] = (
                costs[column],
                min(before + (word != other), costs[column] + 1, costs[column - 1] + 1),
            )
    return costs[-1] / len(given) if given else (float("inf") if heard else 0.0)


def sound(span: Span) -> NDArray[np.int16]:
    """The sound of a span, mono at 16 kHz, int16 [n]. Raises :class:`UnreadableVideo`; silence where there is none."""
    # Images come along with the sound; small and few of them cost little.
    config = SourceConfig(uri=str(span.file), backend="pyav", realtime=False, fps=1.0, width=32)
    end_ns = round((span.start_s + LONGEST_S if span.end_s is None else span.end_s) * NS_PER_S)
    start_ns = round(span.start_s * NS_PER_S)
    parts: list[NDArray[np.int16]] = []
    try:
        for item in open_source(config):
            if item.stamp_ns >= end_ns:
                break
            if isinstance(item, AudioChunk):
                parts.append(_inside(item, start_ns, end_ns))
    except SourceError as error:
        raise UnreadableVideo(str(error)) from None
    return np.concatenate([np.zeros(0, np.int16), *parts])


def _inside(chunk: AudioChunk, start_ns: int, end_ns: int) -> NDArray[np.int16]:
    """The samples of a chunk from ``start_ns`` to before ``end_ns``."""
    first, last = (-(-(at - chunk.stamp_ns) * chunk.sample_rate_hz // NS_PER_S) for at in (start_ns, end_ns))
    return chunk.samples[max(0, first) : max(0, last)]


@dataclass
class TranscribeWork:
    """Transcribes one record after another; ``model`` as :class:`SpeechConfig` has it."""

    model: str
    language: str = "en"
    threads: int = 0
    _recogniser: Recogniser | None = field(default=None, init=False)

    def __call__(self, record: Record) -> Transcript:
        if record.source is None or record.dialogue is None:
            raise UnreadableVideo(f"clip {record.clip_id!r} has no video on this disk, or nobody speaks in it")
        if self._recogniser is None:
            self._recogniser = Recogniser(self.model, self.threads)
        original = record.dialogue.target.text
        samples = sound(record.source)
        spoken = None
        if len(samples):
            spoken = self._recogniser(samples, SpeechConfig(model=self.model, language=self.language))
        if spoken is None:
            why = "nothing was recognised" if len(samples) else "the clip has no sound"
            return Transcript(record.clip_id, original, "", 1.0, 0.0, "original", why)
        wer = word_error_rate(original, spoken.text)
        better = 0 < wer <= MOST_WER and spoken.confidence >= LEAST_CONFIDENCE
        chosen = "recognised" if better else "original"
        return Transcript(record.clip_id, original, spoken.text, round(wer, 4), round(spoken.confidence, 4), chosen)

    def close(self) -> None:
        if self._recogniser is not None:
            self._recogniser.close()


def transcriber(model: str, language: str = "en") -> dict[str, str]:
    """The producer of transcripts. Raises :class:`OSError` for a folder without a model."""
    if model in MODELS:
        digest = card(MODELS[model]["model.bin"]).sha256
    else:
        digest = sha256_of(Path(model).expanduser() / "model.bin")
    return {"model": Path(model).name, "sha256": digest, "language": language, "version": "1"}


def transcribe(
    records: Iterable[Record],
    file: Path,
    *,
    model: str = "tiny.en",
    language: str = "en",
    workers: int = 1,
    progress: Callable[[], None] | None = None,
) -> dict[str, Transcript]:
    """Transcribe every record that has a clip and a target utterance, and note each in ``file`` as it is done.

    Run again, it goes on. A clip that cannot be read keeps its text, with the reason as ``failure``.

    Raises:
        MissingWeights, EngineError: the recogniser cannot be loaded.
        StoreError: the file is of another model, or there is no room.

    """
    spoken = {record.clip_id: record for record in records if record.source is not None and record.dialogue is not None}
    work = partial(TranscribeWork, model, language, 1 if workers > 1 else 0)
    with Ledger(file, transcriber(model, language)) as ledger:
        missing = [spoken[clip_id] for clip_id in ledger.missing(spoken)]
        for record, result in results(missing, work, workers):
            if isinstance(result, Failure):
                assert record.dialogue is not None
                result = Transcript(  # noqa: PLW2901
                    record.clip_id, record.dialogue.target.text, "", 1.0, 0.0, "original", result.reason
                )
            values = asdict(result)
            ledger.note(values.pop("clip_id"), values)
            if progress is not None:
                progress()
        return _transcripts(ledger)


def read_transcripts(file: Path, model: str = "tiny.en", language: str = "en") -> dict[str, Transcript]:
    """What :func:`transcribe` wrote. Raises as it does."""
    with Ledger(file, transcriber(model, language)) as ledger:
        return _transcripts(ledger)


def with_texts(record: Record, transcripts: Mapping[str, Transcript], which: str = "chosen") -> Record:
    """The record with the words of its target and of its history replaced, where there is a transcript of their clips."""

    def said(utterance: Utterance) -> Utterance:
        found = transcripts.get(utterance.clip_id)
        return utterance if found is None else replace(utterance, text=found.text(which))

    if record.dialogue is None:
        return record
    history = tuple(said(utterance) for utterance in record.dialogue.history)
    return replace(record, dialogue=replace(record.dialogue, history=history, target=said(record.dialogue.target)))


def summary(transcripts: Sequence[Transcript]) -> str:
    """Counts in one line."""
    heard = [t for t in transcripts if not t.failure]
    mean = float(np.mean([t.wer for t in heard])) if heard else 0.0
    chosen = sum(t.chosen == "recognised" for t in heard)
    return (
        f"{len(transcripts):,} clips: {len(transcripts) - len(heard):,} without recognised words, mean word error rate "
        f"{mean:.3f}, recognised words chosen for {chosen:,}"
    )


def _transcripts(ledger: Ledger) -> dict[str, Transcript]:
    found = {}
    for clip_id in ledger:
        values = ledger.get(clip_id)
        found[clip_id] = Transcript(clip_id, **{name: values[name] for name in values if name != "id"})
    return found
