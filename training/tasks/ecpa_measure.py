"""What a trained ECPA is worth: the captions it writes, their emotion and action units, and what its words rest on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import torch
import yaml
from torch import Tensor
from torch.utils.data import default_collate

from emo_models.labels import OPENGRAPHAU_MAIN, SYNONYMS
from emo_models.networks.ecpa.decode import CaptionResult
from emo_models.networks.ecpa.eca import similarity, word_vectors
from emo_models.networks.ecpa.vep import AuPrompts, FaceFeatures
from training.datasets import Record
from training.evaluation.predictions import Prediction, write_predictions
from training.metrics.au_phrases import au_phrase_f1, hallucination_rate
from training.metrics.base import MetricError
from training.metrics.captions import score_captions
from training.metrics.grounding import GroundedCaption, RetrievalMeter, grounding_precision, words_of
from training.tasks.ecpa_data import clip_item, face_features
from training.tasks.ecpa_truth import CaptionPhrase, CaptionTruths, caption_truths

if TYPE_CHECKING:
    from training.tasks.ecpa import ECPATask

#: Of the caption scorers, what the paper's tables have.
CAPTION_METRICS: Final = ("CIDEr", "BLEU-4", "METEOR", "ROUGE-L")


def measure(task: ECPATask, records: Sequence[Record], split: str) -> dict[str, float]:
    """All figures of a split, CIDEr first; a figure that its data does not allow is left out.

    Captions with their evidence go to ``predictions-SPLIT.jsonl`` in the run's folder.
    """
    truth = caption_truths(task.data)
    results: dict[str, CaptionResult] = {}
    scores: dict[str, dict[int, float]] = {}
    retrieval = _Retrieval(task, truth)
    for part, batch in _batches(task, records):
        features = face_features(batch)
        found = task.network.generate(batch["clip"], features, task.captions, beams=task.options.beams)
        results.update(zip((record.clip_id for record in part), found, strict=True))
        if features is not None:
            scores.update(zip((record.clip_id for record in part), _clip_scores(features), strict=True))
            retrieval.add(part, features)
    _write(task, records, results, scores, split)
    metrics = _of_captions(records, results, meteor=task.options.meteor)
    metrics.update(_of_emotions(task, records, results))
    if scores:
        texts = {clip: result.text for clip, result in results.items()}
        grounded = {clip: GroundedCaption.of(result) for clip, result in results.items()}
        if task.network.au_prompting is not None:
            metrics["grounding precision"] = grounding_precision(grounded, task.captions.lexicon).precision
        metrics["hallucination rate"] = hallucination_rate(texts, scores, task.captions.lexicon).rate
    return {**metrics, **retrieval.figures()}


def emotion_word(text: str, language: str = "en") -> str:
    """The emotion that the first emotion word of a text names, in the words of MAFW; empty without one."""
    known = _emotion_words(language)
    return next((known[word] for word in re.findall(r"\w+", text.lower()) if word in known), "")


class _Retrieval:
    """For each AU prompt of a clip, is the word nearest to it one that names its unit?

    Asked of the reference captions, by the lexicon, or in a toy world of all right captions, whose phrases it knows
    exactly; apart for wordings that no training caption has. With the tagger in place of an alignment its logits are the similarity.
    """

    def __init__(self, task: ECPATask, truth: CaptionTruths | None) -> None:
        self.task, self.truth = task, truth
        self.meters = {"AU-word retrieval": RetrievalMeter()}
        if truth is not None:
            self.meters["AU-word retrieval, held-out wordings"] = RetrievalMeter()

    def add(self, records: Sequence[Record], features: FaceFeatures) -> None:
        """One batch of clips."""
        network = self.task.network
        if network.au_prompting is None:
            return
        prompts = network.au_prompting(features.au_nodes, features.au_scores, features.valid)
        for row, record in enumerate(records):
            for text, phrases in _told(self.task, self.truth, record):
                self._caption(text, phrases, prompts, row)

    def figures(self) -> dict[str, float]:
        """Share of prompts with the right word, and what a blind choice would reach; nothing where nothing was asked."""
        found: dict[str, float] = {}
        for name, meter in self.meters.items():
            try:
                result = meter.result()
            except MetricError:
                continue
            found.update({name: result.top1, f"{name}, chance": result.chance, f"{name}, prompts": float(result.rows)})
        return found

    def _caption(self, text: str, phrases: list[CaptionPhrase], prompts: AuPrompts, row: int) -> None:
        task = self.task
        batch = task.captions([text]).to(prompts.tokens.device)
        t, there = word_vectors(task.network.embed_text(batch.ids), batch.word, torch.ones_like(batch.ids).bool())
        spans = task.captions.lexicon.content_words(text)
        kept = [span for span, has in zip(spans, there[0].tolist(), strict=False) if has]
        slots = prompts.valid[row].nonzero()[:, 0]
        if not kept or not len(slots):
            return
        units = prompts.index[row, slots]
        s_kn = self._similarity(prompts.tokens[row, slots], t[0, there[0]], units).cpu().numpy()
        aus = [OPENGRAPHAU_MAIN[unit] for unit in units.tolist()]
        self.meters["AU-word retrieval"].add(s_kn, words_of(kept, phrases, aus))
        if self.truth is not None:
            self._held_out(s_kn, kept, phrases, aus)

    def _held_out(
        self, s_kn: Any, spans: Sequence[tuple[int, int]], phrases: list[CaptionPhrase], aus: list[int]
    ) -> None:
        """Rows whose unit is named in held-out words only."""
        seen = {au for phrase in phrases if not phrase.held_out for au in phrase.aus}
        rows = [index for index, au in enumerate(aus) if au not in seen]
        if rows:
            right = words_of(spans, [phrase for phrase in phrases if phrase.held_out], [aus[index] for index in rows])
            self.meters["AU-word retrieval, held-out wordings"].add(s_kn[rows], right)

    def _similarity(self, a_KD: Tensor, t_ND: Tensor, units_K: Tensor) -> Tensor:
        if self.task.tagger is not None:
            logits_NA: Tensor = self.task.tagger(t_ND)
            return logits_NA.T[units_K]
        return similarity(a_KD[None], t_ND[None])[0]


def _told(task: ECPATask, truth: CaptionTruths | None, record: Record) -> list[tuple[str, list[CaptionPhrase]]]:
    """Captions of a clip with the phrases that name units."""
    if truth is not None:
        return truth.of(record.clip_id)
    read = task.captions.lexicon.phrases
    return [
        (text, [CaptionPhrase(p.start, p.end, p.aus, held_out=False) for p in read(text)]) for text in record.captions
    ]


def _batches(task: ECPATask, records: Sequence[Record]) -> Iterator[tuple[Sequence[Record], dict[str, Tensor]]]:
    device = next(task.network.parameters()).device
    for start in range(0, len(records), task.options.evaluate_batch):
        part = records[start : start + task.options.evaluate_batch]
        items = [clip_item(task.features[record.clip_id], task.network.config) for record in part]
        yield part, {name: value.to(device) for name, value in default_collate(items).items()}


def _clip_scores(features: FaceFeatures) -> list[dict[int, float]]:
    """FACS number -> mean score over the valid frames of each clip."""
    weight = features.valid[..., None].float()
    mean_BA = (features.au_scores * weight).sum(1) / weight.sum(1).clamp(min=1)
    return [dict(zip(OPENGRAPHAU_MAIN, row, strict=True)) for row in mean_BA.tolist()]


def _of_captions(records: Sequence[Record], results: Mapping[str, CaptionResult], *, meteor: bool) -> dict[str, float]:
    texts = {clip: result.text for clip, result in results.items()}
    references = {record.clip_id: list(record.captions) for record in records}
    scored = score_captions(texts, references, meteor=meteor).values
    metrics: dict[str, float] = {name: scored[name] for name in CAPTION_METRICS if name in scored}
    try:
        phrases = au_phrase_f1(texts, references)
    except MetricError:  # captions that speak of no face, as those of MSVD
        return metrics
    return {**metrics, "AU-phrase F1": phrases.f1}


def _of_emotions(task: ECPATask, records: Sequence[Record], results: Mapping[str, CaptionResult]) -> dict[str, float]:
    """Accuracy of the emotion that a caption's words name, and of the class branch where there is one."""
    labelled = {r.clip_id: SYNONYMS.get(r.emotions[0], r.emotions[0]) for r in records if len(r.emotions) == 1}
    if not labelled:
        return {}
    words = [emotion_word(results[clip].text) == emotion for clip, emotion in labelled.items()]
    metrics = {"emotion accuracy": sum(words) / len(words)}
    if task.network.class_branch is not None:
        best = {clip: max(results[clip].emotion.items(), key=lambda pair: pair[1])[0] for clip in labelled}
        right = [SYNONYMS.get(best[clip], best[clip]) == emotion for clip, emotion in labelled.items()]
        metrics["emotion accuracy of the class branch"] = sum(right) / len(right)
    return metrics


