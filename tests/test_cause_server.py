"""A language server that explains: what it is asked, what it may answer, and patience with one that fails."""

from __future__ import annotations

import itertools
import json
import time

import pytest
from cause_scenes import frames, says
from chat_server import chat_server

from emo_models import weights
from emo_models.fetch import Puller
from emo_perception.config import CauseConfig, ConfigError
from emo_perception.stages.cause import CauseStage
from emo_perception.stages.cause.encoder import SentenceEncoder
from emo_perception.stages.cause.explainers import Cancelled, make_explainer
from emo_perception.stages.cause.explainers.chat import ChatError, ChatServer
from emo_perception.stages.cause.explainers.patience import Breaker, PatientServer, State
from emo_perception.types import VisualContext

DOOR, FEAR = "I left the front door open.", "Oh no, she will be run over by a car!"
GOOD = "Ana feels scared because Ben left the front door open and she may be run over by a car."


@pytest.fixture(scope="module")
def encoder():
    with Puller() as puller:
        for name in ("minilm", "minilm_tokenizer"):
            puller.pull(weights.card(name))
    loaded = SentenceEncoder()
    yield loaded
    loaded.close()


@pytest.fixture
def explain(encoder):
    """The explanation of a scene by a server, and the stage."""

    def run(server, *more, **values):
        config = CauseConfig(explainer="server", chat_url=server.url, chat_model="tiny", **{"answer_s": 5.0, **values})
        stage = CauseStage(config, (), encoder, make_explainer(config))
        spoken = says(2.2, 4, "Ana", FEAR, 1)
        items = [
            *frames(0, 2, f1="neutral", f2="neutral"),
            says(0, 2, "Ben", DOOR, 2),
            *frames(2, 4, f1="scared"),
            *more,
            spoken,
        ]
        cases = [case for item in items for case in stage.take(item)] + stage.idle()
        return stage.explainer(next(case for case in cases if case.statement is not None)), stage

    return run


def answering(text):
    return chat_server(answer=lambda _: text)


def test_the_server_gets_the_words_the_faces_and_the_triggers_as_data(explain):
    with answering(GOOD) as server:
        cause, stage = explain(server)
    assert (cause.text, cause.model, cause.abstained) == (GOOD, "tiny", False)
    assert cause.evidence_utterances[0] == "Ben@0"
    data = json.loads(server.asked[0]["messages"][-1]["content"])
    assert data["dialogue"] == [f"Ben: {DOOR}"]
    assert (data["who"], data["emotion"], data["statement"]) == ("Ana", "scared", FEAR)
    assert data["faces"] == ["Ana: scared (0.90)"]
    assert data["triggers"][0]["what"] == f"Ben: {DOOR}"
    assert stage.explainer.facts()["server_explained"] == 1


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("Ana is scared because Doctor Miller shouted.", "not in the evidence: doctor, miller, shouted"),
        ("Ben is scared because Ana left the front door open.", "it does not speak of Ana first"),
        ("Ana is angry because Ben left the front door open.", "not in the evidence: angry"),
        ("Ana reacts because Ben left the front door open.", "it does not say scared"),
        ("Ana is scared.\n\nBen is happy.", "not in the evidence: happy"),
        ("", "it is no single line"),
    ],
)
def test_an_answer_that_says_more_than_is_known_leaves_the_rankings_sentence(explain, answer, problem):
    with answering(answer) as server:
        cause, stage = explain(server)
    assert "because Ben said" in cause.text
    assert cause.model.startswith(f"trigger-ranking (for tiny: {problem}")
    assert stage.explainer.facts()["server_rejected"] == 1


@pytest.mark.parametrize(
    ("behaviour", "problem"),
    [("dies", "broke off"), ("nonsense", "no chat completion"), ("error", "HTTP 500"), ("slow", "the time was up")],
)
def test_a_server_that_fails_leaves_the_rankings_sentence(explain, behaviour, problem):
    with chat_server(behaviour, answer=lambda _: GOOD) as server:
        cause, stage = explain(server, answer_s=0.4)
    assert "because Ben said" in cause.text
    assert problem in cause.model
    assert stage.explainer.facts()["server_failed"] == 1


def test_whoever_cancels_does_not_wait(explain, encoder):
    with chat_server("slow", answer=lambda _: GOOD) as server:
        _, stage = explain(server, answer_s=0.3)
        case = stage._case(next(t for t in map(stage._target, stage.memory.items) if t is not None and t.utterance))
        stage.config = stage.config.with_values({"answer_s": 60.0})
        heard = []
        began_s = time.monotonic()
        with pytest.raises(Cancelled):
            stage.explainer(case, heard.append, lambda: bool(heard))
        assert time.monotonic() - began_s < 30
        assert all(GOOD.startswith(text) for text in heard)


