"""The page about one or more sets of predictions: figures, comparison, plots, examples side by side."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from training.evaluation import plots
from training.evaluation.curves import Curve
from training.evaluation.document import Block, Bullets, Example, Heading, Paragraph, Picture, Span, Table
from training.evaluation.measure import Measured
from training.evaluation.statistic import Difference, difference
from training.metrics.au_phrases import PhraseReader, lexicon, name
from training.metrics.base import MetricError

if TYPE_CHECKING:
    from training.evaluation.maps import Maps

#: What is called a sentence's worth when examples are chosen.
ORDER_BY = ("CIDEr", "ROUGE-L", "BLEU-1")
MOST_HALLUCINATIONS = 10
MOST_REFERENCES = 5


@dataclass(frozen=True)
class Set:
    """One column of the page. ``measured`` is None for a run whose task writes no predictions."""

    name: str
    measured: Measured | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Figures that the run's own task gave."""
    curves: Mapping[str, Curve] = field(default_factory=dict)
    maps: Sequence[Maps] = ()
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, float]:
        """All figures; those of the task first."""
        return {**self.metrics, **(self.measured.values if self.measured else {})}


def differences(sets: Sequence[Set]) -> dict[str, Difference]:
    """Of the first two sets, for every figure that can be drawn again from clips they share."""
    if len(sets) < 2 or sets[0].measured is None or sets[1].measured is None:
        return {}
    first, second = sets[0].measured.statistics, sets[1].measured.statistics
    return {figure: difference(first[figure], second[figure]) for figure in first if figure in second}


def blocks(sets: Sequence[Set], *, title: str, examples: int = 12, draw: bool = True) -> list[Block]:
    """The whole page. ``draw``: with plots. Raises :class:`MetricError` when plots are asked for without matplotlib."""
    page: list[Block] = [Heading(title, 1), *_figures(sets), *_comparison(sets), *_missing(sets)]
    measured = [s.measured for s in sets if s.measured is not None]
    for found in measured:
        page += _classes(found, draw)
    page += [*_units(measured, draw), *_hallucinations(measured)]
    if draw:
        page += [*_curves(sets), *_maps(sets)]
    if measured and examples:
        page += _examples(measured, examples)
    return [*page, *_facts(sets)]


def _figures(sets: Sequence[Set]) -> list[Block]:
    names = list(dict.fromkeys(figure for s in sets for figure in s.values))
    rows = [[figure, *(_number(s.values.get(figure)) for s in sets)] for figure in names]
    notes = [f"{s.name}: {note}" for s in sets if s.measured for note in s.measured.notes]
    return [
        Heading("Figures"),
        Table(["", *(s.name for s in sets)], rows),
        Paragraph("Shares from 0 to 1 as the scorers give them, CIDEr from 0 to 10; papers print them times 100."),
        Bullets(notes),
    ]


def _comparison(sets: Sequence[Set]) -> list[Block]:
    found = differences(sets)
    if not found:
        return []
    rows = [
        [figure, _number(d.first), _number(d.second), f"{d.value:+.4f}", f"{d.low:+.4f} to {d.high:+.4f}", _p(d.p),
         _verdict(figure, d, sets)]
        for figure, d in found.items()
    ]  # fmt: skip
    first = next(iter(found.values()))
    lacking = f"; {first.only_one} clips that only one of them has are left out" if first.only_one else ""
    return [
        Heading(f"{sets[0].name} against {sets[1].name}"),
        Table(["", sets[0].name, sets[1].name, "difference", "95 % interval", "p", ""], rows),
        Paragraph(
            f"Paired bootstrap over the {first.clips} clips that both have{lacking}. The interval says how far the "
            "choice of clips may mislead; it knows nothing of other seeds of the training."
            + (" METEOR is the mean over the clips here; above it pools their matches." if "METEOR" in found else "")
        ),
    ]


def _verdict(figure: str, found: Difference, sets: Sequence[Set]) -> str:
    if not found.sure:
        return "no clear difference"
    assert sets[0].measured is not None
    better = (found.value > 0) == sets[0].measured.statistics[figure].higher_is_better
    return f"{sets[0].name if better else sets[1].name} is better"


def _p(value: float) -> str:
    return "" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _missing(sets: Sequence[Set]) -> list[Block]:
    reasons: dict[str, str] = {}
    for s in sets:
        if s.measured is not None:
            reasons.update(s.measured.absent)
    if not reasons:
        return []
    return [Heading("Not computed", 3), Bullets([f"{figure}: {why}" for figure, why in reasons.items()])]


