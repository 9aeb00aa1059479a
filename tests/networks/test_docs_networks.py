"""docs/networks.md is held to the code: its snippets run, its tables name what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the networks need torch")
transformers = pytest.importorskip("transformers", reason="the towers of text and vision need transformers")
pytest.importorskip("scipy", reason="the Hungarian method is scipy's")

import public_files as public  # noqa: E402

import emo_models  # noqa: E402
from emo_models.checkpoints import LAYOUTS, RELEASES  # noqa: E402
from emo_models.registry import config_class  # noqa: E402

PAGE = Path(__file__).parents[2] / "docs" / "networks.md"
TEXT = PAGE.read_text(encoding="utf-8")


def rows(first: str) -> list[list[str]]:
    """Cells of the table whose first column is headed ``first``."""
    lines = TEXT.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |")) + 2
    end = next(i for i in range(start, len(lines)) if not lines[i].startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:end]]


def write_swinbert(ecpa: Any, file: Path) -> None:
    """A file as SwinBERT's, of this network's sizes."""
    v, c = ecpa.visual.encoder.config, ecpa.trans_encoder.config
    visual = public.swin(v.embed_dim, v.depths, v.heads, v.window)
    text = public.bert(c.hidden, c.layers, c.feed_forward, c.vocab_size, c.positions)
    torch.save(public.swinbert(visual, v.dim, text, c.hidden, image_width=c.visual_width), file)


def test_snippets_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {}
    for block in re.finditer(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE):
        if '"model.bin"' in block.group(1):
            write_swinbert(space["ecpa"], tmp_path / "model.bin")
        line = TEXT.count("\n", 0, block.start(1))
        exec(compile("\n" * line + block.group(1), str(PAGE), "exec"), space)
    printed = capsys.readouterr().out
    assert printed.count("layout ") == len(RELEASES["swinbert"])
    assert space["out"].pairs > 0
    assert len(space["caption"].emotion) == len(space["ecpa"].config.classes)
    # Random weights may answer with nothing but special tokens; once a word came, the answer was cancelled.
    assert (space["answer"].finish == "cancelled") is bool(space["answer"].text)
    assert space["cache"].reused == space["ahead"].fixed
    assert len(space["seen"]) == len(space["R"])
    assert (space["seen"] - space["R"]).abs().max() <= 1e-4
    assert torch.equal(space["again"].kind, space["ecpa"].kind)


def test_every_network_and_preset_is_in_the_table_with_its_parameters():
    table = {row[0].strip("`"): row for row in rows("network")}
    assert set(table) == set(emo_models.list_networks())
    for name, row in table.items():
        assert set(re.findall(r"`(\w+)`", row[1])) == set(emo_models.list_presets(name))
        with torch.device("meta"):
            network = emo_models.create(name)
        assert row[3] == f"{sum(p.numel() for p in network.parameters()) / 1e6:.1f}"


def test_every_layout_and_release_is_named():
    section = TEXT.partition("## Public checkpoints")[2].partition("\n## ")[0]
    assert set(LAYOUTS) | set(RELEASES) <= set(re.findall(r"[`\"](\w+)[`\"]", section))


@pytest.mark.parametrize(("first", "network"), [("ECPA", "ecpa"), ("FAME-Net", "fame")])
def test_every_reading_can_be_selected(first, network):
    """... and is another than the default."""
    default = config_class(network)()
    selected = [option for row in rows(first) for option in re.findall(r"`(\w+=[^`]*)`", row[2])]
    assert len(selected) >= 5
    for option in selected:
        options = eval(f"dict({option})")
        assert all(getattr(default, name) != value for name, value in options.items()), option
        with torch.device("meta"):
            emo_models.create(network, "toy" if network == "ecpa" and "visual" not in options else "paper", **options)


def test_the_calls_outside_the_snippets_work():
    with torch.device("meta"):
        model = emo_models.create("ecpa", "swinbert", frames=32, learned_sparse=True)
        assert model.trans_encoder.learn_vid_att.weight.shape == (784**2, 1)
        for text in ("clip", "t5", "gpt2"):
            emo_models.create("ecpa", text=text, freeze_text=True, freeze_visual=True)
        emo_models.create("anfl", side_parents="facs")
