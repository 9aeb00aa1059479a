"""ECPA as a whole: writing captions."""

from __future__ import annotations

import dataclasses

import pytest

torch = pytest.importorskip("torch", reason="the networks need torch")
pytest.importorskip("transformers", reason="the towers of text and vision need transformers")
pytest.importorskip("scipy", reason="the Hungarian method is scipy's")

from ecpa_toys import TEXTS, TOWER, batch, toy, trained_by  # noqa: E402
from toys import randomise, word_piece  # noqa: E402

from emo_models.networks.ecpa import EcpaConfig  # noqa: E402
from emo_models.networks.ecpa.captions import CaptionTokenizer  # noqa: E402
from emo_models.networks.ecpa.decode import greedy  # noqa: E402

# -- generation ----------------------------------------------------------------------------------------------------------

BASELINE = {"er_prompt": False, "au_prompt": False, "class_prompt": False, "fusion": "encoder_decoder"}


def recompute(model, context, prefix):
    """Scores of the next word from the whole text, without any cache."""
    if model.trans_encoder.fills_mask:
        prefix = torch.cat((prefix, torch.full_like(prefix[:, :1], model.config.specials[3])), 1)
    rows = model.trans_encoder.encode(model.embed_text(prefix), context.tokens, context.valid)
    return model.trans_encoder.head(rows[:, -1])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"au_pool": "per_frame"},
        {"learned_sparse": True},
        {"text": "clip", **TOWER},
        {"text": "t5", **TOWER},
        {"text": "gpt2", **TOWER},
        {"visual": "clip", "visual_preset": "toy", "image_size": 56},
        BASELINE,
    ],
    ids=lambda options: "-".join(str(value) for value in options.values())[:24],
)
def test_cached_generation_equals_full_recomputation_at_every_step(tmp_path, options):
    model = randomise(toy(**options), scale=0.1)
    clip, features, _, _ = batch(model, tmp_path)
    limits = dataclasses.replace(model.limits(), stop=255, banned=(255,), max_length=24)
    worst = []

    class Checked:
        def __init__(self, inner, context):
            self.inner, self.context = inner, context

        def __call__(self, prefix):
            scores = self.inner(prefix)
            worst.append((scores - recompute(model, self.context, prefix)).abs().max().item())
            return scores

    with torch.no_grad():
        context = model.context(clip, features)
        captions = greedy(Checked(model.stepper(context), context), 3, limits)
    assert [len(caption.ids) for caption in captions] == [24] * 3
    assert len(worst) == 23
    assert max(worst) <= 1e-5


def test_captions_carry_emotion_and_evidence(tmp_path):
    model = randomise(toy(), scale=0.05)
    clip, features, _, _ = batch(model, tmp_path)
    tokenizer = CaptionTokenizer(word_piece(tmp_path), model.config)
    model.init_class_embeddings(tokenizer)
    with torch.no_grad():  # words of the small vocabulary only
        model.trans_encoder.cls.predictions.bias[len(tokenizer.tokenizer) :] = -50
    for beams in (1, 3):
        results = model.generate(clip, features, tokenizer, beams=beams, max_length=10)
        for caption in results:
            assert 2 <= len(caption.generated.ids) <= 10
            assert sum(caption.emotion.values()) == pytest.approx(1, abs=1e-5)
            assert len(caption.emotion) == 11
        assert results[2].evidence == ()
        words = tokenizer.lexicon.content_words(results[0].text)
        assert [(e.start, e.end) for e in results[0].evidence] == words
        for evidence in results[0].evidence:
            assert results[0].text[evidence.start : evidence.end] == evidence.word
            assert evidence.au != 11
            assert set(evidence.peak_frames) <= {0, 1, 3}
            assert 0 <= evidence.intensity <= 1
            assert -1 <= evidence.similarity <= 1
    best = model.generate(clip, features, tokenizer, beams=4, max_length=10, length_penalty=0.0)
    single = model.generate(clip, features, tokenizer, max_length=10)
    assert all(b.generated.log_prob >= s.generated.log_prob - 1e-4 for b, s in zip(best, single, strict=True))


def test_toy_learns_three_captions(tmp_path):
    model = toy(dropout=0.0, freeze_visual=True, sentence_feature="mean").train()
    clip, features, captions, emotion = batch(model, tmp_path)
    total = model.total_loss()
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=4e-3)
    torch.manual_seed(0)
    for _ in range(90):
        out = model(clip, features, captions, emotion)
        optimiser.zero_grad()
        total(out.losses, out.sparsity, out.pairs, out.positive).backward()
        optimiser.step()
    tokenizer = CaptionTokenizer(word_piece(tmp_path), model.config)
    results = model.eval().generate(clip, features, tokenizer)
    assert [caption.text.replace(" .", ".") for caption in results] == [text.replace(" .", ".") for text in TEXTS]
    assert max(results[0].emotion, key=results[0].emotion.get) == "happiness"
    assert all(caption.generated.stopped for caption in results)


def test_plain_transformer_predicts_the_next_word(tmp_path):
    model = randomise(toy(**BASELINE), scale=0.05).train()
    clip, _, captions, emotion = batch(model, tmp_path)
    out = model(clip, None, captions, emotion)
    assert out.words.tolist() == [
        i for row, n in zip(captions.ids, captions.length, strict=True) for i in row[1:n].tolist()
    ]
    reached = trained_by(model, out.losses["mlm"])
    assert {name for name, _ in model.named_parameters()} == reached
    tokenizer = CaptionTokenizer(word_piece(tmp_path), model.config)
    assert model.eval().generate(clip, None, tokenizer, beams=2, max_length=5)[0].emotion == {}


def test_limits_are_respected(tmp_path):
    model = toy()
    with pytest.raises(RuntimeError, match=r"call eval\(\) before generate"):
        model.train().generate(*batch(model, tmp_path)[:2], CaptionTokenizer(word_piece(tmp_path), model.config))
    assert model.limits().max_length == 24
    assert set(model.limits(5).banned) == {2, 0, 4}
    with pytest.raises(ValueError, match="max_length is 25, but the network was made for text_length=24"):
        model.limits(25)


def test_class_embeddings_need_bert(tmp_path):
    with pytest.raises(ValueError, match="needs class_prompt=True and text='bert'"):
        toy(text="gpt2", **TOWER).init_class_embeddings(
            CaptionTokenizer(word_piece(tmp_path), EcpaConfig.from_preset("toy"))
        )
