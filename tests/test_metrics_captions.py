"""Caption scores equal the reference COCO scorer's, and what cannot be scored is said."""

import json
import math
import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("pycocoevalcap.bleu.bleu", reason="captions are scored by pycocoevalcap")

from training.metrics import captions
from training.metrics.base import MetricError
from training.metrics.captions import score_captions
from training.metrics.ptb import caption_tokens

DATA = Path(__file__).parent / "data"
CASES = json.loads((DATA / "ptb_cases.json").read_text(encoding="utf-8"))["cases"]
SETS = json.loads((DATA / "caption_scores.json").read_text(encoding="utf-8"))["sets"]


@pytest.mark.parametrize("text", CASES)
def test_tokens_are_those_of_the_java_program(text):
    assert caption_tokens(text) == CASES[text]


@pytest.mark.parametrize("recorded", SETS, ids=lambda s: s["name"])
def test_values_equal_the_reference_scorer(recorded):
    scores = score_captions(recorded["predictions"], recorded["references"], meteor=False)
    for name, value in recorded["values"].items():
        if name != "METEOR":
            assert scores.values[name] == pytest.approx(value, abs=1e-6), name
            assert scores.per_clip[name] == pytest.approx(recorded["per_clip"][name], abs=1e-6), name
    assert scores.absent["METEOR"] == "not asked for"


@pytest.mark.slow  # its program reads 60 MB of paraphrases first
@pytest.mark.skipif(bool(captions.meteor_absent()), reason=captions.meteor_absent())
def test_meteor_equals_the_reference_scorer():
    recorded = SETS[-1]
    scores = score_captions(recorded["predictions"], recorded["references"])
    assert scores.values["METEOR"] == pytest.approx(recorded["values"]["METEOR"], abs=1e-6)
    assert scores.per_clip["METEOR"] == pytest.approx(recorded["per_clip"]["METEOR"], abs=1e-6)


def test_without_java_meteor_is_absent_and_nothing_stands_for_it(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a program was started"))
    scores = score_captions({"a": "a man smiles"}, {"a": ["a man smiles"]})
    assert "METEOR" not in scores.values
    assert "default-jre" in scores.absent["METEOR"]
    assert {"BERTScore", "BLEURT"} <= set(scores.absent)


def test_a_java_that_fails_leaves_meteor_absent(tmp_path, monkeypatch):
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\nread line\nexit 1\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    scores = score_captions({"a": "a man smiles"}, {"a": ["a man smiles"]})
    assert "METEOR" not in scores.values
    assert "ended before its answer" in scores.absent["METEOR"]
    assert scores.values["BLEU-1"] == pytest.approx(1)


def test_raw_strings_of_the_obg_protocol():
    references = {"a": ["A man smiles."], "b": ["A dog runs."]}
    raw = score_captions({"a": "a man smiles", "b": "A dog runs."}, references, protocol="obg", meteor=False)
    # "A" and "smiles." differ from "a" and "smiles": 1 of 3 words is right in a, 3 of 3 in b.
    assert raw.per_clip["BLEU-1"] == pytest.approx({"a": 1 / 3, "b": 1})
    assert raw.values["BLEU-1"] == pytest.approx(4 / 6)
    coco = score_captions({"a": "a man smiles", "b": "A dog runs."}, references, meteor=False)
    assert coco.per_clip["BLEU-1"] == pytest.approx({"a": 1, "b": 1})


def test_bleu_and_rouge_by_hand():
    scores = score_captions(
        {"a": "a man smiles happily", "b": "x"},
        {"a": ["a man smiles", "the man smiles so happily now"], "b": ["y"]},
        meteor=False,
    )
    # Bigrams of a: "a man", "man smiles" are in a reference, "smiles happily" is not; length 4 is nearest to 3.
    assert scores.per_clip["BLEU-2"]["a"] == pytest.approx(math.sqrt(1 * 2 / 3))
    # Longest common subsequences 3 of 3 and 3 of 6 words; 3 of our 4.
    precision, recall = 3 / 4, 3 / 3
    assert scores.per_clip["ROUGE-L"]["a"] == pytest.approx(2.44 * precision * recall / (recall + 1.44 * precision))


def test_clips_of_one_side_are_told():
    scores = score_captions(
        {"a": "a man smiles", "b": "...", "x": "nobody asked"},
        {"a": ["a man"], "b": ["a dog"], "c": ["a cat"]},
        meteor=False,
    )
    assert (scores.coverage.without_prediction, scores.coverage.without_reference) == (("c",), ("x",))
    assert scores.coverage.empty_predictions == ("b",)
    assert scores.per_clip["ROUGE-L"]["b"] == 0
    assert "1 without a prediction, not scored (c)" in scores.coverage.describe()
    assert not scores.coverage.complete


@pytest.mark.parametrize(
    ("predictions", "references", "what"),
    [
        ({}, {"a": ["x"]}, "no predictions"),
        ({"a": "x"}, {}, "no references"),
        ({"a": "x"}, {"b": ["x"]}, "no clip has both"),
        ({"a": "x"}, {"a": []}, "no reference or one without words"),
        ({"a": "x"}, {"a": ["a man", " ... "]}, "no reference or one without words"),
        ({"a": "x"}, {"a": "a man"}, "one reference list per clip, got str"),
        ({"a": ["x"]}, {"a": ["a man"]}, "one prediction per clip, got list"),
    ],
)
def test_what_cannot_be_scored_is_said(predictions, references, what):
    with pytest.raises(MetricError, match=what):
        score_captions(predictions, references, meteor=False)


def test_unknown_protocol_names_the_choices():
    with pytest.raises(MetricError, match="coco, obg"):
        score_captions({"a": "x"}, {"a": ["x"]}, protocol="cocoo")
