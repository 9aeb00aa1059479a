"""Node ``visual`` of the perception process: its parameters, ``visual_context``, and its lines in the diagnostics."""

from __future__ import annotations

from rclpy.node import Node

from emo_msgs import msg
from emo_perception import from_msg
from emo_perception.config import VisualConfig
from emo_perception.nodes import convert, qos
from emo_perception.nodes.diagnostics import Diagnostics, Level, Status, WorkStatus
from emo_perception.nodes.parameters import declare
from emo_perception.perception import Observation
from emo_perception.stages.visual import CLIPS, FRAMES, VisualStage
from emo_perception.types import VisualContext
from emo_perception.watching import Watching


class VisualNode(Node):
    """The ROS face of seeing. The stage lives in the chain and comes and goes with the process's lifecycle.

    Unless clips, frames or pictures are asked for it has parameters only, and no topic. Whoever understood an utterance,
    we or others, it is heard of on ``utterances``.
    """

    def __init__(self) -> None:
        super().__init__(VisualConfig.node)
        self.parameters = declare(self, VisualConfig)
        self._stage: VisualStage | None = None
        self._watching: Watching | None = None
        self._works: dict[str, WorkStatus] = {}
        config = self.parameters.current
        if not config.wanted:
            Diagnostics(self, lambda: Status("visual", Level.OK, "switched off: nobody asks for visual tokens"))
            return
        self._publisher = self.create_publisher(
            msg.VisualContext, "visual_context", qos.VISUAL, qos_overriding_options=qos.overridable()
        )
        self.create_subscription(msg.SourceState, "source_state", self._on_state, qos.STATE)
        if config.frames or config.pictures:
            self.create_subscription(
                msg.Utterance, "utterances", self._on_utterance, qos.RESULT, qos_overriding_options=qos.overridable()
            )
        diagnostics = Diagnostics(self)
        if config.clips:
            diagnostics.add(lambda: self._status(CLIPS))
        if config.frames or not config.clips:
            diagnostics.add(lambda: self._status(FRAMES))

    def attach(self, stage: VisualStage | None) -> None:
        """A stage was loaded, if one is wanted."""
        self._stage = stage

    def detach(self) -> None:
        """The stage was unloaded."""
        self._stage = None

    def start(self) -> None:
        """The process becomes active: start the worker."""
        stage = self._stage
        if stage is None:
            return
        self._watching = watching = Watching(stage, self._publish)
        facts = {name: selection.facts() for name, selection in stage.selections.items()}
        self._works = {
            CLIPS: WorkStatus(CLIPS, watching.clips.snapshot, facts=facts.get(CLIPS), extra=stage.clip_counts),
            FRAMES: WorkStatus(
                FRAMES, watching.frames.snapshot, watching.counts, facts.get(FRAMES), stage.dialogue_counts
            ),
        }
        watching.start()

    def stop(self) -> None:
        """The process is no longer active: the frame under way is finished."""
        if self._watching is not None:
            self._watching.stop()
        self._watching, self._works = None, {}

    def see(self, seen: Observation) -> None:
        """A frame that the window has; called by the worker of the faces, never blocks."""
        watching = self._watching
        if watching is not None:
            watching.offer(seen.frame)

    def _publish(self, context: VisualContext) -> None:
        if self._publisher.get_subscription_count():  # up to 3 MB, and biometric
            self._publisher.publish(convert.visual_context_msg(context))

    def _on_state(self, message: msg.SourceState) -> None:
        watching = self._watching
        if watching is not None:
            watching.source_ended(message.state == msg.SourceState.ENDED)

    def _on_utterance(self, message: msg.Utterance) -> None:
        watching = self._watching
        if watching is not None:
            watching.utterance_ended(from_msg.utterance(message))

    def _status(self, name: str) -> Status:
        work = self._works.get(name)  # gone with the lifecycle, in another thread
        return (
            work() if work is not None else Status(name, Level.STALE, "not active: see the state of node 'perception'")
        )
