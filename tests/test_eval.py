"""``emo eval``: predictions in, a page out; comparison of two sets; what is wrong with a file is said with its line."""

import json
import math
import re

import numpy as np
import pytest

from training.evaluation import document, statistic
from training.evaluation.command import main
from training.evaluation.document import Example, Heading, Span, Table
from training.evaluation.predictions import Prediction, read_predictions, read_references, write_predictions
from training.evaluation.statistic import Statistic, bleu, class_figure, difference
from training.metrics.base import MetricError
from training.metrics.grounding import Evidence

pytest.importorskip("pycocoevalcap.bleu.bleu", reason="captions are scored by pycocoevalcap")
pytest.importorskip("matplotlib", reason="the page has plots")
pytest.importorskip("torch", reason="the lexicon of action units comes with the networks")

CLIPS = [f"{number:03d}" for number in range(40)]
FACES = ("a man smiles", "a woman frowns deeply", "a girl with raised eyebrows", "a boy opens his mouth")
PLACES = ("at the table", "in the street", "with a dog", "near the window", "on a boat")


def sentence(number):
    return f"{FACES[number % 4]} {PLACES[number % 5]}"


def predictions(wrong):
    """Every ``wrong``-th clip has the caption and class of another."""
    for number, clip in enumerate(CLIPS):
        said = number + 1 if number % wrong == 0 else number
        text = sentence(said)
        units = {0: 12, 1: 4, 2: 1, 3: 25}
        yield Prediction(
            clip,
            text,
            references=(sentence(number), sentence(number).replace("a ", "the ")),
            emotion={"joy": 0.6, "anger": 0.4} if said % 4 == 0 else {"joy": 0.3, "anger": 0.7},
            true_emotion="joy" if number % 4 == 0 else "anger",
            evidence=(Evidence(2, len(text), units[said % 4], 0.9),),
            au_scores={au: 0.9 if au == units[number % 4] else round(0.1 + number / 1000, 3) for au in (1, 4, 12, 25)},
            active_aus=(units[number % 4],),
            causes=(f"{clip}-a",),
            true_causes=(f"{clip}-a",) if number % 2 else (f"{clip}-b",),
            cause_phrases=(PLACES[number % 5],),
            other_phrases=("with a dog",) if number % 5 != 2 else (),
            kind="visible" if number % 2 else "words",
        )


@pytest.fixture
def files(tmp_path):
    write_predictions(tmp_path / "good.jsonl", predictions(10))
    write_predictions(tmp_path / "bad.jsonl", predictions(2))
    return tmp_path


def test_a_file_comes_back_as_it_was_written(files):
    assert list(read_predictions(files / "good.jsonl").values()) == list(predictions(10))


def test_two_sets_on_one_page(files, capsys):
    out = files / "out"
    code = main([f"good={files / 'good.jsonl'}", f"bad={files / 'bad.jsonl'}", "--no-meteor", "--out", str(out)])
    assert code == 0, capsys.readouterr().err
    found = json.loads((out / "report.json").read_text())
    figures = found["sets"]["good"]["figures"]
    assert figures["class accuracy"] == pytest.approx(
        38 / 40
    )  # of 0, 10, 20, 30 two are joys that were taken for anger
    assert figures["AU-phrase F1"] == pytest.approx(36 / 40)
    assert figures["AU-phrase F1, exact"] == pytest.approx(36 / 40)
    assert figures["hallucination rate"] == pytest.approx(4 / 40)
    assert figures["grounding precision"] == 1
    assert figures["AU AUC"] == 1
    assert figures["cause-evidence accuracy, visible"] == 1
    assert figures["cause-evidence accuracy"] == 0.5
    assert figures["cause named"] == pytest.approx(36 / 40)
    assert found["sets"]["good"]["absent"]["METEOR"] == "not asked for"
    cider = found["differences"]["CIDEr"]
    assert cider["low"] > 0 and cider["p"] < 0.05  # noqa: PT018
    page = (out / "report.html").read_text()
    assert "good is better" in page
    assert not re.search(r'(?:src|href)="(?!data:)', page)  # nothing is loaded from anywhere
    assert page.count("data:image/png;base64,") == 5  # two confusions, phrases, units of both
    text = (out / "report.md").read_text()
    for plot in re.findall(r"\]\((plots/\S+\.png)\)", text):
        assert (out / plot).read_bytes().startswith(b"\x89PNG")
    assert "| good | " in text
    assert "40 clips" in text


