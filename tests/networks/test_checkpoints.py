"""Public layouts into our networks, tensor by tensor; what does not fit is refused."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the networks need torch")
safetensors_torch = pytest.importorskip("safetensors.torch", reason="weights are safetensors files")

import public_files as public  # noqa: E402

import emo_models  # noqa: E402
from emo_models.checkpoints import (  # noqa: E402
    CheckpointError,
    load_checkpoint,
    load_parts,
    load_release,
    load_state,
)

SWIN = {"embed_dim": 16, "depths": (2, 1), "heads": (2, 4)}


def small_swin() -> torch.nn.Module:
    return emo_models.create("video_swin", "tiny", **SWIN)


def swin_state() -> public.State:
    return public.swin(16, (2, 1), (2, 4), (8, 7, 7))


def assert_filled(network: torch.nn.Module, state: public.State, rename=lambda key: key) -> None:
    """Every tensor of the network is the file's tensor of that name."""
    own = network.state_dict()
    for name, value in own.items():
        torch.testing.assert_close(value, state[rename(name)].to(value.dtype))


def test_video_swin(tmp_path):
    state = swin_state()
    file = tmp_path / "k400.pth"
    wrapped = public.prefixed("backbone.", state) | public.linear("cls_head.fc_cls", 32, 400)
    torch.save({"meta": {"epoch": 30}, "state_dict": wrapped}, file)
    network = small_swin()
    report = load_checkpoint(network, file, "video_swin")
    assert_filled(network, state)
    assert set(report.loaded) == set(network.state_dict())
    assert report.absent == ()
    assert [name for name in report.unused if "relative_position_index" not in name] == [
        "cls_head.fc_cls.bias",
        "cls_head.fc_cls.weight",
    ]
    assert report.kind == "torch archive"
    printed = str(report)
    assert f"loaded         {len(state) - 3} tensors" in printed
    assert "layers.*.blocks.*.attn.relative_position_index x3" in printed


def test_old_pickle_and_half_precision(tmp_path):
    state = {key: value.half() if value.is_floating_point() else value for key, value in swin_state().items()}
    file = tmp_path / "model.bin"
    torch.save(public.prefixed("module.", state), file, _use_new_zipfile_serialization=False)
    network = small_swin()
    report = load_checkpoint(network, file, "video_swin")
    assert_filled(network, state)
    assert (report.kind, report.converted) == ("torch pickle", (("float16", len(report.loaded)),))


def test_swinbert_fills_three_networks_from_one_file(tmp_path):
    fusion = emo_models.create("bert_fusion", "toy", sparse_tokens=6)
    c = fusion.config
    text = public.bert(c.hidden, c.layers, c.feed_forward, c.vocab_size, c.positions)
    state = public.swinbert(swin_state(), 32, text, c.hidden, image_width=c.visual_width, sparse=6)
    file = tmp_path / "model.bin"
    torch.save(public.prefixed("module.", state), file)
    swin, fc = small_swin(), torch.nn.Linear(32, c.visual_width)
    parts = [(swin, "swinbert_swin"), (fc, "swinbert_fc"), (fusion, "swinbert_fusion")]
    reports = load_parts(file, parts)
    assert_filled(swin, state, lambda key: f"swin.backbone.{key}")
    assert_filled(fc, state, lambda key: f"fc.{key}")
    assert_filled(fusion, state, lambda key: key if key.startswith("learn_vid") else f"trans_encoder.{key}")
    assert all(report.absent == () for report in reports)
    assert reports[1].elsewhere == len(state) - 2
    # A learned mask that the network has no place for is an error, and nothing is loaded then.
    without_mask, fc = emo_models.create("bert_fusion", "toy"), torch.nn.Linear(32, c.visual_width)
    before = fc.weight.clone()
    with pytest.raises(CheckpointError, match=r"1 unknown: learn_vid_att\.weight"):
        load_parts(file, [(fc, "swinbert_fc"), (without_mask, "swinbert_fusion")])
    assert torch.equal(fc.weight, before)


def test_swinbert_into_ecpa(tmp_path):
    ecpa = emo_models.create("ecpa", "toy")
    v, c = ecpa.visual.encoder.config, ecpa.trans_encoder.config
    visual = public.swin(v.embed_dim, v.depths, v.heads, v.window)
    text = public.bert(c.hidden, c.layers, c.feed_forward, c.vocab_size, c.positions)
    state = public.swinbert(visual, v.dim, text, c.hidden, image_width=c.visual_width)
    torch.save(state, tmp_path / "model.bin")
    prompts = {name: value.clone() for name, value in ecpa.er_prompting.state_dict().items()}
    reports = load_release(ecpa, tmp_path / "model.bin", "swinbert")
    assert [report.layout for report in reports] == ["swinbert_swin", "swinbert_fc", "swinbert_fusion"]
    assert_filled(ecpa.visual.encoder, state, lambda key: f"swin.backbone.{key}")
    assert_filled(ecpa.visual.fc, state, lambda key: f"fc.{key}")
    assert_filled(ecpa.trans_encoder, state, lambda key: f"trans_encoder.{key}")
    assert all(torch.equal(prompts[name], value) for name, value in ecpa.er_prompting.state_dict().items())
    with pytest.raises(KeyError, match="unknown release 'ecpa'; choose one of: llava, swinbert"):
        load_release(ecpa, tmp_path / "model.bin", "ecpa")


