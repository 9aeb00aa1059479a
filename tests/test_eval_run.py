"""``emo eval RUN``: the weights of a real, small training, measured by its task and shown with its curves."""

import json
import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("accelerate", reason="training needs accelerate")
pytest.importorskip("tensorboard", reason="training logs to TensorBoard")
pytest.importorskip("matplotlib", reason="the page has plots")

from training_task import ToyTask, make_recipe  # noqa: E402

from training.evaluation import curves as curve_files  # noqa: E402
from training.evaluation.command import main  # noqa: E402
from training.evaluation.predictions import Prediction, write_predictions  # noqa: E402
from training.trainer.log import read_metrics  # noqa: E402
from training.trainer.loop import train  # noqa: E402
from training.trainer.task import TASKS  # noqa: E402


class TellingTask(ToyTask):
    """Writes down what it predicted, as the tasks of captions do."""

    def evaluate(self, split):
        data = self.dataset(split)
        images = torch.stack([data[i][0] for i in range(len(data))])
        shares = self.network(images).logits[:, :2].softmax(1).tolist()
        names = ("left", "right")
        rows = [
            Prediction(str(i), "", emotion=dict(zip(names, share, strict=True)), true_emotion=names[data[i][1]])
            for i, share in enumerate(shares)
        ]
        write_predictions(self.recipe.folder / f"predictions-numbers-{split}.jsonl", rows)
        return {"right": float(np.mean([row.likeliest == row.true_emotion for row in rows]))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("eval") / "first"
    train(make_recipe(place), make_task=TellingTask)
    return place


@pytest.fixture(autouse=True)
def task(monkeypatch):
    monkeypatch.setitem(TASKS, "er", f"{__name__}:TellingTask")


def test_a_run_is_measured_and_shown(folder, capsys):
    assert main([str(folder)]) == 0, capsys.readouterr().err
    figures = json.loads((folder / "eval-test" / "report.json").read_text())["sets"]["first"]
    assert figures["figures"]["class accuracy"] == figures["figures"]["right"]
    assert "weights.safetensors sha256" in figures["made_with"]["weights"]
    page = (folder / "eval-test" / "report.html").read_text()
    assert "What the training logged at its steps" in page
    assert "Confusion of first" in page


def test_curves_are_what_was_logged(folder):
    found = curve_files.read_curves(folder)
    logged = [line for line in read_metrics(folder) if line["kind"] == "train"]
    steps, values = found["train/loss"]
    assert steps == [line["step"] for line in logged]
    assert values == pytest.approx([line["loss"] for line in logged], rel=1e-6)
    assert curve_files.read_curves(folder / "checkpoints") == {}


def test_two_runs_are_compared(folder, tmp_path, capsys):
    second = tmp_path / "second"
    train(make_recipe(second, seed=3, epochs=1), make_task=TellingTask)
    assert main([str(folder), str(second), "--out", str(tmp_path / "out"), "--no-plots"]) == 0, capsys.readouterr().err
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(found["differences"]) == {"class accuracy", "class UAR", "class macro-F1"}
    assert found["differences"]["class accuracy"]["clips"] == 8


def test_a_run_without_weights_says_how_to_go_on(folder, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_bytes((folder / "recipe.yaml").read_bytes())
    assert main([str(tmp_path)]) == 1
    assert "let the training end: emo train" in capsys.readouterr().err


def test_a_change_that_does_not_work_is_said(folder, capsys):
    assert main([str(folder), "--set", "batch=many"]) == 1
    assert "batch" in capsys.readouterr().err


def test_damaged_weights_are_said(folder, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    weights = copy / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert main([str(copy)]) == 1
    assert "weights.safetensors" in capsys.readouterr().err
