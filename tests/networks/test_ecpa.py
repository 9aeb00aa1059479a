"""ECPA as a whole: sizes, gradients, options, generation."""

from __future__ import annotations

import dataclasses

import pytest

torch = pytest.importorskip("torch", reason="the networks need torch")
pytest.importorskip("transformers", reason="the towers of text and vision need transformers")
pytest.importorskip("scipy", reason="the Hungarian method is scipy's")

from toys import randomise, word_piece  # noqa: E402

import emo_models  # noqa: E402
from emo_models.networks.ecpa import EcpaConfig  # noqa: E402
from emo_models.networks.ecpa.captions import CaptionTokenizer  # noqa: E402
from emo_models.networks.ecpa.decode import greedy  # noqa: E402
from emo_models.networks.ecpa.eca import NO_EMOTION  # noqa: E402
from emo_models.networks.ecpa.pretrained import load_tower  # noqa: E402
from emo_models.networks.ecpa.tep import MaskedText  # noqa: E402
from emo_models.networks.ecpa.vep import FaceFeatures  # noqa: E402

TEXTS = ["a man smiles with a deep frown .", "the woman raised her eyebrows .", "a man looks sad"]


def toy(**options):
    torch.manual_seed(0)
    return emo_models.create("ecpa", "toy", **options)


def batch(model, tmp_path):
    """Three clips; the last has no face, the second no label."""
    generator = torch.Generator().manual_seed(0)
    config = model.config
    clip = torch.randn(3, 3, config.frames, config.image_size, config.image_size, generator=generator)
    valid = torch.tensor([[True, True, False, True], [True] * 4, [False] * 4])[:, : config.frames]
    features = None
    if model.au_net is not None:
        faces = torch.randn(3, config.frames, 3, 64, 64, generator=generator)
        features = model.face_features(faces, valid)
    captions = CaptionTokenizer(word_piece(tmp_path), config)(TEXTS)
    return clip, features, captions, torch.tensor([3, NO_EMOTION, 5])


def trained_by(model, loss):
    """Names of the parameters that a loss reaches."""
    model.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    return {n for n, p in model.named_parameters() if p.grad is not None and float(p.grad.abs().sum()) > 0}


def under(names, *prefixes):
    return {name for name in names if name.startswith(prefixes)}


# -- sizes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "tokens"), [(8, 196), (32, 784)])
def test_paper_preset_has_the_papers_shapes(frames, tokens):
    with torch.device("meta"):
        model = emo_models.create("ecpa", frames=frames)
        clip = torch.empty(1, 3, frames, 224, 224)
        features = FaceFeatures(
            er=torch.empty(1, frames, 2048), au_nodes=torch.empty(1, frames, 27, 512),
            au_scores=torch.empty(1, frames, 27), valid=torch.empty(1, frames, dtype=torch.bool),
        )  # fmt: skip
        context = model.eval().context(clip, features)
        rows = model.trans_encoder.encode(
            model.embed_text(torch.empty(1, 50, dtype=torch.int64)), context.tokens, context.valid
        )
    assert model.visual.tokens == tokens
    assert context.tokens.shape == (1, tokens + 5, 768)
    assert (context.er.tokens.shape, context.cls.q.shape, context.au.tokens.shape) == (
        (1, 1, 768),
        (1, 1, 768),
        (1, 3, 768),
    )
    assert context.cls.z.shape == (1, 11)
    assert model.trans_encoder.head(rows).shape == (1, 50, 30522)
    if frames == 8:
        assert 50 + context.tokens.shape[1] == 251


