"""The page about an evaluation: figures, times, and for each recording who felt what when, and what was said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import cv2

from emo_perception.types import NS_PER_S
from training.evaluation import plots, report
from training.evaluation.bags.runner import Outcome
from training.evaluation.bags.story import Mood, Story, side_by_side
from training.evaluation.document import Block, Bullets, Heading, Paragraph, Picture, Table
from training.evaluation.report import Set

#: One colour per label, the same on every page.
COLOURS: Final = {
    "neutral": "#c9c9c9", "happy": "#f2c14e", "angry": "#d1495b", "sad": "#4a7fb5", "surprised": "#e88d3c",
    "disgusted": "#6a994e", "scared": "#8e6bbf",
}  # fmt: skip
OTHER: Final = "#7d8597"
GAP_NS: Final = NS_PER_S // 2


def blocks(title: str, outcome: Outcome, sets: Sequence[Set], *, examples: int, draw: bool) -> list[Block]:
    """The whole page; ``sets``: what was measured of captions and causes, each for itself."""
    page: list[Block] = [
        Heading(title, 1),
        *_settings(outcome),
        *_counts(outcome),
        *latency([("", outcome.latencies())]),
    ]
    if not sets:
        page.append(Paragraph("There are no references (refs.jsonl), so nothing was measured."))
    for one in sets:
        page += report.blocks([one], title=one.name, examples=examples, draw=draw)
    for name, story in list(outcome.stories.items())[:examples]:
        page += _recording(name, story, draw=draw)
    left = len(outcome.stories) - examples
    if left > 0:
        page.append(Paragraph(f"{left} further recordings are in the files only."))
    return page


def latency(runs: Sequence[tuple[str, Mapping[str, Mapping[str, float]]]]) -> list[Block]:
    """Milliseconds of each stage, of one run or several."""
    rows = [
        [
            *([name] if name else []),
            stage,
            f"{marks['runs']:.0f}",
            *(f"{marks[p]:.1f}" if p in marks else "" for p in ("p50", "p95", "p99")),
        ]
        for name, stages in runs
        for stage, marks in stages.items()
    ]
    if not rows:
        return []
    head = [*(["run"] if runs[0][0] else []), "stage", "runs", "p50", "p95", "p99"]
    return [Heading("Latency, milliseconds"), Table(head, rows)]


def _settings(outcome: Outcome) -> list[Block]:
    engines = [
        f"{stage}: {facts.get('engine')} by {facts.get('backend')} {facts.get('backend_version')}, {facts.get('precision')}"
        for stage, facts in outcome.engines.items()
    ]
    settings = [f"{name}: {' / '.join(ways)}" for name, ways in outcome.settings.items()]
    page: list[Block] = [Bullets([*settings, *engines])]
    return page + ([Heading("Troubles", 3), Bullets(outcome.troubles)] if outcome.troubles else [])


def _counts(outcome: Outcome) -> list[Block]:
    names = list(dict.fromkeys(key for counts in outcome.counts.values() for key in counts))
    rows = [[name, *(str(counts.get(key, "")) for key in names)] for name, counts in outcome.counts.items()]
    if len(rows) > 1:
        sums = [round(sum(counts.get(key, 0) for counts in outcome.counts.values()), 3) for key in names]
        rows.append(["together", *map(str, sums)])
    return [Heading("Recordings"), Table(["", *names], rows)]


def _recording(name: str, story: Story, *, draw: bool) -> list[Block]:
    page: list[Block] = [Heading(name)]
    if story.pictures:
        shown = cv2.cvtColor(side_by_side([image for _, image in story.pictures]), cv2.COLOR_RGB2BGR)
        stamps = ", ".join(f"{_at(story, stamp_ns):.1f} s" for stamp_ns, _ in story.pictures)
        page.append(Picture(f"pictures-{_slug(name)}", cv2.imencode(".png", shown)[1].tobytes(), f"{name} at {stamps}"))
    if draw and (story.moods or story.captions or story.utterances):
        page.append(
            Picture(f"timeline-{_slug(name)}", timeline(story), f"Who shows what when, and what was said: {name}")
        )
    rows = sorted([*_captions(story), *_utterances(story), *_causes(story)], key=lambda row: row[0])
    if rows:
        page.append(Table(["s", "what", "who", "text"], [[f"{at:.1f}", *cells] for at, *cells in rows]))
    return page


def timeline(story: Story) -> bytes:
    """Expressions of each face, words, windows of captions, and explanations, on one axis of seconds; PNG."""
    tracks = sorted({mood.track_id for mood in story.moods})
    lanes = [*(f"face {track}" for track in tracks), "words", "captions", "causes"]
    figure, (panel,) = plots.panels(1, 1, (10.0, 0.38 * len(lanes) + 1.1))
    place = {lane: len(lanes) - 1 - number for number, lane in enumerate(lanes)}
    seen: dict[str, Any] = {}
    for track in tracks:
        for begin_ns, end_ns, label in _runs([m for m in story.moods if m.track_id == track]):
            colour = COLOURS.get(label, OTHER)
            seen[label] = panel.barh(
                place[f"face {track}"], _seconds(end_ns - begin_ns), left=_at(story, begin_ns), color=colour, height=0.7
            )
    for utterance in story.utterances:
        span_s = _at(story, utterance.start_ns), _at(story, utterance.end_ns)
        _bar(panel, place["words"], span_s, utterance.speaker, "#a5b4c8")
    for number, caption in enumerate((c for c in story.captions if not c.abstained), 1):
        span_s = max(0.0, _at(story, caption.window_start_ns)), _at(story, caption.window_end_ns)
        _bar(panel, place["captions"], span_s, str(number), "#b9d6b2")
    for cause in [*story.causes, *story.answers.values()]:
        if not cause.abstained:
            panel.plot(_at(story, cause.stamp_ns), place["causes"], "D", color="#444444", markersize=5)
    panel.set_yticks([place[lane] for lane in lanes], lanes, fontsize=8)
    panel.set_xlim(0, max(_seconds(story.end_ns - story.start_ns), 0.1))
    panel.set_xlabel("seconds", fontsize=8)
    panel.tick_params(labelsize=8)
    if seen:
        panel.legend(
            [bars[0] for bars in seen.values()],
            list(seen),
            fontsize=7,
            ncol=len(seen),
            loc="lower left",
            bbox_to_anchor=(0, 1),
            frameon=False,
        )
    return plots.png(figure)


def _bar(panel: Any, lane: int, span_s: tuple[float, float], text: str, colour: str) -> None:
    begin_s, end_s = span_s
    panel.barh(lane, end_s - begin_s, left=begin_s, color=colour, edgecolor="white", height=0.7)
    panel.text((begin_s + end_s) / 2, lane, text, ha="center", va="center", fontsize=7, clip_on=True)


def _runs(moods: Sequence[Mood]) -> list[tuple[int, int, str]]:
    """Begin, end and label of the stretches in which a face shows the same."""
    found: list[tuple[int, int, str]] = []
    for mood in moods:
        if found and mood.stamp_ns - found[-1][1] <= GAP_NS and mood.stamp_ns >= found[-1][1]:
            begin_ns, _, label = found[-1]
            found[-1] = (begin_ns, mood.stamp_ns, label)
            if label == mood.label:
                continue
        found.append((mood.stamp_ns, mood.stamp_ns, mood.label))
    return found


def _captions(story: Story) -> list[tuple[float, str, str, str]]:
    rows, number = [], 0
    for caption in story.captions:
        number += not caption.abstained
        what = "abstention" if caption.abstained else f"caption {number}"
        text = caption.abstain_reason if caption.abstained else caption.text
        rows.append((_at(story, caption.window_end_ns), what, ", ".join(f"face {t}" for t in caption.track_ids), text))
    return rows


def _utterances(story: Story) -> list[tuple[float, str, str, str]]:
    return [
        (_at(story, u.start_ns), "words", u.speaker or (f"face {u.track_id}" if u.track_id else ""), u.text)
        for u in story.utterances
    ]


def _causes(story: Story) -> list[tuple[float, str, str, str]]:
    told = [("cause", cause) for cause in story.causes] + [("answer", cause) for cause in story.answers.values()]
    return [
        (
            _at(story, cause.stamp_ns), f"{what}: {cause.emotion}" if cause.emotion else what,
            cause.speaker or (f"face {cause.track_id}" if cause.track_id else ""),
            f"abstained: {cause.abstain_reason}" if cause.abstained else cause.text,
        )
        for what, cause in told
    ]  # fmt: skip


def _at(story: Story, stamp_ns: int) -> float:
    return _seconds(stamp_ns - story.start_ns)


def _seconds(ns: int) -> float:
    return ns / NS_PER_S


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)
