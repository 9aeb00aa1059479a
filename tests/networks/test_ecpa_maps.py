"""Attention, prompt and alignment maps of ECPA show what the network computes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ecpa_toys import batch, toy
from toys import word_piece

from emo_models.networks.bert_fusion import BertSelfAttention
from emo_models.networks.ecpa.captions import CaptionTokenizer
from emo_models.networks.ecpa.decode import Generated
from emo_models.networks.ecpa.vep import FaceFeatures
from training.evaluation import report
from training.evaluation.document import Picture
from training.evaluation.maps import _recorded, ecpa_maps
from training.evaluation.predictions import Prediction
from training.evaluation.runs import _maps
from training.metrics.base import MetricError

TEXT = "a man smiles with a deep frown ."


def first(features):
    return FaceFeatures(features.er[:1], features.au_nodes[:1], features.au_scores[:1], features.valid[:1])


@pytest.fixture
def parts(tmp_path):
    model = toy().eval()
    clip, features, _, _ = batch(model, tmp_path)
    return model, clip[:1], first(features), CaptionTokenizer(word_piece(tmp_path), model.config)


def test_maps_have_the_shapes_they_say(parts):
    model, clip, features, tokenizer = parts
    maps = ecpa_maps(model, clip, features, tokenizer, text=TEXT, clip_id="x")
    units = model.config.top_k
    assert maps.words == ("a", "man", "smiles", "with", "a", "deep", "frown")
    assert maps.attention.shape == (7, maps.steps + 2 + units) == (7, len(maps.columns))
    assert maps.similarity.shape == (len(maps.aus), len(maps.content))
    assert {grid.shape for grid in maps.spatial.values()} == {(maps.steps, 4, 4)}
    assert sum(maps.emotion.values()) == pytest.approx(1)
    # Text attends to itself as well, the later the more: the rest is below 1 and falls.
    totals = maps.attention.sum(1)
    assert (totals < 1).all()
    assert totals[0] == max(totals)


def test_recorded_weights_are_those_that_mix_the_values(parts):
    model = parts[0]
    layer = next(model.trans_encoder.bert.encoder.layers()).attention.self
    q, k, v = (torch.randn(2, layer.heads, n, 8) for n in (3, 5, 5))
    bias = torch.zeros(2, 1, 3, 5)
    bias[..., 4] = -1e4
    with _recorded(model.trans_encoder) as seen:
        mixed = layer.attend(q, k, v, bias)
    assert torch.allclose(mixed, (seen[0] @ v).transpose(1, 2).flatten(2), atol=1e-5)
    assert layer.attend.__func__ is BertSelfAttention.attend  # nothing is left behind


@torch.no_grad()
def test_alignment_is_the_evidence_of_the_words(parts):
    model, clip, features, tokenizer = parts
    ids = tokenizer([TEXT])
    written = Generated(tuple(ids.ids[0, : int(ids.length[0])].tolist()), 0.0, stopped=True)
    result = model._result(0, written, model.context(clip, features), features, tokenizer)
    maps = ecpa_maps(model, clip, features, tokenizer, text=result.text)
    assert [e.word for e in result.evidence] == list(maps.content)
    assert [e.similarity for e in result.evidence] == pytest.approx(maps.similarity.max(0).tolist(), abs=1e-5)
    assert [e.au for e in result.evidence] == [maps.aus[k] for k in maps.similarity.argmax(0)]


def test_maps_without_face_or_prompts(parts, tmp_path):
    _, clip, features, tokenizer = parts
    plain = toy(er_prompt=False, class_prompt=False, au_prompt=False).eval()
    maps = ecpa_maps(plain, clip, None, tokenizer, text=TEXT)
    assert maps.columns == ("frames 1-2", "frames 3-4")
    assert maps.similarity.size == 0
    assert list(maps.spatial) == ["video features"]
    names = [b.name for b in report.blocks([report.Set("plain", maps=[maps])], title="t") if isinstance(b, Picture)]
    assert names == ["attention-plain-0", "prompts-plain-0"]  # there is nothing aligned
    features.valid[:] = False
    assert ecpa_maps(parts[0], clip, features, tokenizer, text=TEXT).aus == ()


def test_maps_of_a_run_are_drawn_over_its_images(parts):
    pytest.importorskip("matplotlib")
    model, _, features, tokenizer = parts
    size = model.config.image_size
    arrays = {
        "clip": np.random.default_rng(0).integers(0, 255, (model.config.frames, size + 4, size + 4, 3), np.uint8),
        "er": features.er[0].numpy(), "au_nodes": features.au_nodes[0].numpy(),
        "au_scores": features.au_scores[0].numpy(), "valid": features.valid[0].numpy(),
    }  # fmt: skip
    task = SimpleNamespace(network=model, captions=tokenizer, features={"x": arrays, "y": arrays})
    said = {"x": Prediction("x", TEXT), "y": Prediction("y", "")}  # nothing can be shown of an empty caption
    (maps,) = _maps(task, said, 2)
    assert maps.frames.shape == (model.config.frames, size, size, 3)
    page = report.blocks([report.Set("ours", metrics={"CIDEr": 1.0}, maps=[maps])], title="t")
    pictures = [block for block in page if isinstance(block, Picture)]
    assert [picture.name for picture in pictures] == ["attention-ours-0", "prompts-ours-0", "alignment-ours-0"]
    assert len({picture.png for picture in pictures}) == 3


def test_maps_need_a_network_at_rest_and_words(parts):
    model, clip, features, tokenizer = parts
    with pytest.raises(MetricError, match="no word that the network knows"):
        ecpa_maps(model, clip, features, tokenizer, text="...")
    with pytest.raises(MetricError, match="evaluation mode"):
        ecpa_maps(model.train(), clip, features, tokenizer, text=TEXT)
