"""The node ``source``: a camera, file, stream, picture or test pattern on ROS topics, or inside the perception process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from rclpy.node import Node

from emo_msgs import msg
from emo_perception import sources
from emo_perception.config import ConfigError, SourceConfig
from emo_perception.nodes import convert, qos
from emo_perception.nodes.diagnostics import Diagnostics, Level, Status
from emo_perception.nodes.parameters import declare
from emo_perception.nodes.source_output import TopicOutput
from emo_perception.nodes.timers import every
from emo_perception.sources import SourceState, SourceStatus
from emo_perception.types import AudioChunk, Frame

LOOK_S = 0.05
# Sender and receiver discover each other one after the other: the second of them gets this long.
SETTLE_S = 0.25

LEVELS = {
    SourceState.OPENING: Level.STALE,
    SourceState.PLAYING: Level.OK,
    SourceState.RECONNECTING: Level.WARN,
    SourceState.ENDED: Level.OK,
    SourceState.FAILED: Level.ERROR,
}


class StreamClock:
    """Stream time -> ROS time: the offset of the node's clock is taken once, when the first item arrives."""

    def __init__(self, node: Node, source: sources.Source) -> None:
        self._clock = node.get_clock()
        self._source = source
        self._offset_ns: int | None = None

    def ros_ns(self, stamp_ns: int) -> int:
        """ROS time of a stamp of the stream; the present while the stream has not begun."""
        now_ns = int(self._clock.now().nanoseconds)
        if self._source.zero_monotonic_ns is None:
            return now_ns
        if self._offset_ns is None:
            self._offset_ns = now_ns - (time.monotonic_ns() - self._source.zero_monotonic_ns)
        return self._offset_ns + stamp_ns


class SourceStatePublisher:
    """Publishes each state of a source on ``source_state`` (latched), writes it to the log and keeps it."""

    def __init__(self, node: Node, clock: StreamClock, frame_id: str) -> None:
        self._logger = node.get_logger()
        self._clock = clock
        self._frame_id = frame_id
        self._publisher = node.create_publisher(msg.SourceState, "source_state", qos.STATE)

    def publish(self, status: SourceStatus) -> None:
        text = f"{status.uri}: {status.state.name.lower()} ({status.backend})"
        if status.state is SourceState.FAILED:
            self._logger.error(status.detail)
        elif status.state is SourceState.RECONNECTING:
            self._logger.warning(status.detail)
        else:
            self._logger.info(f"{text}: {status.detail}" if status.detail else text)
        self._publisher.publish(
            msg.SourceState(
                header=convert.header(self._clock.ros_ns(status.stamp_ns), self._frame_id),
                state=int(status.state),
                uri=status.uri,
                backend=status.backend,
                detail=status.detail,
                frames=status.frames,
                audio_chunks=status.audio_chunks,
                loops=status.loops,
            )
        )


class SourceNode(Node):
    """Plays the source of its parameters.

    On topics by default. With ``on_frame`` and ``on_audio`` images and sound are handed to those instead (in the thread
    of the source, at ROS time) and no topic carries them. A file begins when its images have a subscriber; with
    ``ready``, when that returns True. Raises :class:`ConfigError` for a source that can never be opened.
    """

    def __init__(
        self,
        on_frame: Callable[[Frame], None] | None = None,
        on_audio: Callable[[AudioChunk], None] | None = None,
        ready: Callable[[], bool] | None = None,
    ) -> None:
        super().__init__(SourceConfig.node)
        self.parameters = declare(self, SourceConfig)
        config = self.parameters.current
        try:
            self._source = sources.open_source(config)
        except sources.SourceError as error:
            raise ConfigError(str(error)) from None
        self._stream_clock = StreamClock(self, self._source)
        self._states = SourceStatePublisher(self, self._stream_clock, config.frame_id)
        self._state = self._source.status(SourceState.OPENING)
        topics = None if on_frame or on_audio else TopicOutput(self, self.parameters)
        self._on_frame = topics.send_frame if topics else on_frame
        self._on_audio = topics.send_audio if topics else on_audio
        heard = topics.heard if topics else None
        self._ready = ready or heard or (lambda: True)
        # A bounded wait for somebody to watch; whoever hands over ``ready`` will be ready in the end.
        self._latest_s = time.monotonic() + (config.wait_for_subscriber_s if ready is None else float("inf"))
        self._ready_since_s: float | None = None
        if self._source.location.live:
            self._latest_s = 0.0
        Diagnostics(self, self._status)
        self._start_timer = every(self, LOOK_S, self._start_when_ready)

    def close(self) -> None:
        """Stop playing, within two seconds."""
        self._source.close()

    def _start_when_ready(self) -> None:
        now_s = time.monotonic()
        if now_s < self._latest_s:
            if not self._ready():
                return
            self._ready_since_s = self._ready_since_s or now_s
            if now_s - self._ready_since_s < SETTLE_S:
                return
        elif self._latest_s and not self._ready():
            self.get_logger().warning("nobody subscribes to the images: the file is played all the same")
        self.destroy_timer(self._start_timer)
        self._source.start(self._take_frame, self._take_audio, self._take_state)

    def _take_frame(self, frame: Frame) -> None:
        if self._on_frame is not None:
            self._on_frame(replace(frame, stamp_ns=self._stream_clock.ros_ns(frame.stamp_ns)))

    def _take_audio(self, chunk: AudioChunk) -> None:
        if self._on_audio is not None:
            self._on_audio(replace(chunk, stamp_ns=self._stream_clock.ros_ns(chunk.stamp_ns)))

    def _take_state(self, status: SourceStatus) -> None:
        self._state = status
        self._states.publish(status)

    def _status(self) -> Status:
        state = self._state.state
        now = self._source.status(state, self._state.detail)
        values = {
            "state": state.name,
            "uri": now.uri,
            "backend": now.backend,
            "frames": now.frames,
            "frames_dropped": now.dropped,
            "audio_chunks": now.audio_chunks,
            "loops": now.loops,
        }
        return Status("source", LEVELS[state], now.detail or state.name.lower(), values)


def make_nodes() -> list[Node]:
    """The node of the source process. Raises :class:`ConfigError`."""
    return [SourceNode()]
