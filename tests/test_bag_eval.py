"""``emo bag eval``: recordings through all stages, each reference beside what was said of it, damage named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import bag_files
import cv2
import numpy as np
import pytest
from bag_files import START_NS, STEP_NS, write_images, write_texts

from emo_models import weights
from emo_models.fetch import pull
from emo_perception.bags import BagError, BagWriter
from emo_perception.config import SourceConfig
from emo_perception.sources import open_source
from emo_perception.tools import bag as command
from emo_perception.types import NS_PER_S, AudioChunk, Caption, Cause, Utterance
from training.evaluation.bags.gather import Recording, recordings
from training.evaluation.bags.matching import Matched, caption_of, match, overlap
from training.evaluation.bags.results import write_results
from training.evaluation.bags.runner import Outcome
from training.evaluation.bags.story import Story
from training.evaluation.measure import Options
from training.evaluation.predictions import read_predictions
from training.recordings.references import FILE, Reference, write_references

S = NS_PER_S


@pytest.fixture(scope="module", autouse=True)
def _weights() -> None:
    for name in weights.profiles()["start"]:
        pull(name)


@pytest.fixture(scope="module")
def talk(tmp_path_factory) -> Path:
    """A man who talks, as a bag: images, sound, and his words as others understood them."""
    items = list(open_source(SourceConfig(uri=str(pull("ravdess_angry")), realtime=False, width=320, fps=5.0)))
    folder = tmp_path_factory.mktemp("bags") / "talk"
    writer = BagWriter(folder)
    stamps = []
    for item in items:
        now_ns = START_NS + item.stamp_ns
        if isinstance(item, AudioChunk):
            kind = "emo_msgs/msg/AudioChunk"
            fields = {"sample_rate": item.sample_rate_hz, "channels": 1, "data": item.samples}
            writer.write("/mic", kind, now_ns, bag_files.message(kind, header=bag_files.header(now_ns), **fields))
        else:
            stamps.append(now_ns)
            image = np.ascontiguousarray(item.image[..., ::-1])
            writer.write("/cam/image_raw", "sensor_msgs/msg/Image", now_ns, bag_files.raw(now_ns, image))
            if len(stamps) == 8:
                writer.write("/words", *said("u1", START_NS, now_ns + 1, "Dogs are sitting by the door! I hate dogs."))
    writer.close()
    write_references(folder / FILE, [
        Reference("caption", "clip", stamps[0], stamps[-1], ("A man frowns angrily.",), "anger"),
        Reference("cause", "u1", START_NS, stamps[7] + 1, ("He is angry because of the dogs.",), "anger", "Tom"),
    ])  # fmt: skip
    return folder


def said(key: str, start_ns: int, end_ns: int, text: str) -> tuple[str, int, bytes]:
    kind = "emo_msgs/msg/Utterance"
    head = bag_files.header
    cdr = bag_files.message(
        kind, header=head(end_ns), id=key, speaker="Tom", track_id=0, start=head(start_ns).stamp, end=head(end_ns).stamp,
        text=text, language="en", confidence=1.0, words=[],
    )  # fmt: skip
    return kind, end_ns, cdr


def evaluate(*arguments: object) -> int:
    return command.main(["eval", *map(str, arguments), "--no-meteor", "--no-plots"])


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def done(talk: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("eval") / "one"
    assert command.main(["eval", str(talk), "--out", str(out), "--no-meteor"]) == 0
    return out


def test_a_clip_has_one_caption_at_its_end_and_an_utterance_its_explanation(talk: Path, done: Path) -> None:
    (caption,) = rows(done / "bags" / "talk" / "captions.jsonl")
    (clip, _) = recordings([talk])[0].references
    assert caption["window_end_ns"] == clip.end_ns
    assert (caption["window_end_ns"] - caption["window_start_ns"]) == pytest.approx(
        clip.end_ns - clip.start_ns, abs=2e7
    )
    prediction = read_predictions(done / "captions.jsonl")["clip"]
    assert prediction.text == caption["text"]
    assert prediction.references == ("A man frowns angrily.",)
    assert prediction.true_emotion == "angry"
    assert prediction.au_scores[4] > 0.5
    (answer,) = rows(done / "bags" / "talk" / "answers.jsonl")
    assert (answer["target_utterance"], answer["emotion"]) == ("u1", "angry")
    explained = read_predictions(done / "causes.jsonl")["u1"]
    assert explained.text == answer["text"]
    assert explained.true_emotion == ""  # it was given
    # The bag's words, whose ids are annotated, were read instead of listening.
    assert [u["id"] for u in rows(done / "bags" / "talk" / "utterances.jsonl")] == ["u1"]


def test_figures_times_and_counts_are_told(done: Path) -> None:
    found = json.loads((done / "metrics.json").read_text(encoding="utf-8"))
    assert set(found["figures"]) == {"Captions", "Explanations"}
    assert {"CIDEr", "ROUGE-L", "BLEU-4", "grounding precision", "hallucination rate"} <= set(
        found["figures"]["Captions"]
    )
    assert found["settings"]["words"] == ["words of /words"]
    assert found["recordings"]["talk"]["images"] == len(rows(done / "bags" / "talk" / "features.jsonl"))
    for stage in ("features", "face", "emotion", "action_unit", "caption", "cause"):
        marks = found["latency_ms"][stage]
        assert 0 <= marks["p50"] <= marks["p95"] <= marks["p99"], stage
    page = (done / "report.html").read_text(encoding="utf-8")
    assert page.count("<img") >= 2  # pictures with their overlay, and the timeline
    assert "Dogs are sitting by the door" in page


def test_two_runs_give_the_same_bytes_and_a_second_recording_is_as_if_it_were_the_first(
    talk: Path, done: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        bag_files.copy(talk, tmp_path / "bags" / name)
    assert evaluate(tmp_path / "bags", "--out", tmp_path / "out") == 0
    for file in ("features.jsonl", "captions.jsonl", "answers.jsonl", "causes.jsonl"):
        assert (done / "bags/talk" / file).read_bytes() == (tmp_path / "out/bags/a" / file).read_bytes(), file
    alone = read_predictions(done / "captions.jsonl")["clip"]
    both = read_predictions(tmp_path / "out" / "captions.jsonl")  # of one id: named after their recordings
    assert {name: replace(p, clip_id="clip") for name, p in both.items()} == {"a/clip": alone, "b/clip": alone}
    first, second = ([f["faces"][0]["emotion"] for f in rows(tmp_path / f"out/bags/{n}/features.jsonl")] for n in "ab")
    assert [e | {"track_id": 0} for e in first] == [e | {"track_id": 0} for e in second]


def test_two_evaluations_side_by_side(done: Path, talk: Path, tmp_path: Path, capsys) -> None:
    assert evaluate(talk, "--target-emotion", "perceived", "--stride", "profile", "--out", tmp_path / "other") == 0
    other = read_predictions(tmp_path / "other" / "causes.jsonl")["u1"]
    assert other.true_emotion == "angry"
    assert evaluate("--compare", done, tmp_path / "other", "--out", tmp_path / "both") == 0
    page = (tmp_path / "both" / "report.html").read_text(encoding="utf-8")
    assert "<h1>one and other</h1>" in page
    assert "<h2>one against other</h2>" in page
    assert evaluate("--compare", done, talk, "--out", tmp_path / "no") == 78
    assert "expected the folder of an evaluation" in capsys.readouterr().err


LEARNED = """
perception:
  ros__parameters: {embeddings: true}
