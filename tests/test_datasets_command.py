"""``emo data``: what people see of a data set, and how two annotators are compared."""

from __future__ import annotations

import ast
import csv
import json
from pathlib import Path

import pytest
from dataset_files import mafw_split, touch, video, write

from training.datasets import READERS, agreement
from training.datasets.catalogue import SOURCES
from training.datasets.command import main
from training.datasets.quarantine import REASONS


@pytest.fixture
def mafw(tmp_path: Path) -> Path:
    root = tmp_path / "mafw"
    mafw_split(root, [
        b"00001.mp4\t4\t\tA man smiles.", b"00002.mp4\t1\t\tA man frowns.", b"00003.mp4\t1\t\tNo clip.", b"00004.mp4\t12\t\tx",
    ])  # fmt: skip
    video(root / "data/clips/00001.mp4")
    touch(root / "data/clips", "00002.mp4")
    return root


def test_check_tells_people(mafw, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["check", "mafw", str(mafw), "--videos", "--option", "fold=1"]) == 1
    out, err = capsys.readouterr()
    assert "records      train 2" in out
    assert "emotions     happiness 1, anger 1" in out
    assert "train rows: 4, published 6,423" in out
    assert "differs    test rows: published 1,611, found 0" in out
    assert "missing      1 of 3 clips, as 00003" in out
    assert "left out     1 unreadable-video: a video from which no picture can be decoded" in out
    assert "data/clips/00002.mp4, 00002: expected a video, it cannot be decoded" in out
    assert "where to ask the form of https://github.com/MAFW-database/MAFW" in out
    assert "licence      signed agreement" in out
    rows = [json.loads(line) for line in (tmp_path / "mafw.quarantine.jsonl").read_text().splitlines()]
    assert [(r["row"], r["reason"]) for r in rows] == [(4, "class-out-of-range"), ("00002", "unreadable-video")]
    assert err == "emo data check: 2 rows left out, each with its reason: mafw.quarantine.jsonl\n"


