"""ECPA on a stream: the words of the network itself, in time, for everybody, and only what was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import caption_clips
import numpy as np
import pytest
from caption_clips import FRAME_NS, START_NS, SlowClock, scene

from emo_models.engines import EngineError
from emo_models.engines.captions import WRITERS
from emo_models.labels import OPENGRAPHAU_MAIN, rep155_or_none
from emo_models.weights import MissingWeights
from emo_perception.config import CaptionConfig
from emo_perception.stages.caption import make_writer
from emo_perception.stages.caption.ecpa import WAITING
from emo_perception.stages.caption.ring import MOST_FRAMES
from emo_perception.stages.caption.wording import emotion_evidence, standing_prefix, unproven
from emo_perception.types import NS_PER_S, Caption, EmotionFeatures

BOLD = {"writer": "ecpa", "preset": "toy", "threads": 1, "min_confidence": 0.0, "min_intensity": 0.25}


@pytest.fixture(scope="module")
def ecpa(tmp_path_factory: pytest.TempPathFactory) -> caption_clips.Caption:
    return caption_clips.make(tmp_path_factory.mktemp("ecpa"))


@pytest.fixture
def make(ecpa: caption_clips.Caption, toy_engines: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``make(partial=None, clock=..., **parameters)``: a writer over the engines of the network."""
    monkeypatch.setenv("EMO_CACHE", str(toy_engines(*WRITERS, weights=ecpa.folder)))

    def made(partial: Any = None, clock: Any = None, **values: Any) -> Any:
        return make_writer(CaptionConfig.of({**BOLD, **values}), partial, clock or SlowClock())

    return made


def play(writer: Any, shown: caption_clips.Scene, network: Any, intensity: float = 0.9) -> list[Caption]:
    """The features of a clip, then the clip."""
    said = [caption for item in shown.features(intensity) for caption in writer(item)]
    return said + writer(shown.context(network))


def test_a_caption_is_word_for_word_that_of_the_network_with_its_evidence(
    make: Callable[..., Any], ecpa: caption_clips.Caption
) -> None:
    writer = make()
    texts = set()
    for seed, absent in ((1, ()), (2, (1,)), (3, (0, 2, 3)), (4, ()), (5, (3,))):
        shown = scene(ecpa.network, seed, absent=absent).later(10 * seed)
        expected = ecpa.network.generate(shown.pixels, shown.people[0], ecpa.tokens)[0]
        (caption,) = play(writer, shown, ecpa.network)
        assert caption.text == expected.text
        words = len(expected.generated.ids) - 1
        assert caption.confidence == pytest.approx(np.exp(expected.generated.log_prob / words), abs=1e-4)
        likeliest = max(expected.emotion, key=lambda name: expected.emotion[name])
        assert caption.emotion == (rep155_or_none(likeliest) or "")
        found = [e for e in caption.evidence if e.au]
        assert [(e.start, e.end, e.au) for e in found] == [(e.start, e.end, e.au) for e in expected.evidence]
        for ours, theirs in zip(found, expected.evidence, strict=True):
            assert ours.similarity == pytest.approx(theirs.similarity, abs=1e-4)
            assert ours.intensity == pytest.approx(theirs.intensity, abs=1e-6)
            assert ours.frames_ns == tuple(shown.stamps[index] for index in theirs.peak_frames)
        assert (caption.window_start_ns, caption.stamp_ns) == (shown.stamps[0], shown.stamps[-1])
        texts.add(caption.text)
    assert len(texts) > 3


def test_people_are_written_together_as_if_each_was_alone(
    make: Callable[..., Any], ecpa: caption_clips.Caption
) -> None:
    partial: list[Caption] = []
    writer = make(partial.append, max_people=5)
    shown = scene(ecpa.network, 7, people=6)
    said = play(writer, shown, ecpa.network)
    assert [caption.track_ids for caption in said] == [(1,), (2,), (3,), (4,), (5,)]
    for person, caption in zip(shown.people, said, strict=False):
        assert caption.text == ecpa.network.generate(shown.pixels, person, ecpa.tokens)[0].text
    assert writer.counts()["left_out"] == 1
    for caption in said:
        heard = [p for p in partial if p.track_ids == caption.track_ids]
        assert heard[-1].text == caption.text
        assert [h.text for h in heard] == sorted({h.text for h in heard}, key=len)
        assert not any(h.grounded for h in heard)


