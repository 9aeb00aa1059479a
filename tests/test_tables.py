"""Plans of tables: what they may say, that each run is done once, and what is printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from training.tables import command
from training.tables.engine import Outcome, outcomes
from training.tables.plan import PlanError, list_plans, load_plan, read_plan
from training.tables.report import cell, markdown
from training.trainer.recipe import load_recipe

RECIPE = """
task: er
network: {name: er_resnet, preset: toy}
data: {name: mafw, root: nowhere}
optimiser: {lr: 1.0e-3}
epochs: 2
batch: 4
"""
PLAN = """
title: A small table
source: Nobody, Table 0
recipe: RECIPE
run_placeholder: x
seeds: [1, 2, 3]
columns:
  - {metric: score, title: S, scale: 100, digits: 1}
  - {metric: extra}
rows:
  - {name: base, set: {optimiser.lr: 0.1}, run: "test_tables:run", paper: {score: 27.61}}
  - {name: full, group: ours, set: {optimiser.lr: 0.2}, run: "test_tables:run", note: with all parts}
expect:
  - {better: full, than: base, metric: score}
  - {better: base, than: full, metric: score}
notes: [a note]
"""
calls: list[tuple[float, int]] = []


class StoppedError(RuntimeError):
    pass


def run(job):
    """A run that is cheap: its score follows from recipe and seed."""
    lr, seed = job.recipe.optimiser.lr, job.recipe.seed
    calls.append((lr, seed))
    if job.folder.joinpath("stop").exists():
        raise StoppedError("this cannot come to anything")
    assert job.folder.is_dir()
    return {"score": lr + seed / 1000, "extra": seed} if lr == 0.2 else {"score": lr + seed / 1000}


@pytest.fixture
def plan(tmp_path):
    calls.clear()
    recipe = tmp_path / "small.yaml"
    recipe.write_text(RECIPE)
    return read_plan(PLAN.replace("RECIPE", str(recipe)).replace("run_placeholder: x\n", ""), "small")


def test_every_run_is_done_once(plan, tmp_path):
    first = list(outcomes(plan, tmp_path / "out"))
    assert calls == [(lr, seed) for seed in (1, 2, 3) for lr in (0.1, 0.2)]
    assert [o.metrics["score"] for o in first if o.row == "full"] == pytest.approx([0.201, 0.202, 0.203])
    again = list(outcomes(plan, tmp_path / "out"))
    assert len(calls) == 6
    assert [(o.row, o.seed, o.metrics) for o in again] == [(o.row, o.seed, o.metrics) for o in first]
    recipe = Path(plan.recipe)
    recipe.write_text(RECIPE.replace("epochs: 2", "epochs: 3"))
    list(outcomes(plan, tmp_path / "out"))
    assert len(calls) == 12, "a changed recipe is another run"


def test_rows_of_other_tables_share_the_same_run(plan, tmp_path):
    list(outcomes(plan, tmp_path))
    other = read_plan(yaml.safe_dump({
        "title": "Another", "source": "x", "recipe": plan.recipe, "seeds": [2], "columns": [{"metric": "score"}],
        "rows": [{"name": "the same run", "set": {"optimiser.lr": 0.2}, "run": "test_tables:run"}],
    }), "other")  # fmt: skip
    assert [o.metrics["score"] for o in outcomes(other, tmp_path, run=False)] == [pytest.approx(0.202)]
    assert len(calls) == 6


def test_a_doomed_run_does_not_end_the_plan_and_is_tried_again(plan, tmp_path):
    list(outcomes(plan, tmp_path))
    folders = sorted(path for path in (tmp_path / "runs").iterdir())
    for file in folders[0].glob("result-*.json"):
        file.unlink()
    (folders[0] / "stop").touch()
    found = list(outcomes(plan, tmp_path, stop=(StoppedError,)))
    assert [o.error for o in found if o.error] == ["StoppedError: this cannot come to anything"]
    text = markdown(plan, found)
    assert "this cannot come to anything" in text
    assert "(2 of 3 seeds)" in text
    with pytest.raises(StoppedError):
        list(outcomes(plan, tmp_path))
    (folders[0] / "stop").unlink()
    assert not any(o.error for o in outcomes(plan, tmp_path))


def test_the_table_has_mean_spread_and_the_papers_figures(plan, tmp_path):
    lines = markdown(plan, list(outcomes(plan, tmp_path))).splitlines()
    assert lines[0] == "### A small table"
    assert "|  | S | paper | extra |" in lines
    assert "| base | 10.2 ± 0.1 | 27.6 | – |" in lines
    assert "| *ours* |  |  |  |" in lines
    assert "| full | 20.2 ± 0.1 | – | 2.00 ± 1.00 |" in lines
    assert "| full > base | S | 10.0 ± 0.0 | 3 of 3 | yes |" in lines
    assert "| base > full | S | -10.0 ± 0.0 | 0 of 3 | no |" in lines
    assert lines[-2:] == ["* a note", "* full: with all parts"]


def test_a_single_seed_has_no_spread_and_a_missing_run_a_dash(plan):
    column = plan.columns[0]
    assert cell([Outcome("base", 1, {"score": 0.5})], "base", column).text(1) == "50.0"
    assert cell([], "base", column).text(1) == "–"
    assert "not run" in markdown(plan, [])


def test_mistakes_in_a_plan_are_named(plan, tmp_path):
    for change, message in (
        (("title: A small table\n", ""), "plan without title"),
        (("name: full,", "name: base,"), "row base occurs twice"),
        (("than: base", "than: nobody"), "a row that is not there: nobody"),
        (("notes:", "remarks:"), "unknown field remarks"),
        (("digits: 1", "places: 1"), "unknown field places"),
    ):
        with pytest.raises(PlanError, match=message):
            read_plan(PLAN.replace("run_placeholder: x\n", "").replace(*change), "small")
    with pytest.raises(PlanError, match="no row x; there are: base, full"):
        plan.only(["x"])
    text = PLAN.replace("run_placeholder: x\n", "").replace("RECIPE", plan.recipe)
    for change, message in (
        (("optimiser.lr: 0.1", "optimiser.speed: 0.1"), "row base: .*speed: no such field"),
        (('test_tables:run", paper', 'test_tables:walk", paper'), "test_tables:walk"),
    ):
        with pytest.raises(PlanError, match=message):
            list(outcomes(read_plan(text.replace(*change), "small"), tmp_path))
    with pytest.raises(PlanError, match=r"no plan 'table99' of ecpa.*table4"):
        load_plan("ecpa", "table99")


@pytest.mark.parametrize("system", command.SYSTEMS)
def test_packaged_plans_name_recipes_and_options_that_exist(system, tmp_path):
    from training.tables.engine import job_of

    for name in list_plans(system):
        plan = load_plan(system, name)
        jobs = [job_of(plan, row, plan.seeds[0], tmp_path) for row in plan.rows]
        assert len({job.folder for job in jobs}) >= len(
            {json.dumps(dict(row.set), sort_keys=True) for row in plan.rows}
        )


def test_the_papers_tables_are_there():
    wanted = {"table4", "table5", "table6", "table7", "table8", "table9", "fig6", "fig7", "fig8"}
    assert wanted <= set(list_plans("ecpa"))
    full = [load_plan("ecpa", name).rows[-1].paper for name in ("table4", "table5", "table6")]
    assert {row["CIDEr"] for row in full} == {34.38}


def test_the_command_lists_runs_and_reprints(plan, tmp_path, capsys):
    assert command.main(["ecpa"]) == 0
    assert "ECPA, Table IV (MAFW)" in capsys.readouterr().out
    file = tmp_path / "mine.yaml"
    file.write_text(PLAN.replace("RECIPE", plan.recipe).replace("run_placeholder: x\n", ""))
    arguments = ["ecpa", str(file), "--out", str(tmp_path / "out"), "--seeds", "7", "--only", "full"]
    assert command.main([*arguments, "--set", "epochs=9"]) == 0
    assert calls == [(0.2, 7)]
    assert "| full | 20.7 | 7.00 |" in capsys.readouterr().out
    assert (tmp_path / "out" / "mine.md").read_text().startswith("### A small table")
    assert command.main([*arguments, "--print"]) == 0, "without the change it is another run, which has no result yet"
    assert calls == [(0.2, 7)]
    assert "| full | – |" in capsys.readouterr().out
    assert command.main([*arguments, "--set", "epochs"]) == 2
    assert "--set expects NAME=VALUE" in capsys.readouterr().err


def test_recipes_of_ecpa_follow_the_paper():
    for name in ("ecpa_mafw", "ecpa_emvidcap", "ecpa_msvd", "ecpa_msrvtt"):
        recipe = load_recipe(name)
        assert (recipe.optimiser.lr, recipe.optimiser.weight_decay, recipe.optimiser.clip) == (3e-4, 0.2, 1.0)
        assert (recipe.schedule.name, recipe.schedule.warmup, recipe.epochs, recipe.seed) == ("linear", 0.1, 15, 88)
