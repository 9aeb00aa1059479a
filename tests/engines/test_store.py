"""What must never happen to an artefact: half of it, two at once, another than its manifest says, one that does not fit."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="engines are built with torch")
pytest.importorskip("onnxscript", reason="torch writes ONNX with onnxscript: make engines")

from emo_models.engines import EngineError  # noqa: E402
from emo_models.engines.backends import backend  # noqa: E402
from emo_models.engines.backends.eager import EagerBackend  # noqa: E402
from emo_models.engines.backends.onnxruntime import OnnxRuntimeBackend  # noqa: E402
from emo_models.engines.build import Built, Options, PrecisionError, ToleranceError, build  # noqa: E402
from emo_models.engines.explain import explain  # noqa: E402
from emo_models.engines.manifest import FILE, ManifestError, read_manifest, write_manifest  # noqa: E402
from emo_models.engines.select import StrictError, open_card, select  # noqa: E402
from emo_models.engines.store import TamperedError, artefacts, install, workspace  # noqa: E402

NAME = "projector"
ROOT = Path(__file__).parents[2]


def silent(_: str) -> None:
    """Nobody watches."""


@pytest.fixture
def make(store: Path, toy: Callable[[str], Any]) -> Callable[..., Built]:
    """Builds the smallest engine on a backend."""

    def of(name: str = "eager", **options: Any) -> Built:
        return build(toy(NAME), Options(name, timing_s=0.01, threads=1, **options), silent)

    return of


def why_not(**options: Any) -> str:
    with pytest.raises(EngineError) as caught:
        select(NAME, "toy", threads=1, **{"random": True, **options})
    return str(caught.value)


def change(artefact: Built, **fields: Any) -> None:
    """Another manifest, valid in itself."""
    write_manifest(dataclasses.replace(read_manifest(artefact.folder), **fields), artefact.folder)


def test_a_second_build_of_the_same_does_nothing(make: Callable[..., Built]) -> None:
    first = make()
    again = make()
    assert (first.fresh, again.fresh) == (True, False)
    assert again.manifest.built == first.manifest.built
    assert make("onnxruntime").folder != first.folder


def test_a_changed_file_is_refused_and_built_anew(make: Callable[..., Built]) -> None:
    artefact = make()
    file = artefact.folder / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert "weights.safetensors: expected SHA-256" in why_not()
    assert make().fresh
    assert select(NAME, "toy", random=True).engine.backend == "eager"


@pytest.mark.parametrize("name", ["weights.safetensors", "golden.npz"])
def test_a_truncated_file_is_refused(make: Callable[..., Built], name: str) -> None:
    file = make().folder / name
    file.write_bytes(file.read_bytes()[:100])
    assert f"{name}: expected SHA-256" in why_not()


def test_a_missing_and_a_foreign_file_are_named(make: Callable[..., Built]) -> None:
    folder = make().folder
    (folder / "plugin.so").write_bytes(b"code")
    assert "plugin.so: the manifest knows no such file" in why_not()
    (folder / "plugin.so").unlink()
    (folder / "golden.npz").unlink()
    assert "files.golden.npz: missing" in why_not()


def test_without_a_manifest_nothing_is_loaded(make: Callable[..., Built]) -> None:
    (make().folder / FILE).unlink()
    assert "no manifest, so nothing vouches for this artefact" in why_not()
    (damaged,) = artefacts()
    with pytest.raises(ManifestError, match="no manifest"):
        damaged.verify()


def test_a_manifest_with_a_wrong_field_names_it(make: Callable[..., Built]) -> None:
    file = make().folder / FILE
    values = json.loads(file.read_text())
    del values["precision"]
    file.write_text(json.dumps(values))
    assert "precision: missing" in why_not()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"versions": {"torch": "1.0"}}, f"versions.torch: built for 1.0, here is {torch.__version__}"),
        ({"requires": ("avx9",)}, "machine.instruction_set: built for avx9, here is"),
    ],
)
def test_what_does_not_fit_is_passed_over_by_name(make: Callable[..., Built], fields: Any, message: str) -> None:
    change(make("eager"), **fields)
    assert message in why_not()
    assert "emo engines build --profile toy --network projector" in why_not()


def test_an_engine_of_another_gpu_is_passed_over_for_the_cpu(make: Callable[..., Built]) -> None:
    """An artefact that says it is of a GPU backend, copied here."""
    here = make("eager")
    other = here.folder.with_name(here.folder.name.replace("-eager-", "-eager_cuda-"))
    other.mkdir()
    for file in here.folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    machine = dataclasses.replace(here.manifest.machine, gpu="Thor", capability="11.0")
    change(Built(other, here.manifest, fresh=True), backend="eager_cuda", machine=machine)
    chosen = select(NAME, "toy", random=True)
    assert chosen.engine.backend == "eager"
    assert len(chosen.why) == 1
    assert chosen.why[0].startswith("eager_cuda: ")
    told = explain(NAME, "toy", "fp32")
    assert any("machine.capability" in line and "11.0" in line for line in told), told


def test_the_next_backend_is_taken_and_strict_refuses_that(make: Callable[..., Built]) -> None:
    preferred, other = make("onnxruntime"), make("eager")
    assert select(NAME, "toy", random=True).engine.backend == "onnxruntime"
    change(preferred, versions={"onnxruntime": "0.1"})
    chosen = select(NAME, "toy", random=True)
    assert (chosen.engine.backend, chosen.manifest) == ("eager", other.manifest)
    assert "versions.onnxruntime: built for 0.1" in chosen.why[0]
    assert "versions.onnxruntime" in str(chosen.facts()["passed_over"])
    with pytest.raises(StrictError, match=r"strict forbids others: versions\.onnxruntime: built for 0\.1"):
        select(NAME, "toy", strict=True, random=True)


def test_a_renamed_folder_is_refused(make: Callable[..., Built]) -> None:
    folder = make("onnxruntime").folder
    folder.rename(folder.with_name(folder.name.replace("-fp32-", "-bf16-")))
    assert "the folder is named projector-toy-onnxruntime-bf16, its manifest is of" in why_not(precision="bf16")


def test_random_weights_are_refused_unless_asked_for(make: Callable[..., Built], store: Path) -> None:
    artefact = make()
    refused = why_not(random=False)
    assert "eager: its weights are random numbers (random seed 0), not trained" in refused
    assert "type: emo engines build --profile toy --network projector --precision fp32 --weights FOLDER" in refused
    assert "which holds fame.safetensors" in refused
    (store.parent / "toy").mkdir()
    (store.parent / "toy" / "fame.safetensors").touch()
    assert why_not(random=False).endswith("--precision fp32")
    chosen = select(NAME, "toy", random=True)
    assert chosen.random
    assert chosen.facts()["weights"] == "random seed 0"
    assert any("random seed 0" in line and "weights: random" in line for line in explain(NAME, "toy", "fp32"))
    weights = dataclasses.replace(artefact.manifest.weights, origin="fame.safetensors", data=("ECEM",))
    change(artefact, weights=weights)
    assert not select(NAME, "toy").random


def test_trained_weights_are_preferred_to_a_preferred_backend(make: Callable[..., Built]) -> None:
    random, trained = make("onnxruntime"), make("eager")
    assert select(NAME, "toy", random=True).manifest == random.manifest
    change(trained, weights=dataclasses.replace(trained.manifest.weights, data=("ECEM",)))
    chosen = select(NAME, "toy", random=True)
    assert (chosen.engine.backend, chosen.random) == ("eager", False)


def test_trained_weights_are_preferred_to_random_ones(make: Callable[..., Built]) -> None:
    trained = make("onnxruntime")
    other = trained.folder.with_name(f"{trained.folder.name[:-16]}{'0' * 16}")
    shutil.copytree(trained.folder, other)
    weights = dataclasses.replace(trained.manifest.weights, origin="fame.safetensors", data=("ECEM",))
    change(trained, weights=weights, built="2020-01-01T00:00:00+00:00")
    chosen = select(NAME, "toy", random=True).manifest
    assert chosen is not None
    assert chosen.weights.origin == "fame.safetensors"


def test_nothing_is_built_by_loading(store: Path) -> None:
    assert "none was built; type: emo engines build --profile toy --network projector --precision fp32" in why_not()
    assert not store.exists()


def test_a_build_that_computes_something_else_is_not_installed(
    make: Callable[..., Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of a build, and then an engine that adds a tenth."""
    load = EagerBackend.load

    def wrong(self: EagerBackend, *arguments: Any) -> Any:
        engine = load(self, *arguments)
        module = engine._module
        engine._module = lambda *x: tuple(y * 1.1 for y in module(*x))
        return engine

    monkeypatch.setattr(EagerBackend, "load", wrong)
    with pytest.raises(
        ToleranceError, match=r"projector: eager fp32 .* relative error 0\.1 .*at most 0\.001.*not installed"
    ):
        make()
    assert artefacts() == []


