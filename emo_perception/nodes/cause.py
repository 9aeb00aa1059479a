"""Node ``cause``: utterances, emotion features and video in, explanations out; answers ``explain_emotion``.

The callbacks hand over to :class:`emo_perception.explaining.Explaining`, whose workers do the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from rclpy.node import Node
from std_msgs.msg import String

from emo_msgs.msg import EmotionCause, EmotionFeatures, SourceState, Utterance, VisualContext
from emo_perception import from_msg
from emo_perception.config import CauseConfig
from emo_perception.explaining import ASKED, OWN, Explaining
from emo_perception.memory.keeper import MemoryKeeper
from emo_perception.memory.store import state_dir
from emo_perception.nodes import convert, qos
from emo_perception.nodes.diagnostics import Diagnostics, Status, WorkStatus
from emo_perception.nodes.explain import ExplainServer
from emo_perception.nodes.loading import loading_status
from emo_perception.nodes.parameters import declare
from emo_perception.stages.cause import Question, make_cause_stage
from emo_perception.stages.cause.explainers import chat_server
from emo_perception.stages.cause.stage import Input
from emo_perception.types import Cause

Message: TypeAlias = "EmotionFeatures | Utterance | VisualContext"


class CauseNode(Node):
    """Subscribes ``emotion_features``, ``utterances`` and, where the explainer looks, ``visual_context``; publishes
    ``emotion_cause`` and ``emotion_cause/text``.

    An abstention goes out on ``emotion_cause`` only, and only where the parameter allows. An explanation that names what
    nobody knows of (``grounded`` false) is withheld and counted.
    """

    executor_threads = 2  # a question may be cancelled while it is answered

    def __init__(self) -> None:
        super().__init__(CauseConfig.node)
        self.parameters = declare(self, CauseConfig)
        config = self.parameters.current
        chat_server(config)  # one that cannot be is told at once
        self._counts = dict.fromkeys(("causes", "abstentions", "withheld", "answers"), 0)
        override = qos.overridable()
        self._causes = self.create_publisher(
            EmotionCause, "emotion_cause", qos.CAPTION, qos_overriding_options=override
        )
        self._text = self.create_publisher(String, "emotion_cause/text", qos.CAPTION, qos_overriding_options=override)
        self._work: Explaining[Message] = Explaining(
            load=lambda remembered: make_cause_stage(config, remembered),
            read=_read,
            stamp_ns=lambda message: from_msg.stamp_ns(message.header.stamp),
            say=self._send,
            config=lambda: self.parameters.current,
            keeper=self._keeper(),
        )
        self._work.start()
        topics: list[tuple[type[Message], str]] = [(EmotionFeatures, "emotion_features"), (Utterance, "utterances")]
        if config.explainer == "fame" or (config.explainer == "server" and config.send_pictures):
            topics.append((VisualContext, "visual_context"))
        for kind, topic in topics:
            self.create_subscription(kind, topic, self._work.offer, qos.RESULT, qos_overriding_options=override)
        self.create_subscription(SourceState, "source_state", self._on_state, qos.STATE)
        self._server = ExplainServer(self, self.explain, config.max_questions)
        self._work_status = WorkStatus("cause", self._work.stats.snapshot, self._work.counts, extra=self._extra)
        Diagnostics(self, self._status)

    def close(self) -> None:
        """End the workers; what waits is still explained, and the memory saved. Safe to call twice."""
        self._work.close()
        self._server.close()

    def explain(self, question: Question, heard: ExplainServer.Heard, cancelled: ExplainServer.Cancelled) -> Cause:
        """Answer a question. Raises as :meth:`emo_perception.explaining.Explaining.ask`."""
        cause = self._work.ask(question, heard, cancelled)
        self._counts["answers"] += 1
        return cause

    def _keeper(self) -> MemoryKeeper:
        config = self.parameters.current
        if not config.persist:
            self.get_logger().info("nothing of the dialogue is written to a file")
            return MemoryKeeper(None)
        path = Path(config.memory_file).expanduser() if config.memory_file else state_dir() / "dialogue.json"
        self.get_logger().info(
            f"words, names and expressions of the last {config.memory_min:g} minutes are kept in {path} "
            "(no picture, no sound); persist:=false turns that off"
        )
        return MemoryKeeper(path)

    def _on_state(self, message: SourceState) -> None:
        self._work.ended(message.state == SourceState.ENDED)

    def _send(self, cause: Cause) -> None:
        if not cause.abstained and not cause.grounded:
            self._counts["withheld"] += 1
            self.get_logger().warning(f"withheld, it names what nobody knows of: {cause.text}")
            return
        self._counts["abstentions" if cause.abstained else "causes"] += 1
        if not cause.abstained:
            self.get_logger().info(cause.text)
            self._text.publish(String(data=cause.text))
        if not cause.abstained or self.parameters.current.publish_abstentions:
            self._causes.publish(convert.cause_msg(cause))

    # Diagnostics

    def _status(self) -> Status:
        if self._work.stage is None:
            return loading_status("cause", "the engines", self._work.trouble)
        return self._work_status()

    def _extra(self) -> dict[str, object]:
        stage, keeper, queues = self._work.stage, self._work.keeper, self._work.queues()
        assert stage is not None
        memory = stage.memory
        return {
            **self._counts,
            "not_saved": keeper.not_saved,
            "restarts": stage.restarts,
            "remembered": len(memory.items),
            "remembered_tokens": memory.tokens,
            "forgotten": memory.forgotten,
            "memory_file": str(keeper.path or "none"),
            **stage.selection.facts(),
            "explainer": stage.explainer.name,
            **stage.explainer.facts(),
            "explanations_waiting": queues[OWN].waiting,
            "explanations_left_to_ranking": queues[OWN].dropped,
            "questions_waiting": self._server.waiting + queues[ASKED].waiting,
            "questions_refused": self._server.refused + queues[ASKED].dropped,
            "without_video": stage.video.missed if stage.explainer.wants_video else 0,
        }


def _read(message: Message) -> Input:
    if isinstance(message, Utterance):
        return from_msg.utterance(message)
    return from_msg.visual_context(message) if isinstance(message, VisualContext) else from_msg.features(message)


def make_nodes() -> list[Node]:
    """The nodes of the cause process. Raises :class:`emo_perception.config.ConfigError`."""
    return [CauseNode()]
