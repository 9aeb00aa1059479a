"""The four engines of ECPA together write what the network itself writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="engines are built with torch")
pytest.importorskip("onnxscript", reason="torch writes ONNX with onnxscript: make engines")

from emo_models import create  # noqa: E402
from emo_models.checkpoints import NetworkCard, save_weights  # noqa: E402
from emo_models.engines.build import Options, build  # noqa: E402
from emo_models.engines.captions import PARTS, write  # noqa: E402
from emo_models.engines.select import select  # noqa: E402
from emo_models.engines.source import network  # noqa: E402
from emo_models.networks.ecpa.decode import beam_search, greedy  # noqa: E402
from emo_models.networks.ecpa.vep import FaceFeatures  # noqa: E402


def test_a_caption_through_the_engines_is_that_of_the_network(store: Path, tmp_path: Path) -> None:
    torch.manual_seed(4)
    ecpa = create("ecpa", "toy").eval()
    for parameter in ecpa.trans_encoder.parameters():
        if parameter.ndim > 1:  # so that the next word depends on those before
            torch.nn.init.normal_(parameter, std=0.3)
    card = NetworkCard("ecpa", ecpa.config.to_dict(), ecpa.config.classes, {}, "none", ("nothing",))
    save_weights(ecpa, tmp_path / "ecpa.safetensors", card)
    for name in PARTS:
        source = network(name, "toy", tmp_path / "work", [tmp_path])
        backend = "onnxruntime" if name.startswith("fusion") else "eager"
        built = build(source, Options(backend, threads=1, timing_s=0.01), lambda _: None)
        assert built.manifest.weights.origin == "ecpa.safetensors"
    engines = {name: select(name, "toy", threads=1).engine for name in PARTS}

    generator = np.random.default_rng(0)
    frames, width = ecpa.config.frames, ecpa.au_net.config.dim
    clip = generator.standard_normal((1, 3, frames, 64, 64)).astype(np.float32)
    features = {
        "er": generator.standard_normal((1, frames, width)).astype(np.float32),
        "au_nodes": np.abs(generator.standard_normal((1, frames, 27, width))).astype(np.float32),
        "au_scores": generator.random((1, frames, 27)).astype(np.float32),
        "valid": np.array([[True, True, False, True]]),
    }
    limits = ecpa.limits()
    with torch.no_grad():
        faces = FaceFeatures(*(torch.from_numpy(features[name]) for name in ("er", "au_nodes", "au_scores", "valid")))
        context = ecpa.context(torch.from_numpy(clip), faces)
        expected = greedy(ecpa.stepper(context), 1, limits)[0]
        by_beams = beam_search(ecpa.stepper(context), 1, limits, beams=3)[0]

    visual = engines["video_swin"]({"clip": clip})["visual"].copy()
    found, emotion = write(engines, visual, features, limits)
    assert found.ids == expected.ids
    assert len(set(found.ids)) > 3
    assert found.log_prob == pytest.approx(expected.log_prob, abs=1e-3)
    np.testing.assert_allclose(emotion, context.cls.p_vis[0].numpy(), atol=1e-5)
    beamed, _ = write(engines, visual, features, limits, beams=3)
    assert beamed.ids == by_beams.ids
