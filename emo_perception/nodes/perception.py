"""The perception process: one sliding window and its stages behind several nodes, one lifecycle for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node

from emo_models.engines import EngineError
from emo_models.preprocess import limit_width
from emo_models.weights import WeightsError
from emo_msgs.msg import EmotionFeatures
from emo_perception.config import PerceptionConfig, SpeechConfig, VisualConfig
from emo_perception.hearing import Hearing
from emo_perception.nodes import convert, qos
from emo_perception.nodes.audio_input import AudioInput
from emo_perception.nodes.diagnostics import Diagnostics, Level, Status
from emo_perception.nodes.humans import make_humans
from emo_perception.nodes.image_input import ImageInput
from emo_perception.nodes.overlay import OverlayNode
from emo_perception.nodes.parameters import declare
from emo_perception.nodes.source import SourceNode
from emo_perception.nodes.speech import SpeechNode
from emo_perception.nodes.stage_node import StageNode, make_stage_nodes
from emo_perception.nodes.timers import every
from emo_perception.nodes.visual import VisualNode
from emo_perception.perception import Chain, Observation, join
from emo_perception.streaming.scheduler import LiveScheduler
from emo_perception.types import NS_PER_S, AudioChunk, Frame

START_S = 0.01
RETRY_S = 5.0
"""With autostart, a configuration that failed (weights missing, say) is tried again this often."""


class PerceptionNode(LifecycleNode):
    """Holds the chain; ``stages`` publish their parts of each frame, this node the join of them; ``speech`` words,
    ``visual`` tokens.

    Raises :class:`emo_perception.config.ConfigError` where the parameters of two nodes exclude each other.
    """

    def __init__(
        self, stages: tuple[StageNode[Any], ...], speech: SpeechNode, visual: VisualNode, overlay: OverlayNode
    ) -> None:
        super().__init__(PerceptionConfig.node)
        self.parameters = declare(self, PerceptionConfig)
        visual.parameters.current.check(self.parameters.current)
        self.stages = {stage.get_name(): stage for stage in stages}
        self.speech, self.visual = speech, visual
        self.overlay = overlay
        self._publisher = self.create_publisher(
            EmotionFeatures, "emotion_features", qos.RESULT, qos_overriding_options=qos.overridable()
        )
        self._humans = make_humans(self) if self.parameters.current.rep155 else None
        if self.parameters.current.rep155:
            speech.publish_voices()
        self._chain: Chain | None = None
        self._live: LiveScheduler[Any, Observation] | None = None
        self._hearing: Hearing[Any] | None = None
        self._input: ImageInput | None = None
        self._audio_input: AudioInput | None = None
        self._frames = 0
        self._trouble = ""
        self._closing = False
        Diagnostics(self, self._status)
        self._autostart = every(self, START_S, self._start_itself) if self.parameters.current.autostart else None

    # Lifecycle

    def on_configure(self, _: LifecycleState) -> TransitionCallbackReturn:
        """Load and warm up the engines. Fails with a message that says what to do when one cannot be loaded."""
        configs = {name: stage.parameters.current for name, stage in self.stages.items()}
        own = {
            PerceptionConfig.node: self.parameters.current,
            SpeechConfig.node: self.speech.listening,
            VisualConfig.node: self.visual.parameters.current,
        }
        try:
            chain = Chain({**configs, **own})
            chain.warmup()
        except (EngineError, WeightsError) as error:
            if str(error) != self._trouble:
                self.get_logger().error(str(error))
            self._trouble = str(error)
            return TransitionCallbackReturn.FAILURE
        self._trouble = ""
        self._chain = chain
        for stage, step in zip(chain.stages, chain.steps, strict=True):
            self.stages[step.name].attach(stage, step)
        self.visual.attach(chain.visual)
        chain.steps[0].listeners.append(self.visual.see)
        chain.steps[-1].listeners.append(self._publish)
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the workers and listen to images and sound."""
        assert self._chain is not None
        self._live = LiveScheduler(self._admit, self._chain.steps)
        self.visual.start()
        self._live.start()
        config = self.parameters.current
        self._hearing = Hearing(self._chain, self._read, self.speech.say)
        self._hearing.start()
        self.speech.attach(self._hearing, self._chain.speech)
        if not config.source_inside:
            self._input = ImageInput(self, config.image_transport, self._live.offer)
            self._audio_input = AudioInput(self, self._hearing.offer)
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening; finish the frame under way."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, _: LifecycleState) -> TransitionCallbackReturn:
        """Free the engines."""
        self._unload()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, _: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free everything."""
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """Stop the workers and free the engines; called at the end of the process."""
        self._closing = True
        self._stop()
        self._unload()

    def _start_itself(self) -> None:
        assert self._autostart is not None
        if self._closing:
            return
        self._autostart.timer_period_ns = round(RETRY_S * NS_PER_S)
        if self._chain is None and self.trigger_configure() != TransitionCallbackReturn.SUCCESS:
            return
        if not self._closing:  # loading takes seconds, in which the process may have been told to end
            self.trigger_activate()
        self.destroy_timer(self._autostart)

    def _stop(self) -> None:
        for source in (self._input, self._audio_input):
            if source is not None:
                source.close()
        if self._live is not None:
            self._live.stop()
        if self._hearing is not None:
            self.speech.detach()
            self._hearing.stop()
        self.visual.stop()
        if self._humans is not None:
            self._humans.close()
        # Only now: the workers may still have been taking in a last message.
        self._input = self._audio_input = self._live = self._hearing = None

    def _unload(self) -> None:
        if self._chain is not None:
            for stage in self.stages.values():
                stage.detach()
            self.visual.detach()
            self._chain.close()
            self._chain = None

    @property
    def active(self) -> bool:
        """Whether frames are taken."""
        return self._live is not None

    # Data

    def offer_frame(self, frame: Frame) -> None:
        """A frame of the source inside this process; dropped while the node is not active."""
        if self._live is not None:
            self._live.offer(frame)

    def offer_audio(self, chunk: AudioChunk) -> None:
        """Sound of the source inside this process; dropped while the node is not active."""
        if self._hearing is not None:
            self._hearing.offer(chunk)

    def _admit(self, raw: Any) -> Observation | None:
        """A frame of the source inside this process, or a message of a topic; None when it is bad."""
        frame = raw if self._input is None else self._input.frame(raw)
        if frame is None:
            return None
        image, _ = limit_width(frame.image, self.parameters.current.max_width)
        return Observation(replace(frame, image=image))

    def _read(self, raw: Any) -> AudioChunk | None:
        """Sound of the source inside this process, or a message of a topic; None when it is bad."""
        return raw if self._audio_input is None else self._audio_input.read(raw)

    def _publish(self, done: Observation) -> None:
        """All messages of a finished frame; runs in the last worker."""
        features = join(done, embeddings=self.parameters.current.embeddings)
        messages = convert.frame_msgs(features, landmarks=self.stages["face"].parameters.current.publish_landmarks)
        self.stages["face"].publish(messages.faces)
        self.stages["action_unit"].publish(messages.action_units)
        self.stages["emotion"].publish(messages.emotions)
        if self._frames % self.parameters.current.features_every == 0:
            self._publisher.publish(messages.features)
        self._frames += 1
        if self._humans is not None:
            self._humans.publish(features)
        self.overlay.offer(done.frame, features)

    def _status(self) -> Status:
        if self._trouble:
            return Status("perception", Level.ERROR, self._trouble)
        if self._live is None or self._chain is None:
            return Status("perception", Level.STALE, "not active")
        return Status("perception", Level.OK, "active", self._counters(self._live, self._chain))

    def _counters(self, live: LiveScheduler[Any, Observation], chain: Chain) -> Mapping[str, object]:
        door, window = live.door(), chain.window.counts()
        values: dict[str, object] = {
            "frames_offered": door.offered,
            "frames_dropped": door.dropped,
            "frames_late": chain.steps[0].stats.snapshot().late,
            "window_frames": window.frames,
            "window_audio_s": window.audio_s,
            "audio_gaps": window.audio_gaps,
            "restarts": window.restarts,
        }
        if self._input is not None:
            values |= {
                "image_topic": self._input.topic,
                "bad_images": self._input.bad_images,
            }
        if self._audio_input is not None:
            values |= {"audio_topic": self._audio_input.topic, "bad_audio": self._audio_input.bad_audio}
        return values


def make_nodes() -> list[Node]:
    """All nodes of the process. Their callbacks only hand over; the work is done by the workers of the chain."""
    stages = make_stage_nodes()
    speech, visual, overlay = SpeechNode(), VisualNode(), OverlayNode()
    perception = PerceptionNode(stages, speech, visual, overlay)
    nodes: list[Node] = [perception, *stages, speech, visual, overlay]
    if perception.parameters.current.source_inside:
        nodes.append(SourceNode(perception.offer_frame, perception.offer_audio, lambda: perception.active))
    return nodes