def test_check_tells_programs(mafw, tmp_path, capsys):
    file = tmp_path / "deep/left.jsonl"
    assert main(["check", "mafw", str(mafw), "--json", "--quarantine", str(file)]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert (facts["records"], facts["left_out"]) == ({"train": 3}, {"class-out-of-range": 1})
    assert len(file.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "mafw", "{}", "--option", "fold"], "expected NAME=VALUE, got 'fold'"),
        (["check", "mafw", "{}", "--option", "fold=x"], "fold: expected int, got 'x'"),
        (["check", "mafw", "{}", "--option", "captions=x"], "captions: expected true or false, got 'x'"),
        (["check", "mafw", "{}", "--option", "videos=/nowhere"], "videos: expected a folder with clips"),
        (["check", "meld", "{}"], "expected MELD's tables"),
        (["check", "mafw", "{}", "--quarantine", "/proc/none/x"], "the quarantine file cannot be written"),
        (["export", "mafw", "{}", "--to", "swinbert", "--out", "/proc/none"], "/proc/none: cannot be written"),
        (["label", "{}", "x.csv"], "expected clips.csv"),
    ],
)
def test_errors_are_one_line_with_what_was_expected(mafw, capsys, arguments, said):
    assert main([str(mafw) if a == "{}" else a for a in arguments]) == 78
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_list_names_every_reader_with_its_licence(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert SOURCES.keys() == READERS.keys()
    assert all(f"{name}: {source.title}" in out and source.licence in out for name, source in SOURCES.items())
    assert "options  setting='single', captions=True, fold=1, lang='en', videos=''" in out


def test_export_to_swinbert(mafw, tmp_path, capsys):
    assert main(["export", "mafw", str(mafw), "--to", "swinbert", "--out", str(tmp_path / "tsv")]) == 1
    assert "train 2 clips written" in capsys.readouterr().out
    assert main(["check", "swinbert", str(tmp_path / "tsv")]) == 0
    assert "captions     2, 3.0 words on average" in capsys.readouterr().out


def test_every_reason_is_used_by_a_reader_and_seen_by_a_test():
    """A reason that nobody gives, or that no test has seen, is found here."""
    folder = Path(__file__).parent
    code = "".join(p.read_text() for p in (folder.parent / "training/datasets").glob("*.py") if p.stem != "quarantine")
    tests = "".join(p.read_text() for p in folder.glob("test_datasets_*.py"))
    texts = {n.value for n in ast.walk(ast.parse(tests)) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    assert [reason for reason in REASONS if f'"{reason}"' not in code] == []
    assert REASONS.keys() - texts == set()


SHEET = "clip,speaker,utterance,emotion,text\n"


@pytest.fixture
def sheets(tmp_path: Path) -> list[str]:
    first = write(tmp_path / "1.csv", SHEET + 'a,,,joy,"He won, at last."\nb,,,Anger,She lost.\nc,,,joy,\n')
    second = write(tmp_path / "2.csv", SHEET + 'c,,,joy,Something.\nb,,,fear,It is dark.\na,,,joy,"He won, at last."\n')
    return [str(first), str(second)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A BERT of two layers with random weights."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "he", "won", "at", "last", "she", "lost", "it", "is", "dark"]
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    transformers.BertModel(transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32,
    )).save_pretrained(folder)  # fmt: skip
    return folder


def test_agreement_by_the_rule_of_the_paper(sheets, tmp_path, capsys, model):
    out = tmp_path / "agreed.csv"
    options = ["--model", str(model), "--layer", "2", "--out", str(out), "--threshold", "0.99"]
    assert main(["agree", *sheets, *options]) == 0
    page = capsys.readouterr().out
    assert "clips        3, 2 described by both" in page
    assert "sha256" in page
    assert "above 0.99   1: three others vote" in page
    assert "unfinished   1" in page
    assert "emotions     2 of 3 equal" in page
    with out.open(newline="") as stream:
        rows = list(csv.reader(stream))
    text = "He won, at last."
    assert rows[0] == list(agreement.RESULT)
    assert rows[1] == ["a", "1.0000", "vote", "joy", "joy", text, text, "joy", text]
    assert rows[2][2:] == ["discuss", "anger", "fear", "She lost.", "It is dark.", "", ""]
    assert rows[3][:3] == ["c", "", "annotate"]


def test_agreement_without_a_model_says_what_to_do(sheets, capsys):
    assert main(["agree", *sheets]) == 78
    assert "give its folder (configuration, tokenizer, weights) with --model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (SHEET + "a,,,joy,x\nb,,,joy,x\n", "only one has c (1 clips)"),
        (SHEET + "a,,,joy,\nb,,,joy,\nc,,,joy,\n", "share no filled-in row"),
        (SHEET + "a,,,joy,x\na,,,joy,x\n", "line 3: expected each clip once"),
        (SHEET + "a,joy\n", "line 2: expected 5 fields, got 2"),
        ("clip,text\na,x\n", "without emotion"),
    ],
)
def test_sheets_that_cannot_be_compared(sheets, tmp_path, capsys, second, said):
    write(tmp_path / "2.csv", second)
    assert main(["agree", *sheets]) == 78
    assert said in capsys.readouterr().err


def test_kappa_is_chance_corrected():
    pairs = [agreement.Pair(str(i), ("x", "x"), pair, 1.0) for i, pair in enumerate(
        [("joy", "joy")] * 20 + [("fear", "fear")] * 15 + [("joy", "fear")] * 10 + [("fear", "joy")] * 5
    )]  # fmt: skip
    assert agreement.Agreement(tuple(pairs), 0.75, "").kappa == pytest.approx(
        0.4
    )  # Cohen, 1960: 0.7 against 0.5 by chance
    same = agreement.Agreement(tuple(pairs[:2]), 0.75, "")
    assert same.kappa is None
