"""``python -m benchmarks engines``: goals are judged right, and a toy network is really built and timed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="engines are compared with torch")
pytest.importorskip("onnxscript", reason="torch writes ONNX with onnxscript: make engines")

from benchmarks import engines
from benchmarks.__main__ import main
from emo_models.engines.bench import Row


def row(network: str, precision: str, cpu_ms: float, *, backend: str = "openvino", batch: int = 1) -> Row:
    return Row(network, backend, precision, batch, 1, cpu_ms, cpu_ms, 100.0, 100.0, 5)


def verdicts(*rows: Row) -> dict[str, tuple[str, bool]]:
    found = engines.goals(engines.Measured("toy", rows, {}, {}, {}))
    return {goal.name: (goal.got, goal.met) for goal in found}


def test_the_better_of_the_lower_precisions_counts() -> None:
    found = verdicts(
        row("er_resnet", "fp32", 66), row("er_resnet", "bf16", 40), row("er_resnet", "int8", 20),
        row("er_resnet", "fp32", 10, backend="onnxruntime"),
    )  # fmt: skip
    assert found == {
        "er_resnet, batch 1, fp32": ("0.66 (fp32)", False),
        "er_resnet, batch 1, bf16 or int8": ("0.20 (int8)", True),
    }


def test_the_decoder_has_a_goal_of_its_own_and_what_ranks_has_none() -> None:
    rows = (
        row("fusion_step", "fp32", 54, batch=4),
        row("fusion_step", "bf16", 90, batch=4),
        row("prompt_head", "fp32", 99),
    )
    assert verdicts(*rows) == {"fusion_step, batch 4, fp32": ("0.54 (fp32)", True)}


def test_an_engine_that_is_missing_misses_its_goal() -> None:
    assert verdicts(row("anfl", "fp32", 60))["anfl, batch 1, bf16 or int8"] == ("no such engine", False)


def test_a_network_is_built_timed_and_reported(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "BUILT", (("openvino", "fp32"), ("onnxruntime", "fp32")))
    monkeypatch.setattr(engines, "SECONDS", 0.05)
    code = main(["engines", "--preset", "toy", "--network", "projector", "--out", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert code == int(not all(goal["met"] for goal in report["goals"]))
    figures = report["figures"]["engines"]
    assert [(r["backend"], r["precision"], r["threads"]) for r in figures["rows"]] == [
        ("openvino", "fp32", 1), ("onnxruntime", "fp32", 1),
    ]  # fmt: skip
    assert all(r["ratio"] > 0 and r["runs"] >= 5 for r in figures["rows"])
    assert figures["parity"]["projector openvino fp32"]["relative"] < 1e-3
    assert figures["refused"] == {}
    assert len(list(store.iterdir())) >= 2
    assert "| projector | 1 |" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