def test_people_who_swap_places_keep_their_captions(make: Callable[..., Any], ecpa: caption_clips.Caption) -> None:
    """Who is who says the track: the order of the faces and their boxes change in the middle of the clip."""
    shown = scene(ecpa.network, 7, people=2)
    expected = {c.track_ids: c.text for c in play(make(), shown, ecpa.network)}
    writer = make()
    for index, item in enumerate(shown.features()):
        first, second = item.faces
        if index > 1:
            boxes = second.track.box_xywh, first.track.box_xywh
            first, second = (
                replace(face, track=replace(face.track, box_xywh=box))
                for face, box in zip((first, second), boxes, strict=True)
            )
        writer(replace(item, faces=(second, first)))
    assert {c.track_ids: c.text for c in writer(shown.context(ecpa.network))} == expected
    assert len(set(expected.values())) == 2


def test_a_clip_waits_for_the_features_of_its_frames(make: Callable[..., Any], ecpa: caption_clips.Caption) -> None:
    shown = scene(ecpa.network, 1)
    (expected,) = play(make(), shown, ecpa.network)
    writer = make()
    first, *rest = shown.features()
    assert writer(first) == writer(shown.context(ecpa.network)) == []
    assert [c.text for item in rest for c in writer(item)] == [expected.text]
    assert writer.counts()["clips_waiting"] == 0
    assert writer.counts()["frames_without_features"] == 0
    late = shown.later(1)
    assert writer(late.context(ecpa.network)) == []
    assert writer.flush()[0].abstain_reason.startswith("no features of the clip's frames came")
    assert writer.counts()["frames_without_features"] == 4


def test_words_that_were_not_measured_make_a_caption_ungrounded(
    make: Callable[..., Any], ecpa: caption_clips.Caption
) -> None:
    writer = make()
    for seed in range(40):
        shown = scene(ecpa.network, seed).later(20 * seed)
        (measured,) = play(writer, shown, ecpa.network, intensity=0.3)
        named = ecpa.tokens.lexicon.phrases(measured.text)
        (unmeasured,) = play(writer, shown.later(5), ecpa.network, intensity=0.2)
        assert measured.grounded == all(set(phrase.aus) & set(OPENGRAPHAU_MAIN) for phrase in named)
        assert unmeasured.grounded == (not named)
        if named:
            return
    pytest.fail("no caption names an action unit")


def test_at_the_deadline_the_finished_beginning_goes_out_or_nothing(
    make: Callable[..., Any], ecpa: caption_clips.Caption
) -> None:
    """The clock goes on by a step each time the writer looks at it: before each group of people and after each word."""
    stop = ecpa.tokens.lexicon.stop
    shown, whole = next(
        (shown, text)
        for seed in range(100)
        for shown in [scene(ecpa.network, seed)]
        for text in [ecpa.network.generate(shown.pixels, shown.people[0], ecpa.tokens)[0].text]
        if standing_prefix(text, stop) not in ("", text)
    )
    outcomes = set()
    for words in range(1, 27):
        writer = make(clock=SlowClock(0.1), deadline_s=0.1 * words + 0.05)
        (caption,) = play(writer, shown, ecpa.network)
        counts = writer.counts()
        assert whole.startswith(caption.text)
        if caption.abstained:
            assert caption.abstain_reason.startswith("not finished within the deadline of")
            assert counts["too_late"] == 1
            outcomes.add("too late")
        elif caption.text == whole:
            assert caption.model == "ecpa/toy"
            outcomes.add("whole")
        else:
            assert caption.model == "ecpa/toy, cut at the deadline"
            assert len(caption.text.split()) >= 3
            assert counts["cut"] == 1
            outcomes.add("cut")
    assert outcomes == {"too late", "cut", "whole"}