@pytest.mark.parametrize("wanted", [True, False])
def test_a_picture_goes_out_only_where_it_was_asked_for(explain, wanted):
    spoken = says(2.2, 4, "Ana", FEAR, 1)
    import numpy as np

    picture = np.frombuffer(b"\xff\xd8jpeg", np.uint8)
    context = VisualContext(spoken.end_ns, "cam", 0, spoken.end_ns, "jpeg", {"picture": picture}, spoken.id)
    seen = "Ana is scared because a lamp fell down beside Ben."
    with answering(seen) as server:
        cause, stage = explain(server, context, send_pictures=wanted)
    content = server.asked[0]["messages"][-1]["content"]
    assert stage.explainer.facts()["server_pictures_sent"] == int(wanted)
    if wanted:
        assert content[0]["image_url"]["url"] == "data:image/jpeg;base64,/9hqcGVn"
        assert cause.text == seen  # a picture shows what no word tells
    else:
        assert isinstance(content, str)
        assert "not in the evidence: beside, down, fell, lamp" in cause.model


def test_a_server_explainer_needs_a_server():
    with pytest.raises(ConfigError, match=r"cause.chat_url: expected the server that explains"):
        make_explainer(CauseConfig(explainer="server"))


# Patience


def test_a_breaker_opens_probes_and_closes():
    clock = itertools.count().__next__
    now = [0.0]
    breaker = Breaker(2, 10.0, lambda: now[0])
    assert clock() == 0
    for _ in range(2):
        assert breaker.admit() == 0
        breaker.end(well=False)
    assert (breaker.state, breaker.opened) == (State.OPEN, 1)
    now[0] = 4.0
    assert breaker.admit() == pytest.approx(6.0)
    now[0] = 11.0
    assert breaker.state is State.HALF_OPEN
    assert breaker.admit() == 0
    assert breaker.admit() > 0  # one probe at a time
    breaker.end(well=False)
    assert breaker.state is State.OPEN
    now[0] = 22.0
    assert breaker.admit() == 0
    breaker.end(well=None)  # nobody waited for its end: no verdict
    assert breaker.state is State.HALF_OPEN
    assert breaker.admit() == 0
    breaker.end(well=True)
    assert (breaker.state, breaker.opened) == (State.CLOSED, 1)
    breaker.admit()
    breaker.end(well=False)
    assert breaker.state is State.CLOSED


def patient(server, **options):
    return PatientServer(ChatServer(server.url, "tiny"), Breaker(**options))


def said(server, limit_s=5.0, **hooks):
    return "".join(server.stream([{"role": "user", "content": "hello"}], limit_s, **hooks))


def test_a_busy_server_is_asked_again_and_its_wish_to_wait_is_honoured():
    with chat_server("busy") as server:
        server.busy, server.retry_after = 2, "0.3"
        asked = patient(server)
        began_s = time.monotonic()
        assert said(asked) == "hello"
        assert time.monotonic() - began_s >= 0.55
        assert (len(server.asked), asked.retries, asked.breaker.state) == (3, 2, State.CLOSED)
        server.busy, server.retry_after = 1, "600"
        began_s = time.monotonic()
        with pytest.raises(ChatError, match="HTTP 429"):
            said(asked)
        assert time.monotonic() - began_s < 3
        server.busy, server.retry_after = 1, "Wed, 21 Oct 2015 07:28:00 GMT"
        assert said(asked) == "hello"
        server.busy, server.retry_after = 1, "soon"
        assert said(asked) == "hello"


def test_what_was_told_is_not_told_again():
    with chat_server("dies", answer=lambda _: "one two three four five") as server:
        with pytest.raises(ChatError, match="broke off"):
            said(patient(server))
        assert len(server.asked) == 1


def test_a_server_that_keeps_failing_is_left_alone_until_a_probe_succeeds():
    with chat_server("nonsense") as server:
        asked = patient(server, most=2, cool_down_s=0.2)
        for _ in range(2):
            with pytest.raises(ChatError, match="no chat completion"):
                said(asked)
        with pytest.raises(ChatError, match=r"left alone for 0 s: 2 questions in a row failed"):
            said(asked)
        assert (len(server.asked), asked.facts()["chat_circuit"]) == (2, "open")
        server.behaviour = "good"
        end_s = time.monotonic() + 20
        while asked.breaker.state is State.OPEN:
            assert time.monotonic() < end_s
        assert said(asked) == "hello"
        assert asked.facts() == {"chat_circuit": "closed", "chat_circuit_opened": 1, "chat_retries": 0}


def test_nobody_waits_between_two_tries_for_an_answer_that_is_not_wanted():
    with chat_server("busy") as server:
        server.busy, server.retry_after = 99, "30"
        asked = patient(server)
        with pytest.raises(ChatError, match="nobody wants the answer"):
            said(asked, 60.0, stopped=lambda: bool(server.asked) and asked.retries > 0)
        assert asked.breaker.state is State.CLOSED