def test_parameters_of_the_presets():
    def millions(preset):
        with torch.device("meta"):
            model = emo_models.create("ecpa", preset)
        return {
            name: round(sum(p.numel() for p in part.parameters()) / 1e6, 1) for name, part in model.named_children()
        }

    paper = millions("paper")
    assert (paper["au_net"], paper["er_net"]) == (32.2, 23.5)
    assert paper["visual"] == pytest.approx(87.64 + 0.525, abs=0.05)
    fast = millions("fast")
    assert fast["visual"] == pytest.approx(27.85 + 0.394, abs=0.05)
    assert "er_net" not in fast
    swinbert, transformer = millions("swinbert"), millions("transformer")
    assert set(swinbert) == {"visual", "trans_encoder"} == set(transformer)
    assert swinbert["trans_encoder"] == paper["trans_encoder"]
    assert transformer["trans_encoder"] < swinbert["trans_encoder"] / 1.5


def test_table_one_sizes_of_the_text_towers():
    for text, width, words in (("clip", 512, 49408), ("t5", 1024, 32128), ("gpt2", 768, 50257)):
        with torch.device("meta"):
            model = emo_models.create("ecpa", "swinbert", text=text)
        assert model.text_tower.words.shape == (words, width)
        assert model.trans_encoder.cls.predictions.decoder.out_features == words
        assert model.trans_encoder.embeddings.word_embeddings is None


def test_config_goes_through_plain_values_and_names_bad_ones():
    config = toy().config
    assert EcpaConfig.from_dict(config.to_dict()) == config
    for bad, message in (
        ({"text": "elmo"}, "EcpaConfig.text is 'elmo'; choose one of: bert, clip, t5, gpt2"),
        ({"er_prompt": False}, "class_prompt needs er_prompt"),
        ({"special_ids": (1, 2)}, "needs start, stop, padding"),
        ({"fusion": "encoder_decoder"}, "baseline without prompts"),
    ):
        with pytest.raises(ValueError, match=message):
            EcpaConfig.from_preset("paper", **bad)


# -- gradients -----------------------------------------------------------------------------------------------------------


def test_gradients_reach_all_but_the_frozen_networks(tmp_path):
    model = randomise(toy(text_dropout=0.5), scale=0.05).train()
    inputs = batch(model, tmp_path)
    torch.manual_seed(1)
    out = model(*inputs)
    reached = trained_by(model, model.total_loss()(out.losses))
    everything = {name for name, _ in model.named_parameters()}
    assert everything - reached == under(everything, "au_net.")
    assert not any(part.training for part in model.au_net.modules())


def test_each_loss_reaches_its_part(tmp_path):
    model = randomise(toy(text_dropout=0.5), scale=0.05).train()
    torch.manual_seed(1)
    losses = model(*batch(model, tmp_path)).losses
    er, au, mlm = (trained_by(model, losses[name]) for name in ("er", "au", "mlm"))
    assert {name.split(".")[0] for name in er} == {"er_prompting", "class_branch", "trans_encoder"}
    assert "class_branch.E" not in er
    assert not under(er, "trans_encoder.cls", "trans_encoder.bert.img_embedding")
    assert {name.split(".")[0] for name in au} == {"au_prompting", "trans_encoder"}
    assert under(au, "trans_encoder") == under(au, "trans_encoder.bert.embeddings")
    assert "class_branch.E" in mlm
    assert not under(mlm, "class_branch.classifier", "class_branch.h_null")
    assert under(mlm, "visual.encoder", "er_prompting.mlp", "au_prompting.fc", "kind") >= {
        "kind",
        "au_prompting.fc.weight",
    }


def test_class_token_grad_lets_captions_train_the_classifier(tmp_path):
    model = randomise(toy(class_token_grad=True), scale=0.05).train()
    mlm = trained_by(model, model(*batch(model, tmp_path)).losses["mlm"])
    assert len(under(mlm, "class_branch.classifier")) == 4


def test_mean_sentence_feature_does_not_run_the_fusion(tmp_path):
    model = randomise(toy(sentence_feature="mean", text_dropout=0.0), scale=0.05).train()
    inputs = batch(model, tmp_path)
    er = trained_by(model, model(*inputs).losses["er"])
    assert under(er, "trans_encoder.bert.embeddings")
    assert not under(er, "trans_encoder.bert.encoder")


