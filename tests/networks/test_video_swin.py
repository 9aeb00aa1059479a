"""Video Swin against attention computed position by position, its counts, its plan, its export."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the networks need torch")

from naive_swin import naive_block, naive_video_swin  # noqa: E402

import emo_models  # noqa: E402
from emo_models.networks.swin import SwinStage  # noqa: E402
from emo_models.networks.video_swin import VideoSwin, VideoSwinConfig  # noqa: E402


def randomise(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Give every parameter a value large enough to show in the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * (0.3 if p.ndim > 1 else 0.5))
    return module.eval()


@pytest.mark.parametrize(
    ("preset", "millions", "dim"), [("base", 87.64, 1024), ("small", 49.51, 768), ("tiny", 27.85, 768)]
)
def test_parameter_counts_and_width(preset, millions, dim):
    with torch.device("meta"):
        network = emo_models.create("video_swin", preset)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == millions
    assert network.config.dim == dim == network.norm.weight.shape[0]
    for stage in network.layers:
        for block in stage.blocks:
            assert block.attn.relative_position_bias_table.shape[0] == 2535


@pytest.mark.parametrize(("frames", "tokens"), [(8, 196), (32, 784), (7, 196), (1, 49)])
def test_token_counts(frames, tokens):
    config = VideoSwinConfig.from_preset("base")
    t, h, w = config.grid(frames)
    assert t * h * w == tokens
    with torch.device("meta"):
        network = emo_models.create("video_swin", "base")
        assert network.plan(frames) == (t, h, w)
        assert network.tokens(torch.empty(2, 3, frames, 224, 224)).shape == (2, tokens, 1024)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(
    ("size", "window"),
    [
        ((4, 6, 6), (2, 3, 3)),  # several windows on every axis
        ((5, 7, 8), (2, 3, 3)),  # padded on every axis
        ((2, 6, 6), (4, 3, 3)),  # time truncated: no shift along it
        ((4, 3, 6), (2, 3, 3)),  # height exactly one window
        ((3, 2, 2), (2, 3, 3)),  # smaller than the window in space
        ((2, 2, 5), (8, 3, 3)),
    ],
)
def test_block_equals_naive_windows(size, window, shifted):
    stage = SwinStage(12, 3, window, [0.0, 0.0], merge=False, small_window_bias="upstream")
    block = randomise(stage.blocks[int(shifted)])
    x = torch.randn(2, *size, 12, generator=torch.Generator().manual_seed(1))
    expected = naive_block(block, x, window, shifted=shifted, upstream_bias=True)
    stage.blocks = torch.nn.ModuleList([torch.nn.Module(), block] if shifted else [block])
    if shifted:
        stage.blocks[0].forward = lambda x, *_: x
    torch.testing.assert_close(stage(x), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", ["upstream", "offset"])
@pytest.mark.parametrize(
    ("frames", "height", "width", "window"),
    [
        (4, 32, 32, (8, 7, 7)),  # smaller than the window everywhere
        (8, 40, 24, (2, 3, 3)),
        (10, 36, 28, (4, 4, 4)),  # odd maps: padded windows and padded merging
        (32, 56, 56, (8, 7, 7)),  # the real window, shifted in time and space
    ],
)
def test_network_equals_naive_network(frames, height, width, window, mode):
    config = VideoSwinConfig(8, (2, 2), (1, 2), window=window, drop_path=0.0, small_window_bias=mode)
    network = randomise(VideoSwin(config))
    clip = torch.randn(1, 3, frames, height, width, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(network(clip), naive_video_swin(network, clip), atol=1e-4, rtol=1e-4)


def test_bias_modes_differ_only_below_the_window_in_space():
    networks = [
        VideoSwin(VideoSwinConfig(8, (2, 2), (1, 2), small_window_bias=mode)) for mode in ("upstream", "offset")
    ]
    for network in networks:
        randomise(network)
    large, small = torch.randn(1, 3, 4, 56, 56), torch.randn(1, 3, 4, 24, 24)
    torch.testing.assert_close(networks[0](large), networks[1](large))
    assert (networks[0](small) - networks[1](small)).abs().max() > 1e-3


def test_clip_is_padded_to_whole_patches():
    network = randomise(emo_models.create("video_swin", "toy"))
    clip = torch.randn(1, 3, 7, 62, 61)
    padded = torch.zeros(1, 3, 8, 64, 64)
    padded[:, :, :7, :62, :61] = clip
    torch.testing.assert_close(network(clip), network(padded))


def test_tokens_are_in_the_order_time_height_width():
    network = randomise(emo_models.create("video_swin", "toy"))
    clip = torch.randn(2, 3, 8, 64, 96)
    feature_map, tokens = network(clip), network.tokens(clip)
    t, h, w = 3, 2, 5
    assert tokens.shape == (2, 4 * 4 * 6, 128)
    torch.testing.assert_close(tokens[1, (t * 4 + h) * 6 + w], feature_map[1, :, t, h, w])


def test_size_may_change_from_call_to_call():
    network = randomise(emo_models.create("video_swin", "toy"))
    small, large = torch.randn(1, 3, 4, 48, 48), torch.randn(1, 3, 16, 64, 64)
    first = network(small)
    network(large)
    torch.testing.assert_close(network(small), first)


def test_exported_graph_equals_network_and_needs_a_plan():
    network = randomise(emo_models.create("video_swin", "toy"))
    clip = torch.randn(1, 3, 8, 64, 64)
    with pytest.raises(RuntimeError, match=r"call plan\(\) before export"):
        torch.export.export(network, (clip,))
    network.plan(8, 64, 64)
    program = torch.export.export(network, (clip,))
    torch.testing.assert_close(program.module()(clip), network(clip))
    assert not any("adaptive" in str(node.target) for node in program.graph.nodes)


def test_stochastic_depth_grows_and_acts_in_training_only():
    network = emo_models.create("video_swin", "tiny", depths=(1, 1), heads=(1, 2), embed_dim=8, drop_path=0.5)
    rates = [block.drop_path.rate for stage in network.layers for block in stage.blocks]
    assert rates == [0.0, 0.5]
    drop = network.layers[1].blocks[0].drop_path
    x = torch.ones(2000, 1)
    assert torch.equal(drop.eval()(x), x)
    torch.manual_seed(0)
    dropped = drop.train()(x)
    assert set(dropped.flatten().tolist()) == {0.0, 2.0}
    assert abs(dropped.mean().item() - 1.0) < 0.1


def test_wrong_input_and_config_say_what_is_wanted():
    network = emo_models.create("video_swin", "toy")
    with pytest.raises(ValueError, match=r"expected a clip \[B, 3, T, h, w\], got \[1, 8, 3, 64, 64\]"):
        network(torch.zeros(1, 8, 3, 64, 64))
    with pytest.raises(ValueError, match="do not divide by 5 heads"):
        emo_models.create("video_swin", "toy", heads=(5, 4, 8))
    with pytest.raises(ValueError, match="3 depths but 2 heads"):
        emo_models.create("video_swin", "toy", heads=(2, 4))
    with pytest.raises(ValueError, match="choose one of: upstream, offset"):
        emo_models.create("video_swin", "toy", small_window_bias="none")
