"""Every network of the toy profile on every backend of the CPU: built, compared, read back, loaded, fed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from emo_models.engines import catalogue, describe
from emo_models.engines.build import Built, Options, build
from emo_models.engines.golden import read_golden
from emo_models.engines.measure import parity
from emo_models.engines.select import select
from emo_models.engines.source import RANDOM, network
from emo_models.engines.store import artefacts, workspace

CPU = ("openvino", "onnxruntime", "eager")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Built]:
    """All toy networks on all backends of the CPU, each exported once."""
    made = {}
    with pytest.MonkeyPatch.context() as patch, pytest.MonkeyPatch.context():
        patch.setenv("EMO_CACHE", str(tmp_path_factory.mktemp("cache")))
        with workspace() as work:
            for name in catalogue.names("toy"):
                source = network(name, "toy", work)
                for backend in CPU:
                    made[name, backend] = build(source, Options(backend, threads=1), lambda _: None)
        yield made


@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize("name", catalogue.PARTS)
def test_every_network_on_every_backend(built: dict[tuple[str, str], Built], name: str, backend: str) -> None:
    artefact = built[name, backend]
    manifest = artefact.manifest
    assert artefact.fresh
    assert manifest.weights.origin == RANDOM
    assert set(manifest.layer_dtypes) == {"float32"}
    assert manifest.parity.relative < 1e-3
    assert manifest.parity.samples >= 4
    assert [times.batch for times in manifest.latency] == list(catalogue.part(name).batches)

    chosen = select(name, "toy", backend=backend, threads=1)
    try:
        facts = describe(chosen.engine)
        assert (facts["backend"], facts["precision"], facts["threads"]) == (backend, "fp32", 1)
        assert [spec.name for spec in chosen.engine.inputs] == [port.name for port in manifest.inputs]
        for inputs, expected in read_golden(artefact.folder):
            again = parity([(chosen.engine(inputs), expected)])
            assert again.relative < 1e-3
    finally:
        chosen.engine.close()
