"""All figures that a set of predictions allows, each with what it takes to draw its clips again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from training.evaluation.predictions import Prediction
from training.evaluation.statistic import Statistic, bleu, class_figure, f1, ratio
from training.metrics import au_phrases, captions, causes, classes, emvidcap, grounding
from training.metrics.action_units import AuScores, score_action_units
from training.metrics.base import Coverage, MetricError

#: What an AU score must reach for the unit to count as seen; OpenGraphAU's own.
SEEN = 0.5


@dataclass(frozen=True)
class Options:
    """How predictions are measured. ``emotion_words``: EmVidCap's lists, word -> emotion."""

    protocol: captions.CaptionProtocol = "coco"
    meteor: bool = True
    extra: Sequence[captions.ExtraScorer] = ()
    language: str = "en"
    emotion_words: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Measured:
    """A set of predictions and everything that was found out about it."""

    name: str
    predictions: Mapping[str, Prediction]
    references: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    statistics: dict[str, Statistic] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    captions: captions.CaptionScores | None = None
    classes: classes.ClassScores | None = None
    phrases: au_phrases.PhraseScores | None = None
    hallucination: au_phrases.Hallucination | None = None
    action_units: AuScores | None = None

    def add(self, name: str, statistic: Statistic) -> None:
        """Take up a figure."""
        self.statistics[name] = statistic
        self.values[name] = statistic.value


def measure(
    name: str,
    predictions: Mapping[str, Prediction],
    references: Mapping[str, Sequence[str]] | None = None,
    options: Options | None = None,
) -> Measured:
    """Everything that the fields of the predictions allow; ``references`` (default: those in the file) come first.

    Raises :class:`MetricError` when nothing can be measured.
    """
    options = options or Options()
    truth: Mapping[str, Sequence[str]]
    truth = references if references is not None else {c: p.references for c, p in predictions.items() if p.references}
    found = Measured(name, predictions, {clip: tuple(texts) for clip, texts in truth.items()})
    if truth:
        _captions(found, truth, options)
        _phrases(found, truth, options)
    _classes(found)
    _units(found, options)
    _causes(found)
    if not found.values:
        raise MetricError(
            f"{name}: the predictions have neither references nor true classes, units or causes, so there is nothing to "
            "measure; name the references with --refs FILE or --data NAME FOLDER"
        )
    return found


def _captions(found: Measured, references: Mapping[str, Sequence[str]], options: Options) -> None:
    texts = {clip: p.text for clip, p in found.predictions.items()}
    scores = captions.score_captions(
        texts, references, protocol=options.protocol, extra=options.extra, meteor=options.meteor
    )
    found.captions = scores
    found.absent.update(scores.absent)
    found.versions.update(scores.versions)
    found.notes.append(f"captions: {scores.coverage.describe()}")
    counts = np.array([scores.bleu_counts[clip] for clip in scores.coverage.scored], np.float64)
    for metric, value in scores.values.items():
        if metric.startswith("BLEU-"):
            statistic = Statistic(scores.coverage.scored, counts, bleu(int(metric[-1])))
        else:
            statistic = Statistic.mean(scores.per_clip[metric])
        found.statistics[metric], found.values[metric] = statistic, value
    if options.emotion_words:
        words = emvidcap.emotion_word_accuracy(texts, references, options.emotion_words)
        found.values.update(emvidcap.hybrid_scores(scores, words))


def _phrases(found: Measured, references: Mapping[str, Sequence[str]], options: Options) -> None:
    texts = {clip: p.text for clip, p in found.predictions.items()}
    try:
        reader = au_phrases.lexicon(options.language)
        found.phrases = au_phrases.au_phrase_f1(texts, references, reader)
    except MetricError as error:
        found.absent["AU-phrase F1"] = str(error)
        return
    found.add("AU-phrase F1", _phrase_statistic(found.phrases))


def _phrase_statistic(scores: au_phrases.PhraseScores) -> Statistic:
    counts = np.array([dataclasses.astuple(c) for c in scores.per_clip.values()], np.float64)
    return Statistic(tuple(scores.per_clip), counts, f1)


