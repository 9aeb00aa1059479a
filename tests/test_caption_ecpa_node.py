"""The caption process with ECPA, over DDS: words as they are decided, the checked caption, and what is wrong."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import caption_clips
import graph_peer
import numpy as np
import pytest
from caption_clips import scene
from std_msgs.msg import String

from emo_models.engines.captions import WRITERS
from emo_msgs.msg import EmotionCaption, EmotionFeatures, VisualContext
from emo_perception.nodes import convert, qos

STATUS = "caption: caption"


class Peer(graph_peer.Peer):
    """Perception, and whoever reads captions."""

    def __init__(self) -> None:
        super().__init__()
        self.features = self.node.create_publisher(EmotionFeatures, "emotion_features", qos.RESULT)
        self.clips = self.node.create_publisher(VisualContext, "visual_context", qos.VISUAL)
        self.captions = self.hear(EmotionCaption, "emotion_caption", qos.CAPTION)
        self.partial = self.hear(EmotionCaption, "emotion_caption/partial", qos.RESULT)
        self.texts = self.hear(String, "emotion_caption/text", qos.CAPTION)

    def show(self, shown: caption_clips.Scene, network: Any, **changed: Any) -> None:
        """A clip, and the features of its frames, which come later."""
        self.clips.publish(convert.visual_context_msg(shown.context(network, **changed)))
        for item in shown.features():
            self.features.publish(convert.frame_msgs(item).features)


@pytest.fixture(scope="module")
def ecpa(tmp_path_factory: pytest.TempPathFactory) -> caption_clips.Caption:
    return caption_clips.make(tmp_path_factory.mktemp("ecpa"))


@contextmanager
def running(cache: Path, *arguments: str) -> Iterator[tuple[Peer, Any]]:
    """A caption process that is connected to a peer."""
    given = [part for value in ("writer:=ecpa", "preset:=toy", "threads:=1", *arguments) for part in ("-p", value)]
    peer, process = Peer(), graph_peer.start("caption", *given, EMO_CACHE=str(cache))
    try:
        peer.until(
            lambda: (
                peer.features.get_subscription_count() == peer.clips.get_subscription_count() == 1
                and peer.node.count_publishers("emotion_caption/partial") == 1
                and STATUS in peer.diagnostics
            ),
            "the caption process joins the graph",
        )
        yield peer, process
    finally:
        graph_peer.end(process)
        peer.close()


def loaded(peer: Peer) -> None:
    peer.until(lambda: peer.value(STATUS, "model") == "ecpa/toy", "the engines are loaded")


def test_words_come_one_by_one_then_the_caption(toy_engines: Any, ecpa: caption_clips.Caption) -> None:
    cache = toy_engines(*WRITERS, weights=ecpa.folder)
    with running(cache, "min_confidence:=0.0", "min_intensity:=0.05", "deadline_s:=0.0") as (peer, _):
        loaded(peer)
        shown = scene(ecpa.network, 1, people=2)
        expected = [ecpa.network.generate(shown.pixels, person, ecpa.tokens)[0].text for person in shown.people]
        peer.show(shown, ecpa.network)
        peer.until(lambda: len(peer.captions) == 2, "a caption for each person")
        peer.until(lambda: len(peer.texts) == 2, "their texts")
        assert [caption.text for caption in peer.captions] == expected == [text.data for text in peer.texts]
        peer.until(
            lambda: [p.text for p in peer.partial if list(p.track_ids) == [1]][-1:] == expected[:1], "all the words"
        )
        words = [p.text for p in peer.partial if list(p.track_ids) == [1]]
        assert len(words) > 3
        assert all(after.startswith(before) for before, after in itertools.pairwise(words))
        assert not any(p.grounded for p in peer.partial)
        peer.show(shown.later(5), ecpa.network)
        other = scene(ecpa.network, 2).later(10)
        peer.show(other, ecpa.network)
        peer.until(lambda: len(peer.captions) == 5, "captions of the same again, and of something else")
        news = ecpa.network.generate(other.pixels, other.people[0], ecpa.tokens)[0].text
        peer.until(lambda: len(peer.texts) == 3, "what is new as text")
        assert [text.data for text in peer.texts] == [*expected, news]
        assert any(e.au and np.isfinite(e.similarity) for e in peer.captions[0].evidence)


def test_a_wrong_preset_is_told_once_and_the_node_lives_on(toy_engines: Any, ecpa: caption_clips.Caption) -> None:
    cache = toy_engines(*WRITERS, weights=ecpa.folder)
    with running(cache, "min_confidence:=0.0", "min_intensity:=0.05", "deadline_s:=0.0") as (peer, process):
        loaded(peer)
        paper = {"visual": np.zeros((196, 512), np.float32), "stamps": np.arange(8)}
        for _ in range(2):
            peer.show(scene(ecpa.network, 1), ecpa.network, model="video_swin/paper", tensors=paper)
            failed = int(peer.value(STATUS, "failed") or 0)
            peer.until(lambda before=failed: int(peer.value(STATUS, "failed") or 0) > before, "a failure")
        status = peer.diagnostics[STATUS]
        assert status.level == b"\x02"
        assert "expected visual [" in status.message
        assert "the same preset" in status.message
        peer.show(scene(ecpa.network, 1).later(5), ecpa.network)
        peer.until(lambda: peer.captions, "a caption all the same")
        peer.until(lambda: peer.diagnostics[STATUS].level == b"\x00", "nothing is wrong any more")
        output = graph_peer.end(process)
        assert output.count("are not those that the caption network") == 1


def test_engines_that_are_missing_are_told_with_the_command_and_waited_for(
    toy_engines: Any, ecpa: caption_clips.Caption, tmp_path: Path
) -> None:
    cache = toy_engines(*WRITERS, weights=ecpa.folder)
    (tmp_path / "toy").symlink_to(ecpa.folder)
    with running(tmp_path) as (peer, _):
        peer.until(lambda: peer.diagnostics[STATUS].level == b"\x02", "an error in the diagnostics")
        assert "emo engines build --profile toy --network prompt_head" in peer.diagnostics[STATUS].message
        (tmp_path / "engines").symlink_to(cache / "engines")
        loaded(peer)
