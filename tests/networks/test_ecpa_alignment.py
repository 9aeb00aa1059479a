"""ECA and the total loss: Eq. 8-12 and 15-16 against hand-computed values and brute force."""

from __future__ import annotations

import itertools
import logging
import math

import pytest

torch = pytest.importorskip("torch", reason="the networks need torch")
pytest.importorskip("scipy", reason="the Hungarian method is scipy's")
pytest.importorskip("transformers", reason="the towers of text and vision need transformers")

from emo_models.networks.ecpa.eca import (  # noqa: E402
    NO_EMOTION,
    AuWordLoss,
    er_sentence_loss,
    match,
    pair_loss,
    similarity,
    word_vectors,
)
from emo_models.networks.ecpa.losses import DynamicWeightAverage, TotalLoss, mlm_loss  # noqa: E402


def test_er_loss_falls_with_the_probability_of_the_true_class_and_skips_unlabelled():
    z = torch.tensor([[2.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    y = torch.tensor([0, 0, NO_EMOTION])
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(1))) / 2
    assert float(er_sentence_loss(z, y)) == pytest.approx(expected)
    assert float(er_sentence_loss(z, torch.full((3,), NO_EMOTION))) == 0
    z.requires_grad_()
    er_sentence_loss(z, y).backward()
    assert float(z.grad[0, 0]) < 0


def test_word_vectors_are_means_of_pieces_and_skip_masked_words():
    text = torch.arange(12.0).view(1, 6, 2)
    word = torch.tensor([[-1, 0, 0, 1, 2, -1]])
    usable = torch.tensor([[True, True, True, True, False, True]])
    vectors, there = word_vectors(text, word, usable)
    assert there.tolist() == [[True, True, False, False, False, False]]
    assert vectors[0, :2].tolist() == [[3, 4], [6, 7]]


def test_similarity_is_the_cosine():
    a, t = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    expected = torch.nn.functional.cosine_similarity(a[:, :, None], t[:, None], dim=-1)
    assert torch.allclose(similarity(a, t), expected, atol=1e-6)


@pytest.mark.parametrize(("k", "n"), [(3, 5), (3, 3), (4, 2), (1, 4), (3, 0)])
def test_match_equals_brute_force(k, n):
    generator = torch.Generator().manual_seed(k * 10 + n)
    for _ in range(20):
        score = torch.randn(k, n, generator=generator)
        rows, columns = match(score)
        assert len(rows) == len(set(columns.tolist())) == min(k, n)
        if k <= n:
            best = max(sum(score[i, j] for i, j in enumerate(p)) for p in itertools.permutations(range(n), k))
        else:
            best = max(sum(score[i, j] for j, i in enumerate(p)) for p in itertools.permutations(range(k), n))
        assert float(score[rows, columns].sum()) == pytest.approx(float(best), abs=1e-5)


@pytest.mark.parametrize(
    ("d", "positive", "sign"),
    [(0.2, True, -1), (-0.3, True, -1), (0.7, True, 0), (0.4, False, 1), (-0.4, False, -1), (0.0, False, 0)],
)
def test_pair_loss_pulls_positives_up_and_pushes_negatives_to_zero(d, positive, sign):
    value = torch.tensor([d], requires_grad=True)
    pair_loss(value, torch.tensor([positive]), margin=0.5).sum().backward()
    assert math.copysign(1, float(value.grad)) * (abs(float(value.grad)) > 0) == sign


def test_pair_loss_values():
    d = torch.tensor([0.2, 0.2, 0.7])
    y = torch.tensor([True, False, True])
    assert pair_loss(d, y, 0.5).tolist() == pytest.approx([0.09, 0.04, 0.0])
    assert pair_loss(d, y, 1.0).tolist() == pytest.approx([0.64, 0.04, 0.09])


def aligned():
    """One clip: a_0 equals word 0 nearly, but the lexicon ties it to word 1; a_1 is invalid; word 3 is masked."""
    t = torch.eye(4)[None]
    a = torch.tensor([[[0.9, 0.1, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.2, 0.1, 0.0]]])
    hits = torch.zeros(1, 3, 4, dtype=torch.bool)
    hits[0, 0, 1] = True
    return a, torch.tensor([[True, False, True]]), t, torch.tensor([[True, True, True, False]]), hits


def test_lexicon_pairs_come_first():
    a, au_valid, t, word_valid, hits = aligned()
    s = similarity(a, t)[0]
    out = AuWordLoss("lexicon")(a, au_valid, t, word_valid, hits)
    # a_0 - word 1 by the lexicon, a_2 then takes word 2, a negative pair.
    expected = (0.5 - s[0, 1]).square() + s[2, 2].square()
    assert (out.pairs, out.positive) == (2, 1)
    assert float(out.loss) == pytest.approx(float(expected) / 2, abs=1e-6)


def test_self_labels_are_the_papers_letter():
    a, au_valid, t, word_valid, hits = aligned()
    s = similarity(a, t)[0]
    out = AuWordLoss("self")(a, au_valid, t, word_valid, hits)
    # a_0 - word 0 and a_2 - word 1 have the largest sum; both are above T_C.
    expected = torch.relu(0.5 - s[0, 0]).square() + torch.relu(0.5 - s[2, 1]).square()
    assert (out.pairs, out.positive) == (2, 2)
    assert float(out.loss) == pytest.approx(float(expected) / 2, abs=1e-6)
    assert AuWordLoss("self", threshold=0.92)(a, au_valid, t, word_valid, hits).positive == 1
    higher = AuWordLoss("self", margin=1.0)(a, au_valid, t, word_valid, hits)
    assert float(higher.loss) > float(out.loss)


def test_lexicon_and_self_join_both():
    a, au_valid, t, word_valid, hits = aligned()
    assert AuWordLoss("lexicon+self")(a, au_valid, t, word_valid, hits).positive == 2
    assert AuWordLoss("lexicon+self", threshold=0.99)(a, au_valid, t, word_valid, hits).positive == 1
    with pytest.raises(ValueError, match=r"pair_labels is 'both'; choose one of: self, lexicon, lexicon\+self"):
        AuWordLoss("both")


def test_no_pairs_no_loss():
    a, _, t, word_valid, hits = aligned()
    a.requires_grad_()
    out = AuWordLoss()(a, torch.zeros(1, 3, dtype=torch.bool), t, word_valid, hits)
    assert (out.pairs, out.loss.item()) == (0, 0.0)
    out.loss.backward()


def test_random_prompts_have_no_positive_pair_of_their_own():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(32, 3, 768, generator=generator)
    t = torch.randn(32, 20, 768, generator=generator)
    everything = torch.ones(32, 3, dtype=torch.bool), torch.ones(32, 20, dtype=torch.bool)
    out = AuWordLoss("self")(a, everything[0], t, everything[1], torch.zeros(32, 3, 20, dtype=torch.bool))
    assert (out.pairs, out.positive) == (96, 0)


def losses(er, au, mlm):
    return {"er": torch.tensor(er), "au": torch.tensor(au), "mlm": torch.tensor(mlm)}


def test_dwa_by_hand():
    dwa = DynamicWeightAverage()
    for epoch in ([losses(2.0, 1.0, 4.0), losses(4.0, 1.0, 4.0)], [losses(1.5, 1.0, 2.0)]):
        assert dwa.weights() == {"er": 1.0, "au": 1.0, "mlm": 1.0}
        for step in epoch:
            dwa.record(step)
        dwa.end_epoch()
    ratios = {"er": 1.5 / 3.0, "au": 1.0, "mlm": 0.5}
    total = sum(math.exp(r / 2) for r in ratios.values())
    weights = dwa.weights()
    assert weights == pytest.approx({name: 3 * math.exp(r / 2) / total for name, r in ratios.items()})
    assert sum(weights.values()) == pytest.approx(3)


def test_dwa_is_guarded_and_resumes():
    dwa = DynamicWeightAverage(temperature=1.0)
    for step in (losses(0.0, 1e-3, 1.0), losses(1.0, 1.0, 1e-6)):
        dwa.record(step)
        dwa.end_epoch()
    powers = [math.exp(1.0), math.exp(10.0), math.exp(0.1)]
    assert list(dwa.weights().values()) == pytest.approx([3 * p / sum(powers) for p in powers])
    resumed = DynamicWeightAverage(temperature=1.0)
    resumed.load_state_dict(dwa.state_dict())
    assert resumed.weights() == dwa.weights()
    with pytest.raises(ValueError, match="before any step"):
        dwa.end_epoch()


@pytest.mark.parametrize(("mode", "expected"), [("dwa", 7.0), ("fixed", 0.6 * 2 + 4), ("mlm_only", 4.0)])
def test_loss_modes(mode, expected):
    total = TotalLoss(mode)
    assert float(total(losses(1.0, 2.0, 4.0))) == pytest.approx(expected)
    assert float(total(losses(1.0, 2.0, 4.0), sparsity=torch.tensor(0.25))) == pytest.approx(expected + 0.25)
    total.end_epoch()
    total(losses(2.0, 1.0, 1.0))
    total.end_epoch()
    changed = float(total(losses(1.0, 2.0, 4.0)))
    assert changed == pytest.approx(expected) if mode != "dwa" else abs(changed - expected) > 1e-2
    with pytest.raises(ValueError, match="loss_mode is 'sum'; choose one of: dwa, fixed, mlm_only"):
        TotalLoss("sum")


def test_few_positive_pairs_are_warned_about(caplog):
    total = TotalLoss("fixed")
    total(losses(1.0, 1.0, 1.0), pairs=1000, positive=9)
    with caplog.at_level(logging.WARNING):
        assert total.end_epoch() == pytest.approx(0.009)
    assert "only 9 of 1000 AU-word pairs were positive" in caplog.text
    caplog.clear()
    total(losses(1.0, 1.0, 1.0), pairs=1000, positive=20)
    assert total.end_epoch() == pytest.approx(0.02)
    total(losses(1.0, 1.0, 1.0))
    assert math.isnan(total.end_epoch())
    assert caplog.text == ""


def test_mlm_loss_is_the_mean_over_masked_words():
    scores, words = torch.randn(4, 9), torch.tensor([1, 3, 3, 8])
    expected = -scores.log_softmax(1)[range(4), words].mean()
    assert float(mlm_loss(scores, words)) == pytest.approx(float(expected))
    assert float(mlm_loss(scores[:0], words[:0])) == 0
