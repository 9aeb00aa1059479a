"""FAME-Net as an explainer: the batch form's answers, with and without video, cut, cancelled, in int8, and its errors."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="the networks need torch")
pytest.importorskip("transformers", reason="the language models come from transformers")

from cause_scenes import frames, says  # noqa: E402
from fame_cache import ANSWER, public_files, video, write_fame  # noqa: E402

from emo_models import weights  # noqa: E402
from emo_models.fetch import Puller  # noqa: E402
from emo_models.networks.fame.pooling import join  # noqa: E402
from emo_models.networks.int8 import megabytes, quantise  # noqa: E402
from emo_models.weights import MissingWeights, WeightsError  # noqa: E402
from emo_perception.config import CauseConfig, ConfigError  # noqa: E402
from emo_perception.stages.cause import About, CauseStage, Question  # noqa: E402
from emo_perception.stages.cause.encoder import SentenceEncoder  # noqa: E402
from emo_perception.stages.cause.explainers import Cancelled  # noqa: E402
from emo_perception.stages.cause.explainers.fame import RANDOM, FameExplainer, finished  # noqa: E402
from emo_perception.stages.cause.explainers.fame_prompt import People  # noqa: E402
from emo_perception.stages.cause.grounding import strangers  # noqa: E402

DOOR, FEAR = "I left the front door open.", "Oh no, she will be run over by a car!"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with Puller() as puller:
        for name in ("minilm", "minilm_tokenizer"):
            puller.pull(weights.card(name))
    return public_files(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def encoder(cache):
    loaded = SentenceEncoder()
    yield loaded
    loaded.close()


@pytest.fixture
def make_stage(cache, encoder, monkeypatch):
    monkeypatch.setenv("EMO_CACHE", str(cache))
    write_fame(cache)

    def make(**values):
        config = CauseConfig(explainer="fame", preset="toy", **values)
        return CauseStage(config, (), encoder, FameExplainer(config))

    return make


def take(stage, *items):
    return [case for item in items for case in stage.take(item)]


def door(then="neutral"):
    return [*frames(0, 2, f1="neutral", f2="neutral"), says(0, 2, "Ben", DOOR, 2), *frames(2, 4, f1="neutral", f2=then)]


def fear(start_s=2.2):
    return says(start_s, start_s + 1.8, "Ana", FEAR, 1)


# The answer


@pytest.mark.parametrize("first", ["video", "words"])
def test_words_and_video_meet_in_any_order_and_the_answer_is_that_of_the_batch_form(make_stage, first):
    stage = make_stage()
    take(stage, *door())
    said = fear()
    order = [video(said), said] if first == "video" else [said, video(said)]
    assert take(stage, order[0]) == []
    (case,) = take(stage, order[1])
    heard = []
    cause = stage.explainer(case, heard.append)
    network, prompts = stage.explainer.loaded.network, stage.explainer.loaded.prompts
    rows, patches = (torch.from_numpy(video(said).tensors[name]) for name in ("rows", "patches"))
    features = join(rows, patches)
    prompt = prompts(stage.explainer.prompt(case), len(features))
    batch = network.explain(prompt, features, prompts)
    assert cause.text == "".join(batch).strip() == ANSWER
    assert cause.confidence == pytest.approx(batch.confidence, abs=1e-4)
    assert (cause.model, cause.abstained, cause.grounded) == ("fame/toy", False, True)
    assert cause.target_utterance == said.id
    assert {e.kind for e in cause.evidence} >= {"utterance"}
    assert len(heard) > 3
    assert all(ANSWER.startswith(text) for text in heard)


def test_the_question_has_the_words_the_faces_and_the_emotion_in_the_words_of_its_training(make_stage):
    stage = make_stage()
    (case,) = [c for c in take(stage, *door("sad"), fear(), *frames(4, 5.2, f1="scared")) if c.statement is not None]
    query = stage.explainer.prompt(case)
    assert [(line.speaker, line.text) for line in query.history] == [("Ben", DOOR)]
    assert (query.target.speaker, query.target.text, query.emotion) == ("Ana", FEAR, "fear")
    assert [(f.name, f.label) for f in query.faces] == [
        ("Ana", "neutral"), ("Ben", "neutral"), ("Ana", "neutral"), ("Ben", "sad")
    ]  # fmt: skip
    assert all(f.confidence == pytest.approx(0.9, abs=0.01) for f in query.faces)
    text_only = stage.explainer.prompt.of(stage.explainer.loaded.network.config, {"inputs": "T"})
    assert (text_only(case).faces, text_only.video) == ((), False)
    words = text_only.of(stage.explainer.loaded.network.config, {"inputs": "V+E"})(case)
    assert (words.history, words.target.text, len(words.faces)) == ((), "", 4)


def test_the_nameless_are_numbered_as_in_training_and_called_back_in_the_answer(make_stage):
    stage = make_stage()
    scene = [*frames(0, 4, f143="neutral", f77="neutral"), says(0, 2, "", DOOR, 77), says(2.2, 4, "", FEAR, 143)]
    take(stage, *scene)
    (case,) = stage.idle()
    query = stage.explainer.prompt(case)
    assert [f.name for f in query.faces] == ["person 1", "person 2"] * 2
    assert (query.history[0].speaker, query.target.speaker) == ("person 1", "person 2")
    people = People.of(case)
    assert people.back("person 2 is scared because person 1 spoke.") == "person 143 is scared because person 77 spoke."
    assert strangers(people.back("person 77 spoke to person 3."), case.words()) == "not in the evidence: person 0"


def test_without_video_it_goes_on_after_a_second_of_the_stream_or_once_nothing_comes(make_stage):
    stage = make_stage(quiet_s=0.0)
    assert take(stage, *door(), fear(), *frames(4, 4.9, f1="neutral")) == []
    (case,) = take(stage, *frames(4.9, 5.2, f1="neutral"))
    assert stage.explainer(case).model == "fame/toy, without video"
    assert take(stage, fear(6)) == []
    assert [case.context for case in stage.idle()] == [None]
    assert stage.video.missed == 2


def test_an_emotion_that_the_asker_knows_is_explained_whatever_the_words_are(make_stage):
    stage = make_stage()
    take(stage, *door(), says(2.2, 4, "Ana", "It is four.", 1))
    unknown = stage.ask(Question(About.UTTERANCE, utterance_id="Ana@2.2"))
    assert unknown.abstain_reason.startswith("no clear emotion there")
    known = stage.ask(Question(About.UTTERANCE, utterance_id="Ana@2.2", emotion="joy"))
    assert (known.emotion, known.text) == ("happy", ANSWER)
    with pytest.raises(ValueError, match="emotion: no REP-155 name for emotion 'hunger'"):
        stage.ask(Question(About.UTTERANCE, utterance_id="Ana@2.2", emotion="hunger"))


def test_a_changed_face_without_words_keeps_the_rankings_sentence_and_takes_none_from_words(make_stage):
    stage = make_stage()
    found = [
        stage.explainer(case)
        for case in take(
            stage, *door(), *frames(4, 7, f1="scared", f2="neutral"), fear(6.5), *frames(8.3, 10, f1="scared")
        )
    ]
    assert [(c.target_utterance, c.model) for c in found] == [
        ("", "trigger-ranking"), ("Ana@6.5", "fame/toy, without video")
    ]  # fmt: skip
    take(stage, *frames(10, 11, f1="neutral"), *frames(11, 13, f1="surprised"))
    asked = stage.ask(Question(About.PERSON, track_id=1))
    assert (asked.emotion, asked.text) == ("scared", ANSWER)  # the words just before rather than the face now


def test_nothing_to_go_by_but_the_statement_is_an_abstention(make_stage):
    stage = make_stage()
    stage.take(fear())
    (case,) = stage.idle()
    cause = stage.explainer(case)
    assert (cause.abstained, cause.abstain_reason) == (True, "nothing was said or seen but the statement itself")


# Its end


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("Ana is scared. The door is op", "Ana is scared."),
        ("Ana is scared because of the door, and the ca", "Ana is scared because of the door."),
        ("Ana is scared because the do", ""),
        ("Well, Ana is", ""),
        ("Ana counts 3.5 cars, that is", "Ana counts 3.5 cars."),
        ("“Oh no.” Ana ran", "“Oh no.”"),
        ("", ""),
    ],
)
def test_of_a_cut_answer_whole_sentences_stay_or_whole_clauses(text, whole):
    assert finished(text) == whole


def test_an_answer_that_never_ends_is_cut_and_one_that_is_late_abstains(make_stage, cache):
    write_fame(cache, endless=True)
    config = CauseConfig(explainer="fame", preset="toy", answer_s=2.0)
    stage = make_stage()
    stage.explainer = FameExplainer(config)
    take(stage, *door(), fear())
    (case,) = stage.idle()
    cause = stage.explainer(case)
    assert cause.text.startswith(ANSWER)
    assert cause.text[-1] == "."
    assert stage.explainer.facts()["answers_cut"] == 1
    stage.explainer.config = config.with_values({"answer_s": 1e-6})
    late = stage.explainer(case)
    assert (late.abstained, late.text) == (True, "")
    assert "no clause was finished within 1e-06 s" in late.abstain_reason
    assert stage.explainer.facts()["answers_too_late"] == 1


def test_whoever_cancels_ends_it_between_two_words_and_the_next_answer_is_whole(make_stage):
    stage = make_stage()
    take(stage, *door(), fear())
    (case,) = stage.idle()
    heard = []
    with pytest.raises(Cancelled):
        stage.explainer(case, heard.append, lambda: len(heard) >= 3)
    assert len(heard) == 3
    assert stage.explainer(case).text == ANSWER


def test_random_weights_say_nothing_valid(cache, encoder, monkeypatch, tmp_path, make_stage):
    monkeypatch.setenv("EMO_CACHE", str(tmp_path))
    config = CauseConfig(explainer="fame", preset="toy", weights="random", min_confidence=0.0)
    stage = CauseStage(config, (), encoder, FameExplainer(config))
    take(stage, *door(), fear())
    (case,) = stage.idle()
    heard = []
    cause = stage.explainer(case, heard.append)
    assert (cause.abstained, cause.text, heard) == (True, "", [])
    assert cause.abstain_reason.startswith(f"{RANDOM}; it would have said: ")
    monkeypatch.setenv("EMO_CACHE", str(cache))
    stage = make_stage()
    said = fear()
    (case,) = take(stage, *door(), said, video(said, model="clip_frames/toy, random weights"))
    assert stage.explainer(case).abstain_reason == f"{RANDOM}; it would have said: {ANSWER}"


# What it runs on


def test_the_beginning_of_the_next_prompt_is_run_while_nobody_asks(make_stage):
    stage = make_stage()
    take(stage, *door(), fear())
    (case,) = stage.idle()
    alone = stage.explainer(case)
    cold = stage.explainer.facts()["prefix_reused"]
    stage.explainer.close()
    assert cold.startswith("0 of ")
    fresh = make_stage()
    take(fresh, *door())
    fresh.explainer.prepare(fresh.dialogue())
    take(fresh, fear())
    (case,) = fresh.idle()
    assert fresh.explainer(case).text == alone.text
    reused, fixed = (int(n) for n in fresh.explainer.facts()["prefix_reused"].removesuffix(" tokens").split(" of "))
    history = fresh.explainer.prompt.ahead(fresh.dialogue()[:1], fresh.explainer.loaded.prompts, 500, 1)  # fmt: skip
    assert len(history) - 2 <= reused < fixed


def test_an_instruction_that_names_the_target_hides_the_history_from_the_cache(make_stage, cache):
    write_fame(cache, notes={"instruction": "ecem"})
    config = CauseConfig(explainer="fame", preset="toy")
    explainer = FameExplainer(config)
    ids = explainer.loaded.prompts.prefix((), explainer.prompt.wording())
    text = explainer.loaded.prompts.decode(ids)
    assert text == "USER: Explain why the emotion of this statement is"


def test_int8_takes_a_quarter_of_the_memory_of_its_layers_and_answers_alike(make_stage):
    plain, small = make_stage(), make_stage(quantise="int8")
    for stage in (plain, small):
        take(stage, *door(), fear())
    (case,) = plain.idle()
    (other,) = small.idle()
    assert small.explainer(other).text == plain.explainer(case).text == ANSWER
    assert small.explainer(other).model == "fame/toy, int8, without video"
    layers = [stage.explainer.loaded.network.llm.model.layers for stage in (plain, small)]
    assert megabytes(layers[1]) < 0.3 * megabytes(layers[0])


def test_int8_layers_are_near_the_exact_ones():
    torch.manual_seed(0)
    exact = torch.nn.Sequential(torch.nn.Linear(64, 96), torch.nn.GELU(), torch.nn.Linear(96, 32, bias=False))
    x = torch.randn(2, 5, 64)
    with torch.no_grad():
        expected = exact(x)
        assert quantise(exact) == 2
        found = exact(x)
    assert found.shape == expected.shape
    assert (found - expected).norm() / expected.norm() < 0.02


def test_video_of_another_network_is_refused_with_what_to_change(make_stage):
    stage = make_stage()
    with pytest.raises(
        ValueError, match=r"takes them, got rows \[4, 1024\] and patches \[576, 1024\]; set visual.preset and"
    ):
        stage.take(video(fear(), width=1024, patches=576))
    with pytest.raises(ValueError, match=r"expected rows \[1 to 8, 64\] and patches \[16, 64\] as fame/toy"):
        stage.take(video(fear(), rows=9))


def test_weights_that_are_missing_or_do_not_fit_are_named_with_what_to_do(cache, monkeypatch, tmp_path):
    config = CauseConfig(explainer="fame", preset="toy")
    monkeypatch.setenv("EMO_CACHE", str(tmp_path))
    with pytest.raises(MissingWeights, match=r"fame.safetensors; type: make toy; to measure .* set weights to random"):
        FameExplainer(config)
    folder = write_fame(tmp_path)
    (folder / "language.safetensors").rename(tmp_path / "aside")
    with pytest.raises(
        MissingWeights, match=r"the tokenizer of fame.safetensors is missing: expected .*language.safetensors"
    ):
        FameExplainer(config)
    with pytest.raises(WeightsError, match=r"cause.language_model: expected a folder with a causal language model"):
        FameExplainer(config.with_values({"language_model": str(tmp_path / "toy")}))
    with pytest.raises(
        ConfigError, match=r"cause.precision: a language model has no int8 of its own; set quantise to int8"
    ):
        FameExplainer(config.with_values({"precision": "int8"}))
    (tmp_path / "aside").replace(folder / "fame.safetensors")
    with pytest.raises(WeightsError, match="holds 'language', expected fame"):
        FameExplainer(config)


def test_another_language_model_takes_the_place_of_the_one_in_the_file_if_it_fits(make_stage, tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    loaded = make_stage().explainer.loaded
    folder = tmp_path / "llm"
    loaded.network.llm.save_pretrained(folder)
    loaded.prompts.tokenizer.save_pretrained(folder)
    stage = make_stage(language_model=str(folder))
    take(stage, *door(), fear())
    (case,) = stage.idle()
    assert stage.explainer(case).text == ANSWER
    wider = LlamaForCausalLM(
        LlamaConfig(vocab_size=500, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    )
    wider.save_pretrained(folder)
    with pytest.raises(
        WeightsError, match=r"tensor 'new_tokens' is \[3, 64\], the network needs \[3, 32\].*cause.language_model"
    ):
        make_stage(language_model=str(folder))


# Bounds


def test_ten_minutes_of_silence_leave_nothing_behind(make_stage):
    stage = make_stage(memory_min=1.0)
    said = fear()
    take(stage, *door(), said, video(said))
    for index in range(40):
        take(stage, video(says(4, 5, f"P{index}", DOOR)))
    assert stage.video.of("P0@4") is None
    assert stage.video.of("P39@4") is not None
    assert take(stage, *(frames(second, second + 0.1, f1="neutral")[0] for second in range(6, 606))) == []
    assert stage.memory.items == ()
    assert len(stage._expressions) <= math.ceil(60 * 1.25) + 1
    assert stage.dialogue() == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Ana is scared because Ben left the door open.", ""),
        ("A ball rolled in. The mug fell and Ana is scared.", ""),
        ("Overwhelmed by joy, she ran. Nobody is there.", ""),
        ("Ana is scared because Carl shouted.", "not in the evidence: Carl"),
        ("Zoe is scared because of Ben.", "not in the evidence: Zoe"),
        ("Ana is scared as person 3 came.", "not in the evidence: person 3"),
        ("Ana is scared, AU 12 and AU 5 show it.", "not in the evidence: AU 12"),
    ],
)
def test_an_answer_may_speak_of_what_was_seen_but_of_no_strangers(text, problem):
    assert strangers(text, "Ben: I left it open.\nAna: Oh no!\nAna's face (AU 5)\nperson 2: sad") == problem
