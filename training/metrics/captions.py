"""Captions against references, as the field scores them: BLEU, ROUGE-L, CIDEr, METEOR, BERTScore, BLEURT.

BLEU (closest reference length), ROUGE-L (beta 1.2) and CIDEr (n = 4, sigma = 6) are pycocoevalcap's own code; the
tokeniser in front of them is :mod:`.ptb`, so no Java is needed. METEOR 1.5 is a Java program and is run where Java and
its jar are; elsewhere it is absent and the result says why. It is never approximated.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol, get_args

from training.metrics.base import Coverage, MetricError, pair, some
from training.metrics.ptb import caption_tokens

CaptionProtocol = Literal["coco", "obg"]
#: Order in which the values are given and shown.
NAMES: Final = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr", "BERTScore", "BLEURT")
_PACKAGE: Final = "pycocoevalcap"


class ExtraScorer(Protocol):
    """A scorer with weights of its own: :class:`.bertscore.BertScorer`, :class:`.bleurt.BleurtScorer`."""

    @property
    def name(self) -> str:
        """Name of the value, one of :data:`NAMES`."""
        ...

    @property
    def version(self) -> str:
        """Model, its hash and all settings that change the value."""
        ...

    def per_clip(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Sequence[float]:
        """One value per prediction; raw strings come in."""
        ...


@dataclass(frozen=True)
class CaptionScores:
    """Scores of a set of captions, as the scorers give them: from 0 to 1, CIDEr to 10, BLEURT of any sign."""

    values: dict[str, float]
    """Name -> value over the whole set (BLEU pools the counts; the others are means over clips)."""
    per_clip: dict[str, dict[str, float]]
    """Name -> clip -> value."""
    absent: dict[str, str]
    """Name of a metric that could not be computed -> why, and what to do."""
    versions: dict[str, str]
    """What computed them: packages, tokeniser, protocol, jars, models with hashes."""
    coverage: Coverage
    bleu_counts: dict[str, tuple[float, ...]] = field(default_factory=dict, repr=False)
    """Clip -> length, length of the closest reference, 4 numbers of n-grams, 4 of those that are right."""


def score_captions(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    *,
    protocol: CaptionProtocol = "coco",
    extra: Sequence[ExtraScorer] = (),
    meteor: bool = True,
) -> CaptionScores:
    """Score one caption per clip against one or more references.

    ``protocol``: ``coco`` tokenises both sides and drops punctuation; ``obg`` compares raw strings, split at spaces, as
    nlg-eval does, with which the authors of ObG computed the figures of ECGF. ``meteor``: False to spare its seconds.
    A clip that only one side has is not scored and is told in ``coverage``.

    Raises:
        MetricError: nothing to compare, a reference without words, an unknown protocol, pycocoevalcap missing.

    """
    coverage = pair(predictions, references)
    hypotheses, truths = _prepare(predictions, references, coverage.scored, protocol)
    empty = tuple(clip for clip, texts in hypotheses.items() if not texts[0])
    coverage = Coverage(coverage.scored, coverage.without_prediction, coverage.without_reference, empty)
    values: dict[str, float] = {}
    per_clip: dict[str, dict[str, float]] = {}
    versions = {"protocol": protocol, _PACKAGE: _version()}
    if protocol == "coco":
        versions["tokeniser"] = "Penn Treebank in Python, lower case, without punctuation"

    def add(name: str, value: float, clips: Sequence[float]) -> None:
        values[name] = float(value)
        per_clip[name] = dict(zip(coverage.scored, map(float, clips), strict=True))

    for names, compute in _scorers():
        totals, clips = compute(truths, hypotheses)
        if len(names) == 1:
            totals, clips = [totals], [clips]
        for name, total, each in zip(names, totals, clips, strict=True):
            add(name, total, each)
    absent: dict[str, str] = {}
    try:
        if reason := meteor_absent() if meteor else "not asked for":
            raise MetricError(reason)
        add("METEOR", *_meteor(truths, hypotheses))
        versions["METEOR"] = f"1.5, jar {_jar_hash()}, -l en -norm"
    except MetricError as error:
        absent["METEOR"] = str(error)
    for scorer in extra:
        clips = scorer.per_clip(
            [predictions[c] for c in coverage.scored], [list(references[c]) for c in coverage.scored]
        )
        add(scorer.name, sum(clips) / len(clips), clips)
        versions[scorer.name] = scorer.version
    for name in ("BERTScore", "BLEURT"):
        if name not in values:
            absent[name] = f"no model given; pass the folder of one (emo eval --{name.lower()} FOLDER)"
    ordered = {name: values[name] for name in sorted(values, key=_order)}
    counts = {clip: _bleu_counts(hypotheses[clip][0], truths[clip]) for clip in coverage.scored}
    return CaptionScores(ordered, per_clip, absent, versions, coverage, counts)


def meteor_absent() -> str:
    """Why METEOR cannot be computed on this machine; empty when it can."""
    if shutil.which("java") is None:
        return "METEOR 1.5 is a Java program and there is no java: sudo apt install default-jre-headless"
    if not _jar().is_file():
        return f"METEOR's jar is missing from {_jar()}; install the package again: pip install --force-reinstall {_PACKAGE}"
    return ""


def _prepare(
    predictions: Mapping[str, str], references: Mapping[str, Sequence[str]], clips: Sequence[str], protocol: str
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Both sides as the scorers compare them. Raises :class:`MetricError` for a reference without words."""
    if protocol not in get_args(CaptionProtocol):
        raise MetricError(f"protocol {protocol!r}: expected one of {', '.join(get_args(CaptionProtocol))}")
    text: Callable[[str], str] = caption_tokens if protocol == "coco" else _raw
    for side, given in (("prediction", predictions), ("reference list", references)):
        wrong = [clip for clip in clips if isinstance(given[clip], str) != (side == "prediction")]
        if wrong:
            raise MetricError(f"expected one {side} per clip, got {type(given[wrong[0]]).__name__} for {some(wrong)}")
    truths = {clip: [text(reference) for reference in references[clip]] for clip in clips}
    wordless = [clip for clip, texts in truths.items() if not texts or not all(texts)]
    if wordless:
        raise MetricError(
            f"{len(wordless)} clips have no reference or one without words ({some(wordless)}), which would spoil every "
            "score; mend the captions, or take the clips out of the references ('emo data check' lists such rows)"
        )
    return {clip: [text(predictions[clip])] for clip in clips}, truths