def test_llava_into_fame(tmp_path):
    fame = emo_models.create("fame", "toy", projector="mlp2x_gelu")
    c = fame.clip.config
    tower = public.clip_vision(c.image, c.patch, c.dim, c.layers, c.mlp)
    state = public.prefixed("model.vision_tower.vision_model.", tower)
    names = ("model.multi_modal_projector.linear_1", "model.multi_modal_projector.linear_2")
    state |= public.linear(names[0], c.dim, fame.width) | public.linear(names[1], fame.width, fame.width)
    state |= {"model.language_model.embed_tokens.weight": public.tensor(9, fame.width)}
    safetensors_torch.save_file(state, tmp_path / "model.safetensors")
    load_release(fame, tmp_path / "model.safetensors", "llava")
    assert_filled(fame.clip, tower, lambda key: key.removeprefix("vision_model."))
    torch.testing.assert_close(fame.mm_projector[2].weight, state[f"{names[1]}.weight"])
    assert not any(p.requires_grad for p in fame.clip.parameters())


def test_bert_ties_the_decoder_and_starts_the_image_embedding_new():
    fusion = emo_models.create("bert_fusion", "toy")
    c = fusion.config
    state = public.bert(c.hidden, c.layers, c.feed_forward, c.vocab_size, c.positions)
    old_names = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
        for k, v in state.items()
    }
    report = load_state(fusion, old_names, "bert")
    assert report.absent == ("bert.img_embedding.bias", "bert.img_embedding.weight")
    torch.testing.assert_close(fusion.cls.predictions.decoder.weight, fusion.bert.embeddings.word_embeddings.weight)
    torch.testing.assert_close(fusion.bert.embeddings.LayerNorm.weight, state["bert.embeddings.LayerNorm.weight"])
    assert "bert.pooler.dense.weight" in report.unused


def test_opengraphau_with_both_trunks(tmp_path):
    resnet = emo_models.create("anfl", "toy", side_parents="upstream")
    state = public.anfl(public.resnet((1, 1, 1, 1), 16), 512, 128, 27, 14)
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "resnet.pth")
    report = load_checkpoint(resnet, tmp_path / "resnet.pth", "opengraphau")
    assert_filled(resnet, state, lambda key: f"module.{key}")
    assert (report.absent, report.unused) == ((), ())

    swin = emo_models.create("anfl", "swin_tiny", width=16, depths=(2, 2), heads=(1, 2))
    state = public.anfl(public.swin(16, (2, 2), (1, 2), (7, 7)), 32, 16, 27, 14)
    report = load_state(swin, state, "opengraphau")
    assert_filled(swin, state, lambda key: f"module.{key}")
    assert all(name.endswith(("attn_mask", "relative_position_index")) for name in report.unused)


def test_models_of_one_data_set_have_other_names():
    network = emo_models.create("anfl", "toy", aus="disfa", neighbours=3)
    state = public.anfl(public.resnet((1, 1, 1, 1), 16), 512, 128, 8, 0)
    load_state(network, state, "opengraphau")
    old = {"main_class_linears": "class_linears", "main_sc": "sc"}

    def public_name(key: str) -> str:
        for new, name in old.items():
            key = key.replace(new, name)
        return f"module.{key}"

    assert_filled(network, state, public_name)


def test_real_sizes_of_the_public_files_fit():
    """Only names and shapes: nothing is allocated."""
    with torch.device("meta"):
        anfl = emo_models.create("anfl", "resnet50")
        state = public.anfl(public.resnet((3, 4, 6, 3), 64), 2048, 512, 27, 14)
        assert {f"module.{k}": v.shape for k, v in anfl.state_dict().items()} == {k: v.shape for k, v in state.items()}
        swin = emo_models.create("video_swin", "base")
        state = public.swin(128, (2, 2, 18, 2), (4, 8, 16, 32), (8, 7, 7))
        state = {k: v.shape for k, v in state.items() if not k.endswith("index")}
        assert {k: v.shape for k, v in swin.state_dict().items()} == state


