"""The trainer: recipes that are checked, runs that survive a kill to the bit, several processes, doomed runs."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("accelerate", reason="training needs accelerate")
pytest.importorskip("tensorboard", reason="training logs to TensorBoard")

from training_task import ToyTask, make_recipe, run  # noqa: E402

from emo_models.checkpoints import load_weights, read_card  # noqa: E402
from training.trainer import command  # noqa: E402
from training.trainer.log import read_metrics  # noqa: E402
from training.trainer.loop import adamw_groups, learning_rate, train  # noqa: E402
from training.trainer.recipe import RecipeError, ScheduleRecipe, load_recipe  # noqa: E402
from training.trainer.state import RunError  # noqa: E402
from training.trainer.task import DoomedRunError, require_less_than_guessing, require_positive_pairs  # noqa: E402

ROOT = Path(__file__).parents[1]
PROGRAM = Path(__file__).with_name("training_task.py")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def program(folder, launcher=(), environment=None, **changes):
    """Run :mod:`training_task` as a process of its own."""
    paths = os.pathsep.join([str(ROOT), str(PROGRAM.parent)])
    variables = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **(environment or {})}
    command = [sys.executable, *launcher, str(PROGRAM), str(folder), json.dumps(changes)]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole") / "run"
    return run(make_recipe(folder)), folder


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run that was killed in its fourth step; each test works on a copy."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    done = program(folder, environment={"KILL_AT": "4"})
    assert done.returncode == -9, done.stderr
    return folder


# A kill


def test_killed_in_two_epochs_and_taken_up_again_ends_with_the_same_bits(tmp_path, killed, uninterrupted):
    shutil.copytree(killed, tmp_path / "run")
    kept = tmp_path / "run" / "checkpoints"
    assert [p.name for p in kept.iterdir()] == ["step-00000002"]
    second = program(tmp_path / "run", environment={"KILL_AT": "7"})  # after seven more passes: in the second epoch
    assert second.returncode == -9, second.stderr
    assert [p.name for p in kept.iterdir()] == ["step-00000008"]
    result = run(make_recipe(tmp_path / "run"))
    whole, folder = uninterrupted
    assert result.sha256 == whole.sha256
    assert result.metrics == whole.metrics
    # What the task remembers, and what was logged, are the same, too.
    assert read_card(result.weights).notes["seen"] == read_card(whole.weights).notes["seen"]
    assert read_metrics(tmp_path / "run") == read_metrics(folder)


def test_ctrl_c_ends_after_the_step_with_a_checkpoint(tmp_path, uninterrupted, monkeypatch):
    monkeypatch.setenv("STOP_AT", "5")
    with pytest.raises(KeyboardInterrupt):
        run(make_recipe(tmp_path / "run"))
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000005"]
    monkeypatch.delenv("STOP_AT")
    assert run(make_recipe(tmp_path / "run")).sha256 == uninterrupted[0].sha256


def test_published_weights_take_their_tokenizer_along(tmp_path, monkeypatch, uninterrupted):
    monkeypatch.setenv("EMO_CACHE", str(tmp_path / "cache"))
    shutil.copytree(uninterrupted[1], tmp_path / "run")
    (tmp_path / "run" / "tokenizer").mkdir()
    (tmp_path / "run" / "tokenizer" / "tokenizer.json").write_text("{}")
    run(make_recipe(tmp_path / "run", publish="toy/er.safetensors"))
    assert read_card(tmp_path / "cache" / "toy" / "er.safetensors").sha256 == uninterrupted[0].sha256
    assert (tmp_path / "cache" / "toy" / "er" / "tokenizer" / "tokenizer.json").read_text() == "{}"


def test_other_seed_ends_elsewhere(tmp_path, uninterrupted):
    assert run(make_recipe(tmp_path / "run", seed=89)).sha256 != uninterrupted[0].sha256


def test_complete_run_is_not_repeated_and_fresh_repeats_it(tmp_path, uninterrupted):
    recipe = make_recipe(tmp_path / "run", epochs=1)
    first = run(recipe)
    stamp = first.weights.stat().st_mtime_ns
    assert run(recipe) == first
    assert first.weights.stat().st_mtime_ns == stamp
    again = run(recipe, resume=False)
    assert again.weights.stat().st_mtime_ns > stamp
    assert again.sha256 == first.sha256


def test_weights_carry_recipe_and_metrics_without_folders(uninterrupted):
    result, folder = uninterrupted
    network, card = load_weights(result.weights)
    assert card.notes["metrics"] == result.metrics
    assert card.notes["recipe"]["optimiser"]["lr"] == 3e-3
    assert str(folder) not in json.dumps(dict(card.notes))
    assert not network.training


# Several processes

LAUNCH = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no",
          "--dynamo_backend=no", "--main_process_port=0")  # fmt: skip
#: With it, the processes that accelerate starts are CPU processes, with gloo between them.
ON_CPU = {"ACCELERATE_USE_CPU": "true"}


def test_two_processes_learn_what_one_learns(tmp_path):
    changes = {"options": {"plain": True}, "epochs": 2, "accumulate": 2}
    done = program(tmp_path / "two", LAUNCH, ON_CPU, **changes)
    assert done.returncode == 0, done.stderr
    one = run(make_recipe(tmp_path / "one", **changes))
    state_one, state_two = (
        load_weights(tmp_path / name / "weights.safetensors")[0].state_dict() for name in ("one", "two")
    )
    for name, value in state_one.items():
        torch.testing.assert_close(state_two[name], value, rtol=1e-4, atol=1e-6)
    losses = [[line["loss"] for line in read_metrics(tmp_path / name) if "loss" in line] for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][0] > losses[0][-1]
    assert (
        json.loads((tmp_path / "two" / "checkpoints" / "step-00000012" / "progress.json").read_text())["processes"] == 2
    )
    (tmp_path / "two" / "result.json").unlink()
    with pytest.raises(RunError, match=r"begun with 2 processes, now 1; start anew with --fresh"):
        run(make_recipe(tmp_path / "two", **changes))
    assert one.steps == 12


def test_accumulated_pieces_are_one_batch(tmp_path):
    whole = run(make_recipe(tmp_path / "whole", options={"plain": True}, epochs=1))
    pieces = run(make_recipe(tmp_path / "pieces", options={"plain": True}, epochs=1, accumulate=4))
    a, b = (load_weights(result.weights)[0].fc.weight for result in (whole, pieces))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_mixed_precision_learns_too(tmp_path):
    run(make_recipe(tmp_path / "run", precision="bf16", accumulate=2))
    first, last = (line["loss"] for line in read_metrics(tmp_path / "run") if line["kind"] == "epoch")
    assert last < first / 2
    assert load_weights(tmp_path / "run" / "weights.safetensors")[0].fc.weight.dtype == torch.float32


# A full disk


def test_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path, killed):
    shutil.copytree(killed, tmp_path / "run")
    size = (tmp_path / "run" / "checkpoints" / "step-00000002" / "optimizer.bin").stat().st_size
    done = program(tmp_path / "run", environment={"FILE_LIMIT": str(size // 2)})
    assert done.returncode != 0
    assert "RunError: cannot write" in done.stderr
    assert "the checkpoint of step-00000002 is whole; make room and type the same command again" in done.stderr
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000002"]
    assert run(make_recipe(tmp_path / "run")).steps == 12


def test_damaged_checkpoint_is_refused(tmp_path, killed):
    shutil.copytree(killed, tmp_path / "run")
    file = tmp_path / "run" / "checkpoints" / "step-00000002" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(RunError, match=r"step-00000002: not a whole checkpoint of this network .*--fresh"):
        run(make_recipe(tmp_path / "run"))


# Folders


def test_run_of_another_recipe_is_refused(tmp_path):
    run(make_recipe(tmp_path / "run", epochs=1))
    with pytest.raises(RunError, match=r"another recipe \(optimiser.lr: 0.003, now 0.001\); start anew with --fresh"):
        run(make_recipe(tmp_path / "run", epochs=1, optimiser={"lr": 1e-3}))


def test_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("my work")
    for resume in (True, False):
        with pytest.raises(RunError, match=r"holds thesis.tex and no recipe.yaml: expected an empty folder or a run"):
            run(make_recipe(tmp_path), resume=resume)
    assert (tmp_path / "thesis.tex").read_text() == "my work"


def test_two_trainings_cannot_share_a_folder(tmp_path):
    from training.trainer.state import RunFolder

    first = RunFolder(make_recipe(tmp_path), fresh=False)
    with pytest.raises(RunError, match="in use by another training"):
        run(make_recipe(tmp_path))
    first.close()


# Doomed runs


def test_loss_that_is_no_number_stops_the_run(tmp_path):
    with pytest.raises(DoomedRunError, match=r"the loss is nan by step 2: lower optimiser.lr"):
        run(make_recipe(tmp_path / "run", options={"factor": math.nan}))


def test_first_loss_of_guessing_stops_the_run(tmp_path):
    class Guessing(ToyTask):
        def check_first_loss(self, loss):
            require_less_than_guessing(loss, 2, "the network")

        def loss(self, batch):
            total, parts = super().loss(batch)
            return total * 0 + math.log(2), parts

    with pytest.raises(DoomedRunError, match=r"the first loss is 0.69, ln V is 0.69: the network guesses, its weights"):
        train(make_recipe(tmp_path / "run"), make_task=Guessing)
    require_less_than_guessing(0.4, 2, "the network")
    with pytest.raises(DoomedRunError):
        require_less_than_guessing(math.nan, 2, "the network")


def test_alignment_without_positive_pairs_stops_the_run():
    assert require_positive_pairs(2, 100) == 0.02
    assert math.isnan(require_positive_pairs(0, 0))
    with pytest.raises(DoomedRunError, match="only 0 of 300 AU-word pairs were positive"):
        require_positive_pairs(0, 300)


# Schedule and optimiser


def test_schedule_by_hand():
    linear = [learning_rate(ScheduleRecipe("linear", 0.2), step, 10) for step in range(10)]
    assert linear == pytest.approx([0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])
    cosine = [learning_rate(ScheduleRecipe("cosine", 0.0), step, 4) for step in range(4)]
    assert cosine == pytest.approx([1.0, 0.5 + math.sqrt(0.5) / 2, 0.5, 0.5 - math.sqrt(0.5) / 2])
    assert learning_rate(ScheduleRecipe("constant", 0.5), 9, 10) == 1.0


def test_no_decay_on_vectors_and_factors_of_groups():
    layer, slow = torch.nn.Linear(3, 4), torch.nn.Linear(2, 2).requires_grad_(False)
    slow.weight.requires_grad_(True)
    groups = adamw_groups(
        [{"params": list(layer.parameters())}, {"params": list(slow.parameters()), "lr_factor": 0.05}], 1e-3, 0.2
    )
    assert [(g["lr"], g["weight_decay"], [p.shape for p in g["params"]]) for g in groups] == [
        (1e-3, 0.2, [(4, 3)]), (1e-3, 0.0, [(4,)]), (5e-5, 0.2, [(2, 2)]),
    ]  # fmt: skip


# Recipes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs: expected 1 or more; got 0"),
        ({"epochs": "many"}, "epochs: expected a whole number; got 'many'"),
        ({"precision": "fp8"}, "precision: expected one of fp32, bf16, fp16; got 'fp8'"),
        ({"schedule": {"name": "step"}}, "schedule.name: expected one of linear, cosine, constant; got 'step'"),
        ({"schedule": {"warmup": 1.5}}, "schedule.warmup: expected a share from 0 to below 1; got 1.5"),
        ({"optimiser": {}}, "optimiser.lr: missing; give a number"),
        ({"optimiser": {"lr": 1, "betas": [1]}}, r"optimiser.betas: expected 2 values; got \[1\]"),
        ({"optimizer": {}}, r"optimizer: no such field \(did you mean 'optimiser'\?\); there are: task, network"),
        ({"data": "mafw"}, "data: expected fields, got 'mafw'"),
    ],
)
def test_errors_of_recipes_name_field_value_and_choices(tmp_path, changes, message):
    with pytest.raises(RecipeError, match=message):
        make_recipe(tmp_path, **changes)


def test_errors_of_batches(tmp_path):
    with pytest.raises(RecipeError, match="batch: expected at most the 48 items of the training split; got 64"):
        run(make_recipe(tmp_path / "a", batch=64))
    with pytest.raises(RecipeError, match=r"batch: expected a multiple of 3 \(1 processes, accumulate 3\); got 8"):
        run(make_recipe(tmp_path / "b", accumulate=3))


def test_changes_on_the_command_line(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "task: er\nnetwork: {name: er_resnet}\ndata: {name: folders, root: faces}\n"
        "optimiser: {lr: 1e-3}\nepochs: 3\nbatch: 8\n"
    )
    recipe = load_recipe(file, ["optimiser.lr=1e-4", "network.options.width=8", "schedule.name=cosine"])
    assert recipe.optimiser.lr == 1e-4
    assert recipe.network.options == {"width": 8}
    assert recipe.schedule.name == "cosine"
    assert recipe.out == "runs/mine"
    with pytest.raises(RecipeError, match=r"mine.yaml: network.presett: no such field \(did you mean 'preset'\?\)"):
        load_recipe(file, ["network.presett=toy"])
    with pytest.raises(RecipeError, match=r"--set: expected key=value, as optimiser.lr=1e-4; got 'epochs'"):
        load_recipe(file, ["epochs"])


def test_unknown_recipe_and_task(tmp_path, capsys):
    assert command.main(["no_such_recipe"]) == 2
    assert "no recipe 'no_such_recipe'" in capsys.readouterr().err
    file = tmp_path / "mine.yaml"
    file.write_text(
        "task: ecpaa\nnetwork: {name: ecpa}\ndata: {name: mafw, root: x}\noptimiser: {lr: 1e-3}\nepochs: 1\nbatch: 1\n"
    )
    assert command.main([str(file), "--out", str(tmp_path / "run")]) == 2
    assert "task: expected one of actions, anfl, clip, ddamfn, detector, ecpa" in capsys.readouterr().err
