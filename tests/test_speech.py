"""Who says what, and when: the real networks on real voices, and on everything that is none."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from emo_models import weights
from emo_models.engines import EngineError
from emo_models.fetch import pull
from emo_perception.config import SourceConfig, SpeechConfig
from emo_perception.hearing import CHUNKS, Hearing
from emo_perception.perception import Chain
from emo_perception.sources import open_source
from emo_perception.stages.speech import MouthWatch, Segment
from emo_perception.stages.speech.recogniser import MODELS, Recogniser
from emo_perception.stages.speech.speaker import CHIN, FOREHEAD, LOWER_LIP, UPPER_LIP
from emo_perception.stages.speech.voice import FRAME, FRAME_NS, Utterances, VoiceDetector
from emo_perception.types import NS_PER_S, AudioChunk, Faces, FaceTrack, Frame, Utterance

RATE_HZ = 16_000
DAY_NS = 86_400 * NS_PER_S


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    for name in weights.profiles()["start"]:
        pull(name)
    made = Chain({})
    made.warmup()
    yield made
    made.close()


@pytest.fixture(scope="module")
def another_day() -> Callable[[], int]:
    """A time long before all that the chain has heard: it starts anew."""
    days = itertools.count(20_000, -1)
    return lambda: next(days) * DAY_NS


def clip(name: str) -> list[Frame | AudioChunk]:
    return list(open_source(SourceConfig(uri=str(pull(name)), realtime=False)))


def voice(name: str) -> np.ndarray:
    return np.concatenate([item.samples for item in clip(name) if isinstance(item, AudioChunk)])


def chunks(samples: np.ndarray, start_ns: int, rate_hz: int = RATE_HZ, size: int = 1024) -> list[AudioChunk]:
    return [
        AudioChunk(start_ns + i * NS_PER_S // rate_hz, samples[i : i + size], rate_hz, "mic")
        for i in range(0, len(samples), size)
    ]


def heard(chain: Chain, sound: list[AudioChunk]) -> list[Utterance]:
    """Everything that is said in the sound, to its end."""
    segments = [segment for chunk in sound for segment in chain.hear(chunk)] + chain.speech.flush()
    return [utterance for segment in segments if (utterance := chain.speech(segment)) is not None]


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE_HZ), np.int16)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ravdess_neutral_man", r"kids are talking by the door\W"),
        ("ravdess_angry", r"dogs are sitting by the door\W"),
        ("ravdess_neutral_woman", r"kids are talking by the door\W"),
        ("ravdess_surprised", r"kid.* talking about the door\W"),  # so the small model hears her whisper
    ],
)
def test_a_person_is_understood_and_recognised_as_the_speaker(
    chain: Chain, another_day: Callable[[], int], name: str, said: str
) -> None:
    items = clip(name)
    shift_ns = another_day() - items[0].stamp_ns
    tracks, voiced = set(), []
    for item in items:
        if isinstance(item, Frame):
            frame = Frame(item.stamp_ns + shift_ns, item.image)
            tracks |= {face.track.track_id for features in chain.offline([frame]) for face in features.faces}
        else:
            voiced += chain.hear(AudioChunk(item.stamp_ns + shift_ns, item.samples, item.sample_rate_hz, "mic"))
    (utterance,) = [chain.speech(segment) for segment in voiced + chain.speech.flush()]
    assert re.fullmatch(said, utterance.text.lower())
    assert {utterance.track_id} == tracks
    assert utterance.confidence > 0.7
    assert (utterance.language, utterance.frame_id) == ("en", "mic")
    assert 1.0 < (utterance.end_ns - utterance.start_ns) / NS_PER_S < 2.5
    times = [t for word in utterance.words for t in (word.start_ns, word.end_ns)]
    assert times == sorted(times)
    assert utterance.start_ns <= times[0] <= times[-1] <= utterance.end_ns
    assert " ".join(word.text for word in utterance.words) == utterance.text


def test_the_same_sound_gives_the_same_utterances(chain: Chain, another_day: Callable[[], int]) -> None:
    sound = np.concatenate((voice("ravdess_angry"), voice("ravdess_surprised")))
    base_ns = another_day()
    first = heard(chain, chunks(sound, base_ns))
    another = heard(chain, chunks(silence(0.1), base_ns - DAY_NS))  # ends with a jump back in between
    again = heard(chain, chunks(sound, base_ns - 2 * DAY_NS))
    assert another == []
    assert len(first) == len(again) == 2
    for one, two in zip(first, again, strict=True):
        assert (one.text, one.confidence) == (two.text, two.confidence)
        assert one.start_ns - two.start_ns == one.words[-1].end_ns - two.words[-1].end_ns == 2 * DAY_NS


@pytest.mark.parametrize("rate_hz", [8_000, 44_100, 48_000])
def test_other_rates_are_understood(chain: Chain, another_day: Callable[[], int], rate_hz: int) -> None:
    samples = voice("ravdess_neutral_man")
    times = np.arange(len(samples) * rate_hz // RATE_HZ) / rate_hz
    sound = np.interp(times, np.arange(len(samples)) / RATE_HZ, samples).astype(np.int16)
    (utterance,) = heard(chain, chunks(sound, another_day(), rate_hz))
    assert utterance.text.endswith("talking by the door.")


def test_a_hole_in_the_sound_ends_an_utterance(chain: Chain, another_day: Callable[[], int]) -> None:
    base_ns, sound = another_day(), voice("ravdess_neutral_man")
    segments = [s for chunk in chunks(sound[: int(1.8 * RATE_HZ)], base_ns) for s in chain.hear(chunk)]
    assert segments == []
    assert chain.speech.speaking
    segments = [s for chunk in chunks(sound, base_ns + 8 * NS_PER_S) for s in chain.hear(chunk)]
    assert len(segments) == 2
    assert segments[0].end_ns <= base_ns + 1.9 * NS_PER_S
    assert chain.speech(segments[1]).text == "Kids are talking by the door."


@pytest.mark.parametrize("kind", ["noise", "hum", "clicks"])
def test_what_is_no_voice_says_nothing(chain: Chain, another_day: Callable[[], int], kind: str) -> None:
    random = np.random.default_rng(1)
    times = np.arange(20 * RATE_HZ) / RATE_HZ
    sound = {
        "noise": 3000 * random.standard_normal(len(times)),
        "hum": 9000 * np.sign(np.sin(2 * np.pi * 50 * times)),
        "clicks": 30_000 * (random.random(len(times)) < 3 / RATE_HZ),
    }[kind]
    assert heard(chain, chunks(sound.astype(np.int16), another_day())) == []


def memory_kb() -> int:
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory from /proc")
def test_ten_minutes_of_silence_say_nothing_and_take_no_memory(chain: Chain, another_day: Callable[[], int]) -> None:
    base_ns, minute = another_day(), silence(60)
    assert heard(chain, chunks(minute, base_ns, size=RATE_HZ)) == []
    heard(chain, chunks(minute, base_ns + 60 * NS_PER_S, size=RATE_HZ))
    before_kb = memory_kb()
    for i in range(2, 10):
        assert heard(chain, chunks(minute, base_ns + i * 60 * NS_PER_S, size=RATE_HZ)) == []
    assert memory_kb() - before_kb < 8_000
    assert chain.window.counts().audio_s == 6 * SpeechConfig().max_utterance_s


def test_a_crowd_that_never_pauses_is_heard_in_parts(chain: Chain, another_day: Callable[[], int]) -> None:
    voices = [voice(name)[int(0.9 * RATE_HZ) : int(2.4 * RATE_HZ)] for name in ("ravdess_angry", "ravdess_surprised")]
    one = np.tile(np.concatenate(voices), 8)
    crowd = (one.astype(int) + np.roll(one, 9_000) + np.roll(one, 21_000)) // 2
    segments = [
        s for chunk in chunks(np.clip(crowd, -32768, 32767).astype(np.int16), another_day()) for s in chain.hear(chunk)
    ]
    segments += chain.speech.flush()
    longest_ns = SpeechConfig().max_utterance_s * NS_PER_S
    assert len(segments) >= 2
    assert all(0 < s.end_ns - s.start_ns <= longest_ns for s in segments)
    assert all(a.end_ns <= b.start_ns for a, b in itertools.pairwise(segments))
    for segment in segments:
        utterance = chain.speech(segment)
        assert utterance is None or len(utterance.text) < 600  # no endless loop of the recogniser


def test_a_resting_stage_ends_what_was_being_said_and_hears_only_what_comes_afterwards(
    chain: Chain, another_day: Callable[[], int]
) -> None:
    said = voice("ravdess_angry")
    sound = np.concatenate((said[: 2 * RATE_HZ], said, silence(2), said, silence(2)))
    base_ns, back_ns = another_day(), 4 * NS_PER_S + len(said) * NS_PER_S // RATE_HZ
    found = []
    for chunk in chunks(sound, base_ns):
        passed_ns = chunk.stamp_ns - base_ns
        chain.speech.resting = 2 * NS_PER_S <= passed_ns < back_ns
        found += chain.hear(chunk)
        if chain.speech.resting:
            assert chain.speech.speaking_track() is None
    mine, afterwards = [(s.start_ns - base_ns, s.end_ns - base_ns) for s in found]
    assert mine[0] < mine[1] <= 2.1 * NS_PER_S
    assert afterwards[0] >= back_ns
    assert chain.speech.heard_ns == pytest.approx(base_ns + len(sound) * NS_PER_S // RATE_HZ, abs=0.1 * NS_PER_S)


def test_sound_that_the_window_has_lost_is_counted(chain: Chain, another_day: Callable[[], int]) -> None:
    base_ns = another_day()
    heard(chain, chunks(silence(5), base_ns))
    before = chain.speech.lost
    assert chain.speech(Segment(base_ns - 60 * NS_PER_S, base_ns - 58 * NS_PER_S)) is None
    assert chain.speech(Segment(base_ns + 60 * NS_PER_S, base_ns + 62 * NS_PER_S)) is None
    assert chain.speech.lost == before + 2


# Voice activity


def test_a_voice_is_found_alike_in_one_piece_and_in_many(chain: Chain) -> None:
    sound = voice("ravdess_angry")
    sound = sound[: len(sound) // FRAME * FRAME]
    detector = VoiceDetector()
    whole = detector(sound)
    detector.reset()
    pieces = np.concatenate([detector(sound[i : i + 2 * FRAME]) for i in range(0, len(sound), 2 * FRAME)])
    detector.close()
    np.testing.assert_allclose(pieces, whole, atol=1e-4)
    assert whole[:25].max() < 0.2  # the man has not begun
    assert np.median(whole[35:90]) > 0.9
    assert whole[-15:].max() < 0.2


def segments_of(probabilities: list[float], **config: object) -> list[tuple[float, float, bool, bool]]:
    """First and last frame, and whether there was a pause before and after."""
    utterances = Utterances(SpeechConfig.of(config))
    found = [utterances.add(i * FRAME_NS, p) for i, p in enumerate(probabilities)] + [utterances.flush()]
    return [(s.start_ns / FRAME_NS, s.end_ns / FRAME_NS, s.before, s.after) for s in found if s is not None]


def test_a_pause_ends_an_utterance_and_a_breath_does_not() -> None:
    speech, breath, pause = [0.9] * 20, [0.1] * 10, [0.1] * 20
    assert segments_of([*pause, *speech, *breath, *speech, *pause, *speech]) == [
        (20, 70, True, True),
        (90, 110, True, True),
    ]
    assert segments_of([*speech, *breath, *speech], pause_s=0.3) == [(0, 20, True, True), (30, 50, True, True)]


def test_a_voice_lasts_until_it_is_clearly_gone_and_a_short_one_is_none() -> None:
    assert segments_of([0.45] * 20) == []
    assert segments_of([0.9] * 10 + [0.45] * 30 + [0.3] * 20) == [(0, 40, True, True)]
    assert segments_of([0.9] * 5 + [0.1] * 30) == []
    assert segments_of([0.9] * 5 + [0.1] * 30, min_voice_s=0.1) == [(0, 5, True, True)]


def test_a_voice_without_a_pause_is_cut_where_it_is_quietest() -> None:
    probabilities = [0.9] * 80
    probabilities[55] = 0.4
    assert segments_of(probabilities, max_utterance_s=2.0) == [(0, 55, True, False), (55, 80, False, True)]


# The speaker


def person(track_id: int, apart: float, mesh: bool = True) -> FaceTrack:
    points = np.zeros((478, 3), np.float32)
    points[CHIN, 1], points[FOREHEAD, 1] = 100.0, -100.0
    points[LOWER_LIP, 1], points[UPPER_LIP, 1] = 100 * apart, -100 * apart
    zeros = np.zeros(4, np.float32)
    return FaceTrack(track_id, 1.0, 0, zeros, np.zeros((5, 2), np.float32), zeros[:3], points if mesh else None)


def watched(*people: Callable[[int], FaceTrack | None], frames: int = 30) -> int:
    watch = MouthWatch(60)
    for i in range(frames):
        present = [face for face in (make(i) for make in people) if face is not None]
        watch.add(Faces(i * NS_PER_S // 30, "", (640, 480), tuple(present)))
    return watch.speaker(0, NS_PER_S)


def talks(track_id: int, much: float = 0.05) -> Callable[[int], FaceTrack]:
    return lambda i: person(track_id, much * (1 + np.sin(i + track_id)))


def still(track_id: int, apart: float = 0.0) -> Callable[[int], FaceTrack]:
    return lambda _: person(track_id, apart)


def test_the_face_whose_lips_move_speaks() -> None:
    assert watched(talks(7)) == 7
    assert watched(still(1), talks(2), still(3, apart=0.2)) == 2


def test_nobody_is_named_where_it_is_not_clear() -> None:
    assert watched() == 0
    assert watched(still(1), still(2, apart=0.1)) == 0
    assert watched(talks(1), talks(2)) == 0  # a crowd talking at once
    assert watched(talks(1), talks(2, much=0.01)) == 1
    assert watched(lambda i: talks(1)(i) if i > 20 else None) == 0  # came when it was almost said
    assert watched(lambda i: person(1, i % 2, mesh=False)) == 0
    assert watched(talks(1), frames=3) == 0


def test_without_a_mesh_no_speaker_is_named_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    assert watched(lambda i: person(1, i % 2, mesh=False)) == 0
    said = [record.getMessage() for record in caplog.records]
    assert said == ["faces come without a mesh (face.detector: scrfd): nobody's lips are seen, no speaker is named"]


def test_mouths_of_another_time_are_forgotten() -> None:
    watch = MouthWatch(1.0)
    for second in range(3):
        for i in range(30):
            faces = (talks(second + 1)(i),)
            watch.add(Faces(second * NS_PER_S + i * NS_PER_S // 30, "", (640, 480), faces))
    assert watch.speaker(0, NS_PER_S - 1) == 0
    assert watch.speaker(2 * NS_PER_S, 3 * NS_PER_S) == 3
    watch.add(Faces(0, "", (640, 480)))
    assert watch.speaker(2 * NS_PER_S, 3 * NS_PER_S) == 0


# The recogniser's model


def test_a_folder_with_a_model_is_used(chain: Chain, tmp_path: Path) -> None:
    for file, card in MODELS["tiny.en"].items():
        shutil.copy(weights.path(card), tmp_path / file)
    recogniser = Recogniser(str(tmp_path), threads=1)
    spoken = recogniser(voice("ravdess_neutral_woman"), SpeechConfig())
    assert spoken.text == "Kids are talking by the door."
    recogniser.close()
    with pytest.raises(EngineError, match="closed"):
        recogniser(silence(1), SpeechConfig())
    (tmp_path / "model.bin").write_bytes(b"no model")
    with pytest.raises(EngineError, match="faster-whisper cannot load it"):
        Recogniser(str(tmp_path))
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(EngineError, match=r"tokenizer\.json missing; make one with: ct2-transformers-converter"):
        Recogniser(str(tmp_path))


def test_a_model_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match=r"'enormous': expected tiny\.en or a folder"):
        Recogniser("enormous")
    monkeypatch.setenv("EMO_CACHE", str(tmp_path))
    with pytest.raises(weights.MissingWeights, match="emo weights pull whisper_tiny_en"):
        Recogniser("tiny.en")


FAKE = "open(__file__ + '.loaded', 'w').close()\n"
LOAD = "from emo_perception.stages.speech.recogniser import _whisper; print(_whisper())"


def test_frameworks_that_happen_to_be_installed_are_not_loaded(tmp_path: Path) -> None:
    for name in ("torch", "transformers", "tensorflow"):
        (tmp_path / f"{name}.py").write_text(FAKE)
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), root))}
    done = subprocess.run(
        [sys.executable, "-c", LOAD], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert "WhisperModel" in done.stdout, done.stderr
    assert list(tmp_path.glob("*.loaded")) == []


# The workers


def test_sound_that_comes_faster_than_it_is_heard_is_dropped_and_counted(chain: Chain) -> None:
    hearing: Hearing[AudioChunk] = Hearing(chain, lambda chunk: chunk, print)
    for chunk in chunks(silence(30), DAY_NS, size=1024):
        hearing.offer(chunk)
    counts = hearing.counts().sound
    assert (counts.offered, counts.waiting) == (469, CHUNKS)
    assert counts.dropped == 469 - CHUNKS


def test_the_workers_say_what_was_spoken_also_when_the_sound_breaks_off(
    chain: Chain, another_day: Callable[[], int], wait_for: Callable[..., None]
) -> None:
    said: list[Utterance] = []
    threads: list[str] = []

    def say(utterance: Utterance) -> None:
        said.append(utterance)
        threads.append(threading.current_thread().name)

    hearing: Hearing[AudioChunk | None] = Hearing(chain, lambda chunk: chunk, say)
    hearing.start()
    try:
        sound = voice("ravdess_neutral_man")[: int(2.45 * RATE_HZ)]  # the clip ends with the last word
        for chunk in [AudioChunk(DAY_NS, silence(1), 17), None, *chunks(sound, another_day())]:
            hearing.offer(chunk)
        wait_for(lambda: said, "the utterance")
    finally:
        hearing.stop()
    assert said[0].text.startswith("Kids are talking by the")
    assert threads == ["emo-speech"]
    counts = hearing.counts()
    assert (counts.bad, counts.sound.dropped, counts.utterances.dropped) == (1, 0, 0)
    assert hearing.stats.snapshot().processed == 1


def test_frames_go_on_without_speech(chain: Chain) -> None:
    deaf = Chain({"speech": SpeechConfig(enabled=False)})
    assert deaf.speech is None
    assert deaf.hear(AudioChunk(DAY_NS, silence(10))) == []
    assert deaf.window.counts().audio_s == 4.0
    portrait = np.zeros((240, 320, 3), np.uint8)
    (features,) = deaf.offline([Frame(DAY_NS, portrait)])
    assert features.faces == ()
    deaf.close()


def test_sound_without_a_camera_is_understood_and_nobody_is_named(chain: Chain, another_day: Callable[[], int]) -> None:
    (utterance,) = heard(chain, chunks(voice("ravdess_angry"), another_day()))
    assert utterance.track_id == 0
    assert utterance.text == "Dogs are sitting by the door!"
