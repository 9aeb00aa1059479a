"""Reading checkpoint files of every kind without running them, and our own weights with their card."""

from __future__ import annotations

import json
import pickle

import pytest

torch = pytest.importorskip("torch", reason="the networks need torch")
safetensors_torch = pytest.importorskip("safetensors.torch", reason="weights are safetensors files")

import public_files as public  # noqa: E402

import emo_models  # noqa: E402
from emo_models.checkpoints import (  # noqa: E402
    CheckpointError,
    NetworkCard,
    load_checkpoint,
    load_weights,
    read_card,
    read_checkpoint,
    save_weights,
    weights_hash,
)
from emo_models.labels import VOCABULARIES  # noqa: E402


def small_swin() -> torch.nn.Module:
    return emo_models.create("video_swin", "tiny", embed_dim=16, depths=(2, 1), heads=(2, 4))


def swin_state() -> public.State:
    return public.swin(16, (2, 1), (2, 4), (8, 7, 7))


def test_checkpoint_in_several_files(tmp_path):
    state = swin_state()
    keys = list(state)
    parts = {"model-1.safetensors": keys[:20], "model-2.safetensors": keys[20:]}
    for name, names in parts.items():
        safetensors_torch.save_file({key: state[key] for key in names}, tmp_path / name)
    weight_map = {key: name for name, names in parts.items() for key in names}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    network = small_swin()
    assert load_checkpoint(network, index, "video_swin").kind == "index"
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    index.write_text(json.dumps({"weight_map": weight_map | {"ghost": "model-1.safetensors"}}))
    with pytest.raises(CheckpointError, match="1 tensors that its parts lack, 'ghost' first"):
        read_checkpoint(index)
    index.write_text(json.dumps({"weight_map": {"a": "../outside.bin"}}))
    with pytest.raises(CheckpointError, match="outside its folder"):
        read_checkpoint(index)
    index.write_text("{}")
    with pytest.raises(CheckpointError, match="no 'weight_map'"):
        read_checkpoint(index)


class Evil:
    def __reduce__(self):
        return print, ("this code ran",)


def test_pickled_objects_are_refused_unrun(tmp_path, capsys):
    for new_format in (True, False):
        torch.save(
            {"state_dict": {}, "trainer": Evil()}, tmp_path / "evil.pth", _use_new_zipfile_serialization=new_format
        )
        with pytest.raises(CheckpointError, match="holds Python objects besides tensors"):
            read_checkpoint(tmp_path / "evil.pth")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "evil.pkl")
    assert "this code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["archive", "pickle", "safetensors"])
@pytest.mark.parametrize("kept", [0.3, 0.7, 0.99])
def test_file_that_was_cut_short_is_refused(tmp_path, kind, kept):
    file = tmp_path / "weights"
    if kind == "safetensors":
        safetensors_torch.save_file(swin_state(), file)
    else:
        torch.save(swin_state(), file, _use_new_zipfile_serialization=kind == "archive")
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])
    network = small_swin()
    with pytest.raises(CheckpointError, match=r"download it again|Download it again"):
        load_checkpoint(network, file, "video_swin")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html>Please log in", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"\x89PNG\r\n\x1a\n0000", "it starts with"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path, content, reason):
    file = tmp_path / "model.pth"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=reason):
        read_checkpoint(file)


def test_missing_file_and_wrong_content(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        read_checkpoint(tmp_path / "absent.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds a list; expected a dictionary of tensors"):
        read_checkpoint(tmp_path / "list.pth")
    torch.save({"model": {"a": public.tensor(1)}}, tmp_path / "wrapped.pth")
    with pytest.raises(
        CheckpointError, match=r"is not a dictionary of tensors: 'model'.* looked for under: state_dict"
    ):
        read_checkpoint(tmp_path / "wrapped.pth")


def card(of, **changes) -> NetworkCard:
    values = {
        "network": "er_resnet",
        "config": of.config.to_dict(),
        "labels": VOCABULARIES[of.config.vocabulary],
        "preprocessing": {"name": "imagenet_square", "size": 224},
        "licence": "research only",
        "data": ("procedural faces",),
    }
    return NetworkCard(**(values | changes))


def test_own_weights_come_back_with_their_card(tmp_path):
    network = emo_models.create("er_resnet", "toy", vocabulary="meld7").eval()
    written = save_weights(network, tmp_path / "er.safetensors", card(network))
    loaded, got = load_weights(tmp_path / "er.safetensors")
    assert got == written == read_card(tmp_path / "er.safetensors")
    assert len(got.sha256) == 64
    assert got.labels == ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
    assert loaded.config == network.config
    assert not loaded.training
    faces = torch.randn(1, 3, 64, 64)
    assert torch.equal(loaded(faces).logits, network(faces).logits)


def test_fame_around_a_language_model_of_ones_own_is_filled(tmp_path):
    transformers = pytest.importorskip("transformers", reason="the language model is of transformers")

    def fame() -> torch.nn.Module:
        config = emo_models.registry.config_class("fame").from_preset("toy")
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
        llm = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=100, **sizes))
        return emo_models.registry.network_class("fame")(config, llm=llm)

    saved, file = fame(), tmp_path / "fame.safetensors"
    save_weights(saved, file, card(saved, network="fame", config=saved.config.to_dict(), labels=()))
    with pytest.raises(CheckpointError, match=r"load_weights\(path, into=network\)"):
        load_weights(file)
    loaded, _ = load_weights(file, into=fame())
    assert all(torch.equal(a, b) for a, b in zip(saved.parameters(), loaded.parameters(), strict=True))


def test_changed_weights_and_wrong_cards_are_refused(tmp_path):
    network = emo_models.create("er_resnet", "toy")
    file = tmp_path / "er.safetensors"
    save_weights(network, file, card(network))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="not those its card was written for"):
        load_weights(file)
    with pytest.raises(ValueError, match="licence of the weights and the data"):
        save_weights(network, file, card(network, data=()))
    with pytest.raises(ValueError, match="the card is of 'ddamfn', the network is a ERResNet"):
        save_weights(network, file, card(network, network="ddamfn"))
    with pytest.raises(ValueError, match="config is not the network's"):
        save_weights(network, file, card(network, config={}))
    safetensors_torch.save_file({"a": public.tensor(1)}, file)
    with pytest.raises(CheckpointError, match="carries no card of ours"):
        load_weights(file)
    torch.save({"a": public.tensor(1)}, file)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        read_card(file)


def test_hash_depends_on_name_type_shape_and_value():
    a = torch.arange(6.0)
    hashes = {
        weights_hash(state) for state in ({"a": a}, {"b": a}, {"a": a.double()}, {"a": a.view(2, 3)}, {"a": a + 1})
    }
    assert len(hashes) == 5
    assert weights_hash({"a": a, "b": a}) == weights_hash({"b": a, "a": a})
