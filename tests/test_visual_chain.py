"""Visual tokens in the chain of the perception process: beside the features, and cut where a voice ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emo_models import weights
from emo_models.fetch import pull
from emo_perception.config import ConfigError, PerceptionConfig, SourceConfig, SpeechConfig, VisualConfig
from emo_perception.perception import Chain, Observation, join
from emo_perception.sources import open_source
from emo_perception.types import (
    NS_PER_S,
    ActionUnits,
    AudioChunk,
    EmotionFeatures,
    Emotions,
    FaceActionUnits,
    FaceEmotion,
    Faces,
    FaceTrack,
    Frame,
    Side,
    Utterance,
    VisualContext,
)

TOY = VisualConfig(clips=True, frames=True, preset="toy", weights="random", threads=1)


@pytest.fixture(autouse=True)
def _weights(toy_engines: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in weights.profiles()["start"]:
        pull(name)
    monkeypatch.setenv("EMO_CACHE", str(toy_engines("video_swin", "clip_frames")))


def chain_of(visual: VisualConfig, *, speech: bool = False) -> Chain:
    perception = PerceptionConfig(window_fps=30.0)
    configs = (visual, perception, SpeechConfig(enabled=speech))
    return Chain({config.node: config for config in configs})


def test_the_features_of_a_frame_come_before_its_tokens() -> None:
    images = np.random.default_rng(0).integers(0, 256, (25, 48, 64, 3), np.uint8)
    frames = [Frame(i * NS_PER_S // 10, image) for i, image in enumerate(images)]
    with closing(chain_of(TOY)) as chain:
        chain.warmup()
        assert {"visual.video_swin", "visual.clip_frames"} <= chain.engines().keys()
        assert chain.engines()["visual.clip_frames"]["weights"] == "random seed 0"
        found = list(chain.offline(frames))
        chain.visual.reset()
        again = list(chain.offline(replace(frame, stamp_ns=frame.stamp_ns + 100 * NS_PER_S) for frame in frames))
    kinds = [(type(item), item.stamp_ns * 10 // NS_PER_S) for item in found]
    expected: list[tuple[type, int]] = [(EmotionFeatures, i) for i in range(25)]
    for place, clip in ((25, 24), (21, 20), (11, 10)):
        expected.insert(place, (VisualContext, clip))
    assert kinds == expected
    for one, other in zip(found, again, strict=True):
        if isinstance(one, VisualContext):
            assert np.array_equal(one.tensors["visual"], other.tensors["visual"])


def test_nothing_is_encoded_unless_it_is_asked_for() -> None:
    with closing(chain_of(VisualConfig())) as chain:
        assert chain.visual is None
        assert chain.utterance_ended(Utterance("u", 0, 1, "so it is")) is None
    with pytest.raises(ConfigError, match=r"visual\.window_s: expected at most the 4 s"):
        chain_of(replace(TOY, window_s=8.0))


def recording() -> Iterator[Frame | AudioChunk]:
    """Somebody says two sentences."""
    return iter(open_source(SourceConfig(uri=str(pull("ravdess_angry")), realtime=False)))


def test_what_is_seen_while_speech_is_understood_does_not_belong_to_it() -> None:
    with closing(chain_of(replace(TOY, clips=False), speech=True)) as chain:
        segments = []
        for item in recording():
            if isinstance(item, Frame):
                chain.window.add_frame(item)  # faces are not asked for here
                assert chain.visual(item) == []
            else:
                segments += chain.hear(item)
        segments += chain.hush()
        assert segments
        for segment in segments:
            utterance = chain.speech(segment)
            assert utterance is not None
            context = chain.utterance_ended(utterance)
            assert context.utterance_id == segment.utterance_id
            start_ns = context.window_start_ns
            last_ns = start_ns + context.tensors["frames"][-1] * NS_PER_S // 10
            assert segment.end_ns - 4 * NS_PER_S // 10 < last_ns <= segment.end_ns + NS_PER_S // 20
        assert chain.visual.dialogue_counts()["utterances_late"] == 0


def test_what_learned_models_read_of_a_face_goes_out_only_where_it_is_asked_for() -> None:
    """Of the units and of the expression, under one roof."""
    read = {name: np.full(4, i, np.float32) for i, name in enumerate(("au_nodes", "au_pooled", "er"))}
    track = FaceTrack(
        1, 0.9, 0, np.zeros(4, np.float32), np.zeros((5, 2), np.float32), np.zeros(3, np.float32)
    )  # fmt: skip
    units = FaceActionUnits(
        1,
        "anfl",
        (12,),
        (Side.BOTH,),
        np.ones(1, np.float32),
        embeddings={n: read[n] for n in ("au_nodes", "au_pooled")},
    )
    emotion = FaceEmotion(1, "fer7", ("happy",), np.ones(1, np.float32), {"er": read["er"]})
    done = Observation(
        Frame(0, np.zeros((4, 4, 3), np.uint8)), Faces(0, "cam", (4, 4), (track,)), Emotions(0, "cam", (emotion,)),
        ActionUnits(0, "cam", (units,)),
    )  # fmt: skip
    assert join(done).faces[0].embeddings == {}
    assert join(done, embeddings=True).faces[0].embeddings == read
