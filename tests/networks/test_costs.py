"""Operations of the networks at their public sizes, counted without computing."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the networks need torch")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

import emo_models  # noqa: E402


@pytest.mark.parametrize(
    ("name", "preset", "shape", "giga"),
    [
        ("video_swin", "base", (3, 8, 224, 224), 130.9),
        ("video_swin", "base", (3, 32, 224, 224), 562.7),
        ("video_swin", "tiny", (3, 8, 224, 224), 39.4),
        ("video_swin", "tiny", (3, 32, 224, 224), 175.5),
        ("anfl", "resnet50", (3, 224, 224), 9.0),
        ("anfl", "swin_tiny", (3, 224, 224), 9.4),
        ("ddamfn", "paper", (3, 112, 112), 1.1),
    ],
)
def test_operations(name, preset, shape, giga):
    """A multiplication and an addition count as two."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        emo_models.create(name, preset).eval()(torch.empty(1, *shape))
    assert round(counter.get_total_flops() / 1e9, 1) == giga