def _write(
    task: ECPATask, records: Sequence[Record], results: Mapping[str, CaptionResult],
    scores: Mapping[str, Mapping[int, float]], split: str,
) -> None:  # fmt: skip
    rows = []
    for record in records:
        result = results[record.clip_id]
        rows.append(
            Prediction(
                record.clip_id,
                result.text,
                references=record.captions,
                emotion={name: round(value, 4) for name, value in result.emotion.items()},
                true_emotion=_one_class(record, task.network.config.classes),
                evidence=GroundedCaption.of(result).evidence if task.network.au_prompting is not None else None,
                au_scores=scores.get(record.clip_id),
            )
        )
    write_predictions(task.recipe.folder / f"predictions-{task.data.name}-{split}.jsonl", rows)


def _one_class(record: Record, classes: Sequence[str]) -> str:
    """The network's word for the record's emotion; empty for none, several, or one that the network does not know."""
    if len(record.emotions) != 1:
        return ""
    wanted = SYNONYMS.get(record.emotions[0], record.emotions[0])
    return next((name for name in classes if SYNONYMS.get(name, name) == wanted), "")


@cache
def _emotion_words(language: str) -> dict[str, str]:
    """Word -> emotion."""
    text = resources.files("training").joinpath("data/emotion_words.yaml").read_text(encoding="utf-8")
    return {word: emotion for emotion, words in yaml.safe_load(text)[language].items() for word in words}
