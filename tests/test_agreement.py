"""The caption of a clip is the same whether the graph writes it or the model itself: token for token, in fp32.

One preprocessing, one model, two ways. ``make test-toy`` compares the whole test split of the toy world, with trained weights.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import caption_clips
import graph_peer
import numpy as np
import pytest
import yaml
from agreement import EVERYTHING, Model, Seen, Stages, compare, frames_of
from sensor_msgs.msg import Image

from emo_models.checkpoints import NetworkCard, save_weights
from emo_msgs.msg import EmotionCaption, EmotionFeatures
from emo_perception import from_msg
from emo_perception.config import load_profile
from emo_perception.files import profile_file
from emo_perception.graph import GraphOptions, configs_of, processes
from emo_perception.nodes import qos
from emo_perception.nodes.source_output import image_msg
from emo_perception.types import NS_PER_S, Frame
from training.datasets import read_dataset
from training.tasks.ecpa_data import clips
from training.toyworld.clips import ClipOptions, make_clip

FPS = 10
HOUR_NS = 3600 * NS_PER_S
START_NS = 1_700_000_000 * NS_PER_S
#: Parts of ECPA with numbers that count as trained; the others need not be right, only the same for both.
CHANGES: dict[str, dict[str, Any]] = {
    "face": {"weights": "random"},
    "emotion": {"weights": "random"},
    "visual": {"frames": False},
    "caption": EVERYTHING,
    "cause": {"explainer": "ranking"},
}


@pytest.fixture(scope="module")
def cache(toy_engines: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Engines of an ECPA and of the ANFL inside it; detector and expressions are of random weights."""
    folder = tmp_path_factory.mktemp("ecpa")
    units = caption_clips.make(folder).network.au_net
    card = NetworkCard("anfl", units.config.to_dict(), (), {}, "none", ("nothing",))
    save_weights(units, folder / "anfl.safetensors", card)
    wanted = ("detector", "ddamfn", "anfl", "video_swin", "prompt_head", "fusion_prefill", "fusion_step")
    place: Path = toy_engines(*wanted, weights=folder)
    return place


@pytest.fixture
def model(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setenv("EMO_CACHE", str(cache))
    return Model.of("toy", face=64)


@pytest.fixture
def options(tmp_path: Path) -> GraphOptions:
    file = tmp_path / "changes.yaml"
    file.write_text(yaml.safe_dump({node: {"ros__parameters": values} for node, values in CHANGES.items()}))
    return GraphOptions(profile="toy", params_file=str(file))


def clip(number: int) -> list[Frame]:
    """A drawn clip of about two and a half seconds."""
    images, _ = make_clip(5, number, "test", ClipOptions(size_wh=(160, 120), fps=FPS, seconds=2.4))
    return [
        Frame(START_NS + number * HOUR_NS + index * NS_PER_S // FPS, np.ascontiguousarray(image), "camera")
        for index, image in enumerate(images)
    ]


def test_captions_of_the_stages_are_those_of_the_model(model: Model, options: GraphOptions) -> None:
    texts = set()
    with closing(Stages(configs_of(options))) as stages:
        for number in (1, 2, 3):
            frames = clip(number)
            pairs = compare(stages(frames), frames, model)
            assert len(pairs) >= 2  # one a second, and the last at the end
            for said, written in pairs:
                assert said == written
                texts.add(said)
    assert len(texts) > 3  # they depend on what was seen


def test_what_differs_makes_other_words(model: Model, options: GraphOptions) -> None:
    """Else the comparison could not fail: a pixel more or less around the face, another frame."""
    frames = clip(1)
    with closing(Stages(configs_of(options))) as stages:
        seen = stages(frames)
    (track,) = seen.points
    caption = seen.captions[-1]
    shown = [f for f in frames if caption.window_start_ns <= f.stamp_ns <= caption.window_end_ns]
    moved = {stamp: points + np.float32(4.0) for stamp, points in seen.points[track].items()}
    assert model.caption(shown, moved) != caption.text
    assert model.caption(shown[3:-2], seen.points[track]) != caption.text


class Watcher(graph_peer.Peer):
    """A camera, and whoever reads captions and features."""

    def __init__(self) -> None:
        super().__init__()
        self.images = self.node.create_publisher(Image, "image_raw", qos.IMAGE_PUB)
        self.features = self.hear(EmotionFeatures, "emotion_features", qos.RESULT)
        self.captions = self.hear(EmotionCaption, "emotion_caption", qos.CAPTION)

    def film(self, frames: list[Frame]) -> None:
        """Send the frames one by one, each when the one before was seen or got lost."""
        for frame in frames:
            before, begin = len(self.features), time.monotonic()
            self.images.publish(image_msg(frame))
            self.until(lambda b=before, t=begin: len(self.features) > b or time.monotonic() - t > 1.0, "a frame")


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    made = Watcher()
    yield made
    made.close()


def test_captions_of_the_live_graph_are_those_of_the_model(
    model: Model, options: GraphOptions, watcher: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_peer, "DEADLINE_S", 120.0)  # two processes import torch at once
    frames = clip(4)
    running = []
    try:
        for process in processes(options)[:2]:  # perception and caption
            file = tmp_path / f"{process.name}.yaml"
            file.write_text(process.parameter_file())
            running.append(graph_peer.start(process.name, "--params-file", str(file)))
        watcher.until(lambda: watcher.images.get_subscription_count() == 1, "perception subscribes")
        watcher.until(lambda: watcher.value("caption: caption", "model") == "ecpa/toy", "the caption network is loaded")
        watcher.film(frames)
        watcher.until(lambda: len(watcher.captions) == len(frames) // FPS, "a caption each second")
    finally:
        printed = [graph_peer.end(process) for process in running]
    seen = Seen([from_msg.caption(message) for message in watcher.captions])
    arrived = set()
    for message in watcher.features:
        features = from_msg.features(message)
        seen.see(features)
        arrived.add(features.stamp_ns)
    pairs = compare(seen, [frame for frame in frames if frame.stamp_ns in arrived], model)
    assert len(pairs) == len(frames) // FPS, printed
    assert [said for said, _ in pairs] == [written for _, written in pairs]


@pytest.mark.toy
def test_captions_of_the_toy_test_split() -> None:
    """With the weights in the cache that ``make toy`` has trained, on its world."""
    world = Path(os.environ.get("EMO_TOY", "toy")) / "world" / "mafw"
    configs = load_profile(profile_file("toy"))
    configs["visual"] = configs["visual"].with_values({"frames": False})
    model = Model.of("toy", face=64)
    wrong, compared, nobody = [], 0, 0
    records = clips(read_dataset("mafw", world).split("test"))
    with closing(Stages(configs)) as stages:
        for number, record in enumerate(records):
            assert record.source is not None
            frames = frames_of(record.source, START_NS + number * HOUR_NS)
            seen = stages(frames)
            pairs = compare(seen, frames, model)
            compared += len(pairs)
            nobody += not pairs
            wrong += [(record.clip_id, said, written) for said, written in pairs if said != written]
    print(f"{compared - len(wrong)} of {compared} captions of {len(records)} clips agree; no face in {nobody} clips")
    assert len(records) > 100
    assert nobody < len(records) / 20
    assert wrong == []
