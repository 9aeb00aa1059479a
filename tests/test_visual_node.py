"""Visual tokens over DDS, with real networks of toy size: what goes out when, and that by default nothing does."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from graph_peer import Peer, end, start
from sensor_msgs.msg import Image

from emo_models import weights
from emo_models.fetch import pull
from emo_msgs.msg import EmotionFeatures, SourceState, Utterance, VisualContext
from emo_perception import from_msg
from emo_perception import types as t
from emo_perception.config import EXIT_CONFIG
from emo_perception.nodes import convert, qos
from emo_perception.nodes.source_output import image_msg

START_NS = 1_700_000_000 * t.NS_PER_S
STEP_NS = t.NS_PER_S // 10
TOY = ("preset:=toy", "weights:=random", "threads:=1")
CLIPS, FRAMES = "visual: video_swin", "visual: clip_frames"


@pytest.fixture(scope="module")
def cache(toy_engines: Callable[..., Path]) -> str:
    for name in weights.profiles()["start"]:
        pull(name)
    return str(toy_engines("video_swin", "clip_frames"))


class Graph(Peer):
    """The rest of the graph: a camera, a recogniser of speech, and who reads the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.camera = self.node.create_publisher(Image, "image_raw", qos.IMAGE_PUB)
        self.speech = self.node.create_publisher(Utterance, "utterances", qos.RESULT)
        self.state = self.node.create_publisher(SourceState, "source_state", qos.STATE)
        self.features: list[EmotionFeatures] = self.hear(EmotionFeatures, "emotion_features", qos.RESULT)
        self.heard: list[VisualContext] = self.hear(VisualContext, "visual_context", qos.VISUAL)

    @property
    def contexts(self) -> list[t.VisualContext]:
        return [from_msg.visual_context(message) for message in self.heard]

    def see(self, first: int, count: int) -> None:
        """Images, a tenth of a second apart, each perceived before the next one comes: best effort may lose one."""
        for i in range(first, first + count):
            image = np.random.default_rng(abs(i)).integers(0, 256, (48, 64, 3), np.uint8)
            message = image_msg(t.Frame(START_NS + i * STEP_NS, image, "cam"))
            self.until(
                lambda m=message: any(f.header.stamp == m.header.stamp for f in self.features),
                f"image {i} was perceived",
                lambda m=message: self.camera.publish(m),
            )

    def say(self, name: str, end_ns: int) -> None:
        self.speech.publish(convert.utterance_msg(t.Utterance(name, end_ns - t.NS_PER_S, end_ns, "so it is")))

    def until_heard(self, count: int) -> t.VisualContext:
        self.until(lambda: len(self.heard) >= count, f"{count} visual contexts")
        return self.contexts[-1]


@contextmanager
def perception(cache: str, *parameters: str) -> Iterator[tuple[Graph, subprocess.Popen[str]]]:
    arguments = [part for parameter in parameters for part in ("-p", f"visual:{parameter}")]
    graph, process = Graph(), start("perception", *arguments, "-p", "speech:enabled:=false", EMO_CACHE=cache)
    try:
        graph.until(graph.camera.get_subscription_count, "perception subscribes to images")
        yield graph, process
    finally:
        graph.close()
        end(process)


def test_clips_and_dialogues_go_out_when_they_are_complete(cache: str) -> None:
    with perception(cache, *TOY, "clips:=true", "frames:=true", "pictures:=true", "window_s:=2.0") as (graph, process):
        graph.until(graph.speech.get_subscription_count, "perception listens to utterances")
        graph.until(lambda: graph.node.count_publishers("visual_context"), "the tokens' topic")
        graph.see(0, 13)
        first = graph.until_heard(1)
        assert (first.stamp_ns, first.frame_id) == (START_NS + t.NS_PER_S, "cam")
        assert (first.window_start_ns, first.window_end_ns) == (START_NS, START_NS + t.NS_PER_S)
        assert first.model == "video_swin/toy, random weights"
        assert first.utterance_id == ""
        assert first.tensors["stamps"][[0, -1]].tolist() == [START_NS, START_NS + t.NS_PER_S]
        assert first.tensors["visual"].ndim == 2
        graph.say("u1", START_NS + 5 * STEP_NS)
        dialogue = graph.until_heard(2)
        assert (dialogue.utterance_id, dialogue.stamp_ns) == ("u1", START_NS + 5 * STEP_NS)
        assert dialogue.tensors["frames"].tolist() == [0, 1, 2, 3, 4, 5]
        assert len(dialogue.tensors["rows"]) == 6
        assert dialogue.tensors["patches"].ndim == 2
        shown = cv2.imdecode(np.array(dialogue.tensors["picture"]), cv2.IMREAD_COLOR)
        assert shown.shape == (48, 64, 3)
        graph.say("u2", START_NS + 14 * STEP_NS)  # its last frames are still to come
        graph.see(13, 3)
        assert graph.until_heard(3).utterance_id == "u2"
        graph.state.publish(SourceState(state=SourceState.ENDED))
        last = graph.until_heard(4)
        assert last.tensors["stamps"][-1] == START_NS + 15 * STEP_NS
        assert graph.contexts[2].tensors["frames"].tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
        graph.until(lambda: graph.value(CLIPS, "processed") == "1", "diagnostics of the clips")
        assert graph.value(CLIPS, "engine") == "video_swin"
        assert graph.value(CLIPS, "weights") == "random seed 0"
        graph.until(lambda: graph.value(FRAMES, "processed") == "15", "diagnostics of the frames")
        assert graph.value(FRAMES, "frames_in_use") == "8"  # every other one: no more are allowed at toy size
        assert graph.value(FRAMES, "grid_level") == "1"
        assert graph.value(FRAMES, "snapshots_dropped") == "0"
        graph.state.publish(SourceState(state=SourceState.PLAYING))
        graph.see(-50, 11)  # a bag that is played again
        again = graph.until_heard(5)
        assert (again.window_start_ns, again.window_end_ns) == (START_NS - 50 * STEP_NS, START_NS - 40 * STEP_NS)
        assert len(graph.heard) == 5
        log = end(process)
        assert process.returncode == 0
        assert "Traceback" not in log


def test_by_default_there_is_no_such_topic(cache: str) -> None:
    with perception(cache) as (graph, _):
        graph.see(0, 3)
        graph.until(lambda: "visual: visual" in graph.diagnostics, "diagnostics")
        assert graph.diagnostics["visual: visual"].message == "switched off: nobody asks for visual tokens"
        assert graph.node.count_publishers("visual_context") == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("visual:pictures:=true", "perception:source_inside:=true"), "set visual.pictures to false, or leave privacy out"),
        (("visual:clips:=true", "visual:window_s:=9.0"), "at most the 4 s of perception.window_s, got 9 s"),
    ],
)  # fmt: skip
def test_parameters_that_exclude_each_other_end_the_process_with_one_line(
    arguments: tuple[str, ...], said: str
) -> None:
    process = start("perception", *(part for argument in arguments for part in ("-p", argument)))
    output, _ = process.communicate(timeout=30)
    assert process.returncode == EXIT_CONFIG
    assert said in output
    assert "Traceback" not in output
