"""Node ``speech`` of the perception process: its parameters, ``utterances``, and its line in the diagnostics."""

from __future__ import annotations

import logging
from typing import Any

from rclpy.node import Node

from emo_msgs import msg
from emo_perception.config import SpeechConfig
from emo_perception.hearing import Hearing
from emo_perception.nodes import convert, qos
from emo_perception.nodes.diagnostics import Diagnostics, Level, Status
from emo_perception.nodes.parameters import declare
from emo_perception.stages.speech import SpeechStage
from emo_perception.types import Utterance

log = logging.getLogger(__name__)


class SpeechNode(Node):
    """The ROS face of hearing. The stage lives in the chain and comes and goes with the process's lifecycle."""

    def __init__(self) -> None:
        super().__init__(SpeechConfig.node)
        self.parameters = declare(self, SpeechConfig)
        self._publisher = self.create_publisher(
            msg.Utterance, "utterances", qos.RESULT, qos_overriding_options=qos.overridable()
        )
        self._hearing: Hearing[Any] | None = None
        self._stage: SpeechStage | None = None
        self._seen = (0, 0)
        self.parameters.on_change(self._hand_on)
        Diagnostics(self, self._status)

    def attach(self, hearing: Hearing[Any], stage: SpeechStage | None) -> None:
        """Hearing was started: show its counters, hand the stage changed parameters."""
        self._hearing, self._stage, self._seen = hearing, stage, (0, 0)
        if stage is not None:
            stage.config = self.parameters.current

    def detach(self) -> None:
        """Hearing was stopped."""
        self._hearing = self._stage = None

    def say(self, utterance: Utterance) -> None:
        """Publish an utterance; called by the worker that understood it."""
        self._publisher.publish(convert.utterance_msg(utterance))
        speaker = f"face {utterance.track_id}" if utterance.track_id else "somebody"
        log.info("%s says: %s", speaker, utterance.text)

    def _hand_on(self, config: SpeechConfig) -> None:
        if self._stage is not None:
            self._stage.config = config

    def _status(self) -> Status:
        if not self.parameters.current.enabled:
            return Status("speech", Level.OK, "switched off (speech.enabled is false)")
        if self._hearing is None or self._stage is None:
            return Status("speech", Level.STALE, "not active: see the state of node 'perception'")
        counts, work, engine = self._hearing.counts(), self._hearing.stats.snapshot(), self._stage.engine
        values: dict[str, object] = {
            "chunks": counts.sound.taken,
            "chunks_dropped": counts.sound.dropped,
            "chunks_failed": counts.bad,
            "utterances": work.processed - counts.noise - counts.lost,
            "utterances_waiting": counts.utterances.waiting,
            "utterances_dropped": counts.utterances.dropped,
            "utterances_failed": work.failed,
            "utterances_lost": counts.lost,
            "noises": counts.noise,
            "latency_p50_ms": work.p50_ms,
            "latency_p95_ms": work.p95_ms,
            "engine": engine.name,
            "backend": engine.backend,
            "precision": engine.precision,
            "threads": engine.threads,
        }
        level, message = self._verdict(
            counts.sound.taken, counts.sound.dropped + counts.utterances.dropped, counts.speaking
        )
        return Status("speech", level, message, values)

    def _verdict(self, taken: int, dropped: int, speaking: bool) -> tuple[Level, str]:
        new, lost = taken - self._seen[0], dropped - self._seen[1]
        self._seen = (taken, dropped)
        if lost:
            return (
                Level.WARN,
                f"{lost} pieces of sound or utterances dropped since the last report: slower than the speech",
            )
        if not new:
            missing = "stopped" if taken else "is not there: no publisher on the audio topic, or a source without sound"
            return Level.STALE, f"the sound {missing}"
        return Level.OK, "somebody speaks" if speaking else "listening"
