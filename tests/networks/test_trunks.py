"""The residual and image-Swin trunks against the same networks of transformers, value by value."""

from __future__ import annotations

import re

import pytest

torch = pytest.importorskip("torch", reason="the networks need torch")
transformers = pytest.importorskip("transformers", reason="compared with transformers' own networks")

from test_video_swin import randomise  # noqa: E402

import emo_models  # noqa: E402
from emo_models.networks.resnet import ResNetTrunk  # noqa: E402
from emo_models.networks.swin import ImageSwin  # noqa: E402


def resnet_key(key: str) -> str:
    """Name in transformers → torchvision's name."""
    key = re.sub(r"^embedder\.embedder\.", "0.", key)
    key = re.sub(r"^0\.convolution", "conv1", key)
    key = re.sub(r"^0\.normalization", "bn1", key)
    match = re.match(r"encoder\.stages\.(\d)\.layers\.(\d+)\.(.*)", key)
    if match is None:
        return key
    stage, block, rest = match.groups()
    rest = rest.replace("shortcut.convolution", "downsample.0").replace("shortcut.normalization", "downsample.1")
    rest = re.sub(r"^layer\.(\d)\.(convolution|normalization)", lambda m: f"{_NORM[m[2]]}{int(m[1]) + 1}", rest)
    return f"layer{int(stage) + 1}.{block}.{rest}"


_NORM = {"convolution": "conv", "normalization": "bn"}


def test_resnet_equals_transformers():
    config = transformers.ResNetConfig(embedding_size=16, hidden_sizes=[64, 128, 256, 512], depths=[2, 1, 2, 1])
    reference = transformers.ResNetModel(config)
    trunk = ResNetTrunk((2, 1, 2, 1), 16)
    trunk.load_state_dict({resnet_key(key): value for key, value in reference.state_dict().items()})
    for module in (reference, trunk):
        module.train()
    images = torch.randn(4, 3, 70, 96)
    # Batch statistics, then, with what they left behind, running statistics.
    for mode in (True, False):
        expected = reference.train(mode)(images).last_hidden_state
        torch.testing.assert_close(trunk.train(mode).feature_map(images), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(trunk(images), expected.flatten(2).transpose(1, 2), atol=1e-4, rtol=1e-4)


def test_er_resnet_is_trunk_mean_and_classifier():
    network = emo_models.create("er_resnet", "toy").eval()
    faces = torch.randn(2, 3, 64, 64)
    output = network(faces)
    features = network.feature_map(faces).mean((2, 3))
    torch.testing.assert_close(output.features, features)
    torch.testing.assert_close(output.logits, features @ network.fc.weight.T + network.fc.bias)
    assert output.logits.shape == (2, 11)


def test_er_resnet_has_torchvisions_keys_and_counts():
    with torch.device("meta"):
        network = emo_models.create("er_resnet", "resnet50")
    keys = list(network.state_dict())
    assert len(keys) == 320
    assert {"conv1.weight", "bn1.running_mean", "layer1.0.downsample.0.weight", "layer4.2.bn3.bias", "fc.bias"} <= set(
        keys
    )
    # 25,557,032 with the 1,000 classes of ImageNet.
    assert sum(p.numel() for p in network.parameters()) == 25_557_032 - 989 * 2049
    assert emo_models.create("er_resnet", "toy", vocabulary="meld7").fc.out_features == 7
    with pytest.raises(ValueError, match=r"vocabulary is 'mafw'; choose one of: .*mafw11"):
        emo_models.create("er_resnet", "toy", vocabulary="mafw")


def swin_state(reference: torch.nn.Module) -> dict[str, torch.Tensor]:
    """State of transformers' Swin under the names of the authors' Swin."""
    renames = (
        (r"^embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
        (r"^embeddings\.norm", "patch_embed.norm"),
        (r"^encoder\.", ""),
        (r"^layernorm\.", "norm."),
        (r"layernorm_before", "norm1"),
        (r"layernorm_after", "norm2"),
        # transformers 5, then 4
        (r"attention\.(relative_position_bias\.|self\.)?", "attn."),
        (r"attn\.(o_proj|output\.dense)", "attn.proj"),
        (r"attn\.([qkv])_proj", r"attn.\1"),
        (r"attn\.([qkv])(uery|ey|alue)", r"attn.\1"),
        (r"intermediate\.dense", "mlp.fc1"),
        (r"output\.dense", "mlp.fc2"),
    )
    state, parts = {}, {}
    for key, value in reference.state_dict().items():
        for pattern, replacement in renames:
            key = re.sub(pattern, replacement, key)  # noqa: PLW2901
        if match := re.match(r"(.*\.attn\.)([qkv])(\..*)", key):
            parts.setdefault((match[1], match[3]), {})[match[2]] = value
        elif "relative_position_index" not in key:
            state[key] = value
    for (prefix, suffix), qkv in parts.items():
        state[f"{prefix}qkv{suffix}"] = torch.cat([qkv[name] for name in "qkv"])
    return state


def test_image_swin_equals_transformers():
    config = transformers.SwinConfig(
        image_size=112, embed_dim=12, depths=[2, 2], num_heads=[2, 3], window_size=7, drop_path_rate=0.0
    )
    reference = randomise(transformers.SwinModel(config, add_pooling_layer=False))
    network = ImageSwin(12, (2, 2), (2, 3), drop_path=0.0).eval()
    network.load_state_dict(swin_state(reference))
    images = torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        torch.testing.assert_close(network(images), reference(images).last_hidden_state, atol=1e-4, rtol=1e-4)


def test_clip_vision_is_the_last_hidden_state_but_one():
    from emo_models.networks.clip_vision import ClipVision, ClipVisionConfig

    config = transformers.CLIPVisionConfig(
        image_size=56, patch_size=14, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=128
    )
    reference = randomise(transformers.CLIPVisionModel(config))
    network = ClipVision(ClipVisionConfig.from_preset("toy")).eval()
    state = {
        f"vision_model.{key.removeprefix('vision_model.')}": value for key, value in reference.state_dict().items()
    }
    network.load_state_dict({key: value for key, value in state.items() if key in network.state_dict()})
    frames = torch.randn(3, 3, 56, 56)
    with torch.no_grad():
        expected = reference(pixel_values=frames, output_hidden_states=True).hidden_states[-2][:, 1:]
        torch.testing.assert_close(network(frames), expected)
    assert network.config.patches == 16
    assert ClipVisionConfig().patches + 100 == 676
    assert ClipVisionConfig.from_preset("video_chatgpt").patches + 100 == 356
