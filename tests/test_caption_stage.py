"""The start caption: what is said of synthetic streams of features, and what proves it."""

from __future__ import annotations

import re

import numpy as np
import pytest
from caption_scenes import (
    FPS,
    Units,
    captions,
    check_evidence,
    face,
    neutral,
    ns,
    smiling,
    speaking,
    texts,
)

from emo_perception.config import CaptionConfig
from emo_perception.stages.caption import CaptionStage
from emo_perception.stages.caption.content import names_of
from emo_perception.stages.caption.realiser import places
from emo_perception.types import (
    Caption,
    EmotionFeatures,
    FaceFeatures,
    Side,
    Stage,
)


def test_is_a_stage() -> None:
    stage: Stage[EmotionFeatures, Caption | None] = CaptionStage(CaptionConfig())
    stage.warmup()
    stage.reset()
    stage.close()
    assert stage.name == "caption"


def test_single_smile() -> None:
    (caption,) = captions(smiling, 1.1)
    assert re.fullmatch(r"The person smiles(,| and) clearly look(s|ing) happy\.", caption.text)
    assert (caption.track_ids, caption.emotion, caption.stamp_ns) == ((1,), "happy", ns(1.0))
    assert (caption.window_start_ns, caption.window_end_ns, caption.frame_id) == (ns(0), ns(1.0), "camera")
    assert caption.confidence > 0.9
    check_evidence(caption)


@pytest.mark.parametrize(
    ("intensity", "words"), [(0.3, "smiles (slightly|a little)"), (0.5, "smiles"), (0.8, "smiles broadly")]
)
def test_strength_is_said(intensity: float, words: str) -> None:
    (caption,) = captions(lambda t: [face({12: intensity}, {"happy": 0.9})], 1.1)
    assert re.match(f"The person {words}(,| and) clearly", caption.text)


def test_frown_then_smile() -> None:
    def scene(t: float) -> list[FaceFeatures]:
        if t < 1.5:
            return [face({4: 0.6 if t > 0.4 else 0.0, 12: 0.0}, {"angry": 0.7})]
        return [face({4: 0.0, 12: 0.6}, {"happy": 0.9})]

    said = captions(scene, 3.2)
    assert re.match(r"The person (frowns|knits the brows)(,| and) look", said[0].text)
    assert said[0].emotion == "angry"
    assert re.match(r"The person first (frowns|knits the brows), then breaks into a smile", said[-1].text)
    for caption in said:
        check_evidence(caption)


def test_whole_sequence_when_first_said_late() -> None:
    def scene(t: float) -> list[FaceFeatures]:
        if t < 2:
            return [face({4: 0.8 * (0.5 < t < 1.5), 12: 0}, {})]
        return [face({4: 0, 12: 0.8}, {"happy": 0.95})]

    (caption,) = captions(scene, 3.95, stride_s=3.9)
    assert re.match(
        r"The person first frowns deeply, then breaks into a broad smile(,| and) grow(s|ing) happy", caption.text
    )
    assert [e.au for e in caption.evidence if e.au] == [4, 12]


def test_unchanged_is_said_once() -> None:
    said = captions(smiling, 30)
    assert len(said) == 1
    assert len(captions(neutral, 30)) == 1


def test_wobble_is_no_change() -> None:
    rng = np.random.default_rng(5)

    def scene(t: float) -> list[FaceFeatures]:
        noise = rng.normal(0, 0.04, 4)
        return [face({12: 0.4 + noise[0], 6: max(0.0, 0.2 + noise[1]), 4: 0.1}, {"happy": 0.6 + noise[2], "sad": 0.1})]

    assert len(captions(scene, 20)) == 1


def test_slow_wobble_of_emotion_is_no_change() -> None:
    def scene(t: float) -> list[FaceFeatures]:
        surprised = 0.42 + 0.08 * np.sin(t)
        return [face({5: 0.5}, {"surprised": surprised, "scared": 0.84 - surprised})]

    (caption,) = captions(scene, 25)
    assert re.search(r"widens the eyes(,| and) seem(s|ing) (surprised or afraid|afraid or surprised)\.", caption.text)
    assert {e.emotion for e in caption.evidence if e.emotion} == {"surprised", "scared"}
    check_evidence(caption)


def test_movement_that_returns_is_said_again() -> None:
    def scene(t: float) -> list[FaceFeatures]:
        up = 1 <= t < 2 or 8 <= t < 9
        return [face({1: 0.6 * up, 2: 0.6 * up}, {"neutral": 0.5, "surprised": 0.2, "scared": 0.1, "sad": 0.2})]

    first, second = texts(captions(scene, 10))
    assert re.fullmatch(r"The person (raises|lifts) the brows\.", first)
    assert re.fullmatch(r"The person (raises|lifts) the brows again\.", second)


