"""The table of speeds holds every network at every batch."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch", reason="the networks need torch")
pytest.importorskip("transformers", reason="the towers of text and vision need transformers")
pytest.importorskip("scipy", reason="the Hungarian method is scipy's")

import emo_models
from benchmarks import networks


def test_table_of_every_network(tmp_path, capsys):
    assert networks.main(["--preset", "toy", "--batch", "1", "2", "--budget-s", "0", "--out", str(tmp_path)]) == 0
    document = json.loads((tmp_path / "networks.json").read_text(encoding="utf-8"))
    timings = document["timings"]
    assert {timing["network"] for timing in timings} == set(emo_models.list_networks())
    assert {timing["batch"] for timing in timings} == {1, 2}
    assert all(timing["median_s"] >= timing["best_s"] > 0 and timing["runs"] == 3 for timing in timings)
    table = (tmp_path / "networks.md").read_text(encoding="utf-8")
    assert table.count("\n| ") == len(timings) + 1
    assert table in capsys.readouterr().out
    assert document["machine"]["threads"] >= 1
