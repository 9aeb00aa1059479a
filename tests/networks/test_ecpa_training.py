"""ECPA as a whole: its sizes, and what each loss trains."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the networks need torch")
pytest.importorskip("transformers", reason="the towers of text and vision need transformers")
pytest.importorskip("scipy", reason="the Hungarian method is scipy's")

from ecpa_toys import batch, toy, trained_by, under  # noqa: E402
from toys import randomise  # noqa: E402

import emo_models  # noqa: E402
from emo_models.networks.ecpa import EcpaConfig  # noqa: E402
from emo_models.networks.ecpa.vep import FaceFeatures  # noqa: E402

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


def test_au_networks_without_all_main_units_are_refused():
    with pytest.raises(ValueError, match="au_preset"):
        EcpaConfig.from_preset("toy", au_preset="disfa")


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
