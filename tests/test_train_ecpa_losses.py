"""Losses that ECPA's alignment is compared with: hand-computed values, directions, and what they leave alone."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="the networks need torch")
pytest.importorskip("scipy", reason="the Hungarian method is scipy's")

from emo_models.networks.ecpa.eca import AuWordLoss, similarity  # noqa: E402
from training.losses.alignment import (  # noqa: E402
    TEMPERATURE,
    AuWordContrast,
    AuWordCrossEntropy,
    LexiconTagger,
    au_word_loss,
    er_sentence,
    global_similarity_loss,
    similarity_cross_entropy,
)


def scene(seed=0, clips=3, units=2, words=4, width=8):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(clips, units, width, generator=generator, requires_grad=True)
    t = torch.randn(clips, words, width, generator=generator, requires_grad=True)
    g = torch.zeros(clips, units, words, dtype=torch.bool)
    g[:, 0, 1] = True  # the first prompt of each clip is named by its second word
    return a, torch.ones(clips, units, dtype=torch.bool), t, torch.ones(clips, words, dtype=torch.bool), g


def test_global_similarity_is_one_minus_the_cosine():
    p = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    h = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    assert float(global_similarity_loss(p, h)) == pytest.approx((1 - 1 / math.sqrt(2)) / 2)


def test_similarity_cross_entropy_looks_for_ones_own_sentence():
    p = torch.eye(3)
    right = float(similarity_cross_entropy(p, p))
    wrong = float(similarity_cross_entropy(p, p.roll(1, 0)))
    assert right == pytest.approx(math.log(1 + 2 * math.exp(-1 / TEMPERATURE)), abs=1e-5)
    assert wrong == pytest.approx(1 / TEMPERATURE + math.log(1 + 2 * math.exp(-1 / TEMPERATURE)), abs=1e-3)


def test_er_sentence_chooses_by_name():
    p, h, ours = torch.eye(2), torch.eye(2), torch.tensor(7.0)
    assert er_sentence("cross_entropy", ours, p, h) is ours
    assert float(er_sentence("similarity", ours, p, h)) == pytest.approx(0)
    with pytest.raises(ValueError, match="er_loss is 'x'; choose one of: cross_entropy, similarity, similarity_ce"):
        er_sentence("x", ours, p, h)


def test_cross_entropy_is_over_the_words_of_the_own_caption():
    a, au_valid, t, word_valid, g = scene()
    word_valid[1, 3] = False
    found = AuWordCrossEntropy("lexicon")(a, au_valid, t, word_valid, g)
    s = similarity(a, t).detach() / TEMPERATURE
    expected = [-torch.log_softmax(s[b, 0, : 3 if b == 1 else 4], 0)[1] for b in range(3)]
    assert float(found.loss.detach()) == pytest.approx(float(torch.stack(expected).mean()), rel=1e-5)
    assert (found.pairs, found.positive) == (6, 3)


def test_contrast_is_over_the_positive_words_of_the_batch():
    a, au_valid, t, word_valid, g = scene()
    found = AuWordContrast("lexicon")(a, au_valid, t, word_valid, g)
    s = similarity(a[None, :, 0], t[None, :, 1])[0].detach() / TEMPERATURE
    both = -(torch.log_softmax(s, 1).diagonal() + torch.log_softmax(s, 0).diagonal()) / 2
    assert float(found.loss.detach()) == pytest.approx(float(both.mean()), rel=1e-5)
    assert (found.pairs, found.positive) == (6, 3)


@pytest.mark.parametrize("kind", [AuWordLoss, AuWordCrossEntropy, AuWordContrast])
def test_learning_brings_named_words_and_prompts_together(kind):
    torch.manual_seed(0)
    a, au_valid, t, word_valid, g = scene(clips=6, width=64)
    optimiser = torch.optim.Adam([a, t], lr=0.05)
    for _ in range(60):
        optimiser.zero_grad()
        kind("lexicon")(a, au_valid, t, word_valid, g).loss.backward()
        optimiser.step()
    s = similarity(a, t)
    assert s[:, 0, 1].min().item() > 0.4
    assert (s[:, 0].argmax(1) == 1).all()


@pytest.mark.parametrize("kind", [AuWordCrossEntropy, AuWordContrast])
def test_without_a_positive_pair_there_is_nothing_to_learn(kind):
    a, au_valid, t, word_valid, g = scene()
    found = kind("lexicon")(a, au_valid, t, word_valid, torch.zeros_like(g))
    assert float(found.loss.detach()) == 0
    assert (found.pairs, found.positive) == (6, 0)
    nobody = kind("lexicon")(a, torch.zeros_like(au_valid), t, word_valid, g)
    assert float(nobody.loss.detach()) == 0
    assert nobody.pairs == 0


def test_losses_are_chosen_by_name():
    chosen = au_word_loss("contrast", "self", 0.2, 0.4)
    assert isinstance(chosen, AuWordContrast)
    assert (chosen.labels, chosen.threshold, chosen.margin) == ("self", 0.2, 0.4)
    with pytest.raises(ValueError, match="au_loss is 'x'"):
        au_word_loss("x", "self", 0.2, 0.4)


def test_the_tagger_learns_which_unit_a_word_names():
    torch.manual_seed(0)
    t = torch.randn(2, 5, 16)
    there = torch.ones(2, 5, dtype=torch.bool)
    there[1, 4] = False
    units = torch.zeros(2, 5, 27, dtype=torch.bool)
    units[0, 1, 9] = units[1, 2, [3, 4]] = True
    units[1, 4, 7] = True  # not there: must not count
    tagger = LexiconTagger(16)
    start = tagger.loss(t, there, units)
    assert start.item() == pytest.approx(27 * math.log(2), rel=0.1)
    optimiser = torch.optim.Adam(tagger.parameters(), lr=0.1)
    for _ in range(80):
        optimiser.zero_grad()
        tagger.loss(t, there, units).backward()
        optimiser.step()
    tagged = tagger(t) > 0
    assert torch.equal(tagged[there], units[there])
    assert tagger.loss(t, torch.zeros_like(there), units).item() == 0