def test_who_does_not_come_to_the_turn_is_told_too(make: Callable[..., Any], ecpa: caption_clips.Caption) -> None:
    shown = scene(ecpa.network, 7, people=6)
    writer = make(clock=SlowClock(0.1), deadline_s=0.25, max_people=6)
    said = play(writer, shown, ecpa.network)
    assert [c.track_ids for c in said] == [(n,) for n in range(1, 7)]
    assert all(c.abstained for c in said)
    assert writer.counts()["too_late"] == 6


def test_a_clip_whose_features_never_come_is_given_up_at_its_deadline(
    make: Callable[..., Any], ecpa: caption_clips.Caption
) -> None:
    clock = SlowClock()
    writer = make(clock=clock, deadline_s=2.0)
    shown = scene(ecpa.network, 1)
    assert writer(shown.context(ecpa.network), clock()) == writer.idle() == []
    clock.now_s = 2.0
    assert "yet" in writer.idle()[0].abstain_reason
    assert writer.idle() == []
    for number in range(WAITING + 2):
        writer(shown.later(10 + number).context(ecpa.network))
    assert (writer.counts()["clips_dropped"], writer.counts()["clips_waiting"]) == (2, WAITING)


def test_ten_minutes_without_a_face_are_one_abstention_and_no_memory(
    make: Callable[..., Any], ecpa: caption_clips.Caption
) -> None:
    writer = make()
    empty = scene(ecpa.network, 1, people=0)
    context = empty.context(ecpa.network)
    said = []
    for second in range(600):
        for index in range(10):
            stamp = START_NS + second * NS_PER_S + index * FRAME_NS
            said += writer(EmotionFeatures(stamp, "camera", (640, 480)))
        begin_ns = START_NS + second * NS_PER_S
        stamps = np.array([begin_ns + index * FRAME_NS for index in range(4)])
        said += writer(
            replace(context, window_start_ns=begin_ns, window_end_ns=int(stamps[-1]),
                    tensors={**context.tensors, "stamps": stamps})
        )  # fmt: skip
    assert [c.abstain_reason for c in said] == ["no face in view"]
    assert len(writer._ring) <= 10 * 14 + 1 < MOST_FRAMES
    later = scene(ecpa.network, 1).later(600)
    assert not play(writer, later, ecpa.network)[0].abstained
    assert [c.abstain_reason for c in play(writer, empty.later(601), ecpa.network)] == ["no face in view"]


def test_stamps_that_jump_back_and_gaps_start_anew(make: Callable[..., Any], ecpa: caption_clips.Caption) -> None:
    writer = make()
    shown = scene(ecpa.network, 1)
    (expected,) = play(writer, shown.later(100), ecpa.network)
    assert play(writer, shown, ecpa.network)[0].text == expected.text
    assert writer.counts()["restarts"] == 1
    assert play(writer, shown.later(3600), ecpa.network)[0].text == expected.text
    assert len(writer._ring) == 4


def test_an_unsure_caption_is_kept_back(make: Callable[..., Any], ecpa: caption_clips.Caption) -> None:
    (caption,) = play(make(min_confidence=1.0), scene(ecpa.network, 1), ecpa.network)
    assert caption.abstained
    assert "too unsure of its words" in caption.abstain_reason


def test_features_of_other_networks_are_an_error_that_names_both_and_the_parameter(
    make: Callable[..., Any], ecpa: caption_clips.Caption
) -> None:
    writer = make()
    shown = scene(ecpa.network, 1)
    width = ecpa.network.au_net.config.dim
    for embeddings, told in (
        ({}, "got none of them; set perception.embeddings: true, action_unit.network: anfl"),
        ({"au_nodes": np.zeros((27, 512), np.float32), "au_scores": np.zeros(27, np.float32),
          "au_pooled": np.zeros(512, np.float32)}, "au_nodes [27, 512]"),
    ):  # fmt: skip
        for item in shown.features():
            changed = tuple(replace(face, embeddings=embeddings) for face in item.faces)
            writer(replace(item, faces=changed))
        with pytest.raises(EngineError, match="preset") as raised:
            writer(shown.context(ecpa.network))
        assert told in str(raised.value)
        assert f"au_nodes [27, {width}]" in str(raised.value)
        shown = shown.later(1)
    assert not play(writer, shown.later(1), ecpa.network)[0].abstained