def test_growing_strength_is_news() -> None:
    said = texts(captions(lambda t: [face({12: 0.35 if t < 2.5 else 0.9}, {"happy": 0.7})], 6))
    assert len(said) == 2
    assert "smiles broadly" in said[1]
    assert "still looks happy" in said[1] or "still looking happy" in said[1]


def test_emotion_that_changes_is_news() -> None:
    said = captions(lambda t: [face({}, {"sad": 0.7} if t < 3 else {"angry": 0.7})], 6)
    assert texts(said) == ["The person looks sad.", "The person now looks angry."] or (
        len(said) == 2 and said[1].text.startswith("The person now ")
    )
    assert [c.emotion for c in said] == ["sad", "angry"]


def test_onset_of_emotion_grows() -> None:
    said = captions(lambda t: [face({}, {"angry": 0.05 if t < 2 else 0.9})], 4)
    assert said[0].text == "The person keeps a neutral face."
    assert said[1].text == "The person grows angry."


@pytest.mark.parametrize(
    ("xs", "names"),
    [
        ((100, 400), ["on the left", "on the right"]),
        ((500, 100, 300), ["on the left", "in the middle", "on the right"]),
        ((50, 200, 350, 500), ["on the left", "second from the left", "second from the right", "on the right"]),
    ],
)
def test_people_by_position(xs: tuple[int, ...], names: list[str]) -> None:
    emotions = ({"happy": 0.9}, {"angry": 0.9}, {"sad": 0.9}, {"surprised": 0.9})
    units: tuple[Units, ...] = ({12: 0.6}, {4: 0.6}, {15: 0.6}, {5: 0.6})

    def scene(t: float) -> list[FaceFeatures]:
        return [face(units[i], emotions[i], track=i + 1, x=x) for i, x in enumerate(xs)]

    (caption,) = captions(scene, 1.1, max_people=4)
    order = sorted(range(len(xs)), key=lambda i: xs[i])
    words = [next(iter(e)) for e in emotions]
    for name, i in zip(names, order, strict=True):
        assert re.search(rf"the person {name} [^;]*? {words[i]}", caption.text, re.IGNORECASE), caption.text
    assert sorted(caption.track_ids) == list(range(1, len(xs) + 1))
    check_evidence(caption)


def test_only_the_person_with_news_is_described() -> None:
    def scene(t: float) -> list[FaceFeatures]:
        return [
            face({12: 0.6}, {"happy": 0.9}, track=1, x=100),
            face({4: 0.8 if t > 3 else 0.0}, {"angry": 0.8} if t > 3 else {}, track=2, x=400),
        ]

    said = captions(scene, 6)
    assert "left" in said[0].text
    assert "keeps a neutral face" in said[0].text
    assert said[-1].track_ids == (2,)
    assert said[-1].text.startswith("The person on the right frowns deeply")


def test_people_alike_share_a_clause() -> None:
    (two,) = captions(lambda t: [face({12: 0.6}, {"happy": 0.9}, track=i, x=150 * i) for i in (1, 2)], 1.1)
    assert re.fullmatch(r"Both people smile(,| and) clearly look(ing)? happy\.", two.text)
    assert {e.track_id for e in two.evidence if e.au == 12} == {1, 2}
    (three,) = captions(lambda t: [face({12: 0.6}, {"happy": 0.9}, track=i, x=150 * i) for i in (1, 2, 3)], 1.1)
    assert three.text.startswith("All three people smile")
    check_evidence(three)


def test_too_many_people_are_counted_and_told_next() -> None:
    def scene(t: float) -> list[FaceFeatures]:
        return [face({12: 0.3 + 0.1 * i}, {"happy": 0.5 + 0.05 * i}, track=i, x=100 * i) for i in range(1, 6)]

    first, second = captions(scene, 5)
    assert set(first.track_ids) == {5, 4, 3}
    assert "two other people" in first.text
    assert set(second.track_ids) == {1, 2}
    assert "other" not in second.text


def test_places_by_size_and_height() -> None:
    assert places([(300, 200), (310, 210)], [200, 90]) == ["in front", "farther back"]
    assert places([(300, 50), (310, 300)], [100, 100]) == ["at the top", "at the bottom"]
    assert places([(0, 0)], [10]) == [""]
    for n in range(2, 65):
        named = places([(100.0 * i, 0) for i in range(n)], [80.0] * n)
        assert len(set(named)) == n


def test_neutral_face_is_said_once_and_again_after_an_expression() -> None:
    def scene(t: float) -> list[FaceFeatures]:
        return smiling(t) if 2 < t < 6 else neutral(t)

    said = texts(captions(scene, 14))
    assert said[0] == "The person keeps a neutral face."
    assert "smile" in said[1]
    assert said[-1] == "The person returns to a neutral face."
    assert len(said) == 3