@pytest.mark.parametrize("visual", ["video_swin", "clip"])
def test_frozen_encoders_stay_as_they_are(tmp_path, visual):
    options = {"visual": "clip", "visual_preset": "toy", "image_size": 56} if visual == "clip" else {}
    model = randomise(toy(freeze_visual=True, freeze_text=True, **options), scale=0.05).train()
    out = model(*batch(model, tmp_path))
    reached = trained_by(model, model.total_loss()(out.losses))
    everything = {name for name, _ in model.named_parameters()}
    frozen = under(everything, "au_net.", "visual.encoder.", "trans_encoder.bert.embeddings.")
    assert not reached & frozen
    assert under(everything, "visual.fc.", "trans_encoder.bert.encoder.") <= reached
    assert not model.visual.encoder.training


def test_mlm_only_leaves_classifier_and_alignment_alone(tmp_path):
    model = randomise(toy(loss_mode="mlm_only"), scale=0.05).train()
    out = model(*batch(model, tmp_path))
    total = model.total_loss()(out.losses)
    assert total.item() == pytest.approx(out.losses["mlm"].item())
    assert not under(trained_by(model, total), "class_branch.classifier")
    fixed = toy(loss_mode="fixed").total_loss()(out.losses)
    assert fixed.item() == pytest.approx(out.losses["mlm"].item() + 0.6 * out.losses["au"].item())


# -- options -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "prompts"),
    [
        ({}, 5),
        ({"au_pool": "per_frame"}, 11),
        ({"au_pool": "per_frame", "au_frames": 2, "top_k": 4}, 10),
        ({"top_k": 5}, 7),
        ({"au_prompt": False}, 2),
        ({"class_prompt": False, "er_prompt": False}, 3),
        ({"class_prompt": False}, 4),
        ({"er_prompt": False, "au_prompt": False, "class_prompt": False}, 0),
    ],
)
def test_prompts_of_each_ablation(tmp_path, options, prompts):
    model = toy(**options).train()
    out = model(*batch(model, tmp_path))
    assert out.context.valid.shape == (3, prompts)
    assert out.context.tokens.shape[1] == model.visual.tokens + prompts
    assert not out.context.valid[2].any()
    named = {"er": model.config.class_prompt, "au": model.config.au_prompt, "mlm": True}
    assert set(out.losses) == {name for name, there in named.items() if there} == set(model.total_loss().dwa.names)
    assert (
        model.config.au_tokens == prompts - model.config.er_prompt - model.config.class_prompt
        or not model.config.au_prompt
    )


@pytest.mark.parametrize(("source", "width"), [("au_trunk", 128), ("er_resnet", 512), ("ddamfn", 128)])
def test_er_features_come_from_the_chosen_network(tmp_path, source, width):
    model = toy(er_source=source)
    features = batch(model, tmp_path)[1]
    assert features.er.shape == (3, 4, width)
    assert (features.er[~features.valid] == 0).all()
    assert (model.er_net is None) is (source == "au_trunk")
    if model.er_net is not None:
        assert not any(parameter.requires_grad for parameter in model.er_net.parameters())
        assert not model.train().er_net.training


def test_options_reach_the_parts():
    model = toy(
        au_exclude=(12, 25), au_identity=True, vocabulary="meld7", text_dropout=0.1, pair_labels="self", match_threshold=0.4,
        margin=0.7, mask_rate=0.15, learned_sparse=True,
    )  # fmt: skip
    assert int((~model.au_prompting.eligible).sum()) == 2
    assert model.au_prompting.identity.weight.abs().sum() == 0
    assert model.class_branch.E.shape == (7, 64)
    assert model.class_branch.text_dropout == 0.1
    assert dataclasses.asdict(model.config)["vocabulary"] == "meld7"
    assert (model.au_word_loss.labels, model.au_word_loss.threshold, model.au_word_loss.margin) == ("self", 0.4, 0.7)
    assert model.masking.rate == 0.15
    assert model.trans_encoder.learn_vid_att.weight.shape == (32 * 32, 1)


