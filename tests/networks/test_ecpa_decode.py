"""Greedy and beam search against brute force over a tiny vocabulary, and the evidence of words."""

from __future__ import annotations

import itertools

import pytest

torch = pytest.importorskip("torch", reason="the networks need torch")
pytest.importorskip("scipy", reason="the Hungarian method is scipy's")
pytest.importorskip("transformers", reason="the towers of text and vision need transformers")

from emo_models.labels import OPENGRAPHAU_MAIN  # noqa: E402
from emo_models.networks.ecpa.decode import DecodeLimits, beam_search, explain, greedy  # noqa: E402
from emo_models.networks.ecpa.vep import AuPrompts  # noqa: E402

START, STOP, WORDS = 0, 1, 4


class TableStepper:
    """Scores of the next word from a random table over (row of the batch, all words so far)."""

    def __init__(self, table, rows):
        self.table, self.rows = table, rows

    def __call__(self, prefix):
        return torch.stack([self.score(int(row), words.tolist()) for row, words in zip(self.rows, prefix, strict=True)])

    def score(self, row, words):
        number = row
        for word in words:
            number = number * WORDS + word
        return self.table[number % len(self.table)].clone()

    def select(self, rows):
        return TableStepper(self.table, self.rows[rows])


def stepper(seed, batch=2):
    table = torch.randn(997, WORDS, generator=torch.Generator().manual_seed(seed)) * 1.5
    return TableStepper(table, torch.arange(batch))


def brute_force(steps, row, max_length, penalty, banned=()):
    """Best caption among all, by ``log_prob / words ** penalty``."""
    best = None
    for count in range(1, max_length):
        for body in itertools.product(range(WORDS), repeat=count):
            stopped = body[-1] == STOP
            if STOP in body[:-1] or (not stopped and count < max_length - 1) or set(body) & set(banned):
                continue
            ids, total = [START], 0.0
            for word in body:
                scores = steps.score(row, ids)
                scores[list(banned)] = -torch.inf
                total += float(scores.log_softmax(0)[word])
                ids.append(word)
            if best is None or total / count**penalty > best[0]:
                best = (total / count**penalty, tuple(ids), total)
    return best


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_wide_beam_search_equals_brute_force(seed, penalty):
    limits = DecodeLimits(START, STOP, max_length=5)
    found = beam_search(stepper(seed), 2, limits, beams=WORDS**4, length_penalty=penalty)
    for row in range(2):
        _, ids, total = brute_force(stepper(seed), row, 5, penalty)
        assert found[row].ids == ids
        assert found[row].log_prob == pytest.approx(total, abs=1e-4)
        assert found[row].stopped == (ids[-1] == STOP)


def test_one_beam_without_length_penalty_never_beats_more_beams():
    limits = DecodeLimits(START, STOP, max_length=6)
    for seed in range(5):
        scores = [beam_search(stepper(seed), 1, limits, beams=n, length_penalty=0.0)[0].log_prob for n in (1, 64, 256)]
        assert scores[0] <= scores[1] + 1e-5
        assert scores[1] <= scores[2] + 1e-5
    with pytest.raises(ValueError, match="beams must be at least 1, got 0"):
        beam_search(stepper(0), 1, limits, beams=0)


def test_greedy_takes_the_best_word_of_each_step_and_stops_row_by_row():
    limits = DecodeLimits(START, STOP, max_length=8)
    for seed in range(5):
        steps = stepper(seed, batch=3)
        for row, caption in enumerate(greedy(steps, 3, limits)):
            ids, total = [START], 0.0
            while len(ids) < 8 and ids[-1] != STOP:
                logs = steps.score(row, ids).log_softmax(0)
                ids.append(int(logs.argmax()))
                total += float(logs.max())
            assert caption.ids == tuple(ids)
            assert caption.log_prob == pytest.approx(total, abs=1e-4)
            assert caption.stopped == (ids[-1] == STOP)


def test_banned_words_and_the_limit():
    limits = DecodeLimits(START, STOP, max_length=4, banned=(0, 3))
    for seed in range(4):
        for caption in greedy(stepper(seed), 2, limits):
            assert not {0, 3} & set(caption.ids[1:])
            assert len(caption.ids) <= 4
        best = brute_force(stepper(seed), 0, 4, 1.0, banned=(0, 3))
        assert beam_search(stepper(seed), 1, limits, beams=64)[0].ids == best[1]
    with pytest.raises(ValueError, match="at least 2; got 1"):
        DecodeLimits(START, STOP, max_length=1)


def test_stop_token_that_equals_the_start_token_ends_the_caption():
    caption = greedy(stepper(0, 1), 1, DecodeLimits(START, START, max_length=6, banned=(1, 2, 3)))[0]
    assert caption.ids == (START, START)
    assert caption.stopped


def test_evidence_names_unit_intensity_and_peak_frames():
    prompts = AuPrompts(
        tokens=torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]]),
        valid=torch.tensor([[True, True, False]]),
        index=torch.tensor([[9, 2, 0]]),
        frames=torch.tensor([[[True, True, False, True]] * 3]),
    )
    scores = torch.zeros(4, len(OPENGRAPHAU_MAIN))
    scores[:, 9] = torch.tensor([0.5, 0.8, 0.9, 0.75])
    scores[:, 2] = torch.tensor([0.6, 0.1, 0.1, 0.1])
    text = "he smiles sadly"
    words = [(3, 9), (10, 15)]
    first, second = explain(text, words, torch.tensor([[2.0, 0.0], [-1.0, 1.0]]), prompts, scores, row=0)
    assert (first.word, first.au, first.peak_frames) == ("smiles", 12, (1, 3))
    assert (first.similarity, first.intensity) == (pytest.approx(1.0), pytest.approx(0.8))
    assert (second.word, second.start, second.end, second.au, second.peak_frames) == ("sadly", 10, 15, 4, (0,))
    prompts.valid[:] = False
    assert explain(text, words, torch.zeros(2, 2), prompts, scores, row=0) == ()