def test_no_face_is_no_person() -> None:
    (caption,) = captions(lambda t: [], 20)
    assert (caption.abstained, caption.text, caption.abstain_reason) == (True, "", "no face in view")
    assert (caption.track_ids, caption.emotion, caption.evidence, caption.confidence) == ((), "", (), 0.0)


def test_late_face_comes_into_view_and_leaves() -> None:
    def scene(t: float) -> list[FaceFeatures]:
        return [face({12: 0.6}, {"happy": 0.9}, x=520, since=3.0)] if 3 <= t < 7 else []

    said = captions(scene, 12)
    reasons = [c.abstain_reason or c.text for c in said]
    assert reasons[0] == "no face in view"
    described = texts(said)
    assert re.match(r"Someone comes into view(,| and) smiles", described[0])
    assert described[-1] == "The person leaves the view."
    assert reasons[-1] == "no face in view"
    assert len(said) == 4
    came = next(e for e in next(c for c in said if c.text).evidence if not e.au and not e.emotion)
    assert came.frames_ns[0] == ns(3.0)


def test_face_lost_in_the_middle_disappears() -> None:
    said = captions(lambda t: smiling(t) if t < 3 else [], 6)
    assert texts(said)[-1] == "The person disappears from view."


def test_one_of_two_leaves() -> None:
    def scene(t: float) -> list[FaceFeatures]:
        both = [face({12: 0.6}, {"happy": 0.9}, track=1, x=5), face({12: 0.6}, {"happy": 0.9}, track=2, x=400)]
        return both if t < 3 else both[1:]

    assert texts(captions(scene, 6))[-1] == "The person on the left leaves the view."


def test_one_leaves_and_another_comes() -> None:
    def scene(t: float) -> list[FaceFeatures]:
        if t < 3.9:
            return [face({12: 0.6}, {"happy": 0.9}, track=1)]
        return [face({4: 0.6}, {"angry": 0.9}, track=2, since=3.9)]

    said = texts(captions(scene, 6))
    assert said[1] == "The person disappears from view."
    assert re.match(r"Someone comes into view(,| and) (frowns|knits)", said[2])
    last = texts(captions(scene, 5.9, stride_s=2.5))[-1]
    assert re.match("The person disappears from view, while someone else comes into view", last)


def test_short_presence_is_not_described() -> None:
    def scene(t: float) -> list[FaceFeatures]:
        return [face({12: 0.9}, {"happy": 0.9}, since=2.7)] if 2.7 <= t < 3.1 else []

    (caption,) = captions(scene, 6)
    assert caption.abstain_reason == "no face in view"
    assert captions(scene, 3.05)[-1].abstain_reason == "the face was seen for only 0.3 s"


def test_unclear_face_abstains_with_its_numbers() -> None:
    (caption,) = captions(lambda t: [face({}, {"neutral": 0.55, "sad": 0.3, "angry": 0.15})], 10)
    assert caption.abstained
    assert caption.abstain_reason == "the face shows no clear expression: neutral 0.55, sad 0.30"
    assert caption.track_ids == (1,)


def test_low_confidence_abstains_with_reason() -> None:
    def scene(t: float) -> list[FaceFeatures]:
        return [face({4: 0.3}, {"neutral": 0.5, "sad": 0.3, "angry": 0.2})]

    (caption,) = captions(scene, 10)
    assert caption.abstained
    assert caption.abstain_reason == "too unsure of the expression: confidence 0.30 is below 0.35"
    (spoken,) = captions(scene, 10, min_confidence=0.2)
    assert spoken.text == "The person frowns slightly."
    assert spoken.confidence == pytest.approx(0.3)
    check_evidence(spoken)


def test_nothing_below_the_threshold_is_claimed() -> None:
    (caption,) = captions(lambda t: [face({12: 0.24, 1: 0.2, 2: 0.2}, {"happy": 0.9})], 1.1)
    assert caption.text == "The person clearly looks happy."
    (caption,) = captions(lambda t: [face({12: 0.24, 1: 0.2, 2: 0.2}, {"happy": 0.9})], 1.1, min_intensity=0.15)
    assert "smiles" in caption.text


def test_angry_grimace_is_no_smile() -> None:
    (caption,) = captions(lambda t: [face({12: 0.7, 4: 0.6, 10: 0.5}, {"angry": 0.8})], 1.1)
    assert "smile" not in caption.text
    assert "grimaces" in caption.text
    assert caption.emotion == "angry"
    check_evidence(caption)


def test_lip_corners_of_a_neutral_face_are_no_smile() -> None:
    (caption,) = captions(lambda t: [face({12: 0.5}, {})], 1.1)
    assert caption.text == "The person lifts the lip corners."


