"""AU phrases of captions by hand-counted cases."""

import re

import pytest

from training.metrics.au_phrases import Counts, au_phrase_f1, au_truth_f1, hallucination_rate, phrase_f1
from training.metrics.base import MetricError


class Reader:
    """Three phrases; the lexicon of the networks is tested with them."""

    TABLE = (("smil\\w+", (12,)), ("frown\\w*", (4,)), ("open mouth", (25, 26, 27)), ("closed eyes", (43, 45)))

    def phrases(self, text):
        return [
            type("P", (), {"start": hit.start(), "end": hit.end(), "aus": aus})
            for pattern, aus in self.TABLE
            for hit in re.finditer(pattern, text)
        ]


def test_phrases_by_hand():
    predictions = {"a": "he smiles, smiling with an open mouth", "b": "she frowns", "c": "a dog"}
    references = {"a": ["he smiles with a frown", "he is smiling"], "b": ["a smile", "nothing"], "c": ["open mouth"]}
    scores = au_phrase_f1(predictions, references, Reader())
    # a: smile right, mouth wrong, frown missed; b: frown wrong, smile missed; c: mouth missed.
    assert scores.total == Counts(right=1, predicted=3, found=1, wanted=4)
    assert scores.f1 == pytest.approx(2 * (1 / 3) * (1 / 4) / (1 / 3 + 1 / 4))
    assert scores.per_au[12] == Counts(1, 1, 1, 2)
    assert scores.per_au[26] == Counts(0, 1, 0, 1)
    assert scores.per_clip["c"] == Counts(0, 0, 0, 1)


def test_against_exact_truth():
    scores = au_truth_f1({"a": "smiles with an open mouth", "b": "frowns"}, {"a": {12, 26, 1}, "b": set()}, Reader())
    # Both phrases of a are right, and find 12 and 26 of 3; frown is wrong.
    assert scores.total == Counts(right=2, predicted=3, found=2, wanted=3)


def test_sharing_one_unit_is_enough():
    scores = phrase_f1({"a": [(1, 2)]}, {"a": [(1,), (2,), (4,)]})
    assert scores.total == Counts(1, 1, 2, 3)


def test_hallucination_by_hand():
    predictions = {"a": "smiles with an open mouth", "b": "frowns with closed eyes"}
    scores = {"a": {12: 0.9, 25: 0.1, 26: 0.6, 27: 0.0}, "b": {4: 0.4}}
    found = hallucination_rate(predictions, scores, Reader())
    assert (found.rate, found.phrases, found.unseen, found.unscored) == (pytest.approx(1 / 3), 3, 1, 1)
    assert found.per_clip == {"b": ("frowns",)}
    assert hallucination_rate(predictions, scores, Reader(), threshold=0.4).rate == 0


def test_references_that_name_no_unit_have_no_score():
    with pytest.raises(MetricError, match="none of 1 references names an action unit"):
        au_phrase_f1({"a": "he smiles"}, {"a": ["a dog"]}, Reader())


def test_the_lexicon_of_the_networks_reads_them_too():
    pytest.importorskip("torch")
    scores = au_phrase_f1({"a": "a man raises his eyebrows, no frown"}, {"a": ["a man with raised eyebrows"]})
    assert scores.total == Counts(1, 1, 1, 1)
    assert set(scores.per_au) == {1, 2}