def test_references_of_one_side_are_counted(files, capsys):
    (files / "refs.json").write_text(
        json.dumps({**{c: [sentence(n)] for n, c in enumerate(CLIPS[:30])}, "new": ["x y"]})
    )
    command = [str(files / "good.jsonl"), "--refs", str(files / "refs.json"), "--no-meteor", "--no-plots"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert (
        "30 clips; 1 without a prediction, not scored (new); 10 without a reference, not scored (030, 031, 032, ...)"
        in said
    )
    assert (files / "good-eval" / "report.html").is_file()


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ('{"clip_id": "a", "text": "x"}\n{"clip_id": "a", "text": "y"}', r"line 2: clip 'a' is there twice"),
        ('{"clip_id": "a"}', r"line 1: expected .*KeyError"),
        ('{"clip_id": "a", "text": 3}', "text is int"),
        ('{"clip_id": "a", "text": "x", "references": "y"}', "references and phrases must be lists"),
        ("nonsense", "line 1: expected"),
        ("\n", "holds no predictions"),
        ('{"clip_id": "a", "text": "x"}', "neither references nor true classes"),
        ('{"clip_id": "a", "text": "x", "references": ["..."]}', "without words"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, capsys, lines, what):
    (tmp_path / "p.jsonl").write_text(lines)
    assert main([str(tmp_path / "p.jsonl"), "--no-meteor"]) == 1
    assert re.search(what, capsys.readouterr().err)


def test_wrong_paths_and_names(files, capsys):
    assert main([str(files / "none.jsonl")]) == 1
    assert "no such file" in capsys.readouterr().err
    assert main([str(files)]) == 1
    assert "folder of a run" in capsys.readouterr().err
    assert main([str(files / "good.jsonl"), str(files / "good.jsonl")]) == 1
    assert "two sets are called 'good'" in capsys.readouterr().err


def test_an_empty_prediction_counts_as_the_worst(tmp_path, capsys):
    rows = [{"clip_id": str(n), "text": "" if n == 0 else sentence(n), "references": [sentence(n)]} for n in range(8)]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main([str(tmp_path / "p.jsonl"), "--no-meteor", "--no-plots"]) == 0
    assert "1 with an empty prediction, scored as such (0)" in capsys.readouterr().out
    figures = json.loads((tmp_path / "p-eval" / "report.json").read_text())["sets"]["p"]["figures"]
    assert figures["ROUGE-L"] == pytest.approx(7 / 8)


def test_references_of_all_three_forms(tmp_path):
    coco = {"images": [], "annotations": [{"image_id": 7, "caption": "a"}, {"image_id": 7, "caption": "b"}]}
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    (tmp_path / "lists.json").write_text(json.dumps({"7": ["a", "b"]}))
    (tmp_path / "lines.jsonl").write_text('{"clip_id": 7, "references": ["a", "b"]}\n')
    for name in ("coco.json", "lists.json", "lines.jsonl"):
        assert read_references(tmp_path / name) == {"7": ("a", "b")}
    (tmp_path / "lines.jsonl").write_text('{"clip_id": 7}\n')
    with pytest.raises(MetricError, match="line 1: expected"):
        read_references(tmp_path / "lines.jsonl")


def test_references_come_out_of_a_data_set(tmp_path, capsys):
    videos = [{"video_id": f"video{n}", "split": "test" if n else "train", "category": 1} for n in range(4)]
    sentences = [{"video_id": f"video{n}", "caption": sentence(n), "sen_id": n} for n in range(4)]
    (tmp_path / "MSRVTT_data.json").write_text(json.dumps({"videos": videos, "sentences": sentences}))
    rows = [json.dumps({"clip_id": f"video{n}", "text": sentence(n)}) for n in range(1, 4)]
    (tmp_path / "p.jsonl").write_text("\n".join(rows))
    command = [str(tmp_path / "p.jsonl"), "--data", "msrvtt", str(tmp_path), "--no-meteor", "--no-plots"]
    assert main(command) == 0, capsys.readouterr().err
    assert "3 clips" in capsys.readouterr().out
    assert main([*command, "--split", "val"]) == 1
    assert "has no captions" in capsys.readouterr().err
    assert main([*command, "--refs", str(tmp_path / "p.jsonl")]) == 1
    assert "not from both" in capsys.readouterr().err


def test_words_of_emotion_and_a_model_join_in(files, capsys):
    (files / "words").mkdir()
    (files / "words" / "joy.txt").write_text("smiles\n")
    (files / "words" / "anger.txt").write_text("frowns\n")
    command = [str(files / "good.jsonl"), "--no-meteor", "--no-plots", "--emotion-words", str(files / "words")]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert all(figure in said for figure in ("Acc_sw", "Acc_c", "BFS", "CFS"))
    assert main([*command, "--bertscore", str(files)]) == 1
    assert "config.json is missing" in capsys.readouterr().err


def test_rating_has_its_place(capsys):
    with pytest.raises(SystemExit):
        main(["rate", "--help"])
    assert "sheet" in capsys.readouterr().out


# Statistics


def test_the_bootstrap_is_that_of_the_mean():
    """Of a mean the interval is known: 1.96 standard errors."""
    noise = np.random.default_rng(1).normal(0.5, 1, 400)
    names = [str(n) for n in range(400)]
    first = Statistic.mean(dict(zip(names, noise, strict=True)))
    second = Statistic.mean(dict.fromkeys(names, 0.0))
    found = difference(first, second)
    error = noise.std() / 20
    assert found.value == pytest.approx(noise.mean())
    assert found.low == pytest.approx(noise.mean() - 1.96 * error, abs=0.02)
    assert found.high == pytest.approx(noise.mean() + 1.96 * error, abs=0.02)
    assert found.sure
    assert difference(first, second) == found  # seeded


def test_pairs_cancel_what_clips_share():
    hard = np.random.default_rng(0).normal(0, 10, 200)
    first = Statistic.mean({str(n): v + 0.1 for n, v in enumerate(hard)})
    second = Statistic.mean({str(n): v for n, v in enumerate(hard)})
    found = difference(first, second)
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))


