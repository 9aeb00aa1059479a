"""DDAMFN: sizes, attention by hand, blocks by definition."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the networks need torch")

from test_video_swin import randomise  # noqa: E402

import emo_models  # noqa: E402
from emo_models.networks.ddamfn import CoordinateAttention, DirectionAttention, MixedBlock, MixedDepthwiseConv  # noqa: E402


def test_sizes():
    with torch.device("meta"):
        network = emo_models.create("ddamfn").eval()
        faces = torch.empty(2, 3, 112, 112)
        output, feature_map = network(faces), network.features(faces)
    assert feature_map.shape == (2, 512, 7, 7)
    assert network.attention(feature_map).shape == (2, 2, 512, 7, 7)
    assert output.logits.shape == (2, 8)
    assert output.features.shape == (2, 512)
    used = sum(p.numel() for p in network.parameters())
    # What the published files carry besides: a norm and a PReLU after each mixed convolution, a convolution in each
    # head and a norm after the classifier, 110 parameters and 221 tensors in all.
    mixed = [m for m in network.modules() if isinstance(m, MixedDepthwiseConv)]
    never_used = 3 * sum(sum(m.splits) for m in mixed) + 2 * (512 * 49 + 2 * 512) + 2 * 8
    assert (used, round((used + never_used) / 1e6, 2)) == (4_106_512, 4.19)
    assert 3 * len(mixed) + 2 * 3 + 2 == 110
    assert len(network.state_dict()) + 6 * len(mixed) + 2 * 6 + 5 == 1190


@pytest.mark.parametrize(("preset", "classes"), [("affectnet8", 8), ("affectnet7", 7), ("rafdb", 7)])
def test_classes_of_the_presets(preset, classes):
    with torch.device("meta"):
        assert emo_models.create("ddamfn", preset).fc.out_features == classes


def test_coordinate_attention_by_hand():
    attention = randomise(CoordinateAttention(8))
    x = torch.randn(1, 8, 3, 5)
    bn = attention.bn1

    def gate(descriptor_C, last):
        y = attention.conv1.weight[..., 0, 0] @ descriptor_C + attention.conv1.bias
        y = y / (1 + bn.eps) ** 0.5 * bn.weight + bn.bias
        y = y * (y + 3).clamp(0, 6) / 6
        return torch.sigmoid(last.weight[..., 0, 0] @ y + last.bias)

    expected = torch.empty_like(x)
    for row in range(3):
        for column in range(5):
            a_h = gate(x[0, :, row].mean(1), attention.conv2)
            a_w = gate(x[0, :, :, column].mean(1), attention.conv3)
            expected[0, :, row, column] = x[0, :, row, column] * a_h * a_w
    torch.testing.assert_close(attention(x), expected)


def test_direction_attention_of_a_head_by_hand():
    head = randomise(DirectionAttention(8))
    x = torch.randn(1, 8, 7, 7)
    rows = torch.stack([(x[0, :, r] * head.Linear_h.conv.weight[:, 0, 0]).sum(1) for r in range(7)], 1)
    columns = torch.stack([(x[0, :, :, c] * head.Linear_w.conv.weight[:, 0, :, 0]).sum(1) for c in range(7)], 1)
    scale = 1 / (1 + 1e-5) ** 0.5
    rows = rows * scale * head.Linear_h.bn.weight[:, None] + head.Linear_h.bn.bias[:, None]
    columns = columns * scale * head.Linear_w.bn.weight[:, None] + head.Linear_w.bn.bias[:, None]
    a_h, a_w = head.gates(rows[None, :, :, None], columns[None, :, None, :])
    torch.testing.assert_close(head(x), a_h * a_w)
    assert a_h.shape == (1, 8, 7, 1)
    assert a_w.shape == (1, 8, 1, 7)


def test_mixed_convolution_gives_each_group_its_kernel():
    mixed = randomise(MixedDepthwiseConv((4, 2, 2), 2))
    assert [conv.kernel_size for conv in mixed.mixed_depthwise_conv] == [(3, 3), (5, 5), (7, 7)]
    x = torch.zeros(1, 8, 9, 9)
    x[0, 5, 4, 4] = 1.0  # the second channel of the 5×5 group
    y = mixed(x)
    assert y.shape == (1, 8, 5, 5)
    assert y[0, [c for c in range(8) if c != 5]].abs().max() == 0
    kernel = mixed.mixed_depthwise_conv[1].weight[1, 0]
    assert y[0, 5, 2, 2] == kernel[2, 2]
    assert y[0, 5, 1, 3] == kernel[4, 0]


def test_blocks_are_residual_where_the_shape_stays():
    assert MixedBlock(8, 8, (8, 8), 1).residual
    assert not MixedBlock(8, 8, (8, 8), 2).residual
    assert not MixedBlock(8, 16, (8, 8), 1).residual
    block = randomise(MixedBlock(8, 8, (8, 8), 1))
    for p in block.project.parameters():
        torch.nn.init.zeros_(p)
    x = torch.randn(1, 8, 6, 6)
    torch.testing.assert_close(block(x), x)


def test_network_is_map_times_strongest_head():
    network = randomise(emo_models.create("ddamfn", "toy", heads=3))
    faces = torch.randn(2, 3, 112, 112)
    x = network.features(faces)
    heads = [network.get_submodule(f"cat_head{i}.CoordAtt")(x) for i in range(3)]
    strongest = torch.maximum(torch.maximum(heads[0], heads[1]), heads[2])
    y = (x * strongest * network.Linear.conv.weight[:, 0]).sum((2, 3)) / (1 + 1e-5) ** 0.5
    y = y * network.Linear.bn.weight + network.Linear.bn.bias
    output = network(faces)
    torch.testing.assert_close(output.features, y, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.logits, y @ network.fc.weight.T + network.fc.bias, rtol=1e-4, atol=1e-4)


def test_every_parameter_is_used():
    network = emo_models.create("ddamfn", "toy").train()
    network(torch.randn(3, 3, 112, 112)).logits.square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_exported_graph_equals_network():
    network = emo_models.create("ddamfn", "toy").eval()
    faces = torch.randn(2, 3, 112, 112)
    exported = torch.export.export(network, (faces,)).module()(faces)
    torch.testing.assert_close(exported[0], network(faces).logits)


def test_wrong_input_and_options():
    with pytest.raises(ValueError, match=r"expected faces \[N, 3, 112, 112\], got \[1, 3, 224, 224\]"):
        emo_models.create("ddamfn", "toy")(torch.zeros(1, 3, 224, 224))
    with pytest.raises(ValueError, match="width is 12; it must be a multiple of 8"):
        emo_models.create("ddamfn", "toy", width=12)
    with pytest.raises(ValueError, match="heads is 0; it must be at least 1"):
        emo_models.create("ddamfn", "toy", heads=0)
