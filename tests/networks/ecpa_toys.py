"""Toy ECPA networks and batches for its tests."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the networks need torch")
pytest.importorskip("transformers", reason="the towers of text and vision need transformers")
pytest.importorskip("scipy", reason="the Hungarian method is scipy's")

from toys import word_piece  # noqa: E402

import emo_models  # noqa: E402
from emo_models.networks.ecpa.captions import CaptionTokenizer  # noqa: E402
from emo_models.networks.ecpa.eca import NO_EMOTION  # noqa: E402

TEXTS = ["a man smiles with a deep frown .", "the woman raised her eyebrows .", "a man looks sad"]
TOWER = {"text_preset": "toy", "vocab_size": 256, "special_ids": (2, 3, 0, 256)}


def toy(**options):
    torch.manual_seed(0)
    return emo_models.create("ecpa", "toy", **options)


def batch(model, tmp_path):
    """Three clips; the last has no face, the second no label."""
    generator = torch.Generator().manual_seed(0)
    config = model.config
    clip = torch.randn(3, 3, config.frames, config.image_size, config.image_size, generator=generator)
    valid = torch.tensor([[True, True, False, True], [True] * 4, [False] * 4])[:, : config.frames]
    features = None
    if model.au_net is not None:
        faces = torch.randn(3, config.frames, 3, 64, 64, generator=generator)
        features = model.face_features(faces, valid)
    captions = CaptionTokenizer(word_piece(tmp_path), config)(TEXTS)
    return clip, features, captions, torch.tensor([3, NO_EMOTION, 5])


def trained_by(model, loss):
    """Names of the parameters that a loss reaches."""
    model.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    return {n for n, p in model.named_parameters() if p.grad is not None and float(p.grad.abs().sum()) > 0}


def under(names, *prefixes):
    return {name for name in names if name.startswith(prefixes)}