def test_happy_with_a_frown_is_hedged_or_left_out() -> None:
    (caption,) = captions(lambda t: [face({4: 0.6}, {"happy": 0.6})], 1.1)
    assert re.fullmatch(r"The person (frowns|knits the brows), yet seems happy\.", caption.text)
    (doubtful,) = captions(lambda t: [face({4: 0.6}, {"happy": 0.45, "sad": 0.15, "angry": 0.15})], 1.1)
    assert re.fullmatch(r"The person (frowns|knits the brows)\.", doubtful.text)
    assert caption.confidence < 0.75


def test_opposed_emotions_are_not_joined() -> None:
    assert names_of({"happy": 0.45, "angry": 0.4, "neutral": 0.15}, ()) == ()
    assert names_of({"surprised": 0.45, "scared": 0.4, "neutral": 0.15}, ()) == ("surprised", "scared")


def test_speech_is_one_phrase() -> None:
    (caption,) = captions(lambda t: [face({26: speaking(t), 12: 0.5 * (int(t * 5) % 3 == 0), 18: 0.0}, {})], 10)
    assert caption.text == "The person moves the mouth as if speaking."
    (evidence,) = caption.evidence
    assert evidence.au == 26
    assert evidence.intensity == pytest.approx(0.65, abs=0.02)


def test_pauses_of_speech_are_no_news() -> None:
    said = captions(lambda t: [face({26: speaking(t) if t % 6 < 2.5 else 0.0}, {"neutral": 1.0})], 30)
    assert sum("speaking" in text for text in texts(said)) == 1


def test_smile_while_speaking_is_kept() -> None:
    (caption,) = captions(lambda t: [face({26: speaking(t), 12: 0.6}, {"happy": 0.8})], 1.9)
    assert "smiles" in caption.text
    assert "as if speaking" in caption.text
    assert "opens" not in caption.text


def test_open_mouth_without_speech() -> None:
    (caption,) = captions(
        lambda t: [face({26: 0.8 * (t > 0.3), 5: 0.6, 1: 0.6, 2: 0.6}, {"surprised": 0.9})], 1.95, stride_s=1.9
    )
    assert "opens the mouth wide" in caption.text
    assert "widens the eyes" in caption.text
    check_evidence(caption)


def test_blinks_are_silent_and_closed_eyes_are_not() -> None:
    assert texts(captions(lambda t: [face({45: 0.9 if t % 2 < 0.25 else 0.1}, {})], 12)) == [
        "The person keeps a neutral face."
    ]
    (caption,) = captions(lambda t: [face({45: 0.9 * (t > 0.5)}, {"neutral": 1.0})], 1.95, stride_s=1.9)
    assert caption.text == "The person keeps the eyes closed."


def test_one_sided_movement_names_the_side() -> None:
    units: Units = {(1, Side.LEFT): 0.7, (1, Side.RIGHT): 0.05, (2, Side.LEFT): 0.6, (2, Side.RIGHT): 0.1}
    (caption,) = captions(lambda t: [face(units, {})], 1.1)
    assert re.fullmatch(r"The person (raises|lifts) the left brow( high)?\.", caption.text)
    assert {e.side for e in caption.evidence} == {Side.LEFT}
    both: Units = {(12, Side.LEFT): 0.7, (12, Side.RIGHT): 0.6, 12: 0.65}
    (caption,) = captions(lambda t: [face(both, {"happy": 0.9})], 1.1)
    (evidence,) = [e for e in caption.evidence if e.au]
    assert (evidence.side, evidence.intensity) == (Side.BOTH, pytest.approx(0.65))


def test_evidence_spans_are_exact_and_peak_first() -> None:
    peak = 0.8

    def scene(t: float) -> list[FaceFeatures]:
        return [face({12: peak - abs(t - 0.6)}, {"happy": min(0.95, 0.7 + 0.3 * t)})]

    (caption,) = captions(scene, 1.05)
    smile, happy = caption.evidence
    assert caption.text[smile.start : smile.end] == "smiles broadly"
    assert smile.frames_ns[0] == ns(0.6)
    assert set(smile.frames_ns) == {ns(0.6 + i / FPS) for i in range(-2, 3)}
    assert smile.intensity == pytest.approx(peak)
    assert caption.text[happy.start : happy.end] == "happy"
    assert happy.frames_ns[0] in {ns(0.8 + 1 / 30 * i) for i in range(8)}
    assert happy.intensity == pytest.approx(0.84, abs=0.02)
    assert np.isnan(smile.similarity)


def test_new_face_is_not_believed_while_it_settles() -> None:
    said = captions(lambda t: [face({4: 0.9 * max(0.0, 1 - 3 * t)}, {})], 1.1)
    assert texts(said) == ["The person keeps a neutral face."]