def test_ddamfn_leaves_out_what_is_never_used(tmp_path):
    state = public.ddamfn(8)
    assert len(state) == 1190
    file = tmp_path / "affectnet8.pth"
    torch.save({"iter": 25, "model_state_dict": state}, file)
    network = emo_models.create("ddamfn", "affectnet8")
    report = load_checkpoint(network, file, "ddamfn")
    assert_filled(network, state)
    parameters = [n for n in report.unused if not n.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert (len(report.unused), len(parameters)) == (221, 110)
    with pytest.raises(CheckpointError, match=r"2 of another shape: fc.weight: network \[7, 512\], file \[8, 512\]"):
        load_state(emo_models.create("ddamfn", "affectnet7"), state, "ddamfn")


def test_resnet_with_and_without_its_classes():
    state = public.resnet((1, 1, 1, 1), 16, classes=1000)
    network = emo_models.create("er_resnet", "toy")
    fc = network.fc.weight.clone()
    report = load_state(network, state, "resnet_trunk")
    assert report.absent == report.unused == ("fc.bias", "fc.weight")
    assert torch.equal(network.fc.weight, fc)
    torch.testing.assert_close(network.layer4[0].conv3.weight, state["layer4.0.conv3.weight"])
    with pytest.raises(CheckpointError, match=r"2 of another shape: fc\.weight"):
        load_state(network, state, "resnet")


@pytest.mark.parametrize(
    ("prefix", "layout"),
    [
        ("vision_model.", "clip"),
        ("", "clip"),
        ("vision_tower.vision_model.", "llava_clip"),
        ("model.vision_tower.vision_model.", "llava_clip"),
        ("model.vision_tower.vision_tower.vision_model.", "llava_clip"),
    ],
)
def test_vision_tower_without_its_last_block(prefix, layout):
    pytest.importorskip("transformers", reason="the vision tower is transformers'")
    from emo_models.networks.clip_vision import ClipVision, ClipVisionConfig

    c = ClipVisionConfig.from_preset("toy")
    tower = public.clip_vision(c.image, c.patch, c.dim, c.layers, c.mlp)
    state = public.prefixed(prefix, tower)
    if prefix:
        state |= {"text_model.final_layer_norm.weight": public.tensor(8), "logit_scale": public.tensor()}
    network = ClipVision(c)
    report = load_state(network, state, layout)
    assert_filled(network, tower, lambda key: key.removeprefix("vision_model."))
    assert len(report.unused) == 16 + 2 + 1
    assert report.elsewhere == (2 if prefix else 0)
    deeper = public.clip_vision(c.image, c.patch, c.dim, c.layers + 1, c.mlp)
    with pytest.raises(CheckpointError, match="16 unknown"):
        load_state(network, public.prefixed(prefix, deeper), layout)


@pytest.mark.parametrize("prefix", ["model.mm_projector.", "mm_projector."])
def test_linear_projector(prefix):
    state = {
        f"{prefix}weight": public.tensor(12, 6),
        f"{prefix}bias": public.tensor(12),
        "model.embed_tokens.weight": public.tensor(5, 12),
    }
    projector = torch.nn.Linear(6, 12)
    report = load_state(projector, state, "video_chatgpt_projector")
    assert_filled(projector, state, lambda key: prefix + key)
    assert report.elsewhere == 1


@pytest.mark.parametrize(
    ("prefix", "first", "second"),
    [("multi_modal_projector.", "linear_1", "linear_2"), ("model.mm_projector.", "0", "2")],
)
def test_mlp_projector(prefix, first, second):
    state = public.linear(f"{prefix}{first}", 6, 12) | public.linear(f"{prefix}{second}", 12, 12)
    projector = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.GELU(), torch.nn.Linear(12, 12))
    load_state(projector, state, "llava_projector")
    assert_filled(projector, state, lambda key: prefix + key.replace("0.", f"{first}.").replace("2.", f"{second}."))
    with pytest.raises(CheckpointError, match="2 missing: bias; weight"):
        load_state(torch.nn.Linear(6, 12), {}, "video_chatgpt_projector")


def test_faults_are_listed_and_leave_the_network_alone():
    state = swin_state()
    del state["norm.weight"]
    state["surprise"] = public.tensor(1)
    state["norm.bias"] = public.tensor(5)
    network = small_swin()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        load_state(network, state, "video_swin")
    for part in (
        "memory does not fit",
        "1 missing: norm.weight",
        "1 unknown: surprise",
        "1 of another shape: norm.bias: network [32], file [5]",
    ):
        assert part in str(error.value)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    with pytest.raises(KeyError, match="unknown layout 'swin'; choose one of: bert, clip"):
        load_state(network, state, "swin")
    twice = {"trans_encoder.bert.a": public.tensor(1), "bert.a": public.tensor(1)}
    with pytest.raises(CheckpointError, match=r"two tensors of the file would become 'bert\.a'"):
        load_state(network, twice, "swinbert_fusion")
