"""One recorded run, read once: results as typed values, latencies from the times of receipt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emo_perception import bags, from_msg, jsonl
from emo_perception.types import AudioChunk, Caption, Cause, EmotionFeatures, Utterance

#: Message type -> how it is told apart; topic names may be remapped, types may not.
UTTERANCE, CAUSE = "emo_msgs/msg/Utterance", "emo_msgs/msg/EmotionCause"
FEATURES, CAPTION, STATE = "emo_msgs/msg/EmotionFeatures", "emo_msgs/msg/EmotionCaption", "emo_msgs/msg/SourceState"
AUDIO, DIAGNOSTICS, JPEG = (
    "emo_msgs/msg/AudioChunk",
    "diagnostic_msgs/msg/DiagnosticArray",
    "sensor_msgs/msg/CompressedImage",
)
OVERLAY = "overlay/compressed"
STATES = ("OPENING", "PLAYING", "RECONNECTING", "ENDED", "FAILED")


@dataclass(slots=True)
class Run:
    """What a bag of a run holds. Latencies are from acquisition stamp to receipt by the recorder, milliseconds."""

    features: list[EmotionFeatures] = field(default_factory=list)
    captions: list[Caption] = field(default_factory=list)
    utterances: list[Utterance] = field(default_factory=list)
    causes: list[Cause] = field(default_factory=list)
    overlay: list[tuple[int, bytes]] = field(default_factory=list)
    """Stamp and JPEG of each overlay picture."""
    audio: list[AudioChunk] = field(default_factory=list)
    features_ms: list[float] = field(default_factory=list)
    captions_ms: list[float] = field(default_factory=list)
    diagnostics: dict[str, dict[str, str]] = field(default_factory=dict)
    """Name of a status -> its last message and values."""
    source: Any = None
    """The last SourceState, None when no source of ours ran."""

    @property
    def source_state(self) -> str:
        """Name of the source's last state; empty without a source of ours."""
        return "" if self.source is None else STATES[self.source.state]

    def write_jsonl(self, folder: Path) -> None:
        """``features.jsonl``, ``captions.jsonl``, ``utterances.jsonl`` and ``causes.jsonl``: one message a line."""
        files: dict[str, Sequence[object]] = {
            "features": self.features,
            "captions": self.captions,
            "utterances": self.utterances,
            "causes": self.causes,
        }
        for name, items in files.items():
            text = "".join(jsonl.line(item) for item in items)
            (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def load_run(bag: Path) -> Run:
    """Read a bag made by the recorder. Raises :class:`emo_perception.bags.BagError`."""
    run = Run()
    for item in bags.read(bag):
        message = item.message
        if item.kind == FEATURES:
            run.features.append(from_msg.features(message))
            run.features_ms.append((item.received_ns - run.features[-1].stamp_ns) / 1e6)
        elif item.kind == CAPTION:
            run.captions.append(from_msg.caption(message))
            run.captions_ms.append((item.received_ns - run.captions[-1].stamp_ns) / 1e6)
        elif item.kind == UTTERANCE:
            run.utterances.append(from_msg.utterance(message))
        elif item.kind == CAUSE:
            run.causes.append(from_msg.cause(message))
        elif item.kind == JPEG and item.topic.endswith(OVERLAY):
            run.overlay.append((from_msg.stamp_ns(message.header.stamp), bytes(message.data)))
        elif item.kind == AUDIO:
            run.audio.append(from_msg.audio(message))
        elif item.kind == STATE:
            run.source = message
        elif item.kind == DIAGNOSTICS:
            for status in message.status:
                run.diagnostics[status.name] = {"message": status.message, **_values(status.values)}
    return run


def _values(pairs: Sequence[Any]) -> Mapping[str, str]:
    return {pair.key: pair.value for pair in pairs}


def percentiles(values_ms: Sequence[float]) -> NDArray[np.float64]:
    """p50, p95 and p99; NaN of nothing."""
    return np.percentile(values_ms, (50, 95, 99)) if values_ms else np.full(3, np.nan)