def test_a_build_in_another_precision_is_not_installed(
    make: Callable[..., Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend that was asked for bf16 and keeps fp32 is the trap of builders that ignore a wish."""
    monkeypatch.setattr(OnnxRuntimeBackend, "precisions", ("fp32", "bf16"))
    with pytest.raises(PrecisionError, match=r"asked for bf16.* 1 in float32; not installed"):
        make("onnxruntime", precision="bf16")
    assert artefacts() == []


def test_an_unknown_precision_and_an_unknown_setting(make: Callable[..., Built]) -> None:
    with pytest.raises(EngineError, match="nothing builds fp16 here; onnxruntime: builds fp32"):
        make("onnxruntime", precision="fp16")
    with pytest.raises(EngineError, match="onnxruntime has no setting level"):
        make("onnxruntime", settings={"level": 3})


def test_two_builds_of_one_key_wait_for_each_other(store: Path) -> None:
    target, entered, leave, made = store / "it-0", threading.Event(), threading.Event(), []

    def slow(folder: Path) -> None:
        entered.set()
        assert leave.wait(20)
        _whole(folder)
        made.append("slow")

    notes: list[str] = []
    first = threading.Thread(target=install, args=(target, slow, silent))
    first.start()
    assert entered.wait(20)

    def note(text: str) -> None:
        notes.append(text)
        leave.set()  # only now that the second waits

    assert install(target, lambda _: made.append("second"), note) is False
    first.join(20)
    assert made == ["slow"]
    assert notes == ["another process is building it-0; waiting for it"]


def _whole(folder: Path) -> None:
    """Something valid to install."""
    from test_contracts import a_manifest

    (folder / "model.xml").write_bytes(b"x")
    from emo_models.engines.manifest import hash_files

    write_manifest(a_manifest(files=hash_files(folder)), folder)


KILLED = """
import os, sys
from pathlib import Path
from emo_models.engines.store import install, root

def half(folder):
    (folder / "model.xml").write_bytes(b"half")
    print("half", flush=True)
    sys.stdin.read()

install(root() / "it-0", half, print)
"""


def test_a_build_that_is_killed_leaves_nothing_that_loads(store: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "half\n"
        child.send_signal(signal.SIGKILL)
    assert [path.name for path in (store / ".building").iterdir()] == [f"it-0.{child.pid}"]
    assert artefacts() == []
    notes: list[str] = []
    assert install(store / "it-0", _whole, notes.append)
    assert notes == [f"removing what a build that was killed left: it-0.{child.pid}"]
    assert list((store / ".building").iterdir()) == []
    assert [one.folder.name for one in artefacts()] == ["it-0"]


def test_a_failed_build_leaves_nothing(store: Path) -> None:
    def fails(folder: Path) -> None:
        (folder / "model.xml").write_bytes(b"half")
        raise EngineError("no")

    with pytest.raises(EngineError, match="no"):
        install(store / "it-0", fails, silent)
    assert list((store / ".building").iterdir()) == []
    assert artefacts() == []


def test_work_of_the_dead_is_swept_up(store: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = store / ".building" / f"work.{gone.pid}"
    left.mkdir(parents=True)
    with workspace() as folder:
        assert not left.exists()
        assert folder.is_dir()
    assert not folder.exists()


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("EMO_CACHE", str(tmp_path / "file"))
    with pytest.raises(EngineError, match="set EMO_CACHE to a folder that you may write to"):
        install(tmp_path / "file" / "engines" / "it", silent, silent)  # type: ignore[arg-type]


def test_a_tampered_artefact_raises_its_own_error(make: Callable[..., Built]) -> None:
    (make().folder / "golden.npz").write_bytes(b"")
    with pytest.raises(TamperedError):
        artefacts()[0].verify()


def test_what_an_engine_is_fed_is_checked(make: Callable[..., Built]) -> None:
    make("onnxruntime")
    engine = select(NAME, "toy", random=True).engine
    with pytest.raises(
        EngineError, match=r"projector: input features: expected float32 \[24, 64\], got float64 \[24, 64\]"
    ):
        engine({"features": np.zeros((24, 64))})
    with pytest.raises(EngineError, match="got nothing"):
        engine({})
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="the engine is closed"):
        engine({"features": np.zeros((24, 64), np.float32)})


def test_public_files_run_on_the_first_backend_that_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers by ONNX Runtime, where OpenVINO is missing; TFLite then has no reader."""
    from emo_models.fetch import pull

    for name in ("voice_activity", "fer7"):
        pull(name)
    feed = {"samples": np.random.default_rng(0).standard_normal((3, 576)).astype(np.float32) / 10}
    feed |= {name: np.zeros((1, 1, 128), np.float32) for name in ("h", "c")}
    by_openvino = open_card("voice_activity").engine(feed)["voice"].copy()

    def missing(*_: Any, **__: Any) -> Any:
        raise EngineError("OpenVINO does not import")

    monkeypatch.setattr("emo_models.engines.backends.openvino._core", missing)
    chosen = open_card("voice_activity")
    assert (chosen.engine.backend, chosen.why) == ("onnxruntime", ("openvino: OpenVINO does not import",))
    np.testing.assert_allclose(chosen.engine(feed)["voice"], by_openvino, atol=1e-4)
    with pytest.raises(
        EngineError, match=r"fer7: no backend reads .*onnxruntime: reads ONNX in fp32, this is \.tflite"
    ):
        open_card("fer7")
    assert backend("openvino").available() == "OpenVINO does not import"
