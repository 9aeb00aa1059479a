"""REP-155: what of our features becomes which number, without ROS; and the real topics with ``hri_msgs`` (``make test-slow``)."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import hri_messages
import numpy as np
import pytest

from emo_models import weights
from emo_models.fetch import pull
from emo_models.labels import AU_NAMES, REP155_EXPRESSIONS, VOCABULARIES, WITHOUT_REP155
from emo_models.labels import rep155 as rep155_name
from emo_perception import rep155
from emo_perception.types import FaceActionUnits, FaceEmotion, FaceFeatures, FaceTrack, Side


def face(box: tuple[float, float, float, float]) -> FaceFeatures:
    track = FaceTrack(
        3, 0.75, 0, np.array(box, np.float32), np.zeros((5, 2), np.float32), np.zeros(3, np.float32)
    )  # fmt: skip
    return FaceFeatures(track, units(), FaceEmotion(3, "fer7", (), np.zeros(0, np.float32)))


def units(*values: tuple[int, Side, float]) -> FaceActionUnits:
    au, side, intensity = zip(*values, strict=True) if values else ((), (), ())
    return FaceActionUnits(3, "blendshape", tuple(au), tuple(side), np.array(intensity, np.float32))


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((64, 48, 320, 240), (0.1, 0.1, 0.6, 0.6)),
        ((-64, -48, 128, 96), (0, 0, 0.1, 0.1)),
        ((576, 432, 128, 96), (0.9, 0.9, 1, 1)),
        ((700, 500, 10, 10), (1, 1, 1, 1)),
    ],
    ids=["inside", "over the corner", "over the other corner", "outside"],
)
def test_region_is_the_visible_part_of_the_box(box, expected) -> None:
    assert rep155.region(face(box), (640, 480)) == pytest.approx(expected)


def test_action_units_lie_at_their_numbers_and_a_side_is_not_halved() -> None:
    found = rep155.facs(units((1, Side.BOTH, 0.25), (12, Side.LEFT, 0.75), (12, Side.RIGHT, 0.125)), 0.5)
    assert found.intensity.shape == found.confidence.shape == (99,)
    assert {au: float(found.intensity[au]) for au in np.flatnonzero(found.intensity)} == {1: 0.25, 12: 0.75}
    assert {au: float(found.confidence[au]) for au in np.flatnonzero(found.confidence)} == {1: 0.5, 12: 0.5}


def test_a_measured_zero_differs_from_what_was_not_measured() -> None:
    found = rep155.facs(units((4, Side.BOTH, 0.0)), 1.0)
    assert (found.intensity[4], found.confidence[4], found.confidence[5]) == (0, 1, 0)


def test_every_action_unit_that_we_name_has_a_place() -> None:
    assert max(AU_NAMES) < rep155.FACS


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_every_class_of_every_network_is_an_expression_of_rep_155(vocabulary) -> None:
    named = [name for name in VOCABULARIES[vocabulary] if name not in WITHOUT_REP155]
    labels = tuple(rep155_name(name) for name in named)
    for index, label in enumerate(labels):
        probabilities = np.full(len(labels), 0.1, np.float32)
        probabilities[index] = 0.4
        said = rep155.expression(FaceEmotion(3, vocabulary, labels, probabilities))
        assert said == (label, pytest.approx(0.4))
        assert said.expression in REP155_EXPRESSIONS


def test_what_rep_155_has_no_name_for_is_not_said() -> None:
    said = rep155.expression(FaceEmotion(3, "mafw11", ("sad", "contempt"), np.array([0.4, 0.6], np.float32)))
    assert said == ("", 0.0)


def test_without_a_network_there_is_no_expression() -> None:
    assert rep155.expression(face((0, 0, 1, 1)).emotion) == ("", 0.0)


def test_ids_can_stand_in_topic_names() -> None:
    assert rep155.face_id(7) == "face_7"
    assert [rep155.voice_id(track_id) for track_id in (7, 0)] == ["voice_7", "voice_unknown"]
    assert all(f"{rep155.VOICES}/{rep155.voice_id(i)}/speech".startswith(rep155.OWN_VOICES) for i in (7, 0))


@pytest.mark.parametrize(
    ("topic", "voice"),
    [
        ("/humans/voices/anna/speech", "anna"),
        ("/humans/voices/voice_3/speech", "voice_3"),
        ("/humans/voices/voice_unknown/speech", ""),
        ("/humans/voices/tracked", ""),
        ("/asr", ""),
    ],
)
def test_a_topic_names_the_voice(topic, voice) -> None:
    assert rep155.voice_of(topic) == voice


def live(final: str = "Hello.", sec: int = 7, confidence: float = 0.75, **language: str) -> SimpleNamespace:
    header = SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=5), frame_id="mic")
    return SimpleNamespace(header=header, incremental="hel", final=final, confidence=confidence, **language)


def test_final_live_speech_is_an_utterance() -> None:
    said = rep155.heard(live(" Hello. ", locale="en_GB"), "/humans/voices/anna/speech")
    assert said is not None
    assert (said.text, said.speaker, said.track_id, said.frame_id) == ("Hello.", "anna", 0, "mic")
    assert said.start_ns == said.end_ns == 7_000_000_005
    assert said.id == "u7000000005_humans_voices_anna_speech"
    assert (said.language, said.confidence) == ("en", 0.75)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({"locale": "de"}, "de"), ({"locale": "", "language": "fr-CA"}, "fr"), ({"language": "es"}, "es"), ({}, "")],
)
def test_the_language_is_found_whatever_the_release_calls_it(fields, expected) -> None:
    said = rep155.heard(live(**fields), "/asr")
    assert said is not None
    assert said.language == expected


@pytest.mark.parametrize(("given", "expected"), [(math.nan, 0.0), (-1.0, 0.0), (7.0, 1.0)])
def test_a_confidence_is_a_share_of_one(given, expected) -> None:
    said = rep155.heard(live(confidence=given), "/asr")
    assert said is not None
    assert said.confidence == expected


def test_what_is_not_final_says_nothing_and_a_missing_stamp_is_told() -> None:
    assert rep155.heard(live("  "), "/asr") is None
    unstamped = live(sec=0)
    unstamped.header.stamp.nanosec = 0
    with pytest.raises(ValueError, match=r"/asr: expected header\.stamp"):
        rep155.heard(unstamped, "/asr")


@pytest.fixture(scope="module")
def with_hri(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    environment = {**os.environ, **hri_messages.build(tmp_path_factory.mktemp("hri"))}
    environment["PYTHONPATH"] = os.pathsep.join([environment["PYTHONPATH"], str(hri_messages.ROOT)])
    return environment


def told_by(program: str, environment: Mapping[str, str], *arguments: str) -> dict[str, object]:
    """What a program beside this test found out about the running graph."""
    command = [sys.executable, str(Path(__file__).with_name(program)), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_voice_has_topics_and_words_of_others_replace_our_own(with_hri) -> None:
    for name in weights.profiles()["start"]:
        pull(name)
    told = told_by("hear_voices.py", with_hri)
    voice = "/humans/voices/voice_unknown"
    assert told["topics"] == ["/humans/voices/tracked", f"{voice}/is_speaking", f"{voice}/speech"]
    assert told["ids"] == ["voice_unknown"]
    assert told["spoken"] == {"text": "Dogs are sitting by the door", "locale": "en", "frame": "mic"}
    assert told["same_as_utterance"] is True
    assert told["while_others_hear"] == []
    assert told["anna"] == {"speaker": "anna", "track": 0, "text": "I am here.", "language": "en", "confidence": 0.5}
    assert told["heard_while_resting"] == []
    assert told["bad"] == "1"


@pytest.mark.slow
def test_a_face_has_topics_while_it_is_there(with_hri) -> None:
    told = told_by("hear_humans.py", with_hri, str(pull("astronaut")))
    base = f"/humans/faces/face_{told['track']}"
    assert told["while_there"] == [f"{base}/expression", f"{base}/facs", f"{base}/roi", "/humans/faces/tracked"]
    assert told["afterwards"] == ["/humans/faces/tracked"]
    assert told["roi"]["frame"] == told["facs"]["frame"] == told["expression"]["frame"] == "cam"
    assert told["roi"]["stamp"] == told["facs"]["stamp"] == told["expression"]["stamp"]
    assert told["expression"]["expression"] == "happy"
    assert math.isnan(told["expression"]["valence"])
    assert told["facs"]["intensity"][12] > 0.8
    x, y, width, height = (value / side for value, side in zip(told["box"], told["size"] * 2, strict=True))
    roi = [told["roi"][name] for name in ("xmin", "ymin", "xmax", "ymax")]
    assert roi == pytest.approx([x, y, x + width, y + height], abs=0.05)
