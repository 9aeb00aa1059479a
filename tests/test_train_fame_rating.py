"""The blinded rating sheet: nothing in it tells who wrote what, and what comes back is checked and counted right."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter

import numpy as np
import pytest

from training.evaluation.rating import (
    CRITERIA,
    RatingError,
    Sentence,
    draw,
    krippendorff_alpha,
    main,
    read_sheet,
    score,
    write_sheets,
)

ANSWERS = {
    "fame": {f"c{i}": f"Ross is glad about boat {i}." for i in range(8)},
    "prior": {f"c{i}": "Ross is glad." if i else "Ross is glad about  boat 0." for i in range(9)},
}


def test_alpha_is_krippendorffs_own_example():
    """Computing Krippendorff's Alpha-Reliability, 2011, section C: ordinal 0.815."""
    n = math.nan
    ratings = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, n, n, n],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, n, 3],
        [n, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, n],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, n],
    ]
    assert krippendorff_alpha(ratings) == pytest.approx(0.815, abs=5e-4)
    assert krippendorff_alpha([[1, 2, 3], [1, 2, 3]]) == 1
    assert math.isnan(krippendorff_alpha([[1, 2, 3]]))
    assert math.isnan(krippendorff_alpha([[4, 4], [4, 4]]))


def test_only_common_clips_are_drawn_and_equal_words_are_rated_once():
    sentences = draw(ANSWERS, 100, seed=1)
    assert {s.clip_id for s in sentences} == {f"c{i}" for i in range(8)}
    assert Counter(s.clip_id for s in sentences) == {"c0": 1, **{f"c{i}": 2 for i in range(1, 8)}}
    assert next(s for s in sentences if s.clip_id == "c0").systems == ("fame", "prior")
    assert {s.clip_id for s in draw(ANSWERS, 3, seed=1)} == {s.clip_id for s in draw(ANSWERS, 3, seed=1)}
    with pytest.raises(RatingError, match="found 0"):
        draw({"a": {"x": "y"}, "b": {"z": "y"}}, 1, seed=0)


def test_sheets_are_blind_and_each_in_another_order(tmp_path):
    sentences = draw(ANSWERS, 8, seed=0)
    sheets = write_sheets(tmp_path, sentences, {"c1": "=SUM(A1)"}, ["ann", "bob"], seed=0)
    texts = [sheet.read_text(encoding="utf-8-sig") for sheet in sheets]
    assert not any(word in text for text in texts for word in ("fame", "prior"))
    rows = [list(csv.DictReader(text.splitlines())) for text in texts]
    assert [r["code"] for r in rows[0]] != [r["code"] for r in rows[1]]
    assert {r["code"] for r in rows[0]} == {r["code"] for r in rows[1]} == {s.code for s in sentences}
    assert not any(row["context"].startswith("=") for row in rows[0])
    with pytest.raises(RatingError, match="may be filled in"):
        write_sheets(tmp_path, sentences, {}, ["ann"], seed=0)
    with pytest.raises(RatingError, match="name of his own"):
        write_sheets(tmp_path / "b", sentences, {}, ["ann", "ann"], seed=0)


def fill(sheet, rate):
    """What a rater does: a number into each of the three columns."""
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row.update({name: str(rate(row, name)) for name in CRITERIA})
    with sheet.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return rows


def test_from_answers_to_the_table(tmp_path, capsys):
    for name, of in ANSWERS.items():
        lines = [json.dumps({"clip_id": clip, "text": text, "context": "Ross: A boat!"}) for clip, text in of.items()]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    systems = [f"{name}={tmp_path / f'{name}.jsonl'}" for name in ANSWERS]
    out = tmp_path / "rating"
    assert main(["sheet", *systems, "--out", str(out), "--raters", "ann", "bob"]) == 0
    for sheet in out.glob("sheet_*.csv"):
        fill(sheet, lambda row, name: (5 if "boat" in row["sentence"] else 2) - (name == "fluency"))
    capsys.readouterr()
    assert main(["score", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "| fame | 5.00 [5.00, 5.00] | 4.00 [4.00, 4.00] |" in printed
    assert printed.index("fame") < printed.index("prior")
    assert "2 raters, 8 clips" in printed
    assert "relevance 1.00" in printed


def test_means_are_over_clips_and_shared_sentences_count_for_both():
    key = {
        "a": {"clip_id": "1", "systems": ["x", "y"]},
        "b": {"clip_id": "2", "systems": ["x"]},
        "c": {"clip_id": "2", "systems": ["y"]},
    }
    one = {code: dict.fromkeys(CRITERIA, value) for code, value in (("a", 4), ("b", 5), ("c", 1))}
    two = {code: dict.fromkeys(CRITERIA, value) for code, value in (("a", 2), ("b", 5), ("c", 2))}
    found = score(key, [one, two])
    assert found.systems["x"]["fluency"].mean == pytest.approx(np.mean([3, 5]))
    assert found.systems["y"]["fluency"].mean == pytest.approx(np.mean([3, 1.5]))
    assert found.systems["y"]["fluency"].low == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[0].update(fluency="6"), "line 2: fluency must be a whole number from 1 to 5, got '6'"),
        (lambda rows: rows[0].update(fluency=""), "line 2: fluency must be a whole number from 1 to 5, got ''"),
        (lambda rows: rows[1].update(code=rows[0]["code"]), "line 3: code .* is twice there"),
        (lambda rows: rows[1].update(code="nobody"), "line 3: code 'nobody' is unknown"),
        (lambda rows: rows.pop(), "1 sentences are not rated"),
    ],
)
def test_what_raters_get_wrong_is_named(tmp_path, change, message):
    sentences = [Sentence(f"k{i}", f"c{i}", "words", ("x",)) for i in range(3)]
    (sheet,) = write_sheets(tmp_path, sentences, {}, ["ann"], seed=0)
    rows = fill(sheet, lambda row, name: 3)
    change(rows)
    with sheet.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    with pytest.raises(RatingError, match=message):
        read_sheet(sheet, [s.code for s in sentences])


def test_wrong_answers_are_an_error_that_says_so(tmp_path, capsys):
    file = tmp_path / "a.jsonl"
    file.write_text('{"id": 3}\n', encoding="utf-8")
    assert main(["sheet", f"x={file}", "--out", str(tmp_path / "o")]) == 1
    assert 'a.jsonl, line 1: expected {"clip_id"' in capsys.readouterr().err
    assert main(["sheet", str(file), "--out", str(tmp_path / "o")]) == 1
    assert "expected NAME=FILE" in capsys.readouterr().err
    assert main(["score", str(tmp_path)]) == 1
