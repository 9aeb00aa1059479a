"""Every network of the toy profile on every backend of the CPU: built, compared, read back, loaded, fed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="engines are built with torch")
pytest.importorskip("onnxscript", reason="torch writes ONNX with onnxscript: make engines")

from emo_models import create  # noqa: E402
from emo_models.checkpoints import NetworkCard, save_weights  # noqa: E402
from emo_models.engines import EngineError, catalogue, describe  # noqa: E402
from emo_models.engines.build import Options, build  # noqa: E402
from emo_models.engines.export import ExportedNetwork  # noqa: E402
from emo_models.engines.golden import FACES, calibration_inputs, golden_inputs, real_inputs  # noqa: E402
from emo_models.engines.machine import this_machine  # noqa: E402
from emo_models.engines.manifest import read_golden  # noqa: E402
from emo_models.engines.measure import parity  # noqa: E402
from emo_models.engines.select import select  # noqa: E402
from emo_models.engines.source import RANDOM, network  # noqa: E402
from emo_models.fetch import pull  # noqa: E402
from emo_models.networks.fusion_mask import FORBIDDEN  # noqa: E402

CPU = ("openvino", "onnxruntime", "eager")


@pytest.mark.parametrize("name", catalogue.PARTS)
@pytest.mark.parametrize("backend", CPU)
def test_every_network_on_every_backend(store: Path, toy: Callable[[str], Any], name: str, backend: str) -> None:
    made = build(toy(name), Options(backend, threads=1, timing_s=0.02), lambda _: None)
    manifest = made.manifest
    assert made.fresh
    assert made.folder.parent == store
    assert manifest.weights.origin == RANDOM
    assert set(manifest.layer_dtypes) == {"float32"}
    assert manifest.parity.relative < 1e-3
    assert manifest.parity.samples >= 4
    assert [times.batch for times in manifest.latency] == list(catalogue.part(name).batches)

    chosen = select(name, "toy", threads=1, random=True)
    try:
        facts = describe(chosen.engine)
        assert (facts["backend"], facts["precision"], facts["threads"]) == (backend, "fp32", 1)
        assert [spec.name for spec in chosen.engine.inputs] == [port.name for port in manifest.inputs]
        for inputs, expected in read_golden(made.folder):
            assert parity([(chosen.engine(inputs), expected)]).relative < 1e-3
    finally:
        chosen.engine.close()


def bf16_here() -> bool:
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(this_machine().instruction_set))


@pytest.mark.skipif(not bf16_here(), reason="this CPU does not compute in bf16")
@pytest.mark.parametrize("name", ["er_resnet", "fusion_step", "prompt_head"])
def test_bf16_is_what_runs(store: Path, toy: Callable[[str], Any], name: str) -> None:
    manifest = build(toy(name), Options("openvino", "bf16", threads=1, timing_s=0.02), lambda _: None).manifest
    ranks = name == "prompt_head"
    assert manifest.precision == ("fp32" if ranks else "bf16")
    assert set(manifest.layer_dtypes) == {"float32" if ranks else "bfloat16"}
    assert manifest.parity.relative > (0 if ranks else 1e-4)
    assert select(name, "toy", precision="bf16", threads=1, random=True).engine.precision == manifest.precision


def test_one_step_of_the_engine_is_one_step_of_the_network(toy: Callable[[str], Any]) -> None:
    """The cache as an input, filled by the caller, word by word: scores equal those of the network's own cache."""
    part, context_part = toy("fusion_step").part, toy("fusion_prefill").part
    fusion = part.holder.trans_encoder
    torch.testing.assert_close(fusion.state_dict(), context_part.holder.trans_encoder.state_dict())
    generator = np.random.default_rng(3)
    inputs = context_part.sample(generator)
    inputs["prompts_valid"][0, -1] = False
    context = context_part.run(inputs)
    visual, prompts, valid = (torch.from_numpy(inputs[port.name]) for port in context_part.inputs)
    words = generator.integers(5, 200, 6)
    with torch.no_grad():
        tokens, open_ = fusion.context(fusion.embed_visual(visual), prompts, valid)
        cache = fusion.prefill(tokens, open_, 24)
    keys, values = (np.zeros(part.inputs[i].min, np.float32) for i in (2, 3))
    first = context["keys"].shape[3]
    keys[:, :, :, :first], values[:, :, :, :first] = context["keys"], context["values"]
    bias = np.full(part.inputs[4].min, FORBIDDEN, np.float32)
    bias[:, :first] = context["bias"]
    for position, word in enumerate(words):
        with torch.no_grad():
            pair = fusion.embeddings(torch.tensor([[word, part.module.mask_id]]), position)
            expected = fusion.step(pair, cache).numpy()
        out = part.run({
            "word": np.array([word]), "position": np.array([position]), "keys": keys, "values": values, "bias": bias,
        })  # fmt: skip
        np.testing.assert_allclose(out["scores"], expected, atol=1e-5)
        np.testing.assert_allclose(out["vector"], pair[:, 0].detach(), atol=1e-6)
        keys[:, :, :, first + position], values[:, :, :, first + position] = out["new_keys"], out["new_values"]
        bias[:, first + position] = 0


