"""SCRFD: sizes, anchors and maps by hand, and what leaves its engine is decoded outside."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the networks need torch")

import emo_models  # noqa: E402
from emo_models.detection import OUTPUTS, STRIDES, anchor_centres, decode  # noqa: E402
from emo_models.networks.scrfd import START_CHANCE, SCRFDOutput  # noqa: E402
from emo_models.preprocess import fit_into  # noqa: E402

SIZE = (96, 128)
ANCHORS = {stride: 2 * (SIZE[0] // stride) * (SIZE[1] // stride) for stride in STRIDES}

POINTS = [[50, 44], [62, 44], [56, 50], [51, 56], [61, 56]]


def empty_maps() -> dict[str, np.ndarray]:
    maps = {f"score_{s}": np.full((1, n), -9.0, np.float32) for s, n in ANCHORS.items()}
    maps |= {f"box_{s}": np.zeros((1, n, 4), np.float32) for s, n in ANCHORS.items()}
    return maps | {f"points_{s}": np.zeros((1, n, 10), np.float32) for s, n in ANCHORS.items()}


def put(maps, stride, cell, box_xywh, logit):
    """Write a face into the maps as the definition says, cell by cell."""
    row, column, anchor = cell
    index = (row * (SIZE[1] // stride) + column) * 2 + anchor
    x, y, width, height = box_xywh
    cx, cy = column * stride, row * stride
    maps[f"score_{stride}"][0, index] = logit
    maps[f"box_{stride}"][0, index] = np.array([cx - x, cy - y, x + width - cx, y + height - cy]) / stride
    maps[f"points_{stride}"][0, index] = ((np.array(POINTS) - [cx, cy]) / stride).reshape(-1)


@pytest.mark.parametrize(("preset", "parameters", "operations"), [("10g", 4_229_905, 10.0), ("500m", 631_413, 0.55)])
def test_presets_have_the_published_size(preset, parameters, operations):
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        network = emo_models.create("scrfd", preset).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 3, 480, 640))
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert counter.get_total_flops() / 2e9 == pytest.approx(operations, abs=0.01)


@pytest.mark.parametrize("preset", ["toy", "10g"])
def test_maps_have_the_shapes_of_the_contract(preset):
    with torch.device("meta"):
        output = emo_models.create("scrfd", preset).eval()(torch.empty(3, 3, *SIZE))
    assert output._fields == SCRFDOutput._fields == OUTPUTS
    for name, tensor in output._asdict().items():
        kind, stride = name.split("_")
        assert tensor.shape == (3, ANCHORS[int(stride)], *{"score": (), "box": (4,), "points": (10,)}[kind])


def test_anchor_order_is_that_of_the_maps():
    """A weight at one place of a map answers at the anchor of that place."""
    network = emo_models.create("scrfd", "toy").eval()
    head = network.heads[0]
    with torch.no_grad():
        features = torch.zeros(1, 16, SIZE[0] // 8, SIZE[1] // 8)
        quiet = head(features)[0]
        features[0, :, 5, 7] = 30.0
        changed = (head(features)[0] - quiet).abs()[0].numpy()
    centres = anchor_centres(*SIZE, 8)
    reach = np.abs(centres - [7 * 8, 5 * 8]).max(1)
    assert changed[reach == 0].min() > 0
    assert changed[reach > 2 * 8].max() == 0  # two 3×3 convolutions


def test_a_face_comes_out_where_it_was_put():
    maps = empty_maps()
    put(maps, 16, (3, 3, 1), (44, 36, 24, 30), 2.0)
    found = decode(maps, SIZE, scale=2.5)
    np.testing.assert_allclose(found.boxes, [[110, 90, 60, 75, 1 / (1 + np.exp(-2.0))]], rtol=1e-5)
    np.testing.assert_allclose(found.points[0], np.array(POINTS) * 2.5, rtol=1e-5)


def test_of_overlapping_faces_the_best_stays_across_strides():
    maps = empty_maps()
    put(maps, 16, (3, 3, 0), (44, 36, 24, 30), 1.0)
    put(maps, 8, (5, 7, 1), (45, 36, 24, 30), 3.0)
    put(maps, 8, (2, 2, 0), (5, 5, 20, 20), 0.5)
    put(maps, 8, (9, 2, 0), (5, 60, 20, 20), -0.5)  # below one half
    found = decode(maps, SIZE)
    np.testing.assert_allclose(found.boxes[:, :4], [[45, 36, 24, 30], [5, 5, 20, 20]], atol=1e-4)
    assert decode(maps, SIZE, overlap=0.99).boxes.shape == (3, 5)
    assert decode(maps, SIZE, least_score=0.3).boxes.shape == (3, 5)


def test_nothing_found_has_the_same_types():
    found = decode(empty_maps(), SIZE)
    assert found.boxes.shape == (0, 5)
    assert found.points.shape == (0, 5, 2)
    assert found.boxes.dtype == found.points.dtype == np.float32


def test_untrained_it_sees_hardly_a_face():
    torch.manual_seed(0)
    output = emo_models.create("scrfd", "toy").eval()(torch.randn(1, 3, *SIZE))
    assert output.score_8.sigmoid().mean().item() == pytest.approx(START_CHANCE, rel=0.3)


def test_image_is_fitted_into_the_corner_and_its_factor_leads_back():
    image = np.zeros((180, 320, 3), np.uint8)
    image[90:100, 200:210] = (255, 128, 0)
    tensor, factor = fit_into(image, SIZE)
    assert tensor.shape == (3, *SIZE)
    assert factor == 2.5
    assert (tensor[:, 72:] == np.float32(-127.5 / 128)).all()  # below the picture
    y, x = np.argwhere(tensor[0] > 0.9).mean(0)
    assert (y * factor, x * factor) == pytest.approx((94.5, 204.5), abs=2.5)
    np.testing.assert_allclose(tensor[:, 38, 81], (np.array([255, 128, 0]) - 127.5) / 128, atol=1e-6)
    again, same = fit_into(image[:96, :128].copy(), SIZE)
    assert same == 1.0
    np.testing.assert_array_equal(again, (image[:96, :128].transpose(2, 0, 1) - np.float32(127.5)) / 128)


def test_exported_graph_equals_network():
    torch.manual_seed(0)
    network = emo_models.create("scrfd", "toy").eval()
    images = torch.randn(2, 3, *SIZE)
    exported = torch.export.export(network, (images,)).module()(images)
    for got, expected in zip(exported, network(images), strict=True):
        torch.testing.assert_close(got, expected)


def test_every_parameter_is_used():
    network = emo_models.create("scrfd", "toy").train()
    sum(map(torch.sum, network(torch.randn(2, 3, *SIZE)))).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_wrong_input_and_options():
    with pytest.raises(ValueError, match=r"multiples of 32, got \[1, 3, 100, 128\]; fit_into"):
        emo_models.create("scrfd", "toy")(torch.zeros(1, 3, 100, 128))
    with pytest.raises(ValueError, match=r"SCRFDConfig.planes has 2 numbers; there are 4 stages"):
        emo_models.create("scrfd", "toy", planes=(8, 16))
    maps = empty_maps()
    with pytest.raises(ValueError, match=r"score_8: expected \[N, 512\] for an input of 128x128 .* got \[1, 384\]"):
        decode(maps, (128, 128))
    del maps["box_16"]
    with pytest.raises(ValueError, match=r"expected the maps score_8, .*; got score_8"):
        decode(maps, SIZE)
