"""One ROS node per stage of the perception process: its parameters, its topic, its line in the diagnostics."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from rclpy.node import Node

from emo_msgs import msg
from emo_perception.config import ActionUnitConfig, Config, EmotionConfig, FaceConfig
from emo_perception.nodes import qos
from emo_perception.nodes.diagnostics import Diagnostics, Level, Status, WorkStatus
from emo_perception.nodes.parameters import declare
from emo_perception.perception import Observation
from emo_perception.streaming.scheduler import Step

C = TypeVar("C", bound=Config)


class StageNode(Node, Generic[C]):
    """The ROS face of one stage. The stage itself lives in the chain and comes and goes with the process's lifecycle."""

    def __init__(self, kind: type[C], topic: str, message: type[Any]) -> None:
        super().__init__(kind.node)
        self.parameters = declare(self, kind)
        self._publisher = self.create_publisher(message, topic, qos.RESULT, qos_overriding_options=qos.overridable())
        self._stage: Any = None
        self.parameters.on_change(self._hand_on)
        self._work: WorkStatus | None = None
        Diagnostics(self, self._status)

    def attach(self, stage: Any, step: Step[Observation]) -> None:
        """A stage was loaded: show its counters and engine, hand it changed parameters."""
        self._stage = stage
        self._work = WorkStatus(step.name, step.stats.snapshot, facts=stage.selection.facts())

    def detach(self) -> None:
        """The stage was unloaded."""
        self._stage = self._work = None

    def publish(self, message: Any) -> None:
        """Publish, if anybody listens: most robots read the joined emotion_features only."""
        if self._publisher.get_subscription_count():
            self._publisher.publish(message)

    def _hand_on(self, config: C) -> None:
        if self._stage is not None:
            self._stage.config = config

    def _status(self) -> Status:
        work = self._work  # detached by another node's thread
        if work is not None:
            return work()
        return Status(self.get_name(), Level.STALE, "not configured: see the state of node 'perception'")


def make_stage_nodes() -> tuple[StageNode[FaceConfig], StageNode[ActionUnitConfig], StageNode[EmotionConfig]]:
    """The nodes ``face``, ``action_unit``, ``emotion``. Raises :class:`emo_perception.config.ConfigError`."""
    return (
        StageNode(FaceConfig, "faces", msg.Faces),
        StageNode(ActionUnitConfig, "action_units", msg.ActionUnits),
        StageNode(EmotionConfig, "emotions", msg.Emotions),
    )
