"""Node ``cause``: utterances and emotion features in, explanations out; answers ``explain_emotion``.

The callbacks hand over; one worker runs the stage, another waits for the chat server, if there is one.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TypeAlias

from rclpy.node import Node
from std_msgs.msg import String

from emo_models.engines import EngineError
from emo_models.weights import WeightsError
from emo_msgs.msg import EmotionCause, EmotionFeatures, SourceState, Utterance
from emo_perception import from_msg
from emo_perception.config import CauseConfig
from emo_perception.memory import MemoryFile
from emo_perception.memory.store import state_dir
from emo_perception.nodes import convert, qos
from emo_perception.nodes.diagnostics import Diagnostics, Level, Status, WorkStatus
from emo_perception.nodes.explain import ExplainServer
from emo_perception.nodes.parameters import declare
from emo_perception.stages.cause.rephrase import Cancelled, ChatServer, Rephraser
from emo_perception.stages.cause.stage import CauseStage, Question
from emo_perception.streaming.mailbox import DropPolicy, Mailbox
from emo_perception.streaming.stats import StageStats
from emo_perception.types import Cause

WAITING = 1024
"""Inputs that may wait: half a minute of features at 30 Hz. Should the stage ever fall that far behind, the oldest go, counted."""

REWORDING = 4
"""Explanations that may wait for the chat server; further ones go out as they are, counted."""

IDLE_S = 0.5
"""The source has ended and nothing came for so long: what was under way has arrived."""

SAVE_S = 1.0
"""The file is written this often at the most, and at the end."""

RETRY_S = 5.0
"""Engines or weights that are missing are looked for again this often."""

STOP_S = 1.5

Input: TypeAlias = "EmotionFeatures | Utterance"


class CauseNode(Node):
    """Subscribes ``emotion_features`` and ``utterances``; publishes ``emotion_cause`` and ``emotion_cause/text``.

    An abstention goes out on ``emotion_cause`` only, and only where the parameter allows.
    """

    executor_threads = 2  # a question may be cancelled while it is answered

    def __init__(self) -> None:
        super().__init__(CauseConfig.node)
        self.parameters = declare(self, CauseConfig)
        config = self.parameters.current
        server = ChatServer.of(config.chat_url, config.chat_model)
        self._rephraser = Rephraser(server) if server else None
        self._file = self._memory_file()
        self._stage: CauseStage | None = None
        self._using = threading.Lock()  # the stage, which serves the worker and the questions
        self._closing = threading.Event()
        self._ended = threading.Event()
        self._trouble = ""
        self._box: Mailbox[Input] = Mailbox("inputs", DropPolicy.KEEP_LATEST, WAITING)
        self._outbox: Mailbox[Cause] = Mailbox("rewording", DropPolicy.DROP_NEW, REWORDING)
        self._stats = StageStats()
        self._counts = dict.fromkeys(("causes", "abstentions", "answers", "not_saved"), 0)
        self._saved = (0, 0.0)
        override = qos.overridable()
        self._causes = self.create_publisher(
            EmotionCause, "emotion_cause", qos.CAPTION, qos_overriding_options=override
        )
        self._text = self.create_publisher(String, "emotion_cause/text", qos.CAPTION, qos_overriding_options=override)
        self._threads = [threading.Thread(target=self._work, name="emo-cause", daemon=True)]
        if self._rephraser:
            self._threads.append(threading.Thread(target=self._reword, name="emo-reword", daemon=True))
        for thread in self._threads:
            thread.start()
        for kind, topic, profile in (
            (EmotionFeatures, "emotion_features", qos.RESULT),
            (Utterance, "utterances", qos.RESULT),
        ):
            self.create_subscription(kind, topic, self._box.offer, profile, qos_overriding_options=override)
        self.create_subscription(SourceState, "source_state", self._on_state, qos.STATE)
        self._server = ExplainServer(self, self.explain, config.max_questions)
        self._work_status = WorkStatus("cause", self._stats.snapshot, self._box.counts, extra=self._extra)
        Diagnostics(self, self._status)

    def close(self) -> None:
        """End the workers; what waits is still explained, and the memory saved. Safe to call twice."""
        self._closing.set()
        self._box.close()
        self._threads[0].join(STOP_S)
        self._outbox.close()
        for thread in self._threads[1:]:
            thread.join(STOP_S / 3)
        self._server.close()

    # Questions

    def explain(self, question: Question, heard: ExplainServer.Heard, cancelled: ExplainServer.Cancelled) -> Cause:
        """Answer a question; ``heard`` gets the words so far. Raises ``RuntimeError`` while the engine is not loaded,
        :class:`Cancelled`."""
        with self._using:
            if self._stage is None:
                raise RuntimeError(self._trouble or "the engine is still loading; ask again in a moment")
            cause = self._stage.ask(question)
        self._counts["answers"] += 1
        if self._rephraser is None or cause.abstained:
            return cause
        return self._rephraser(
            cause, self.parameters.current.chat_timeout_s, heard, lambda: cancelled() or self._closing.is_set()
        )

    # The worker

    def _memory_file(self) -> MemoryFile | None:
        config = self.parameters.current
        if not config.persist:
            self.get_logger().info("nothing of the dialogue is written to a file")
            return None
        path = Path(config.memory_file).expanduser() if config.memory_file else state_dir() / "dialogue.json"
        self.get_logger().info(
            f"words, names and expressions of the last {config.memory_min:g} minutes are kept in {path} "
            "(no picture, no sound); persist:=false turns that off"
        )
        return MemoryFile(path)

    def _on_state(self, message: SourceState) -> None:
        if message.state == SourceState.ENDED:
            self._ended.set()
        else:
            self._ended.clear()

    def _load(self) -> CauseStage | None:
        """The stage, with what was remembered; None when the node ends before it can be loaded."""
        while not self._closing.is_set():
            try:
                stage = CauseStage(self.parameters.current, self._file.load() if self._file else ())
                stage.warmup()
            except (EngineError, WeightsError) as error:
                if str(error) != self._trouble:
                    self.get_logger().error(str(error))
                self._trouble = str(error)
                self._closing.wait(RETRY_S)
            else:
                self._trouble = ""
                return stage
        return None

    def _work(self) -> None:
        try:
            self._stage = self._load()
        except Exception as error:
            self._trouble = f"cannot start: {type(error).__name__}: {error}"
            self.get_logger().error(self._trouble)
        if self._stage is None:
            return
        explained_all = True
        while True:
            message = self._box.take(IDLE_S)
            if message is None and self._box.closed:
                break
            try:
                if message is not None:
                    explained_all = False
                    self._run(message)
                elif self._ended.is_set() and not explained_all:
                    explained_all = True
                    with self._using:
                        causes = self._stage.flush()
                    self._publish(causes)
                self._save()
            except Exception as error:
                # One message must not end the node: it is counted as failed, shown in the diagnostics.
                self.get_logger().error(f"an input could not be used: {type(error).__name__}: {error}")
        self._save(now=True)
        with self._using:
            self._stage.close()

    def _run(self, message: Input) -> None:
        assert self._stage is not None
        with self._stats.measured(from_msg.stamp_ns(message.header.stamp)), self._using:
            self._stage.config = self.parameters.current
            heard = isinstance(message, Utterance)
            causes = self._stage(from_msg.utterance(message) if heard else from_msg.features(message))
        self._publish(causes)

    def _publish(self, causes: list[Cause]) -> None:
        for cause in causes:
            waits = self._rephraser is not None and not cause.abstained
            if not (waits and self._outbox.offer(cause)):
                self._send(cause)

    def _reword(self) -> None:
        assert self._rephraser is not None
        while (cause := self._outbox.take()) is not None:
            try:
                cause = self._rephraser(cause, self.parameters.current.chat_timeout_s, cancelled=self._closing.is_set)
            except Cancelled:
                pass
            except Exception as error:
                self.get_logger().error(f"rephrasing failed: {type(error).__name__}: {error}")
            self._send(cause)

    def _send(self, cause: Cause) -> None:
        self._counts["abstentions" if cause.abstained else "causes"] += 1
        if not cause.abstained:
            self.get_logger().info(cause.text)
            self._text.publish(String(data=cause.text))
        if not cause.abstained or self.parameters.current.publish_abstentions:
            self._causes.publish(convert.cause_msg(cause))

    def _save(self, *, now: bool = False) -> None:
        """Write the memory if it changed, not too often. A disk that is full or read-only is told once."""
        if self._file is None or self._stage is None:
            return
        changes, saved_s = self._saved
        if self._stage.memory.changes == changes or (time.monotonic() - saved_s < SAVE_S and not now):
            return
        self._saved = (self._stage.memory.changes, time.monotonic())
        try:
            self._file.save(self._stage.memory.items)
        except OSError as error:
            self._counts["not_saved"] += 1
            if self._counts["not_saved"] == 1:
                self.get_logger().error(
                    f"the memory cannot be kept in {self._file.path}: {error.strerror}; it goes on without"
                )

    # Diagnostics

    def _status(self) -> Status:
        if self._stage is None:
            level = Level.ERROR if self._trouble else Level.STALE
            return Status("cause", level, self._trouble or "loading the sentence encoder")
        return self._work_status()

    def _extra(self) -> dict[str, object]:
        stage = self._stage
        assert stage is not None
        memory = stage.memory
        facts: dict[str, object] = {
            **self._counts,
            "restarts": stage.restarts,
            "remembered": len(memory.items),
            "remembered_tokens": memory.tokens,
            "forgotten": memory.forgotten,
            "memory_file": str(self._file.path) if self._file else "none",
            **stage.selection.facts(),
            "questions_waiting": self._server.waiting,
            "questions_refused": self._server.refused,
        }
        if self._rephraser:
            counts = self._rephraser.counts
            facts |= {"rephrased": counts.rephrased, "rephrasing_failed": counts.failed, "not_rephrased": self._outbox.counts().dropped,
                      "rephrasing_rejected": counts.rejected, "rephrasing_problem": counts.last_problem}  # fmt: skip
        return facts


def make_nodes() -> list[Node]:
    """The nodes of the cause process. Raises :class:`emo_perception.config.ConfigError`."""
    return [CauseNode()]
