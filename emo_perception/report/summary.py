"""One page about a run, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from emo_models import weights
from emo_perception.config import load_profile
from emo_perception.files import profile_file
from emo_perception.learned import licences
from emo_perception.report.run import Run, percentiles
from emo_perception.types import NS_PER_S, EmotionFeatures

SHOWN = (
    "message",
    "engine",
    "backend",
    "backend_version",
    "precision",
    "device",
    "processed",
    "failed",
    "dropped",
    "latency_p50_ms",
    "latency_p95_ms",
)


def summary(run: Run, profile: str) -> str:
    """Input, what was seen and said, latencies, engines, licences."""
    parts = [
        "# Run summary",
        _source(run),
        "## Captions",
        _captions(run),
        "## Words",
        _utterances(run),
        "## Reasons",
        _causes(run),
        "## People",
        _people(run.features),
        "## Latency, milliseconds from the acquisition stamp to receipt by the recorder",
        _table(("", "messages", "p50", "p95", "p99"), _latencies(run)),
        "## Nodes, as they last reported",
        _table(("", *SHOWN), [(n, *(v.get(k, "") for k in SHOWN)) for n, v in sorted(run.diagnostics.items())]),
        "## Weights",
        _table(("name", "licence"), _licences(profile)),
    ]
    return "\n\n".join(parts) + "\n"


def _licences(profile: str) -> list[tuple[str, str]]:
    public = [(name, weights.card(name).licence) for name in weights.needed_by(profile)]
    return [*public, *licences(load_profile(profile_file(profile))).items()]


def _source(run: Run) -> str:
    frames = len(run.features)
    seconds = (run.features[-1].stamp_ns - run.features[0].stamp_ns) / NS_PER_S if frames > 1 else 0.0
    if run.source is None:
        return f"No source of ours; {frames} frames perceived in {seconds:.1f} s of stream."
    # A state is published when it changes; in between the diagnostics know more.
    now = run.diagnostics.get("source: source", {})
    sent = max(run.source.frames, int(now.get("frames", 0)))
    chunks = max(run.source.audio_chunks, int(now.get("audio_chunks", 0)))
    text = f"`{run.source.uri}` through {run.source.backend}, {run.source_state.lower()}"
    detail = f" ({run.source.detail})" if run.source.detail else ""
    return f"{text}{detail}: {sent} frames sent, {frames} perceived, {seconds:.1f} s, {chunks} chunks of sound."


def _seconds(run: Run, stamp_ns: int) -> str:
    """Seconds since the first frame."""
    return f"{(stamp_ns - run.features[0].stamp_ns) / NS_PER_S:.1f}" if run.features else ""


def _utterances(run: Run) -> str:
    if not run.utterances:
        return "None."
    rows = [
        (
            _seconds(run, u.start_ns),
            u.speaker or (f"face {u.track_id}" if u.track_id else "unknown"),
            u.text,
            f"{u.confidence:.2f}",
        )
        for u in run.utterances
    ]
    return _table(("s", "who", "words", "confidence"), rows)


def _causes(run: Run) -> str:
    if not run.causes:
        return "None."
    rows = []
    for cause in run.causes:
        text = f"*(abstained: {cause.abstain_reason})*" if cause.abstained else cause.text
        rows.append((_seconds(run, cause.stamp_ns), cause.emotion, text, f"{cause.confidence:.2f}"))
    return _table(("s", "emotion", "explanation", "confidence"), rows)


def _captions(run: Run) -> str:
    if not run.captions:
        return "None."
    rows = []
    for caption in run.captions:
        proof = ", ".join(dict.fromkeys(f"AU{e.au}" if e.au else e.emotion or "face" for e in caption.evidence))
        text = f"*(abstained: {caption.abstain_reason})*" if caption.abstained else caption.text
        rows.append((_seconds(run, caption.stamp_ns), text, f"{caption.confidence:.2f}", proof))
    return _table(("s", "sentence", "confidence", "proven by"), rows)


def _people(features: Sequence[EmotionFeatures]) -> str:
    tracks: dict[int, list[Mapping[str, float]]] = {}
    for frame in features:
        for face in frame.faces:
            units = dict(
                zip((f"AU{n}" for n in face.action_units.au), face.action_units.intensity.tolist(), strict=True)
            )
            emotions = dict(zip(face.emotion.labels, face.emotion.probabilities.tolist(), strict=True))
            tracks.setdefault(face.track.track_id, []).append({**emotions, **units})
    rows = []
    for track_id, seen in sorted(tracks.items()):
        means = {name: float(np.mean([values[name] for values in seen])) for name in seen[0]}
        peaks = {name: max(values[name] for values in seen) for name in seen[0] if name.startswith("AU")}
        expression = _top({name: mean for name, mean in means.items() if not name.startswith("AU")})
        rows.append((str(track_id), str(len(seen)), expression, _top(peaks)))
    return _table(("track", "frames", "expression, mean", "action units, peak"), rows) if rows else "Nobody was seen."


def _top(values: Mapping[str, float]) -> str:
    best = sorted(values.items(), key=lambda item: -item[1])[:4]
    return ", ".join(f"{name} {value:.2f}" for name, value in best if value >= 0.05)


def _latencies(run: Run) -> list[tuple[str, ...]]:
    rows = []
    for name, values in (("emotion_features", run.features_ms), ("emotion_caption", run.captions_ms)):
        rows.append((name, str(len(values)), *(f"{p:.1f}" for p in percentiles(values))))
    return rows


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
    )