def test_clips_that_one_lacks_are_left_out_and_counted():
    found = difference(Statistic.mean({"a": 1.0, "b": 0.0}), Statistic.mean({"b": 0.0, "c": 1.0}))
    assert (found.clips, found.only_one, found.value) == (1, 2, 0)
    with pytest.raises(MetricError, match="share no clip"):
        difference(Statistic.mean({"a": 1.0}), Statistic.mean({"b": 1.0}))


def test_statistics_of_sums_by_hand():
    sums = np.array([5, 6, 5, 4, 3, 2, 4, 2, 1, 0], float)
    assert bleu(2)(sums) == pytest.approx(math.sqrt(4 / 5 * 2 / 4) * math.exp(1 - 6 / 5))
    matrix = np.array([[3, 1, 0], [1, 1, 0], [0, 0, 0]], float).ravel()
    assert class_figure("accuracy", 3)(matrix) == pytest.approx(4 / 6)
    assert class_figure("UAR", 3)(matrix) == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert class_figure("macro-F1", 3)(matrix) == pytest.approx((6 / 8 + 2 / 4) / 2)
    assert statistic.f1(np.array([1.0, 2, 1, 4])) == pytest.approx(2 * 0.5 * 0.25 / 0.75)


# The page


def test_texts_are_escaped_and_marked(tmp_path):
    example = Example(
        "<clip>", [("ours", "he smiles & frowns", [Span(3, 9, "right"), Span(12, 18, "wrong"), Span(3, 5)])]
    )
    page = document.to_html([Heading("A < B"), example, Table(["x"], [["-0.5"], ["a|b"]])])
    assert "<title>A &lt; B</title>" in page
    assert 'he <span class="right">smiles</span> &amp; <span class="wrong">frowns</span>' in page
    assert '<td class="number">-0.5</td>' in page
    text = document.to_markdown([example, Table(["x"], [["a|b"]])])
    assert "he **smiles** & ~~frowns~~" in text
    assert "a\\|b" in text
