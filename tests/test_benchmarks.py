"""The benchmarks run and count right, on clips of a moment. No figure of time is judged here."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import (
    captions,
    causes,
    clips,
    dialogue,
    graph,
    hour,
    naive,
    page,
    report,
    scenes,
    speech,
    stages,
    streaming,
)  # fmt: skip
from benchmarks.__main__ import main
from benchmarks.graph import GraphRun
from benchmarks.stages import StagesRun
from emo_models import weights
from emo_models.fetch import pull

SECONDS, FRAMES = 2.0, 60
GOOD = GraphRun(offered=600, processed=600, faces=1.0, cpu_ms=11.0, latency_ms=(15.0, 40.0, 60.0), torch=False)
FIGURES = report.Figures(
    naive_ms=30.0,
    stages=StagesRun(10.0, {"face": 8.0, "emotion": 1.0, "action_unit": 1.0}, 1.0),
    faces={count: StagesRun(4.0 + 6.0 * count, {}, float(count)) for count in range(1, 7)},
    source_ms=2.0,
    graph=GOOD,
    graph_inside=replace(GOOD, cpu_ms=12.5),
    graph_six=GOOD,
    torch=False,
)
QUIET = speech.Latency(p50_ms=15.0, p95_ms=20.0, dropped=0, utterances=0, delay_s=1.0)
HEARD = speech.SpeechRun(speech.Recognition(0.2, 0.3, 0.9, 0.01), (QUIET,), (replace(QUIET, p95_ms=21.0),))
CAUSES = dialogue.CauseRun((8.0, 20.0), (4.0, 9.0), emotional=22, explained=22)
STREAM = streaming.StreamingRun("toy", 3.0, 11.0, {10: 4.0, 300: 3.9}, 218.0, 10_000, 100, 400.0, 401.0)
HOUR = hour.HourRun(500.0, 520.0, 5, 60, 36000, 760, 40, 790, 1060, 60.0)


@pytest.fixture(scope="module", autouse=True)
def _weights() -> None:
    for name in (*speech.PEOPLE, *weights.profiles()["start"]):
        pull(name)


def missed(figures: report.Figures) -> list[str]:
    return [goal.name for goal in report.goals(figures) if not goal.met]


def test_the_loop_and_the_stages_see_the_people_of_the_clip(tmp_path: Path) -> None:
    frames = clips.read(clips.write_six_faces(tmp_path / "six.mp4", seconds=0.2))
    assert [frame.image.shape for frame in frames] == [(clips.HEIGHT, clips.WIDTH, 3)] * 6
    for count in (1, clips.MOST_FACES):
        people = clips.with_faces(frames, count)
        run = stages.measure(people, {})
        assert run.faces == count
        assert sum(run.stage_ms.values()) <= run.cpu_ms
        assert len(naive.NaiveLoop()(people[0].image)) == count
    assert naive.measure(frames[:2]) > 0


def test_a_run_through_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "SETTLE_FRAMES", 3)
    clip = clips.write_one_face(tmp_path / "one.mp4", SECONDS)
    assert stages.measure_source(clip) > 0
    run = graph.measure(clip, FRAMES, inside=False)
    assert run.offered == FRAMES
    assert 3 < run.processed <= run.offered
    assert run.faces == 1
    assert run.cpu_ms > 0
    assert run.latency_ms[0] > 0
    assert not run.torch


def test_goals_and_report(tmp_path: Path) -> None:
    assert missed(FIGURES) == []
    assert FIGURES.overhead == pytest.approx(0.1)
    assert FIGURES.inside_ms == pytest.approx(10.5)
    assert FIGURES.face_ms == pytest.approx(6.0)
    parts = [
        report.part(FIGURES, "pyav"), speech.part(HEARD), dialogue.part(CAUSES), hour.part(HOUR), streaming.part(STREAM),
    ]  # fmt: skip
    page.write(tmp_path, parts, page.conditions(0.1))
    text = (tmp_path / "report.md").read_text()
    assert "| condition | idle (load average 0.10 at the start) |" in text
    assert "MISSED" not in text
    assert text.count("| met |") == 5 + 2 + 2 + 1 + 2
    values = json.loads((tmp_path / "report.json").read_text())
    assert values["figures"]["start"]["derived"]["face_ms"] == pytest.approx(6.0)
    assert values["figures"]["speech"]["derived"]["ratio"] == pytest.approx(1.05)
    assert values["figures"]["hour"]["late_mb"] == 520.0


def test_a_missed_goal_is_said() -> None:
    lost = replace(FIGURES, graph=replace(GOOD, processed=599))
    assert missed(lost) == ["frames processed of frames offered"]
    assert "| all | 599 of 600 | MISSED |" in page.markdown([report.part(lost, "pyav")], {})
    assert missed(replace(FIGURES, graph=replace(GOOD, cpu_ms=math.nan))) == [
        "overhead of the graph over the bare stages"
    ]
    assert missed(replace(FIGURES, graph=replace(GOOD, cpu_ms=11.6)))
    assert missed(replace(FIGURES, graph=replace(GOOD, latency_ms=(1.0, 51.0, 60.0))))
    assert missed(replace(FIGURES, graph=replace(GOOD, torch=True))) == ["torch stays unimported"]
    slow = speech.part(replace(HEARD, with_speech=(replace(QUIET, p95_ms=22.5),)))
    assert [goal.met for goal in slow.goals] == [True, False]
    assert [goal.met for goal in dialogue.part(replace(CAUSES, explained=21)).goals] == [False, True]
    assert not hour.part(replace(HOUR, late_mb=526.0)).goals[0].met
    assert [goal.met for goal in streaming.part(replace(STREAM, batch_ms=38.9, late_mb=404.1)).goals] == [False, False]


def test_causes_are_heard_over_dds() -> None:
    graph.prepare_ros()
    run = dialogue.measure(scenes.utterances("heldout", 20.0)[:8])
    assert run.explained == run.emotional > 0
    assert run.latency_ms[1] >= run.latency_ms[0] > 0


def test_causes_of_fame_after_a_short_and_a_longer_dialogue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    for name in ("minilm", "minilm_tokenizer"):
        (tmp_path / weights.card(name).file).symlink_to(pull(name))
    monkeypatch.setenv("EMO_CACHE", str(tmp_path))
    run = causes.measure("toy", seconds=(2, 5), turns=1)
    assert [delay.lines for delay in (*run.sparse, *run.dense)] == [4, 4, 0, 1]
    for delay in run.sparse:
        reused, fixed = (int(n) for n in delay.reused.removesuffix(" tokens").split(" of "))
        assert 0 < reused < fixed < delay.tokens
        assert delay.answer_ms > delay.cold_ms > 0
    assert "random weights" in causes.part(run).text


def test_two_minutes_of_a_stream() -> None:
    run = hour.measure(minutes=2, early=1)
    assert run.features == 2 * 60 * hour.FPS
    assert run.understood >= 1
    assert run.utterances == run.understood + 2 * 60 // hour.WORDS_EVERY_S
    assert run.captions > 0
    assert run.causes > 0
    assert run.early_mb > 100


def test_a_stream_of_visual_tokens(toy_engines: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMO_CACHE", str(toy_engines("video_swin", "clip_frames")))
    monkeypatch.setitem(streaming.WINDOWS, "toy", (20, 5))
    monkeypatch.setattr(streaming, "LENGTHS_S", (1, 30))
    run = streaming.measure("toy", lambda _: None)
    assert (run.windows, run.early) == (20, 5)
    assert run.early_mb > 100
    assert list(run.end_ms) == [1, 30]
    assert run.batch_ms > run.frame_ms > 0


def test_frames_and_speech_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech, "SETTLE_FRAMES", 0)
    monkeypatch.setattr(speech, "PEOPLE", speech.PEOPLE[:1])
    run = speech.measure(rounds=1, seconds=1.0)
    assert run.recognition.real_time_factor > 0
    assert run.ratio > 0
    assert run.without[0].utterances == 0


def test_a_machine_too_busy_to_measure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech, "SETTLE_FRAMES", 100)
    with pytest.raises(RuntimeError, match="expected more than 100: the machine is busy"):
        speech.latency([np.zeros((48, 64, 3), np.uint8)], None, seconds=0.1)


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["speach"])
    assert (
        "expected parts of start, speech, dialogue, hour, engines, captions, causes, streaming, got speach"
        in capsys.readouterr().err
    )


def test_captions_beside_their_networks_and_over_dds(toy_engines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "TURNS", 1)
    monkeypatch.setenv("EMO_CACHE", str(toy_engines("prompt_head", "fusion_prefill", "fusion_step")))
    graph.prepare_ros()
    run = captions.measure("toy", lambda _: None, clips=3)
    assert run.decoding.difference < 1e-4
    assert run.decoding.ratio > 0
    assert min(*run.bare_ms.values(), *run.writer_ms.values(), run.delay_ms[0]) > 0
    assert 0 < run.words <= 23
    assert (run.heard, run.backend) == (3, "eager")
    assert [goal.met for goal in captions.part(replace(run, heard=2)).goals][:1] == [False]
    slow = replace(run, preset="paper", decoding=captions.Decoding(10.0, 49.0, 0.0), delay_ms=(1.0, 2001.0))
    assert [goal.met for goal in captions.part(slow).goals] == [True, False, False]
