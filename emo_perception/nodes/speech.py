"""Node ``speech`` of the perception process: its parameters, ``utterances``, and its line in the diagnostics."""

from __future__ import annotations

import logging
from typing import Any

from rclpy.node import Node

from emo_models.engines import describe
from emo_msgs import msg
from emo_perception.config import ConfigError, SpeechConfig
from emo_perception.hearing import Hearing
from emo_perception.nodes import convert, qos
from emo_perception.nodes.diagnostics import Diagnostics, Level, Status
from emo_perception.nodes.live_speech import KIND, LiveSpeechInput
from emo_perception.nodes.message_types import UnknownTypeError
from emo_perception.nodes.parameters import declare
from emo_perception.nodes.timers import every
from emo_perception.nodes.voices import Voices, make_voices
from emo_perception.stages.speech import SpeechStage
from emo_perception.types import Utterance

log = logging.getLogger(__name__)

VOICES_S = 0.1
"""How often it is told who speaks."""


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
        self._voices: Voices | None = None
        self._others_said = 0
        self._live = self._live_speech()
        self.parameters.on_change(self._hand_on)
        Diagnostics(self, self._status)

    @property
    def listening(self) -> SpeechConfig:
        """What the stage is to be made of: disabled where only others recognise speech."""
        config = self.parameters.current
        return config.with_values({"enabled": False}) if config.input == "live_speech" else config

    def publish_voices(self) -> None:
        """Tell about voices the way REP-155 says too, where its messages are installed."""
        self._voices = make_voices(self)
        if self._voices is not None:
            every(self, VOICES_S, self._tell_voices)

    def attach(self, hearing: Hearing[Any], stage: SpeechStage | None) -> None:
        """Hearing was started: show its counters, hand the stage changed parameters."""
        self._hearing, self._stage, self._seen = hearing, stage, (0, 0)
        if stage is not None:
            stage.config = self.parameters.current
            stage.resting = self._live is not None and self._live.present

    def detach(self) -> None:
        """Hearing was stopped."""
        self._hearing = self._stage = None
        if self._voices is not None:
            self._voices.close()

    def say(self, utterance: Utterance) -> None:
        """Publish an utterance of our own; called by the worker that understood it."""
        self._publish(utterance)
        if self._voices is not None:
            self._voices.say(utterance)

    def _publish(self, utterance: Utterance) -> None:
        self._publisher.publish(convert.utterance_msg(utterance))
        speaker = utterance.speaker or (f"face {utterance.track_id}" if utterance.track_id else "somebody")
        log.info("%s says: %s", speaker, utterance.text)

    def _tell_voices(self) -> None:
        assert self._voices is not None
        stage = self._stage
        if stage is None or stage.resting:
            self._voices.close()
        else:
            self._voices.update(stage.speaking_track(), stage.heard_ns)

    def _live_speech(self) -> LiveSpeechInput | None:
        config = self.parameters.current
        if not config.enabled or config.input == "audio":
            return None
        try:
            return LiveSpeechInput(self, self._others_say, self._rest)
        except UnknownTypeError as error:
            if config.input == "auto":
                return None
            raise ConfigError(f"speech.input is live_speech: {error}; or set speech.input to audio") from None

    def _others_say(self, utterance: Utterance) -> None:
        if self._hearing is not None:  # active
            self._others_said += 1
            self._publish(utterance)

    def _rest(self, others: bool) -> None:
        if self._stage is not None:
            self._stage.resting = others
            doing = "rests" if others else "listens again"
            self.get_logger().info(f"others {'' if others else 'no longer '}publish {KIND}: our own recogniser {doing}")

    def _hand_on(self, config: SpeechConfig) -> None:
        if self._stage is not None:
            self._stage.config = config

    def _status(self) -> Status:
        if not self.parameters.current.enabled:
            return Status("speech", Level.OK, "switched off (speech.enabled is false)")
        if self._hearing is not None and self._live is not None and (self._stage is None or self._live.present):
            return self._live_status(self._hearing, self._live)
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
            **describe(engine),
        }
        level, message = self._verdict(
            counts.sound.taken, counts.sound.dropped + counts.utterances.dropped, counts.speaking
        )
        return Status("speech", level, message, values)

    def _live_status(self, hearing: Hearing[Any], live: LiveSpeechInput) -> Status:
        values: dict[str, object] = {
            "chunks": hearing.counts().sound.taken,
            "live_speech_topics": " ".join(live.topics),
            "live_speech_utterances": self._others_said,
            "live_speech_bad": live.bad,
        }
        if not live.topics and self._stage is None:
            return Status("speech", Level.STALE, f"nobody publishes {KIND}, and speech.input is live_speech", values)
        return Status("speech", Level.OK, "others recognise the speech, our own recogniser rests", values)

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
