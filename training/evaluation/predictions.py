"""The file of predictions: one JSON object a line, one line a clip.

``clip_id`` and ``text`` are required; whatever else is there is measured too:

=================  =====================================================================================
field              meaning
=================  =====================================================================================
``references``     reference captions
``emotion``        class -> probability, or one class
``true_emotion``   the class it should be
``evidence``       of words: ``start``, ``end`` of the text, ``au`` (FACS number), ``similarity``
``au_scores``      FACS number -> score of the network in the clip, 0 to 1
``active_aus``     FACS numbers that were really active
``causes``         ids of the utterances taken for the cause, the likeliest first
``true_causes``    ids of those that are
``cause_phrases``  phrases any of which names the cause in the text
``other_phrases``  phrases for what happened besides: a text that has one names everything, so nothing
``kind``           kind of the cause, for figures per kind
``context``        what the clip is about, for people who read or rate the examples
=================  =====================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.metrics.base import MetricError, some
from training.metrics.grounding import Evidence, GroundedCaption


@dataclass(frozen=True)
class Prediction:
    """What was predicted for one clip, and what it is compared with; None: not known."""

    clip_id: str
    text: str
    references: tuple[str, ...] = ()
    emotion: Mapping[str, float] = field(default_factory=dict)
    true_emotion: str = ""
    evidence: tuple[Evidence, ...] | None = None
    au_scores: Mapping[int, float] | None = None
    active_aus: tuple[int, ...] | None = None
    causes: tuple[str, ...] | None = None
    true_causes: tuple[str, ...] | None = None
    cause_phrases: tuple[str, ...] = ()
    other_phrases: tuple[str, ...] = ()
    kind: str = ""
    context: str = ""

    @property
    def likeliest(self) -> str:
        """The class with the highest probability; empty where none was predicted."""
        return max(self.emotion, key=lambda name: self.emotion[name], default="")

    @property
    def grounded(self) -> GroundedCaption:
        """The caption with the evidence of its words."""
        return GroundedCaption(self.text, self.evidence or ())


def read_predictions(file: Path) -> dict[str, Prediction]:
    """Clip -> prediction, in the order of the file; fields of others are passed over.

    Raises :class:`MetricError` naming the line: no JSON, a field missing or of the wrong kind, a clip twice, no lines.
    """
    found: dict[str, Prediction] = {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MetricError(f"{file}: cannot be read as JSON lines in UTF-8: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            prediction = _prediction(json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise MetricError(
                f'{where}: expected {{"clip_id": "...", "text": "..."}} and what docs/evaluation.md lists; '
                f"got {line[:80]!r} ({type(error).__name__}: {error})"
            ) from None
        if prediction.clip_id in found:
            raise MetricError(f"{where}: clip {prediction.clip_id!r} is there twice; a clip has one prediction")
        found[prediction.clip_id] = prediction
    if not found:
        raise MetricError(f"{file} holds no predictions")
    return found


def write_predictions(file: Path, predictions: Iterable[Prediction]) -> None:
    """Write a file that :func:`read_predictions` reads, whole or not at all; what is not known is left out."""
    lines = []
    for p in predictions:
        row: dict[str, Any] = {"clip_id": p.clip_id, "text": p.text}
        for name in ("references", "emotion", "true_emotion", "cause_phrases", "other_phrases", "kind", "context"):
            if value := getattr(p, name):
                row[name] = list(value) if isinstance(value, tuple) else value
        for name in ("active_aus", "causes", "true_causes"):
            if (value := getattr(p, name)) is not None:
                row[name] = list(value)
        if p.au_scores is not None:
            row["au_scores"] = {str(au): round(float(score), 4) for au, score in p.au_scores.items()}
        if p.evidence is not None:
            row["evidence"] = [
                {"start": e.start, "end": e.end, "au": e.au, "similarity": round(e.similarity, 4)} for e in p.evidence
            ]
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    part.write_text("".join(lines), encoding="utf-8")
    part.replace(file)


def read_references(file: Path) -> dict[str, tuple[str, ...]]:
    """Clip -> captions from JSON lines (``clip_id``, ``references``), an object of lists, or COCO's caption format.

    Raises :class:`MetricError` for anything else.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MetricError(f"{file}: cannot be read as text in UTF-8: {error}") from None
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    found: dict[str, tuple[str, ...]]
    if isinstance(content, dict) and "annotations" in content:
        lists: dict[str, list[str]] = {}
        for entry in content["annotations"]:
            lists.setdefault(str(entry["image_id"]), []).append(str(entry["caption"]))
        found = {clip: tuple(captions) for clip, captions in lists.items()}
    elif isinstance(content, dict) and "clip_id" not in content:
        found = {str(clip): _texts(captions) for clip, captions in content.items()}
    else:
        rows = read_predictions_like(text, file)
        found = {str(row["clip_id"]): _texts(row["references"]) for row in rows}
        if len(found) != len(rows):
            ids = [str(row["clip_id"]) for row in rows]
            raise MetricError(f"{file}: clips stand twice: {some(sorted({i for i in ids if ids.count(i) > 1}))}")
    if not found:
        raise MetricError(f"{file} holds no references")
    return found


def read_predictions_like(text: str, file: Path) -> list[dict[str, Any]]:
    """Rows with ``clip_id`` and ``references``."""
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            _ = row["clip_id"], row["references"]
        except (ValueError, TypeError, KeyError):
            raise MetricError(
                f'{file}, line {number}: expected {{"clip_id": "...", "references": ["..."]}}, an object of lists, or '
                f"COCO captions; got {line[:80]!r}"
            ) from None
        rows.append(row)
    return rows


def _prediction(row: Mapping[str, Any]) -> Prediction:
    emotion = row.get("emotion") or {}
    evidence, scores = row.get("evidence"), row.get("au_scores")
    text = row["text"]
    if not isinstance(text, str):
        raise TypeError(f"text is {type(text).__name__}")
    return Prediction(
        clip_id=str(row["clip_id"]),
        text=text,
        references=_texts(row.get("references", ())),
        emotion={emotion: 1.0} if isinstance(emotion, str) else {str(n): float(v) for n, v in emotion.items()},
        true_emotion=str(row.get("true_emotion", "")),
        evidence=None if evidence is None else tuple(_evidence(entry) for entry in evidence),
        au_scores=None if scores is None else {int(au): float(score) for au, score in scores.items()},
        active_aus=_maybe(row.get("active_aus"), int),
        causes=_maybe(row.get("causes"), str),
        true_causes=_maybe(row.get("true_causes"), str),
        cause_phrases=_texts(row.get("cause_phrases", ())),
        other_phrases=_texts(row.get("other_phrases", ())),
        kind=str(row.get("kind", "")),
        context=str(row.get("context", "")),
    )


def _evidence(entry: Mapping[str, Any]) -> Evidence:
    return Evidence(int(entry["start"]), int(entry["end"]), int(entry["au"]), float(entry.get("similarity", 1.0)))


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not all(isinstance(text, str) for text in value):
        raise TypeError(f"references and phrases must be lists of texts, got {str(value)[:60]!r}")
    return tuple(value)


def _maybe(value: Sequence[Any] | None, kind: type) -> Any:
    return None if value is None else tuple(kind(entry) for entry in value)