def test_learned_sparse_mask_adds_its_penalty(tmp_path):
    model = toy(learned_sparse=True).train()
    out = model(*batch(model, tmp_path))
    total = model.total_loss()(out.losses, out.sparsity)
    assert total.item() == pytest.approx(sum(v.item() for v in out.losses.values()) + out.sparsity.item(), rel=1e-5)
    assert "trans_encoder.learn_vid_att.weight" in trained_by(model, total)


def test_lexicon_labels_make_positive_pairs(tmp_path):
    model = toy(mask_rate=0.01, au_exclude=())
    clip, features, captions, emotion = batch(model, tmp_path)
    features.au_scores[...] = 0.01
    features.au_scores[:, :, [2, 9, 0]] = 0.9  # AU 4, 12 and 1: frown and smile of clip 0, raised eyebrows of clip 1
    counts = {}
    for labels in ("self", "lexicon"):
        model.au_word_loss.labels = labels
        torch.manual_seed(0)
        out = model.eval()(clip, features, captions, emotion)
        counts[labels] = (out.pairs, out.positive)
    assert counts == {"self": (6, 0), "lexicon": (6, 3)}


def test_swinbert_preset_equals_ecpa_with_all_prompts_invalid(tmp_path):
    options = {"er_prompt": False, "au_prompt": False, "class_prompt": False}
    swinbert, ecpa = toy(**options).eval(), toy().eval()
    ecpa.load_state_dict(swinbert.state_dict(), strict=False)
    clip, features, captions, _ = batch(ecpa, tmp_path)
    features.valid[:] = False
    scores = []
    for model, faces in ((swinbert, None), (ecpa, features)):
        context = model.context(clip, faces)
        scores.append(model.trans_encoder.encode(model.embed_text(captions.ids), context.tokens, context.valid))
    assert (scores[0] - scores[1]).abs().max() < 1e-5


def masking_of(position, mask_id):
    """Masks one given position of every caption."""

    def masking(ids, length, generator=None):
        selected = torch.zeros_like(ids, dtype=torch.bool)
        selected[:, position] = True
        return MaskedText(torch.where(selected, mask_id, ids), selected)

    return masking


@pytest.mark.parametrize("text", ["bert", "clip", "t5", "gpt2"])
def test_prediction_of_a_masked_word_does_not_know_it(tmp_path, text):
    model = randomise(toy(text=text, **({} if text == "bert" else TOWER)), scale=0.1)
    clip, features, captions, emotion = batch(model, tmp_path)
    model.masking = masking_of(3, model.config.specials[3])
    scores = []
    for word in (50, 51):
        captions.ids[:, 3] = word
        out = model(clip, features, captions, emotion)
        assert out.words.tolist() == [word] * 3
        scores.append(out.scores)
    assert (scores[0] - scores[1]).abs().max() < 1e-5
    captions.ids[:, 2] = 52
    assert (model(clip, features, captions, emotion).scores - scores[1]).abs().max() > 1e-3


def test_masked_words_are_not_matched(tmp_path):
    model = toy(pair_labels="lexicon", au_exclude=()).eval()
    clip, features, captions, emotion = batch(model, tmp_path)
    features.au_scores[...] = 0.01
    features.au_scores[:, :, [2, 9, 0]] = 0.9  # as above: three lexicon pairs, AU 12 at positions 3 and 4 of clip 0
    positive = []
    for position in (1, 3, 4):
        model.masking = masking_of(position, 4)
        positive.append(model(clip, features, captions, emotion).positive)
    assert positive[0] == 3
    assert positive[1] < 3
    assert positive[2] < 3