def test_clips_of_another_network_are_an_error_that_names_both(
    make: Callable[..., Any], ecpa: caption_clips.Caption
) -> None:
    writer = make()
    context = scene(ecpa.network, 1).context(ecpa.network)
    paper = {"visual": np.zeros((196, 512), np.float32), "stamps": np.arange(8)}
    with pytest.raises(
        EngineError, match=r"visual \[196, 512\], stamps \[8\]; give the nodes visual and caption the same"
    ):
        writer(replace(context, model="video_swin/paper", tensors=paper))
    assert writer(replace(context, tensors=paper, utterance_id="u1")) == []  # of a dialogue, for causes


def test_random_weights_never_make_a_caption(
    toy_engines: Any, ecpa: caption_clips.Caption, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMO_CACHE", str(toy_engines(*WRITERS)))
    with pytest.raises(EngineError, match="random"):
        make_writer(CaptionConfig.of(BOLD))
    partial: list[Caption] = []
    writer = make_writer(CaptionConfig.of({**BOLD, "weights": "random"}), partial.append)
    (caption,) = play(writer, scene(ecpa.network, 1), ecpa.network)
    assert (caption.abstained, caption.text) == (True, "")
    assert caption.abstain_reason.startswith("random weights: not valid; would have said: w")
    assert partial
    assert all(words.abstained for words in partial)
    late = make_writer(CaptionConfig.of({**BOLD, "weights": "random", "deadline_s": 0.1}), clock=SlowClock(0.2))
    (caption,) = play(late, scene(ecpa.network, 1), ecpa.network)
    assert caption.abstain_reason.startswith("random weights: not valid; not finished within the deadline of 0.1 s")


def test_missing_words_name_the_command(
    toy_engines: Any, ecpa: caption_clips.Caption, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = toy_engines(*WRITERS, weights=ecpa.folder)
    (tmp_path / "engines").symlink_to(place / "engines")
    monkeypatch.setenv("EMO_CACHE", str(tmp_path))
    with pytest.raises(MissingWeights, match=r"expected .*toy/ecpa/tokenizer/tokenizer.json; type: make toy"):
        make_writer(CaptionConfig.of(BOLD))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a man with black hair turns away next to a woman with slightly open mouth , look",
         "a man with black hair turns away next to a woman with slightly open mouth"),
        ("a man with black hair turns away next to a woman with slightly open",
         "a man with black hair turns away next to a woman"),
        ("a woman raises her inner and outer brows", ""),  # "raises her inner" is no sentence
        ("a man who smiles", ""),
        ("he smiles , and", ""),
        ("the man is sad . the", "the man is sad"),
        ("she does not smile but with", "she does not smile"),
        ("the man smiles as he while", "the man smiles"),
        ("", ""),
    ],
)  # fmt: skip
def test_an_unfinished_sentence_ends_where_a_clause_does(text: str, kept: str, ecpa: caption_clips.Caption) -> None:
    assert standing_prefix(text, ecpa.tokens.lexicon.stop) == kept


def test_a_phrase_is_proven_by_any_of_its_units_and_a_negated_one_claims_nothing(ecpa: caption_clips.Caption) -> None:
    text = "a man with a deep frown and an open mouth does not smile"
    assert unproven(text, ecpa.tokens.lexicon, {4: 0.5, 26: 0.3}, 0.25) == []
    assert unproven(text, ecpa.tokens.lexicon, {4: 0.5, 26: 0.2}, 0.25) == ["open mouth"]
    assert unproven("he closed his eyes", ecpa.tokens.lexicon, dict.fromkeys(OPENGRAPHAU_MAIN, 1.0), 0.25)


def test_words_of_emotion_are_set_against_the_classes() -> None:
    shares = {"anger": 0.5, "fear": 0.1, "anxiety": 0.3, "contempt": 0.1}
    found = list(emotion_evidence("an angry man , worry and contempt , not joy", 3, shares, [7, 9]))
    assert [(e.start, e.end, e.emotion, round(e.intensity, 3)) for e in found] == [
        (3, 8, "angry", 0.5),
        (15, 20, "scared", 0.4),
    ]
    assert {(e.track_id, e.frames_ns) for e in found} == {(3, (7, 9))}
