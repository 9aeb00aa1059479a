"""ECPA as a whole: each option, and its text encoders."""

from __future__ import annotations

import dataclasses

import pytest

torch = pytest.importorskip("torch", reason="the networks need torch")
pytest.importorskip("transformers", reason="the towers of text and vision need transformers")
pytest.importorskip("scipy", reason="the Hungarian method is scipy's")

from ecpa_toys import TOWER, batch, toy, trained_by, under  # noqa: E402
from toys import randomise  # noqa: E402

from emo_models.networks.ecpa.pretrained import load_tower  # noqa: E402
from emo_models.networks.ecpa.tep import MaskedText  # noqa: E402

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