action_unit:
  ros__parameters: {network: anfl, preset: toy, weights: random}
visual:
  ros__parameters: {clips: true, frames: true, preset: toy, weights: random}
caption:
  ros__parameters: {writer: ecpa, preset: toy, weights: random}
"""


def test_learned_stages_see_whole_clips_and_utterances(
    talk: Path, tmp_path: Path, toy_engines: Callable[..., Path], monkeypatch
) -> None:
    needed = ("anfl", "video_swin", "clip_frames", "prompt_head", "fusion_prefill", "fusion_step")
    monkeypatch.setenv("EMO_CACHE", str(toy_engines(*needed)))
    mine = tmp_path / "mine.yaml"
    mine.write_text(LEARNED)
    for name in ("one", "two"):
        assert evaluate(talk, "--params-file", mine, "--out", tmp_path / name) == 0
    for file in (
        "captions.jsonl",
        "causes.jsonl",
        *(f"bags/talk/{n}.jsonl" for n in ("features", "captions", "answers")),
    ):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file
    (caption,) = rows(tmp_path / "one" / "bags" / "talk" / "captions.jsonl")
    clip, heard = recordings([talk])[0].references
    assert (caption["window_start_ns"], caption["window_end_ns"]) == (clip.start_ns, clip.end_ns)
    assert caption["abstain_reason"].startswith("random weights: not valid")
    found = json.loads((tmp_path / "one" / "metrics.json").read_text(encoding="utf-8"))
    assert found["references"]["abstained"] == ["clip"]
    assert found["latency_ms"]["visual"]["p50"] > 0
    (answer,) = rows(tmp_path / "one" / "bags" / "talk" / "answers.jsonl")  # asked when its video was there
    assert (answer["target_utterance"], answer["stamp_ns"]) == ("u1", heard.end_ns)


# Faults


def test_a_recording_that_ends_mid_message_is_measured_as_far_as_it_goes(talk: Path, tmp_path: Path, capsys) -> None:
    whole = bag_files.copy(talk, tmp_path / "talk")
    damaged = bag_files.cut(whole, 0.6)
    (damaged / "metadata.yaml").unlink()
    assert evaluate(damaged, "--out", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "cut off" in error
    assert "what could be read was processed" in error
    images = json.loads((tmp_path / "out" / "metrics.json").read_text())["recordings"]["talk"]["images"]
    assert 2 < images < len(rows_of_bag(talk))
    assert read_predictions(tmp_path / "out" / "captions.jsonl")["clip"].text


def rows_of_bag(bag: Path) -> list[Any]:
    from emo_perception import bags

    return list(bags.read(bag, ["/cam/image_raw"]))


def test_recordings_without_sound_or_references_and_with_clocks_that_jump(tmp_path: Path, capsys) -> None:
    portrait = cv2.resize(cv2.imread(str(pull("astronaut"))), (256, 256), interpolation=cv2.INTER_AREA)
    write_images(tmp_path / "bags" / "silent", [portrait] * 12)
    tenths = [*range(8), 6, 8, 600, 601, *range(20, 30)]  # a step back, a minute forward, a minute back
    stamps = [START_NS + t * STEP_NS for t in tenths]
    jumping = write_images(tmp_path / "bags" / "jumping", [portrait] * len(stamps), stamps)
    write_references(jumping / FILE, [Reference("caption", "c", stamps[-10], stamps[-1], ("A woman smiles.",))])
    assert evaluate(tmp_path / "bags", "--out", tmp_path / "out") == 1
    told = capsys.readouterr()
    assert "no words: it has neither sound nor utterances" in told.out
    assert "jumping: 1 images out of order" in told.err
    found = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert found["recordings"]["silent"]["images"] == 12
    assert found["recordings"]["jumping"]["features"] == len(tenths) - 1
    prediction = read_predictions(tmp_path / "out" / "captions.jsonl")["c"]
    assert prediction.text
    assert "smile" in prediction.text
    (caption,) = rows(tmp_path / "out" / "bags" / "jumping" / "captions.jsonl")
    assert caption["window_start_ns"] >= stamps[-10]  # nothing from before the jump


def test_without_any_reference_nothing_is_measured(tmp_path: Path, capsys) -> None:
    outcome = Outcome({"r": Story(0, S)}, {"r": {"images": 1}})
    page, sets, absent = write_results(tmp_path, "title", outcome, Matched(), Options(), examples=3, draw=False)
    assert (sets, absent) == ([], [])
    assert "There are no references" in page.read_text(encoding="utf-8")
    assert json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))["figures"] == {}
    assert (tmp_path / "captions.jsonl").read_text(encoding="utf-8") == ""


def test_references_that_match_nothing_name_both_sides(talk: Path, tmp_path: Path, capsys) -> None:
    refs = tmp_path / "mine.jsonl"
    write_references(refs, [Reference("caption", "other", S, 2 * S, ("A man frowns.",))])
    assert evaluate(talk, "--refs", refs, "--out", tmp_path / "a") == 78
    error = capsys.readouterr().err
    assert "the references are of talk: 1.00 to 2.00 s; the captions of talk: 17000000" in error
    story = Story(0, S)
    story(Utterance("u1", 0, S, "Hi."))
    recording = Recording("talk", Path("talk"), (Reference("cause", "u7", S, 2 * S, ("Because.",)),))
    with pytest.raises(BagError, match="about the utterances talk: u7; the bag has talk: u1"):
        match({"talk": story}, [recording], gold=True)


def test_what_cannot_be_evaluated_is_named(talk: Path, tmp_path: Path, capsys) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    texts = write_texts(tmp_path / "texts", "mcap", 2)
    for given, expected in (
        ([empty], "expected a bag (a folder with metadata.yaml, or an .mcap or .db3 file) or a folder of bags"),
        ([texts], "has no camera images"),
        ([talk, bag_files.copy(talk, tmp_path / "x" / "talk")], "two recordings are called 'talk'"),
        ([talk, texts, "--refs", talk / FILE], "--refs belongs to one bag, here are 2"),
        ([], "expected a bag or a folder of bags; make some"),
        ([talk, "--utterance-topic", "/nobody"], "no utterances on /nobody; utterances is on: /words"),
    ):
        assert evaluate(*given, "--out", tmp_path / "out") == 78
        assert expected in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert evaluate(talk, "--out", tmp_path / "full") == 78
    assert "is not empty" in capsys.readouterr().err


# Live


def test_a_recording_goes_through_the_graph_and_its_last_words_are_waited_for(talk: Path, tmp_path: Path) -> None:
    assert evaluate(talk, "--live", "--out", tmp_path / "out") == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    counts = found["recordings"]["talk"]
    assert counts["images"] == len(rows_of_bag(talk))
    assert counts["features"] + counts["dropped"] >= counts["images"] - 1
    assert counts["utterances"] == 1  # that of the bag
    (caption,) = rows(tmp_path / "out" / "bags" / "talk" / "captions.jsonl")
    assert caption["window_end_ns"] > START_NS + 2 * S  # it came when the recording had ended
    assert read_predictions(tmp_path / "out" / "captions.jsonl")["clip"].text == caption["text"]
    why = read_predictions(tmp_path / "out" / "causes.jsonl")["u1"]
    assert why.true_emotion == "angry"  # what the graph perceived is compared with it
    assert found["latency_ms"]["image to features"]["p99"] > 0
    assert found["latency_ms"]["face"]["p95"] > 0
    assert found["engines"]["emotion"]["engine"] == "fer7"


# Matching


def caption(start: float, end: float, text: str = "x", **other: Any) -> Caption:
    window = (round(start * S), round(end * S))
    return Caption(window[1], "", *window, text, (1,), "happy", 0.9, (), "m", **other)


def test_the_caption_that_overlaps_best_belongs_to_the_reference() -> None:
    reference = Reference("caption", "r", 2 * S, 4 * S, ("t",))
    spans = [(0, 2), (1, 3), (2, 4), (2, 5), (9, 10)]
    captions = [caption(*span) for span in spans]
    assert caption_of(reference, captions) is captions[2]
    assert caption_of(reference, captions[:2]) is captions[1]
    assert caption_of(reference, captions[4:]) is None
    assert [overlap(c, reference) for c in captions[1:3]] == [pytest.approx(1 / 3), 1.0]
    early, late = caption(1, 4), caption(2, 5)
    assert caption_of(reference, [late, early]) is late  # of equals the later one


def test_silence_counts_as_the_worst_and_is_told() -> None:
    story = Story(0, 10 * S)
    for item in (
        caption(0, 2), caption(4, 6, abstained=True, abstain_reason="dark"), caption(7, 9, "wild guess", grounded=False),
        Utterance("u", 0, S, "Hi.", "Eva"),
    ):  # fmt: skip
        story(item)
    story(Cause(S, "", "She is glad.", "happy", 0, "Eva", "u", ("u",), (), 0.9, "m"))
    spans = {"said": (0, 2), "abstained": (4, 6), "withheld": (7, 9), "nothing": (3, 3.5)}
    references = [Reference("caption", key, round(a * S), round(b * S), ("t",), "joy") for key, (a, b) in spans.items()]
    recording = Recording("r", Path("r"), (*references, Reference("cause", "u", 0, S, ("t",), "joy")))
    found = match({"r": story}, [recording], gold=False)
    assert [p.text for p in found.captions] == ["x", "", "", ""]
    assert (found.abstained, found.withheld, found.lacking) == (["abstained"], ["withheld"], ["nothing"])
    (why,) = found.causes
    assert (why.text, why.emotion, why.true_emotion, why.causes) == ("She is glad.", {"happy": 1.0}, "happy", ("u",))
    assert match({"r": story}, [recording], gold=True, ungrounded=True).captions[2].text == "wild guess"