def test_inputs_go_up_to_the_largest_batch_and_no_further(store: Path, toy: Callable[[str], Any]) -> None:
    part = toy("fusion_step").part
    assert [len(inputs["word"]) for inputs in golden_inputs(part)] == [1, 1, 1, 4]
    build(toy("er_resnet"), Options("openvino", threads=1, timing_s=0.01), lambda _: None)
    engine = select("er_resnet", "toy", threads=1, random=True).engine
    with pytest.raises(EngineError, match=r"er_resnet: OpenVINO: .*shape"):
        engine(toy("er_resnet").part.sample(np.random.default_rng(0), 9))


def test_a_graph_has_one_hash_and_other_weights_have_another(toy: Callable[[str], Any], tmp_path: Path) -> None:
    first = toy("projector")
    again = network("projector", "toy", tmp_path)
    assert again.graph_sha256 == first.graph_sha256
    with torch.no_grad():
        again.part.holder.mm_projector.bias += 1
    other = ExportedNetwork(again.entry, "toy", again.config, again.part, again.weights, tmp_path)
    assert other.graph_sha256 != first.graph_sha256


def test_weights_of_ones_own_are_used_and_named(store: Path, tmp_path: Path) -> None:
    net = create("er_resnet", "toy", vocabulary="meld7")
    card = NetworkCard("er_resnet", net.config.to_dict(), ("a",), {}, "research only", ("MELD",))
    save_weights(net, tmp_path / "er_resnet.safetensors", card)
    source = network("er_resnet", "toy", tmp_path, [tmp_path])
    assert source.weights.origin == "er_resnet.safetensors"
    assert source.weights.licence == "research only"
    assert len(source.part.labels) == 7
    faces = source.part.sample(np.random.default_rng(0), 2)
    with torch.no_grad():
        expected = net.eval()(torch.from_numpy(faces["faces"])).logits.numpy()
    np.testing.assert_array_equal(source.part.run(faces)["logits"], expected)
    assert network("anfl", "toy", tmp_path, [tmp_path]).weights.origin == RANDOM
    with pytest.raises(EngineError, match="no such file or folder"):
        network("anfl", "toy", tmp_path, [tmp_path / "nowhere"])


def test_real_faces_are_compared_where_the_samples_are_in_the_cache(
    toy: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pictures = {name: pull(name) for name in FACES}
    monkeypatch.setenv("EMO_CACHE", str(tmp_path))
    (tmp_path / "engines").mkdir()
    for file in pictures.values():
        (tmp_path / file.name).symlink_to(file)
    faces = [inputs["faces"] for inputs in real_inputs(toy("er_resnet").part)]
    assert [face.shape for face in faces] == [(1, 3, 64, 64)] * 7
    assert all(1 < np.ptp(face) < 6 for face in faces)  # normalised, and not of one colour
    (clip, _) = real_inputs(toy("video_swin").part)
    assert clip["clip"].shape == (1, 3, 4, 64, 64)
    assert np.abs(np.diff(clip["clip"], axis=2)).mean() > 0.01  # it moves
    (image, _) = real_inputs(toy("detector").part)
    assert image["image"].shape == (1, 3, 128, 160)
    manifest = build(toy("er_resnet"), Options("onnxruntime", threads=1, timing_s=0.01), lambda _: None).manifest
    assert manifest.parity is not None
    assert manifest.parity.samples == 4 + 7 + 21  # random, real, and those that labels are compared on
    assert manifest.parity.label_agreement == 1.0


def test_a_folder_of_pictures_calibrates(toy: Callable[[str], Any], tmp_path: Path) -> None:
    part = toy("er_resnet").part
    with pytest.raises(EngineError, match=r"no \.png or \.jpg there"):
        calibration_inputs(part, tmp_path)
    cv2.imwrite(str(tmp_path / "a.png"), np.full((80, 80, 3), 255, np.uint8))
    (white,) = calibration_inputs(part, tmp_path)
    np.testing.assert_allclose(
        white["faces"][0, :, 0, 0], [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225], 1e-5
    )
    with pytest.raises(EngineError, match="er, au_nodes, au_scores, valid are no pictures"):
        calibration_inputs(toy("prompt_head").part, tmp_path)