def _raw(text: str) -> str:
    return text.replace("\n", " ").strip()


def _scorers() -> list[tuple[tuple[str, ...], Callable[[Any, Any], tuple[Any, Any]]]]:
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError as error:
        raise MetricError(f"captions are scored by {_PACKAGE} ({error}); type: pip install '{_PACKAGE}==1.2'") from None

    return [
        (NAMES[:4], lambda truths, found: Bleu(4).compute_score(truths, found, verbose=0)),
        (("ROUGE-L",), Rouge().compute_score),
        (("CIDEr",), Cider().compute_score),
    ]


def _bleu_counts(found: str, truths: Sequence[str]) -> tuple[float, ...]:
    from pycocoevalcap.bleu.bleu_scorer import cook_refs, cook_test

    cooked = cook_test(found, cook_refs(truths), eff="closest")
    return (cooked["testlen"], cooked["reflen"], *cooked["guess"], *cooked["correct"])


def _meteor(truths: Mapping[str, list[str]], found: Mapping[str, list[str]]) -> tuple[float, list[float]]:
    """Mean over the set and value of each clip. Raises :class:`MetricError` when the program dies."""
    from pycocoevalcap.meteor.meteor import Meteor

    scorer = Meteor()
    try:
        value, clips = scorer.compute_score(truths, found)
    except (ValueError, OSError) as error:
        scorer.lock.release()
        raise MetricError(
            f"METEOR's program ended before its answer ({error}); is 2 GB of memory free for Java?"
        ) from None
    finally:
        # Its own end leaves a process and two pipes behind, and fails when the program has died.
        scorer.meteor_p.kill()
        with suppress(OSError):
            scorer.meteor_p.communicate()
    return value, clips


def _jar() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    folders = list(spec.submodule_search_locations or []) if spec else []
    return Path(folders[0] if folders else _PACKAGE) / "meteor" / "meteor-1.5.jar"


def _jar_hash() -> str:
    return hashlib.sha256(_jar().read_bytes()).hexdigest()[:16]


def _version() -> str:
    try:
        return importlib.metadata.version(_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _order(name: str) -> int:
    return NAMES.index(name) if name in NAMES else len(NAMES)
