"""Classes, action units, grounding, causes and emotion words against hand-computed figures."""

import math

import numpy as np
import pytest

from training.metrics.action_units import area_under_curve, binary_f1, icc31, score_action_units
from training.metrics.au_phrases import phrase_f1
from training.metrics.base import MetricError
from training.metrics.causes import cause_accuracy, cause_mentioned, mentions, pair_f1
from training.metrics.classes import confusion_matrix, score_classes
from training.metrics.emvidcap import emotion_word_accuracy, hybrid_scores, read_emotion_words
from training.metrics.grounding import Evidence, GroundedCaption, RetrievalMeter, grounding_precision, words_of

# Classes


def test_classes_by_hand():
    truth = dict(zip("abcdef", ("joy", "joy", "joy", "joy", "anger", "anger"), strict=True))
    said = dict(zip("abcdef", ("joy", "joy", "joy", "fear", "anger", "joy"), strict=True))
    scores = score_classes(said, truth, ("anger", "fear", "joy", "neutral"))
    assert scores.confusion.tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 3, 0], [0, 0, 0, 0]]
    assert scores.accuracy == pytest.approx(4 / 6)
    assert scores.uar == pytest.approx((1 / 2 + 3 / 4) / 2)  # fear and neutral do not occur
    # F1: anger 2*1/(2+1), joy 2*3/(4+4), fear was predicted and never right; neutral is nowhere.
    assert scores.macro_f1 == pytest.approx((2 / 3 + 0 + 3 / 4) / 3)
    assert np.isnan(scores.f1[3])
    assert scores.precision[2] == pytest.approx(3 / 4)


def test_classes_refuse_what_is_no_class():
    with pytest.raises(MetricError, match="classes bliss: expected one of anger, joy"):
        score_classes({"a": "bliss"}, {"a": "joy"}, ("anger", "joy"))
    with pytest.raises(MetricError, match="true classes reach from -1 to 2, expected 0 to 2"):
        confusion_matrix([-1, 2], [0, 0], 3)
    with pytest.raises(MetricError, match="as many classes predicted as true"):
        confusion_matrix([0], [0, 1], 3)


# Action units


def test_icc_of_shrout_and_fleiss():
    """The worked example of their paper: six targets, four judges, ICC(3,1) = .71."""
    ratings = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    assert icc31(ratings) == pytest.approx(0.7148, abs=1e-4)


def test_icc_forgives_an_offset_and_punishes_a_scale():
    values = np.array([0.0, 1.0, 2.0, 3.0])
    assert icc31(np.stack((values, values + 5), 1)) == pytest.approx(1)
    # variances s2 and 4 s2, covariance 2 s2: 2 cov / (var + var) = 4/5
    assert icc31(np.stack((values, 2 * values), 1)) == pytest.approx(0.8)
    assert np.isnan(icc31([[1, 1], [1, 1]]))


def test_area_by_counting_pairs():
    scores, truth = [0.1, 0.4, 0.4, 0.8, 0.9], [0, 1, 0, 0, 1]
    # Pairs (active, inactive): .4 > .1, .4 = .4, .4 < .8, .9 above all three.
    assert area_under_curve(scores, truth) == pytest.approx((1 + 0.5 + 0 + 3) / 6)
    assert np.isnan(area_under_curve([1, 2], [1, 1]))


def test_units_by_hand():
    predicted = [[0.9, 0.2], [0.6, 0.2], [0.4, 0.7], [0.1, 0.1]]
    labels = [[1, 0], [0, -1], [1, 0], [0, math.nan]]
    scores = score_action_units(predicted, labels, (12, 4))
    assert scores.f1.tolist() == pytest.approx([2 * 1 / (2 + 2), 0.0])
    assert scores.auc[0] == pytest.approx(3 / 4)
    assert np.isnan(scores.auc[1])
    assert (scores.active.tolist(), scores.labelled.tolist()) == ([2, 0], [4, 2])
    assert scores.means() == pytest.approx({"AU F1": 0.25, "AU AUC": 0.75})
    assert score_action_units(predicted, labels, (12, 4), threshold=[0.3, 0.8]).f1[0] == pytest.approx(2 * 2 / (3 + 2))


def test_intensities_have_an_icc():
    scores = score_action_units([[1.0], [2.0], [3.0]], [[2.0], [3.0], [4.0]], (6,), intensity=3.0, threshold=2.0)
    assert scores.icc[0] == pytest.approx(1)
    assert scores.f1[0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("predicted", "labels", "what"),
    [
        ([[0.5, 0.5]], [[1]], r"expected scores and labels \[N, 1\]"),
        ([[math.nan]], [[1]], "NaN or infinite"),
        ([[0.5]], [[-1]], "no frame has a label"),
        ([[0.5]], [[3]], "intensity=1.0"),
    ],
)
def test_units_refuse(predicted, labels, what):
    with pytest.raises(MetricError, match=what):
        score_action_units(predicted, labels, (12,))


def test_f1_of_nothing_is_not_defined():
    assert np.isnan(binary_f1([0, 0], [0, 0]))


# Grounding


class Phrase:
    def __init__(self, start, end, *aus):
        self.start, self.end, self.aus = start, end, aus


class Reader:
    """``smiles`` is AU 12, ``open mouth`` AU 25 to 27."""

    def phrases(self, text):
        table = (("smiles", (12,)), ("open mouth", (25, 26, 27)))
        return [Phrase(text.index(p), text.index(p) + len(p), *aus) for p, aus in table if p in text]