def _classes(found: Measured, draw: bool) -> list[Block]:
    scores = found.classes
    if scores is None:
        return []
    rows = [
        [label, str(count), *(_number(float(v)) for v in figures)]
        for label, count, *figures in zip(
            scores.labels, scores.support.tolist(), scores.precision, scores.recall, scores.f1, strict=True
        )
        if count or scores.confusion[:, scores.labels.index(label)].any()
    ]
    page: list[Block] = [
        Heading(f"Emotions, {found.name}"),
        Table(["class", "clips", "precision", "recall", "F1"], rows),
    ]
    if draw:
        picture = plots.confusion(scores.confusion, scores.labels)
        page.append(Picture(f"confusion-{_slug(found.name)}", picture, f"Confusion of {found.name}; rows are true"))
    return page


def _units(measured: Sequence[Measured], draw: bool) -> list[Block]:
    page: list[Block] = []
    with_phrases = [found for found in measured if found.phrases is not None]
    if with_phrases:
        aus = sorted({au for found in with_phrases if found.phrases for au in found.phrases.per_au})
        head = ["unit", *(f"{found.name} {what}" for found in with_phrases for what in ("P", "R", "F1"))]
        rows = []
        groups: dict[str, list[float]] = {found.name: [] for found in with_phrases}
        for au in aus:
            cells = [name(au)]
            for found in with_phrases:
                counts = found.phrases.per_au.get(au) if found.phrases else None
                cells += [_number(v) for v in (counts.precision, counts.recall, counts.f1)] if counts else ["", "", ""]
                groups[found.name].append(counts.f1 if counts else math.nan)
            rows.append(cells)
        page += [Heading("Phrases of action units"), Table(head, rows)]
        if draw:
            picture = plots.bars([f"AU{au}" for au in aus], groups)
            page.append(Picture("phrases", picture, "AU-phrase F1 of each action unit"))
    for found in measured:
        page += _unit_scores(found, draw)
    return page


def _unit_scores(found: Measured, draw: bool) -> list[Block]:
    scores = found.action_units
    if scores is None:
        return []
    columns = {"F1": scores.f1, "AUC": scores.auc, "ICC": scores.icc}
    shown = {what: values for what, values in columns.items() if not np.isnan(values).all()}
    rows = [
        [name(au), str(active), *(_number(float(values[place])) for values in shown.values())]
        for place, (au, active) in enumerate(zip(scores.aus, scores.active.tolist(), strict=True))
    ]
    page: list[Block] = [Heading(f"Action units, {found.name}"), Table(["unit", "active", *shown], rows)]
    if draw and shown:
        picture = plots.bars([f"AU{au}" for au in scores.aus], shown)
        page.append(Picture(f"units-{_slug(found.name)}", picture, f"Action units of {found.name}"))
    return page


def _hallucinations(measured: Sequence[Measured]) -> list[Block]:
    items = []
    for found in measured:
        seen = found.hallucination
        if seen is None or not seen.per_clip:
            continue
        counts: dict[str, int] = {}
        for phrases in seen.per_clip.values():
            for phrase in phrases:
                counts[phrase.lower()] = counts.get(phrase.lower(), 0) + 1
        best = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_HALLUCINATIONS]
        items.append(f"{found.name}: " + ", ".join(f"{phrase} ({count})" for phrase, count in best))
    return [Heading("Phrases whose unit was not seen", 3), Bullets(items)] if items else []


def _curves(sets: Sequence[Set]) -> list[Block]:
    series: dict[str, dict[str, tuple[Sequence[int], Sequence[float]]]] = {}
    for s in sets:
        for figure, curve in s.curves.items():
            series.setdefault(figure, {})[s.name] = curve
    if not series:
        return []
    losses = {figure: runs for figure, runs in series.items() if figure.startswith("train/")}
    others = {figure: runs for figure, runs in series.items() if figure not in losses and _moves(runs)}
    page: list[Block] = [Heading("Training")]
    if losses:
        page.append(
            Picture("curves", plots.curves(losses), "What the training logged at its steps (as the paper's Fig. 9)")
        )
    if others:
        page.append(Picture("curves-epochs", plots.curves(others), "What it logged after epochs, and its evaluations"))
    return page


