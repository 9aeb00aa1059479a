"""ANFL against its definition, node by node; the wiring of the sides; its graph with ties."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="the networks need torch")

from test_video_swin import randomise  # noqa: E402

import emo_models  # noqa: E402
from emo_models.networks.anfl import AUGraph  # noqa: E402


def fresh(preset: str = "toy", **options) -> torch.nn.Module:
    """A network whose batch norms have statistics of their own."""
    network = emo_models.create("anfl", preset, **options)
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    return network.eval()


@pytest.mark.parametrize(
    ("preset", "millions", "width", "nodes", "scores"),
    [
        ("resnet50", 32.22, 512, 27, 41),
        ("swin_tiny", 32.14, 384, 27, 41),
        ("bp4d", 28.25, 512, 12, 12),
        ("disfa", 27.20, 512, 8, 8),
    ],
)
def test_sizes(preset, millions, width, nodes, scores):
    with torch.device("meta"):
        network = emo_models.create("anfl", preset).eval()
        output = network(torch.empty(2, 3, 224, 224))
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == millions
    assert output.nodes.shape == (2, nodes, width)
    assert output.pooled.shape == (2, width)
    assert output.scores.shape == (2, scores)
    assert len(network.config.outputs) == scores
    assert len(network.config.selectable) == nodes
    assert network.config.dim == width


def naive_adjacency(x_KC: torch.Tensor, neighbours: int) -> torch.Tensor:
    k = x_KC.shape[0]
    a = torch.zeros(k, k, dtype=x_KC.dtype)
    for i in range(k):
        similarity = [float(sum(x_KC[i] * x_KC[j])) for j in range(k)]
        border = sorted(similarity, reverse=True)[neighbours - 1]
        for j in range(k):
            a[i, j] = float(similarity[j] >= border)
    degrees = a.sum(1)
    out = torch.zeros_like(a)
    for i in range(k):
        for j in range(k):
            out[i, j] = a[i, j] / math.sqrt(degrees[i] * degrees[j])
    return out


@pytest.mark.parametrize("neighbours", [1, 3, 4])
def test_graph_equals_naive_graph(neighbours):
    graph = AUGraph(6, 9, neighbours).double().eval()
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    for sample, adjacency in zip(x, graph.adjacency(x), strict=True):
        torch.testing.assert_close(adjacency, naive_adjacency(sample, neighbours))
    mixed = torch.stack([naive_adjacency(sample, neighbours) for sample in x]) @ graph.V(x)
    bn = graph.bnv
    normal = (mixed + graph.U(x) - bn.running_mean[:, None]) / torch.sqrt(bn.running_var[:, None] + bn.eps)
    torch.testing.assert_close(graph(x), (x + normal * bn.weight[:, None] + bn.bias[:, None]).clamp(min=0))


def test_ties_at_the_border_are_all_neighbours():
    graph = AUGraph(1, 6, 4)
    # Row 0 of the similarities is 5·(5, 2, 2, 2, 2, 1): the fourth largest is shared by four nodes.
    x = torch.tensor([[[5.0], [2.0], [2.0], [2.0], [2.0], [1.0]]])
    a = graph.adjacency(x)[0] > 0
    assert a[0].tolist() == [True, True, True, True, True, False]
    torch.testing.assert_close(graph.adjacency(x)[0], naive_adjacency(x[0], 4))
    # All nodes zero after a ReLU: every pair ties, and nothing is divided by zero.
    torch.testing.assert_close(graph.adjacency(torch.zeros(1, 6, 1)), torch.full((1, 6, 6), 1 / 6))


def test_graph_passes_no_gradient_through_the_adjacency():
    graph = AUGraph(4, 5, 2).eval()
    x = torch.randn(1, 5, 4, requires_grad=True)
    assert not graph.adjacency(x).requires_grad
    graph(x).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("side_parents", ["upstream", "facs"])
def test_network_equals_its_definition(side_parents):
    network = fresh(side_parents=side_parents)
    randomise(network.head)
    faces = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        output = network(faces)
        x = network.global_linear(network.backbone(faces))
        nodes = []
        for linear in network.head.main_class_linears:
            y = (x @ linear.fc.weight.T + linear.fc.bias - linear.bn.running_mean) / torch.sqrt(
                linear.bn.running_var + 1e-5
            )
            nodes.append((y * linear.bn.weight + linear.bn.bias).clamp(min=0).mean(1))
        nodes = network.head.gnn(torch.stack(nodes, 1))
    torch.testing.assert_close(output.nodes, nodes, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(output.pooled, x.mean(1))
    centres = torch.cat([network.head.main_sc, network.head.sub_sc]).clamp(min=0)
    parents = {"upstream": [0, 1, 2, 4, 7, 8, 11], "facs": [0, 1, 2, 4, 7, 9, 11]}[side_parents]
    sources = [*range(27), *(parent for parent in parents for _ in "LR")]
    for b in range(2):
        for i, source in enumerate(sources):
            expected = torch.nn.functional.cosine_similarity(nodes[b, source], centres[i], dim=0)
            assert abs(output.scores[b, i] - expected) < 1e-5
    assert output.scores.min() >= 0
    assert output.scores.max() <= 1 + 1e-6


def test_public_wiring_of_au12_is_marked_and_kept_out():
    config = emo_models.create("anfl", "toy", side_parents="upstream").config
    assert [o.name for o in config.outputs if not o.reliable] == ["AU11", "L12", "R12"]
    assert [o.number for o, ok in zip(config.outputs, config.selectable, strict=False) if not ok] == [11]
    sides = {o.name: config.outputs[o.node].number for o in config.outputs if o.side}
    assert sides == {f"{s}{n}": (11 if n == 12 else n) for n in (1, 2, 4, 6, 10, 12, 14) for s in "LR"}
    correct = emo_models.create("anfl", "toy").config
    assert all(o.reliable for o in correct.outputs)
    assert all(correct.selectable)
    assert {o.name: correct.outputs[o.node].number for o in correct.outputs if o.side}["L12"] == 12
    assert all(emo_models.registry.config_class("anfl").from_preset("bp4d").selectable)


def test_frozen_network_keeps_parameters_and_statistics():
    network = emo_models.create("anfl", "toy").freeze()
    parent = torch.nn.ModuleDict({"anfl": network, "mlp": torch.nn.Linear(128, 4)}).train()
    assert parent["mlp"].training
    assert not any(module.training for module in network.modules())
    before = {key: value.clone() for key, value in network.state_dict().items()}
    parent["mlp"](network(torch.randn(3, 3, 64, 64)).pooled).sum().backward()
    assert all(p.grad is None for p in network.parameters())
    assert all(p.grad is not None for p in parent["mlp"].parameters())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_unfrozen_network_trains_every_parameter():
    network = emo_models.create("anfl", "toy").train()
    before = network.backbone.bn1.running_mean.clone()
    output = network(torch.randn(4, 3, 64, 64))
    (output.scores.square().sum() + output.nodes.sum()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    assert not torch.equal(before, network.backbone.bn1.running_mean)


@pytest.mark.parametrize("options", [{}, {"trunk": "swin", "width": 12, "depths": (2, 2), "heads": (1, 2)}])
def test_exported_graph_equals_network(options):
    network = fresh(**options)
    faces = torch.randn(2, 3, 64, 64)
    network.plan(64, 64)
    exported = torch.export.export(network, (faces,)).module()
    for got, expected in zip(exported(faces), network(faces), strict=True):
        torch.testing.assert_close(got, expected)


def test_wrong_options_name_the_choices():
    with pytest.raises(ValueError, match="aus is 'hybrid'; choose one of: opengraphau, bp4d, disfa"):
        emo_models.create("anfl", "toy", aus="hybrid")
    with pytest.raises(ValueError, match="neighbours is 9; choose 1 to 8"):
        emo_models.create("anfl", "disfa", neighbours=9)
