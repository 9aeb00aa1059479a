"""The fusion Transformer against transformers' BERT, its mask against the table, its cache against recomputation."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the networks need torch")
transformers = pytest.importorskip("transformers", reason="the towers of text and vision need transformers")
pytest.importorskip("scipy", reason="the Hungarian method is scipy's")

from toys import randomise  # noqa: E402

import emo_models  # noqa: E402
from emo_models.networks.bert_fusion import BertFusion, BertFusionConfig, FusionCache  # noqa: E402
from emo_models.networks.ecpa.pretrained import load_bert  # noqa: E402
from emo_models.networks.fusion_mask import FORBIDDEN, LearnedSparseAttention, fusion_mask  # noqa: E402

SMALL = {
    "vocab_size": 40,
    "hidden": 48,
    "layers": 12,
    "heads": 12,
    "feed_forward": 96,
    "positions": 32,
    "visual_width": 20,
}


def small(**options):
    torch.manual_seed(0)
    return randomise(BertFusion(BertFusionConfig(**SMALL, **options)), scale=0.1)


def inputs(batch=2, text=7, visual=6, prompts=3):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 40, (batch, text), generator=generator)
    features = torch.randn(batch, visual, 20, generator=generator)
    tokens = torch.randn(batch, prompts, 48, generator=generator)
    valid = torch.tensor([[True, False, True], [False, False, True]])[:batch, :prompts]
    return ids, features, tokens, valid


def hugging_face():
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=48, num_hidden_layers=12, num_attention_heads=12, intermediate_size=96,
        max_position_embeddings=32, tie_word_embeddings=False, attn_implementation="eager",
    )  # fmt: skip
    return transformers.BertForMaskedLM(config).eval()


def twins():
    ours, theirs = small(), hugging_face()
    state = {name: value for name, value in ours.state_dict().items() if "img_embedding" not in name}
    left = theirs.load_state_dict(state, strict=False)
    # The names are those of the published checkpoints; only copies of what is loaded may be missing.
    assert left.unexpected_keys == []
    assert set(left.missing_keys) <= {"cls.predictions.decoder.bias"}
    theirs.cls.predictions.decoder.bias.data = ours.cls.predictions.bias.data
    return ours, theirs


@pytest.mark.parametrize("sparse", [False, True])
def test_mask_is_the_table(sparse):
    text, visual, valid = 4, 3, torch.tensor([[True, False], [False, True]])
    learned = torch.arange(9.0).view(3, 3) if sparse else None
    mask = fusion_mask(text, visual, valid, learned)
    assert mask.shape == (2, 1, 9, 9)
    for b in range(2):
        for row in range(9):
            for column in range(9):
                if column < text:
                    expected = 0.0 if row < text and column <= row else FORBIDDEN
                elif column < text + visual:
                    both_visual = text <= row < text + visual
                    expected = float(learned[row - text, column - text]) if sparse and both_visual else 0.0
                else:
                    expected = 0.0 if valid[b, column - text - visual] else FORBIDDEN
                assert mask[b, 0, row, column] == expected, (b, row, column)


def test_equals_transformers_bert_on_text():
    ours, theirs = twins()
    ids = inputs()[0]
    causal = torch.zeros(7, 7).masked_fill(torch.ones(7, 7, dtype=torch.bool).triu(1), FORBIDDEN)
    expected = theirs(input_ids=ids, attention_mask=causal.expand(2, 1, 7, 7)).logits
    scores = ours(ids, torch.zeros(2, 0, 20))
    assert (scores - expected).abs().max() < 1e-5
    assert scores.std() > 0.1


def test_equals_transformers_bert_modules_with_context():
    ours, theirs = twins()
    ids, features, tokens, valid = inputs()
    visual = torch.nn.functional.linear(features, ours.bert.img_embedding.weight, ours.bert.img_embedding.bias)
    sequence = torch.cat((theirs.bert.embeddings(input_ids=ids), visual, tokens), 1)
    hidden = theirs.bert.encoder(sequence, attention_mask=fusion_mask(7, 6, valid)).last_hidden_state
    expected = theirs.cls(hidden[:, :7])
    assert (ours(ids, features, tokens, valid) - expected).abs().max() < 1e-5


def test_caption_alone_is_encoded_both_ways():
    ours, theirs = twins()
    ids, length = inputs()[0], torch.tensor([7, 4])
    real = (torch.arange(7) < length[:, None]).long()
    expected = theirs.bert(input_ids=ids, attention_mask=real).last_hidden_state[:, 0]
    assert (ours.encode_caption(ours.embeddings(ids), length) - expected).abs().max() < 1e-5


def test_without_valid_prompts_text_and_visual_rows_are_those_of_swinbert():
    model = small().double()
    ids, features, tokens, _ = inputs()
    features, tokens = features.double(), tokens.double()
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    text, visual = model.embeddings(ids), model.embed_visual(features)
    with_prompts = model.bert.encoder(torch.cat((text, visual, tokens), 1), fusion_mask(7, 6, nothing).double())
    swinbert = model.bert.encoder(torch.cat((text, visual), 1), fusion_mask(7, 6, nothing[:, :0]).double())
    assert torch.allclose(with_prompts[:, :13], swinbert, atol=1e-12, rtol=0)
    valid = model.bert.encoder(torch.cat((text, visual, tokens), 1), fusion_mask(7, 6, ~nothing).double())
    assert (valid[:, :13] - swinbert).abs().max() > 1e-2


def test_text_sees_nothing_behind_it_and_context_sees_no_text():
    model = small()
    ids, features, tokens, valid = inputs()
    other = ids.clone()
    other[:, 4:] = (other[:, 4:] + 1) % 40
    before, after = model(ids, features, tokens, valid), model(other, features, tokens, valid)
    assert torch.equal(before[:, :4], after[:, :4])
    assert (before[:, 4:] - after[:, 4:]).abs().max() > 1e-2


@pytest.mark.parametrize("sparse", [0, 6])
def test_cached_step_equals_full_recomputation(sparse):
    model = small(sparse_tokens=sparse)
    ids, features, tokens, valid = inputs()
    context, _ = model.context(model.embed_visual(features), tokens, valid)
    mask_id = 4
    with torch.no_grad():
        cache = model.prefill(context, valid, text_length=10)
        for t in range(1, 8):
            pair = torch.stack((ids[:, t - 1], torch.full((2,), mask_id)), 1)
            scores = model.step(model.embeddings(pair, t - 1), cache)
            written = torch.cat((ids[:, :t], torch.full((2, 1), mask_id)), 1)
            full = model(written, features, tokens, valid)[:, -1]
            assert (scores - full).abs().max() <= 1e-5
            assert full.std() > 0.05
    assert int(cache.length) == 7


def test_cache_rows_can_be_selected():
    model = small()
    ids, features, tokens, valid = inputs()
    context, _ = model.context(model.embed_visual(features), tokens, valid)
    cache = model.prefill(context, valid, text_length=5)
    model.step(model.embeddings(ids[:, :2]), cache)
    swapped = cache.select(torch.tensor([1, 0, 1]))
    scores = model.step(model.embeddings(ids[:, 1:3], 1), cache)
    again = model.step(model.embeddings(ids[[1, 0, 1], 1:3], 1), swapped)
    assert torch.allclose(again, scores[[1, 0, 1]], atol=1e-6)


class ExportableStep(torch.nn.Module):
    """One decode step as an engine runs it: tensors in, tensors out, nothing written in place outside."""

    def __init__(self, fusion):
        super().__init__()
        self.fusion = fusion

    def forward(self, ids, context, text, length):
        text_k, text_v = ([part.clone() for part in group] for group in text)
        cache = FusionCache(*context, text_k, text_v, length.clone())
        scores = self.fusion.step(self.fusion.embeddings(ids, cache.length), cache)
        return scores, cache.text_k, cache.text_v, cache.length


def test_one_exported_step_serves_all_positions():
    model = small()
    ids, features, tokens, valid = inputs()
    context, _ = model.context(model.embed_visual(features), tokens, valid)
    with torch.no_grad():
        cache = model.prefill(context, valid, text_length=8)

        def arguments(pair):
            context = cache.context_k, cache.context_v, cache.context_bias
            return pair, context, (cache.text_k, cache.text_v), cache.length

        step = torch.export.export(ExportableStep(model), arguments(ids[:, :2])).module()
        for t in range(5):
            pair = ids[:, t : t + 2]
            scores, text_k, _, length = step(*arguments(pair))
            expected = model.step(model.embeddings(pair, t), cache)
            assert (scores - expected).abs().max() < 1e-6
            assert int(length) == int(cache.length) == t + 1
            assert torch.allclose(text_k[-1], cache.text_k[-1], atol=1e-6)


def test_learned_sparse_attention():
    sparse = LearnedSparseAttention(3)
    with torch.no_grad():
        sparse.weight.copy_(torch.logit(torch.tensor([0.9, 0.25, 0.5, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7]))[:, None])
    bias, penalty = sparse()
    assert torch.allclose(bias.diagonal(), torch.zeros(3))
    assert torch.allclose(bias[0, 1], torch.tensor(-7500.0))
    assert torch.allclose(bias[2, 0], torch.tensor(-6000.0))
    assert penalty.item() == pytest.approx(0.5 * (0.25 + 0.5 + 0.1 + 0.3 + 0.4 + 0.6) / 6)
    with pytest.raises(ValueError, match="bound to M = 5 visual tokens, the clip has 6"):
        small(sparse_tokens=5)(*inputs())


def test_paper_size_is_bert_base_with_an_untied_head():
    with torch.device("meta"):
        ours = emo_models.create("bert_fusion")
        theirs = transformers.BertForMaskedLM(transformers.BertConfig(tie_word_embeddings=False))
    image = 512 * 768 + 768
    count = sum(p.numel() for p in ours.parameters())
    copies = theirs.cls.predictions.decoder.bias.numel() * (
        theirs.cls.predictions.decoder.bias is not theirs.cls.predictions.bias
    )
    assert count - image == sum(p.numel() for p in theirs.parameters()) - copies
    assert ours.cls.predictions.decoder.weight is not ours.bert.embeddings.word_embeddings.weight
    assert (len(ours.bert.encoder.layer), ours.config.heads, ours.config.hidden) == (12, 12, 768)


def test_a_folder_with_a_bert_can_be_loaded(tmp_path):
    ours, theirs = small(), hugging_face()
    theirs.save_pretrained(tmp_path / "bert")
    image = ours.bert.img_embedding.weight.clone()
    report = load_bert(ours, tmp_path / "bert")
    assert "bert.img_embedding.weight" in report.absent
    assert torch.equal(ours.bert.img_embedding.weight, image)
    ids, length = inputs()[0], torch.tensor([7, 7])
    expected = theirs.bert(input_ids=ids).last_hidden_state[:, 0]
    assert (ours.encode_caption(ours.embeddings(ids), length) - expected).abs().max() < 1e-5
    with pytest.raises(OSError, match=r"nothing to load at .*nowhere.*model.safetensors.*Copy the files into a folder"):
        load_bert(ours, tmp_path / "nowhere")


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="12 heads do not divide the width 512"):
        emo_models.create("bert_fusion", hidden=512)
