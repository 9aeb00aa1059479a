"""The manifest and the rules that every backend shares."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from emo_models.engines import EngineError, catalogue
from emo_models.engines.backends import TABLE, backend
from emo_models.engines.backends.base import installed, misfits, settled
from emo_models.engines.machine import this_machine
from emo_models.engines.manifest import (
    FILE,
    SCHEMA,
    Latency,
    Machine,
    Manifest,
    ManifestError,
    Parity,
    Port,
    Tolerance,
    Weights,
    read_manifest,
    write_manifest,
)
from emo_models.engines.threads import ONE_THREAD, cpu_threads, usable_cores
from emo_models.engines.typed import to_plain


def a_manifest(**changed: object) -> Manifest:
    faces = Port("faces", "float32", "NCHW", (1, 3, 64, 64), (1, 3, 64, 64), (8, 3, 64, 64))
    made = Manifest(
        schema=SCHEMA, key="ab" * 32, network="anfl", preset="toy", config={"depths": [1, 1]},
        weights=Weights("random seed 0", "cd" * 32, "none", ()), graph_sha256="ef" * 32, files={"model.xml": "12" * 32},
        inputs=(faces,), outputs=(faces,), normalisation="opengraphau224", labels=("AU1", "AU2"), precision="fp32",
        layer_dtypes={"float32": 9}, backend="openvino", versions={"openvino": installed("openvino")},
        machine=this_machine(), requires=(), settings={}, calibration_sha256="",
        tolerance=Tolerance(1e-3, 0.999, 0.99), parity=Parity(1e-6, 1e-6, 1.0, None, 4),
        latency=(Latency(1, 1.0, 2.0, 10),), built="2026-01-01T00:00:00Z",
    )  # fmt: skip
    return dataclasses.replace(made, **changed)  # type: ignore[arg-type]


def test_a_manifest_comes_back_as_it_was(tmp_path: Path) -> None:
    manifest = a_manifest()
    write_manifest(manifest, tmp_path)
    assert to_plain(read_manifest(tmp_path)) == to_plain(manifest)
    assert read_manifest(tmp_path).inputs[0].spec.shape == (None, 3, 64, 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("precision"), "precision: missing"),
        (lambda m: m.update(colour="red"), "colour: no such field"),
        (lambda m: m["parity"].update(max_abs="small"), "parity.max_abs: expected float, got str 'small'"),
        (lambda m: m["weights"].pop("licence"), "weights.licence: missing"),
        (lambda m: m["inputs"][0].update(min=[1, "3"]), r"inputs\[0\].min\[1\]: expected int, got str '3'"),
        (lambda m: m.update(labels="AU1"), "labels: expected a list, got str"),
        (lambda m: m.update(machine=[]), "machine: expected an object, got list"),
        (lambda m: m["layer_dtypes"].update(float32=True), "layer_dtypes.float32: expected int, got bool"),
        (lambda m: m.update(schema=0), "schema: expected 1, got 0"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, change, message: str) -> None:
    values = to_plain(a_manifest())
    change(values)
    (tmp_path / FILE).write_text(json.dumps(values))
    with pytest.raises(ManifestError, match=message):
        read_manifest(tmp_path)


def test_no_manifest_and_no_json(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="nothing vouches for this artefact; build the engine again"):
        read_manifest(tmp_path)
    (tmp_path / FILE).write_text('{"schema": 1, "key"')
    with pytest.raises(ManifestError, match="not readable as JSON"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", TABLE)
def test_a_backend_keeps_the_contract(name: str) -> None:
    """Also where its library is missing: then it says what to install."""
    one = backend(name)
    assert one.name == name
    assert one.device in ("cpu", "cuda")
    assert set(one.precisions) <= set(catalogue.TOLERANCES)
    assert isinstance(one.available(), str)
    assert all(isinstance(version, str) and version for version in one.versions().values())


def test_an_unknown_backend_lists_those_there_are() -> None:
    with pytest.raises(EngineError, match=r"no backend 'tensorflow'; choose one of: .*openvino"):
        backend("tensorflow")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, []),
        ({"versions": {"openvino": "1999.0"}}, [f"versions.openvino: built for 1999.0, here is {installed('openvino')}"]),
        ({"versions": {}}, [f"versions.openvino: built for no version of it, here is {installed('openvino')}"]),
        ({"machine": Machine("plan9-vax", (), "", "", "")}, [f"machine.platform: built for plan9-vax, here is {this_machine().platform}"]),
        ({"requires": ("avx9|sse99",)}, [f"machine.instruction_set: built for avx9 or sse99, here is {', '.join(this_machine().instruction_set)}"]),
    ],
)  # fmt: skip
def test_what_does_not_suit_is_named_field_by_field(changed: dict[str, object], expected: list[str]) -> None:
    pytest.importorskip("openvino")
    assert [str(misfit) for misfit in misfits(a_manifest(**changed), backend("openvino"))] == expected


def test_an_artefact_of_another_gpu_does_not_fit() -> None:
    there = dataclasses.replace(this_machine(), gpu="Orin", capability="8.7x")
    (misfit,) = [m for m in misfits(a_manifest(machine=there), backend("eager_cuda")) if m.name == "machine.capability"]
    assert misfit.expected == "8.7x"


def test_an_unknown_setting_is_an_error() -> None:
    assert settled({"level": 3}, {"level": 5}, "x") == {"level": 5}
    with pytest.raises(EngineError, match="x has no setting levle; it has: level"):
        settled({"level": 3}, {"levle": 5}, "x")


def test_unknown_names_list_the_choices() -> None:
    with pytest.raises(EngineError, match="no profile 'huge'; choose one of: start, toy, paper"):
        catalogue.names("huge")
    with pytest.raises(EngineError, match="no engine 'yolo' is built; there are: detector"):
        catalogue.part("yolo")


def test_threads_come_from_the_cores_in_one_place(tmp_path: Path) -> None:
    assert cpu_threads("emotion") == 1
    assert cpu_threads("emotion", 3) == 3
    assert cpu_threads("face") == max(1, int(usable_cores() / 2))
    assert "face" not in ONE_THREAD
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert usable_cores(tmp_path) <= 1.5
