"""``emo engines`` from end to end, on the smallest network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="engines are built with torch")
pytest.importorskip("onnxscript", reason="torch writes ONNX with onnxscript: make engines")

from emo_models.engines.backends import TABLE
from emo_models.engines.store import artefacts
from emo_perception.tools.engines import main

ROOT = Path(__file__).parents[2]
ONE = ["--profile", "toy", "--network", "projector"]


def test_build_list_verify_explain_bench(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", *ONE, "--backend", "onnxruntime", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert "[1/1] projector" in out
    assert "weights: random seed 0" in out
    assert "built: onnxruntime fp32, relative error" in out
    (artefact,) = artefacts()
    assert artefact.folder.parent == store

    assert main(["build", *ONE, "--backend", "onnxruntime"]) == 0
    assert "was there: onnxruntime" in capsys.readouterr().out
    assert main(["list"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["ENGINE", "PRESET", "BACKEND", "PRECISION", "MB", "WEIGHTS", "STATE"]
    assert row.split()[:4] == ["projector", "toy", "onnxruntime", "fp32"]
    assert row.endswith("usable")
    assert main(["verify", *ONE]) == 0
    assert capsys.readouterr().out == f"{artefact.folder.name}  ok\n"
    assert main(["bench", *ONE, "--batch", "1"]) == 0
    assert "| projector | onnxruntime | fp32 | 1 |" in capsys.readouterr().out

    file = artefact.folder / "manifest.json"
    values = json.loads(file.read_text())
    values["versions"]["onnxruntime"] = "0.1"
    file.write_text(json.dumps(values))
    assert main(["explain", *ONE]) == 0
    told = capsys.readouterr().out
    assert "differs versions.onnxruntime: built for 0.1, here is" in told
    assert "ok      files: all 2 are those that the manifest vouches for" in told
    assert all(f"\n{name}: " in told for name in TABLE)
    assert main(["verify", *ONE]) == 1
    assert "versions.onnxruntime: built for 0.1" in capsys.readouterr().out
    assert main(["list"]) == 0
    assert "not usable here: versions.onnxruntime" in capsys.readouterr().out


def test_a_dry_run_tells_coverage_and_builds_nothing(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", *ONE, "--dry-run", "--backend", "onnxruntime"]) == 0
    assert "onnxruntime: 1 operators (" in capsys.readouterr().out
    assert artefacts() == []


def test_what_cannot_be_built_is_told_and_counted(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", *ONE, "--backend", "onnxruntime", "--precision", "bf16"]) == 1
    told = capsys.readouterr().err
    assert "nothing builds bf16 here; onnxruntime: builds" in told
    assert "1 of 1 not built" in told
    assert main(["verify", "--profile", "toy"]) == 1
    assert "type: emo engines build --profile toy" in capsys.readouterr().err
    assert main(["build", "--profile", "toy", "--network", "yolo"]) == 1
    assert "profile toy has no engine 'yolo'; it has: detector" in capsys.readouterr().err


def test_profile_start_has_nothing_to_build(capsys: pytest.CaptureFixture[str]) -> None:
    from emo_models.fetch import pull

    pull("fer7")
    assert main(["build", "--profile", "start", "--network", "fer7"]) == 0
    out = capsys.readouterr().out
    assert "nothing to build" in out
    assert "fer7  openvino" in out


LOADS = """
import sys
import numpy as np
from emo_models.engines.select import select
chosen = select("projector", "toy", threads=1, random=True)
chosen.engine({"features": np.zeros((24, 64), np.float32)})
print(chosen.engine.backend, [name for name in ("torch", "transformers") if name in sys.modules])
"""


def test_a_robot_loads_without_torch(store: Path) -> None:
    assert main(["build", *ONE, "--backend", "onnxruntime"]) == 0
    done = subprocess.run(
        [sys.executable, "-c", LOADS], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.stdout == "onnxruntime []\n", done.stderr
