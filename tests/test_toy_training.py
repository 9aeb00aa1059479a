"""``emo toy train``: steps in their order, side by side, and on where they were stopped."""

from __future__ import annotations

import json
from concurrent.futures import Future

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
for package in ("accelerate", "tensorboard", "openpyxl", "matplotlib", "av"):
    pytest.importorskip(package, reason="training needs it")

from emo_models.engines.stock import stock  # noqa: E402
from emo_models.weights import toy_path  # noqa: E402
from training import toy  # noqa: E402
from training.trainer.recipe import recipe_names  # noqa: E402
from training.trainer.task import TASKS  # noqa: E402


def small():
    faces = ("epochs=1", "batch=4", "options.clips.frames=2", "network.options.width=8")
    return (
        toy.drawing("world_actions", "clips", "world", "--seed", "1", "--clips", "10", "--dialogues", "0"),
        toy.training("er_toy", "faces", ["world_actions"], *faces),
        toy.Step(
            "engines", "engines", ("engines", "build", "--profile", "toy", "--network", "er_resnet", "--backend", "eager"),
            ("er_toy",),
        ),
    )  # fmt: skip


def test_steps_leave_metrics_report_and_weights_and_are_not_repeated(tmp_path, monkeypatch):
    monkeypatch.setenv("EMO_CACHE", str(tmp_path / "cache"))
    told: list[str] = []
    values = toy.train_toys(tmp_path / "toy", tmp_path / "out", small(), tell=told.append)
    assert values == json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert 0 <= values["steps"]["er_toy"]["metrics"]["UAR"] <= 1
    assert "er_toy" in (tmp_path / "out" / "report.md").read_text()
    assert (tmp_path / "out" / "plots" / "losses.png").is_file()
    stamp = toy_path("er_resnet").stat().st_mtime_ns
    assert [line.split()[0] for line in told[:3]] == ["world_actions", "er_toy", "engines"]
    assert stock("er_resnet", "toy").usable
    again = toy.train_toys(tmp_path / "toy", tmp_path / "out", small(), tell=told.append)
    assert again["steps"] == values["steps"]
    assert toy_path("er_resnet").stat().st_mtime_ns >= stamp
    (tmp_path / "out" / "runs" / "er_toy" / "recipe.yaml").write_text("task: another\n")
    with pytest.raises(
        toy.ToyError, match=r"er_toy ended with 1: emo train: .* holds a run of another recipe .*er_toy.log"
    ):
        toy.train_toys(tmp_path / "toy", tmp_path / "out", small(), tell=told.append)


def test_no_step_starts_before_what_it_needs():
    started: list[str] = []

    def start(step):
        assert all(need in started for need in step.needs)
        started.append(step.name)
        future: Future[None] = Future()
        future.set_result(None)
        return future

    toy._in_order(toy.STEPS, start, jobs=2)
    assert sorted(started) == sorted(step.name for step in toy.STEPS)


def test_every_task_has_a_step_and_every_need_is_there():
    trained = {step.command[1] for step in toy.STEPS if step.command[0] == "train"}
    assert trained <= {name for name in recipe_names() if name.endswith("_toy")}
    assert {need for step in toy.STEPS for need in step.needs} <= {step.name for step in toy.STEPS}
    assert set(TASKS) == {toy.load_recipe(name).task for name in trained}