def _moves(runs: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> bool:
    return any(len(steps) > 1 for steps, _ in runs.values())


def _maps(sets: Sequence[Set]) -> list[Block]:
    page: list[Block] = []
    for s in sets:
        for number, maps in enumerate(s.maps):
            slug = f"{_slug(s.name)}-{number}"
            page += [
                Heading(f"Inside the network: {s.name}, {maps.clip_id}", 3),
                Picture(f"attention-{slug}", plots.attention(maps), "Attention of each word to frames and prompts (Fig. 10)"),
                Picture(f"prompts-{slug}", plots.prompts(maps),
                        "Length of the video features, and their cosine with each visual prompt (Fig. 11)"),
            ]  # fmt: skip
            if maps.emotion or maps.similarity.size:
                caption = "Emotion of the clip, and cosine of action units and words (Fig. 12)"
                page.append(Picture(f"alignment-{slug}", plots.alignment(maps), caption))
    return page


def _examples(measured: Sequence[Measured], count: int) -> list[Block]:
    chosen = choose(measured, count)
    try:
        reader: PhraseReader | None = lexicon()
    except MetricError:
        reader = None
    how = (
        "The clips where the first two differ most, in both directions"
        if len(measured) > 1
        else "The best, the middle and the worst clips"
    )
    page: list[Block] = [
        Heading("Examples"),
        Paragraph(
            f"{how}, by {_ordered_by(measured) or 'the order of the file'}. Phrases of action units are bold where the "
            "reference has them too (green in HTML) and struck out where it does not (red)."
        ),
    ]
    for clip in chosen:
        lines: list[tuple[str, str, Sequence[Span]]] = []
        prediction = measured[0].predictions[clip]
        references = _references(measured, clip)
        if prediction.context:
            lines.append(("context", prediction.context, ()))
        lines += [("reference", text, ()) for text in references[:MOST_REFERENCES]]
        if len(references) > MOST_REFERENCES:
            lines.append(("", f"and {len(references) - MOST_REFERENCES} more references", ()))
        for found in measured:
            if clip in found.predictions:
                text = found.predictions[clip].text
                lines.append((found.name, text, _spans(text, references, reader)))
        if prediction.true_emotion:
            said = ", ".join(f.predictions[clip].likeliest or "none" for f in measured if clip in f.predictions)
            lines.append(("emotion", f"{prediction.true_emotion}; predicted: {said}", ()))
        page.append(Example(clip, lines))
    return page


def choose(measured: Sequence[Measured], count: int) -> list[str]:
    """Ids of the clips to show."""
    common = [c for c in measured[0].predictions if all(c in found.predictions for found in measured)]
    order = _ordered_by(measured)
    if not order:
        return common[:count]
    first, *rest = (_per_clip(found, order) for found in measured)
    scored = [c for c in common if c in first and all(c in other for other in rest)]
    gain = {c: first[c] - rest[0][c] if rest else first[c] for c in scored}
    ranked = sorted(scored, key=lambda clip: (-gain[clip], clip))
    if len(ranked) <= count:
        return ranked
    if rest:
        return [*ranked[: count - count // 2], *(ranked[-(count // 2) :] if count > 1 else [])]
    third = max(1, count // 3)
    middle = len(ranked) // 2
    picks = [*ranked[:third], *ranked[middle : middle + count - 2 * third], *ranked[-third:]]
    return list(dict.fromkeys(picks))[:count]


def _per_clip(found: Measured, figure: str) -> Mapping[str, float]:
    return found.captions.per_clip.get(figure, {}) if found.captions else {}


def _ordered_by(measured: Sequence[Measured]) -> str:
    """The figure that examples are ordered by: CIDEr, unless it is 0 everywhere, as for a single clip."""
    for figure in ORDER_BY:
        if all(any(_per_clip(found, figure).values()) for found in measured):
            return figure
    return ""


def _references(measured: Sequence[Measured], clip: str) -> tuple[str, ...]:
    return next((f.references[clip] for f in measured if f.references.get(clip)), ())


def _spans(text: str, references: Iterable[str], reader: PhraseReader | None) -> list[Span]:
    if reader is None:
        return []
    there = {au for reference in references for phrase in reader.phrases(reference) for au in phrase.aus}
    return [
        Span(phrase.start, phrase.end, "right" if there.intersection(phrase.aus) else "wrong")
        for phrase in reader.phrases(text)
    ]


def _facts(sets: Sequence[Set]) -> list[Block]:
    rows: list[list[str]] = []
    for s in sets:
        rows += [[f"{s.name}: {fact}", value] for fact, value in s.facts.items()]
    for s in sets[:1]:
        if s.measured is not None:
            rows += [[what, value] for what, value in s.measured.versions.items()]
    return [Heading("Made with"), Table(["", ""], rows)] if rows else []


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.4f}"


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text).strip("-") or "set"
