"""The workers beside the cause node: nothing waits for an explanation, turns are taken, questions are cancelled."""

from __future__ import annotations

import threading

import pytest

pytest.importorskip("torch", reason="the networks need torch")
pytest.importorskip("transformers", reason="the language models come from transformers")

from cause_scenes import frames, says
from fame_cache import ANSWER, public_files, video, write_fame

from emo_models import weights
from emo_models.fetch import Puller
from emo_perception.config import CauseConfig
from emo_perception.explaining import ASKED, OWN, Explaining
from emo_perception.memory.keeper import MemoryKeeper
from emo_perception.stages.cause import About, Question, make_cause_stage
from emo_perception.stages.cause.explainers import Cancelled
from emo_perception.streaming.fair import FairQueue

DOOR, FEAR = "I left the front door open.", "Oh no, she will be run over by a car!"


def door():
    return [
        *frames(0, 2, f1="neutral", f2="neutral"),
        says(0, 2, "Ben", DOOR, 2),
        *frames(2, 4, f1="neutral", f2="neutral"),
    ]


def fear(start_s):
    return says(start_s, start_s + 1.8, "Ana", FEAR, 1)


def test_lanes_are_served_in_turn_and_a_full_one_refuses():
    queue = FairQueue({"own": 3, "asked": 2})
    assert [queue.offer("own", f"o{n}") for n in range(4)] == [True, True, True, False]
    assert [queue.offer("asked", f"a{n}") for n in range(2)] == [True, True]
    assert [queue.take() for _ in range(5)] == ["o0", "a0", "o1", "a1", "o2"]
    assert queue.take(0.0) is None
    counts = queue.counts()["own"]
    assert (counts.offered, counts.taken, counts.dropped, counts.waiting) == (4, 3, 1, 0)
    queue.offer("asked", "last")
    queue.close()
    assert not queue.offer("own", "too late")
    assert (queue.take(), queue.take()) == ("last", None)
    with pytest.raises(ValueError, match="a capacity of at least 1"):
        FairQueue({"own": 0})


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with Puller() as puller:
        for name in ("minilm", "minilm_tokenizer"):
            puller.pull(weights.card(name))
    folder = public_files(tmp_path_factory.mktemp("cache"))
    write_fame(folder)
    return folder


@pytest.fixture
def explaining(cache, monkeypatch):
    monkeypatch.setenv("EMO_CACHE", str(cache))
    said, config = [], CauseConfig(explainer="fame", preset="toy", quiet_s=0.0, max_questions=2)
    work = Explaining(
        load=lambda _: make_cause_stage(config), read=lambda item: item, stamp_ns=lambda item: item.stamp_ns,
        say=said.append, config=lambda: config, keeper=MemoryKeeper(None),
    )  # fmt: skip
    work.start()
    yield work, said
    work.close()


def test_the_graph_goes_on_while_words_are_written_and_questions_take_turns(explaining, wait_for):
    work, said = explaining
    go_on, order, heard = threading.Event(), [], threading.Event()
    for item in door():
        work.offer(item)
    wait_for(lambda: work.stats.snapshot().processed == 41, "the scene is taken in")

    def ask(name, listen=lambda _: None):
        question = Question(About.UTTERANCE, utterance_id="Ben@0", emotion="joy")
        work.ask(question, listen)
        order.append(name)

    def slow(_):
        heard.set()
        assert go_on.wait(30)

    askers = [threading.Thread(target=ask, args=("asked 1", slow))]
    askers[0].start()
    assert heard.wait(30)
    for number in range(6):
        spoken = fear(5 + 2 * number)
        work.offer(video(spoken))
        work.offer(spoken)
    wait_for(lambda: work.queues()[OWN].waiting == 4, "the graph takes in while words are written")
    wait_for(lambda: len(said) == 2, "what may not wait goes out as the ranking's sentence")
    assert {cause.model for cause in said} == {"trigger-ranking"}
    for name in ("asked 2", "asked 3"):
        askers.append(threading.Thread(target=ask, args=(name,)))
        askers[-1].start()
        wait_for(lambda: work.queues()[ASKED].waiting == len(askers) - 1, "the question waits")
    with pytest.raises(RuntimeError, match="too many questions wait already"):
        work.ask(Question(About.UTTERANCE, utterance_id="Ben@0", emotion="joy"))
    said.clear()
    real = work._say
    work._say = lambda cause: (order.append("own"), real(cause))
    go_on.set()
    for asker in askers:
        asker.join(30)
    wait_for(lambda: len(said) == 4, "the graph's own explanations")
    assert [name[:3] for name in order[1:5]].count("own") == 2, order
    assert [cause.text for cause in said] == [ANSWER] * 4


def test_a_question_is_cancelled_while_it_waits_and_while_it_is_answered(explaining, wait_for):
    work, _ = explaining
    for item in door():
        work.offer(item)
    wait_for(lambda: work.stats.snapshot().processed == 41, "the scene is taken in")
    gone, told, results = threading.Event(), [], []

    def ask(listen):
        try:
            work.ask(Question(About.UTTERANCE, utterance_id="Ben@0", emotion="joy"), listen, gone.is_set)
        except Cancelled:
            results.append("cancelled")

    def listen(text):
        told.append(text)
        assert gone.wait(30)

    askers = [threading.Thread(target=ask, args=(listen,)) for _ in range(2)]
    for asker in askers:
        asker.start()
    wait_for(lambda: told and work.queues()[ASKED].waiting == 1, "one is answered, one waits")
    gone.set()
    for asker in askers:
        asker.join(30)
    assert results == ["cancelled"] * 2
    assert len(told) == 1