def test_clips_and_faces_of_the_wrong_kind_are_refused(tmp_path):
    model = toy()
    clip, features, _, _ = batch(model, tmp_path)
    with pytest.raises(ValueError, match=r"expected a clip \[B, 3, 4, 64, 64\], got \[3, 3, 2, 64, 64\]"):
        model.context(clip[:, :, :2], features)
    with pytest.raises(ValueError, match="pass face_features"):
        model.context(clip, None)
    plain = toy(er_prompt=False, au_prompt=False, class_prompt=False)
    with pytest.raises(RuntimeError, match="no face networks; pass features=None"):
        plain.face_features(torch.zeros(1, 4, 3, 64, 64), torch.ones(1, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"this CLIP reads 56 px, EcpaConfig.image_size is 64"):
        toy(visual="clip", visual_preset="toy")


def test_a_batch_without_any_face_has_features():
    for source in ("au_trunk", "er_resnet", "ddamfn"):
        model = toy(er_source=source)
        features = model.face_features(torch.zeros(1, 4, 3, 64, 64), torch.zeros(1, 4, dtype=torch.bool))
        assert features.au_nodes.shape == (1, 4, 27, 128)
        assert not features.er.any()


# -- text encoders -------------------------------------------------------------------------------------------------------

TOWER = {"text_preset": "toy", "vocab_size": 256, "special_ids": (2, 3, 0, 256)}


@pytest.mark.parametrize("text", ["clip", "t5", "gpt2"])
@pytest.mark.parametrize("frozen", [False, True])
def test_text_towers_train_as_told(tmp_path, text, frozen):
    model = randomise(toy(text=text, freeze_text=frozen, **TOWER), scale=0.05).train()
    out = model(*batch(model, tmp_path))
    reached = trained_by(model, model.total_loss()(out.losses))
    assert {"text_tower.mask", "text_tower.project.weight"} <= reached
    assert bool(under(reached, "text_tower.tower.")) is not frozen
    assert model.text_tower.tower.training is not frozen


@pytest.mark.parametrize("text", ["clip", "t5", "gpt2"])
def test_text_towers_are_causal_and_do_not_betray_the_masked_word(text):
    model = randomise(toy(text=text, **TOWER), scale=0.1)
    ids = torch.randint(5, 200, (2, 10), generator=torch.Generator().manual_seed(0))
    other = ids.clone()
    other[:, 6] = 201
    before, after = model.embed_text(ids), model.embed_text(other)
    assert (before[:, :6] - after[:, :6]).abs().max() < 1e-5
    assert (before[:, 6] - after[:, 6]).abs().max() > 1e-3
    masked = ids.clone()
    masked[:, 6] = 256
    assert (model.embed_text(masked, ids)[:, :7] - model.embed_text(masked, other)[:, :7]).abs().max() < 1e-5
    # As in generation, what follows a masked word has read the word itself.
    assert (model.embed_text(masked, ids)[:, 7:] - before[:, 7:]).abs().max() < 1e-5


@pytest.mark.parametrize("text", ["clip", "t5", "gpt2"])
def test_text_tower_loads_a_folder_and_refuses_others(tmp_path, text):
    source, target = (toy(text=text, **TOWER) for _ in range(2))
    randomise(source.text_tower.tower)
    source.text_tower.tower.save_pretrained(tmp_path / "tower")
    load_tower(target.text_tower, tmp_path / "tower")
    ids = torch.randint(5, 200, (1, 6))
    assert torch.equal(source.text_tower.eval()._run(ids), target.text_tower.eval()._run(ids))
    with pytest.raises(ValueError, match=r"is another .* than this network's"):
        load_tower(toy(text=text, **{**TOWER, "vocab_size": 200}).text_tower, tmp_path / "tower")
    with pytest.raises(OSError, match="Copy the files into a folder"):
        load_tower(target.text_tower, tmp_path / "nowhere")


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
