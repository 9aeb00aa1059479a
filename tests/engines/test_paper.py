"""The papers' sizes, with random weights where none are in the cache: minutes and gigabytes, so by make test-engines."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="engines are built with torch")
pytest.importorskip("onnxscript", reason="torch writes ONNX with onnxscript: make engines")

from emo_models.engines import catalogue
from emo_models.engines.build import Options, build
from emo_models.engines.machine import this_machine
from emo_models.engines.select import select
from emo_models.engines.source import network

pytestmark = pytest.mark.engines

BF16 = {"avx512_bf16", "amx_bf16", "bf16"} & set(this_machine().instruction_set)


@pytest.mark.parametrize("name", catalogue.PARTS)
def test_every_network_on_the_cpu(store: Path, tmp_path: Path, name: str) -> None:
    source = network(name, "paper", tmp_path)
    wanted = [
        ("openvino", "fp32"),
        ("onnxruntime", "fp32"),
        ("eager", "fp32"),
        *([("openvino", "bf16")] if BF16 else []),
    ]
    for backend, precision in wanted:
        manifest = build(source, Options(backend, precision, timing_s=0.5), print).manifest
        assert manifest.parity is not None
        assert manifest.parity.relative <= source.entry.tolerance(manifest.precision).relative
        times = ", ".join(f"{t.batch}: {t.p50_ms:.1f}" for t in manifest.latency)
        print(
            f"{name} {backend} {manifest.precision}: {manifest.parity.relative:.2g}, {manifest.layer_dtypes}, ms {times}"
        )
    assert select(name, "paper", random=True).engine.backend == "openvino"