def test_grounding_by_hand():
    text = "he smiles with an open mouth"
    evidence = (
        Evidence(3, 9, 12, 0.8),  # smiles: right
        Evidence(18, 22, 26, 0.2),  # open: right, but weaker than the next
        Evidence(23, 28, 4, 0.9),  # mouth: wrong
    )
    captions = {"a": GroundedCaption(text, evidence), "b": GroundedCaption("she smiles"), "c": GroundedCaption("a dog")}
    found = grounding_precision(captions, Reader())
    assert (found.right, found.phrases, found.unsupported) == (1, 3, 1)
    assert found.precision == pytest.approx(1 / 3)
    assert found.per_clip["a"] == (1, 2)
    # The smile is well grounded in a unit that was not there.
    assert grounding_precision(captions, Reader(), truth={"a": {26}, "b": {12}, "c": ()}).right == 0
    with pytest.raises(MetricError, match="the truth lacks 2 clips"):
        grounding_precision(captions, Reader(), truth={"a": {12}})


def test_retrieval_by_hand():
    meter = RetrievalMeter()
    #           he   smiles  sadly
    similarity = [[0.1, 0.9, 0.3], [0.5, 0.2, 0.3], [0.4, 0.4, 0.4], [1.0, 0.0, 0.0]]
    right = [[0, 1, 0], [0, 0, 1], [0, 1, 1], [0, 0, 0]]
    meter.add(similarity, right)
    result = meter.result()
    # Ranks 1, 2 and, as equals count against us, 2; the last row asks nothing.
    assert result.rows == 3
    assert result.top1 == pytest.approx(1 / 3)
    assert result.mean_reciprocal_rank == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)
    assert result.chance == pytest.approx((1 / 3 + 1 / 3 + 2 / 3) / 3)
    with pytest.raises(MetricError, match="nothing can be retrieved"):
        RetrievalMeter().result()
    with pytest.raises(MetricError, match=r"\[K, N\]"):
        meter.add([[1.0]], [[1, 0]])


def test_words_of_phrases():
    spans = [(0, 2), (3, 9), (13, 17), (18, 23)]  # he smiles .. open mouth
    right = words_of(spans, [Phrase(3, 9, 12), Phrase(13, 23, 25, 26)], (12, 26, 4))
    assert right.astype(int).tolist() == [[0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]]


# Causes


def test_causes_by_hand():
    truth = {"d1_2": {"d1_0"}, "d1_3": {"d1_1", "d1_3"}, "d2_1": {"d2_0"}}
    said = {"d1_2": ["d1_0", "d1_1"], "d1_3": ["d1_2", "d1_1"], "d2_1": []}
    scores = cause_accuracy(said, truth, {"d1_2": "visible", "d1_3": "words", "d2_1": "words"})
    assert scores.accuracy == pytest.approx(1 / 3)
    assert scores.per_kind == {"visible": 1.0, "words": 0.0}
    assert scores.counts == {"visible": 1, "words": 2}
    pairs = pair_f1(said, truth)  # said 4, of which d1_0 and d1_1 are right; 4 are true
    assert (pairs.precision, pairs.recall, pairs.f1) == (0.5, 0.5, 0.5)


def test_mentioned_causes():
    evidence = {"a": ["drops the cup", "broken cup"], "b": ["letter"], "c": ["dog"]}
    others = {"c": ["cat"]}
    texts = {"a": "Because Ann dropped the CUPS.", "b": "a newsletter came", "c": "the dog and the cat ran"}
    assert not mentions("dropping cups", ["drop the cup"])
    scores = cause_mentioned({**texts, "a": "there lies a broken cup"}, evidence, others=others)
    assert scores.right == {"a": True, "b": False, "c": False}
    with pytest.raises(MetricError, match="1 targets have no phrase"):
        cause_mentioned({"a": "x"}, {"a": [" "]})


# Words of EmVidCap


def test_emotion_words_by_hand(tmp_path):
    for emotion, words in {"joy": "happy\nhappily\n", "sadness": "sad\n", "fear": "afraid\n\nhappy\n"}.items():
        (tmp_path / f"{emotion}.txt").write_text(words)
    words = read_emotion_words(tmp_path)
    assert words["happy"] == "fear"  # the first by name, as the original takes it
    words = {"happy": "joy", "happily": "joy", "sad": "sadness", "afraid": "fear"}
    references = {"a": ["A happy man."], "b": ["He is sad.", "afraid"], "c": ["sad"], "d": ["happily"]}
    said = {"a": "happy man, happily!", "b": "a sad and happy man", "c": "a man", "d": "an afraid man"}
    scores = emotion_word_accuracy(said, references, words)
    # Right: joy in a, sadness in b; wrong: joy in b, fear in d; c says nothing.
    assert scores.acc_sw == pytest.approx(2 / (2 + 2 + 1))
    assert scores.acc_c == pytest.approx(math.exp(1 / (1 - 2 + 1e-4)) * 2 / 4)
    with pytest.raises(MetricError, match="no emotion words"):
        read_emotion_words(tmp_path / "nowhere")


def test_hybrid_scores_by_hand():
    captions = type("C", (), {"values": {"BLEU-1": 0.8, "BLEU-2": 0.6, "BLEU-3": 0.4, "BLEU-4": 0.2, "CIDEr": 0.5}})
    words = type("W", (), {"acc_sw": 0.7, "acc_c": 0.5})
    assert hybrid_scores(captions, words) == pytest.approx(
        {"Acc_sw": 0.7, "Acc_c": 0.5, "BFS": 0.8 * (0.08 + 0.12 + 0.12 + 0.08) + 0.12, "CFS": 0.4 + 0.12}
    )


def test_nothing_to_compare():
    with pytest.raises(MetricError, match="no predictions"):
        phrase_f1({}, {"a": [(1,)]})
