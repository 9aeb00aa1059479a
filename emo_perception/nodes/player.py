"""Node ``player``: publishes the messages of a bag again, bytes as they were recorded, at the times they came."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock

from emo_msgs.msg import SourceState
from emo_perception.bags import Bag, BagError, Topic, differs
from emo_perception.config import ConfigError, PlayerConfig
from emo_perception.nodes import qos
from emo_perception.nodes.convert import header, time_msg
from emo_perception.nodes.keys import SpaceKey
from emo_perception.nodes.message_types import UnknownTypeError, message_class
from emo_perception.nodes.parameters import declare
from emo_perception.nodes.timers import every
from emo_perception.streaming.pace import Pace
from emo_perception.types import NS_PER_S

IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
LOOK_S = 0.05
# Sender and receiver discover each other one after the other: the second of them gets this long.
SETTLE_S = 0.25
# How long reliable readers get for the last messages, all together.
FLUSH_S = 1.5
# A longer silence in a bag is announced: the wait for its end looks like a hang.
SILENCE_NS = 10 * NS_PER_S
RECENT = 10_000
"""Messages whose lateness the report at the end is about."""


class PlayerNode(Node):
    """Plays the bag of its parameters, then ends the process. ``rate`` and ``paused`` can be set while it plays.

    A worker thread waits and publishes; nothing is dropped: what is late goes out at once. A topic whose message type
    is not installed here, or was recorded with another definition, is named and left out. Raises :class:`ConfigError`
    for what is no bag and when no topic is left.
    """

    def __init__(self) -> None:
        super().__init__(PlayerConfig.node)
        self.parameters = declare(self, PlayerConfig)
        config = self.parameters.current
        if not config.bag:
            raise ConfigError("player.bag: expected the folder of a bag, got nothing")
        try:
            self._bag = Bag(Path(config.bag).expanduser())
        except BagError as error:
            raise ConfigError(f"player: {error}") from None
        self._outputs = {topic.name: self._publisher_of(topic) for topic in _chosen(self._bag, config, self)}
        self._outputs = {name: publisher for name, publisher in self._outputs.items() if publisher is not None}
        if not self._outputs:
            raise ConfigError(f"player: nothing to play: no topic of {config.bag} is both chosen and of a known type")
        self._begin_ns = self._bag.start_ns + round(config.offset_s * NS_PER_S)
        if self._begin_ns > self._bag.end_ns:
            length_s = (self._bag.end_ns - self._bag.start_ns) / NS_PER_S
            raise ConfigError(
                f"player.offset_s: expected less than the bag's {length_s:.1f} s, got {config.offset_s:g}"
            )
        self._pace = Pace(self._begin_ns, config.rate, paused=True)
        self._clock_output = self.create_publisher(Clock, "/clock", 10) if config.clock_hz else None
        if config.clock_hz:
            every(self, 1 / config.clock_hz, self._tick)
        self._state_output = self.create_publisher(SourceState, "source_state", qos.STATE) if config.state else None
        self._awaited = set(config.wait_for.split())
        if self._awaited:
            self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.RESULT)
        self._stop = threading.Event()
        self._late_s: deque[float] = deque(maxlen=RECENT)
        self._count = self._told = 0
        self._failure: Exception | None = None
        self._key = SpaceKey(self._toggle)
        self.parameters.on_change(self._change)
        self._worker = threading.Thread(target=self._work, name="emo-player", daemon=True)
        self._worker.start()

    def close(self) -> None:
        """Stop playing. Safe to call twice. Raises what the worker failed with."""
        self._stop.set()
        self._pace.close()
        self._worker.join()
        self._key.close()
        self._bag.close()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _publisher_of(self, topic: Topic) -> Any:
        """None, with the reason in the log, for a topic that cannot be played."""
        try:
            if differs(topic):
                raise UnknownTypeError(
                    f"it was recorded with another definition of {topic.kind} than the one here; play it where it was "
                    "recorded, or read it with 'emo bag process'"
                )
            profile = qos.replayed(image=topic.kind in IMAGES, latched=topic.latched)
            return self.create_publisher(message_class(topic.kind), topic.name, profile)
        except UnknownTypeError as error:
            self.get_logger().warning(f"{topic.name} ({topic.count} messages) is not played: {error}")
            return None

    def _toggle(self) -> None:
        self.set_parameters([Parameter("paused", value=not self.parameters.current.paused)])

    def _change(self, config: PlayerConfig) -> None:
        self._pace.change(config.rate, paused=config.paused)
        state = "paused" if config.paused else f"playing at {config.rate:g} times the recorded speed"
        position_s = (self._pace.now_ns() - self._bag.start_ns) / NS_PER_S
        self.get_logger().info(f"{state}, at {position_s:.1f} s")

    def _tick(self) -> None:
        assert self._clock_output is not None
        now_ns = min(max(self._pace.now_ns(), self._begin_ns), self._bag.end_ns)
        self._clock_output.publish(Clock(clock=time_msg(now_ns)))

    def _work(self) -> None:
        try:
            if self._clock_output is not None:
                self._tick()  # before the first message: whoever has simulated time is at zero until then
            self._wait_for_subscribers()
            self._greet()
            self._tell_state(SourceState.PLAYING)
            while self._play() and self.parameters.current.loop:
                self.get_logger().info("playing again from the start")
                self._pace.jump(self._begin_ns)
            self._flush()
            self._tell_state(SourceState.ENDED)
            self._report()
        except Exception as error:
            self._failure = error
        self.context.try_shutdown()  # ends the process in order

    def _play(self) -> bool:
        """From start to end; False when it was stopped on the way."""
        last_ns = self._begin_ns
        for message in self._bag.messages(self._outputs):
            if message.received_ns < self._begin_ns:
                continue
            if message.received_ns - last_ns > SILENCE_NS:
                self.get_logger().info(f"nothing was recorded for {(message.received_ns - last_ns) / NS_PER_S:.0f} s")
            last_ns = message.received_ns
            late_s = self._pace.wait(message.received_ns)
            if late_s is None:
                return False
            self._outputs[message.topic].publish(message.cdr)
            self._late_s.append(late_s)
            self._count += 1
        return not self._stop.is_set()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        """A node that is still loading has no figures to tell."""
        self._awaited -= {
            status.name.partition(":")[0].rpartition("/")[2] for status in message.status if status.values
        }

    def _tell_state(self, state: int) -> None:
        if self._state_output is not None:
            stamp_ns = self._bag.end_ns if state == SourceState.ENDED else self._begin_ns
            uri = self.parameters.current.bag
            self._state_output.publish(
                SourceState(header=header(stamp_ns, ""), state=state, uri=uri, backend="player", frames=self._count)
            )
            self._state_output.wait_for_all_acked(Duration(seconds=FLUSH_S))

    def _wait_for_subscribers(self) -> None:
        """Until every topic has one and the awaited nodes have loaded, or for the configured time; then says what is not."""
        steps = round(self.parameters.current.wait_s / LOOK_S)
        lacking = list(self._outputs)
        while steps > 0 and (lacking or self._awaited) and not self._stop.wait(LOOK_S):
            lacking = [name for name, publisher in self._outputs.items() if not publisher.get_subscription_count()]
            steps -= 1
        if self.parameters.current.wait_s:
            if lacking:
                self.get_logger().info(f"nobody subscribes to {', '.join(sorted(lacking))}")
            if self._awaited:
                self.get_logger().warning(f"not loaded yet, or not there: {', '.join(sorted(self._awaited))}")
            self._stop.wait(SETTLE_S)

    def _greet(self) -> None:
        config = self.parameters.current
        length_s = (self._bag.end_ns - self._begin_ns) / NS_PER_S
        hint = ""
        if self._key.listening:
            hint = "; the space key pauses and goes on"
        elif config.paused:
            hint = "; to go on: ros2 param set /player paused false"
        self.get_logger().info(f"{'paused before' if config.paused else 'playing'} {length_s:.1f} s{hint}")
        self._warn()
        self._pace.change(config.rate, paused=config.paused)

    def _warn(self) -> None:
        """Say what of the bag cannot be read, each once."""
        for trouble in self._bag.troubles[self._told :]:
            self.get_logger().warning(trouble)
        self._told = len(self._bag.troubles)

    def _flush(self) -> None:
        """Wait until the last messages have been received."""
        end = time.monotonic() + FLUSH_S
        for publisher in self._outputs.values():
            left_s = 0.0 if self._stop.is_set() else max(0.0, end - time.monotonic())
            publisher.wait_for_all_acked(Duration(seconds=left_s))

    def _report(self) -> None:
        self._warn()
        middle, most = np.percentile(self._late_s, (50, 99)) * 1e3 if self._late_s else (0.0, 0.0)
        self.get_logger().info(f"played {self._count} messages, p50 {middle:.1f} ms and p99 {most:.1f} ms late")


def _chosen(bag: Bag, config: PlayerConfig, node: Node) -> list[Topic]:
    """The topics of the bag that the configuration names. Raises :class:`ConfigError` for one that is not in it."""
    names = {name if name.startswith("/") else f"/{name}" for name in config.topics.split()}
    known = {topic.name for topic in bag.topics}
    if names - known:
        raise ConfigError(
            f"player.topics: {', '.join(sorted(names - known))} is not in the bag; it has {', '.join(sorted(known))}"
        )
    try:
        pattern = re.compile(config.regex)
    except re.error as error:
        raise ConfigError(f"player.regex: {config.regex!r} is no regular expression: {error}") from None
    every_one = not names and not config.regex
    taken = [t for t in bag.topics if every_one or t.name in names or (config.regex and pattern.search(t.name))]
    if config.clock_hz and any(topic.name == "/clock" for topic in taken):
        node.get_logger().info("/clock of the bag is left out, for this player publishes its own")
        taken = [topic for topic in taken if topic.name != "/clock"]
    return taken


def make_nodes() -> list[Node]:
    """The nodes of the playing process. Raises :class:`emo_perception.config.ConfigError`."""
    return [PlayerNode()]
