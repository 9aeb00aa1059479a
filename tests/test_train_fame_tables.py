"""FAME-Net's tables from the command: its own rows are trained, those of others are asked or only shown."""

from __future__ import annotations

import json

import pytest
import yaml

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("accelerate", reason="the trainer runs on accelerate")

from chat_server import chat_server  # noqa: E402
from fame_toys import lessons, recipe, write_ecem  # noqa: E402

from training.tables.command import main  # noqa: E402
from training.tables.plan import load_plan  # noqa: E402
from training.trainer.loop import train  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")  # without Java: METEOR takes seconds
    monkeypatch.setenv("EMO_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A recipe of FAME-Net whose frozen parts are there, and a plan with rows of three kinds."""
    root = tmp_path_factory.mktemp("tables")
    write_ecem(root / "ecem")
    lessons(root / "lessons")
    language = train(recipe("language", root / "language", ("lessons", root / "lessons"), evaluate={"split": "val"}))
    clip = train(
        recipe("clip", root / "clip", ("ecem", root / "ecem"), options={"features": str(root / "f"), "frames": 2})
    )
    weights = {"language": str(language.weights), "clip": str(clip.weights)}
    network = {"weights": weights, "options": {"frames": 4, "max_length": 500, "max_new_tokens": 4}}
    made = recipe("fame", root / "x", ("ecem", root / "ecem"), network=network, options={"features": str(root / "f")})
    values = {k: v for k, v in made.to_dict().items() if k != "out"}
    (root / "fame.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    plan = {
        "title": "Three kinds of rows", "source": "this test", "recipe": str(root / "fame.yaml"), "seeds": [3],
        "columns": [{"metric": "CIDEr"}, {"metric": "BLEU-1"}, {"metric": "answered"}],
        "rows": [
            {"name": "shown", "run": "", "paper": {"CIDEr": 0.51}},
            {"name": "asked", "run": "training.tables.baselines:ask", "paper": {"CIDEr": 0.66}},
            {"name": "V", "set": {"options.inputs": "V"}},
            {"name": "none", "set": {"options.inputs": "none"}},
        ],
    }  # fmt: skip
    (root / "plan.yaml").write_text(yaml.safe_dump(plan), encoding="utf-8")
    return root


def test_rows_are_trained_asked_or_shown(world, tmp_path, capsys):
    out = tmp_path / "tables"
    with chat_server(answer=lambda text: "Ann feels joy because of the red ball on the left.") as server:
        asked = ["--set", f"options.baseline.url={server.url}", "options.baseline.model=tiny"]
        assert main(["fame", str(world / "plan.yaml"), "--out", str(out), *asked]) == 0
        assert len(server.asked) == 4
        assert main(["fame", str(world / "plan.yaml"), "--out", str(out), *asked]) == 0  # nothing is done again
        assert len(server.asked) == 4
    rows = {
        line.split(" | ")[0].strip("| "): line for line in capsys.readouterr().out.splitlines() if line.startswith("|")
    }
    assert rows["shown"].split("|")[2:4] == [" – ", " 0.51 "]
    found = {row["row"]: row["metrics"] for row in json.loads((out / "plan.json").read_text())}
    assert set(found) == {"asked", "V", "none"}
    assert found["asked"]["answered"] == 1
    assert found["asked"]["BLEU-1"] > 0.4
    assert 0 <= found["V"]["BLEU-1"] <= 1


def test_a_baseline_that_cannot_be_asked_says_what_to_set(world, tmp_path, capsys):
    plan = [str(world / "plan.yaml"), "--only", "asked", "--out", str(tmp_path)]
    assert main(["fame", *plan]) == 2
    assert "--set options.baseline.url=" in capsys.readouterr().err
    assert main(["fame", *plan, "--set", "options.baseline.url=localhost"]) == 2
    assert "expected a base URL" in capsys.readouterr().err


def test_the_papers_figures_are_those_of_the_paper():
    """Table 2's rows by name, Table 4's by what they are asked with, Table 5's by their text."""
    two, four, five = (load_plan("fame", f"table{n}") for n in (2, 4, 5))
    assert len(two.rows) == 19
    best = {
        "BLEU-4": 0.0870,
        "METEOR": 0.3423,
        "ROUGE-L": 0.4051,
        "BERTScore": 0.9053,
        "BLEURT": -0.4789,
        "CIDEr": 0.6836,
    }
    for plan, row in ((two, "FAME-Net"), (four, "V+T+E"), (five, "recognised text")):
        assert next(r for r in plan.rows if r.name == row).paper == best
    assert [r.set["options.inputs"] for r in four.rows] == ["none", "V", "V+E", "V+T", "V+T+E"]
    shown = [r.name for r in two.rows if not r.run]
    assert shown == ["IGV", "ObG", "COSA", "VALOR"]
    assert {r.name for r in two.rows if r.set} == {r.name for r in two.rows if "Multi" in r.group} - {"FAME-Net"}