def _classes(found: Measured) -> None:
    truth = {clip: p.true_emotion for clip, p in found.predictions.items() if p.true_emotion}
    if not truth:
        return
    said = {clip: p.likeliest for clip, p in found.predictions.items() if p.likeliest}
    if not said:
        found.absent["class accuracy"] = "the predictions name no class"
        return
    known = [name for p in found.predictions.values() for name in p.emotion]
    labels = tuple(dict.fromkeys([*known, *sorted(truth.values())]))
    scores = found.classes = classes.score_classes(said, truth, labels)
    assert scores.coverage is not None
    found.notes.append(f"emotions: {_labelled(scores.coverage)}")
    place = {name: index for index, name in enumerate(labels)}
    counts = np.zeros((len(scores.coverage.scored), len(labels) ** 2))
    for row, clip in enumerate(scores.coverage.scored):
        counts[row, place[truth[clip]] * len(labels) + place[said[clip]]] = 1
    for figure in ("accuracy", "UAR", "macro-F1"):
        found.add(f"class {figure}", Statistic(scores.coverage.scored, counts, class_figure(figure, len(labels))))


def _labelled(coverage: Coverage) -> str:
    """Clips without a true class are common (captions without a label) and not worth a warning."""
    return dataclasses.replace(coverage, without_reference=()).describe()


def _units(found: Measured, options: Options) -> None:
    predictions = found.predictions
    scored = {clip: p.au_scores for clip, p in predictions.items() if p.au_scores}
    active = {clip: p.active_aus for clip, p in predictions.items() if p.active_aus is not None}
    evidence = {clip: p.grounded for clip, p in predictions.items() if p.evidence is not None}
    try:
        reader = au_phrases.lexicon(options.language)
    except MetricError as error:
        if scored or active or evidence:
            found.absent["AU phrases"] = str(error)
        return
    texts = {clip: p.text for clip, p in predictions.items()}
    if evidence:
        grounded = grounding.grounding_precision(evidence, reader)
        counts = np.array(list(grounded.per_clip.values()), np.float64)
        found.add("grounding precision", Statistic(tuple(grounded.per_clip), counts, ratio))
    if scored:
        found.hallucination = au_phrases.hallucination_rate(texts, scored, reader, threshold=SEEN)
        found.values["hallucination rate"] = found.hallucination.rate
    if any(active.values()):
        found.add("AU-phrase F1, exact", _phrase_statistic(au_phrases.au_truth_f1(texts, active, reader)))
    both = [clip for clip in scored if clip in active]
    if both:
        aus = sorted(set.intersection(*(set(scored[clip]) for clip in both)))
        values = [[scored[clip][au] for au in aus] for clip in both]
        labels = [[float(au in active[clip]) for au in aus] for clip in both]
        found.action_units = score_action_units(values, labels, aus, threshold=SEEN)
        found.values.update(found.action_units.means())


def _causes(found: Measured) -> None:
    predictions = found.predictions
    kinds = {clip: p.kind for clip, p in predictions.items() if p.kind} or None
    truth = {clip: p.true_causes for clip, p in predictions.items() if p.true_causes}
    said = {clip: p.causes for clip, p in predictions.items() if p.causes is not None}
    if truth and said:
        _cause_scores(found, "cause-evidence accuracy", causes.cause_accuracy(said, truth, kinds))
    named = {clip: p.cause_phrases for clip, p in predictions.items() if p.cause_phrases}
    if named:
        others = {clip: p.other_phrases for clip, p in predictions.items()}
        texts = {clip: predictions[clip].text for clip in named}
        _cause_scores(found, "cause named", causes.cause_mentioned(texts, named, kinds, others=others))


def _cause_scores(found: Measured, name: str, scores: causes.CauseScores) -> None:
    found.notes.append(f"{name}: {_labelled(scores.coverage)}")
    found.add(name, Statistic.mean({clip: float(right) for clip, right in scores.right.items()}))
    for kind, value in scores.per_kind.items():
        found.values[f"{name}, {kind}"] = value
