"""Patience with a chat server, and its end: tries again after a while, and leaves a server alone that keeps failing."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, Final

from emo_perception.stages.cause.explainers.chat import LOOK_S, UNWANTED, ChatError, ChatServer

#: Failures, one after the other, after which a server is left alone.
MOST_FAILURES: Final = 3
#: For so long, seconds; then one question shows whether it is back.
COOL_DOWN_S: Final = 30.0
#: Wait before the second try, seconds; doubled for each further one.
FIRST_WAIT_S: Final = 0.25


class State(Enum):
    """Of the circuit to a server."""

    CLOSED = "closed"  #: questions go through
    OPEN = "open"  #: it is left alone
    HALF_OPEN = "half-open"  #: one question probes it


class Breaker:
    """Opens after ``most`` failures in a row; after ``cool_down_s`` one question probes, and its end decides.

    Nygard, "Release It!" (2007), circuit breaker. Thread safe.
    """

    def __init__(
        self,
        most: int = MOST_FAILURES,
        cool_down_s: float = COOL_DOWN_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most, self.cool_down_s, self._clock = most, cool_down_s, clock
        self._lock = threading.Lock()
        self._failures = 0
        self._opened_s: float | None = None
        self._probing = False
        self.opened = 0

    @property
    def state(self) -> State:
        """At this moment."""
        with self._lock:
            return self._state()

    def admit(self) -> float:
        """Whether a question may go out: 0, or for how many seconds not. A probe must end by :meth:`end`."""
        with self._lock:
            state = self._state()
            if state is State.CLOSED:
                return 0.0
            if state is State.HALF_OPEN and not self._probing:
                self._probing = True
                return 0.0
            left_s = self.cool_down_s - (self._clock() - (self._opened_s or 0.0))
            return max(left_s, LOOK_S)

    def end(self, *, well: bool | None) -> None:
        """A question that was admitted has ended ``well`` or not; None: nobody waited for its end."""
        with self._lock:
            probed, self._probing = self._probing, False
            if well is None:
                return
            if well:
                self._failures, self._opened_s = 0, None
                return
            self._failures += 1
            if probed or self._failures >= self.most:
                self.opened += self._opened_s is None
                self._opened_s = self._clock()

    def _state(self) -> State:
        if self._opened_s is None:
            return State.CLOSED
        return State.OPEN if self._clock() - self._opened_s < self.cool_down_s else State.HALF_OPEN


class PatientServer:
    """A chat server with retries and a breaker; ``retries`` counts the further tries."""

    def __init__(self, server: ChatServer, breaker: Breaker | None = None) -> None:
        self.server = server
        self.breaker = breaker or Breaker()
        self.retries = 0

    @property
    def model(self) -> str:
        """The model that is asked for."""
        return self.server.model

    def stream(
        self, messages: Sequence[Mapping[str, Any]], limit_s: float, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[str]:
        """As :meth:`ChatServer.stream`; a connection that fails, 429 or 5xx is tried again while ``limit_s`` lasts.

        What was told is not told again: once words have come, there is no second try. Raises :class:`ChatError`.
        """
        left_s = self.breaker.admit()
        if left_s:
            raise ChatError(
                f"the server is left alone for {left_s:.0f} s: {self.breaker.most} questions in a row failed"
            )
        well: bool | None = None
        try:
            yield from self._tries(messages, time.monotonic() + limit_s, stopped)
            well = True
        except ChatError as error:
            well = None if error.blameless else False
            raise
        finally:
            self.breaker.end(well=well)

    def facts(self) -> dict[str, object]:
        """For diagnostics."""
        return {"chat_circuit": self.breaker.state.value, "chat_circuit_opened": self.breaker.opened,
                "chat_retries": self.retries}  # fmt: skip

    def _tries(self, messages: Sequence[Mapping[str, Any]], end_s: float, stopped: Callable[[], bool]) -> Iterator[str]:
        wait_s = FIRST_WAIT_S
        while True:
            told = False
            try:
                for piece in self.server.stream(messages, end_s - time.monotonic(), stopped):
                    told = True
                    yield piece
            except ChatError as error:
                pause_s = max(wait_s, error.after_s)
                if told or not error.again or time.monotonic() + pause_s >= end_s:
                    raise
                self.retries += 1
                _sleep(pause_s, stopped)
                wait_s *= 2
            else:
                return


def _sleep(seconds: float, stopped: Callable[[], bool]) -> None:
    """Wait; raises :class:`ChatError` once nobody wants the answer."""
    nobody = threading.Event()
    for _ in range(math.ceil(seconds / LOOK_S)):
        if stopped():
            raise ChatError(UNWANTED, blameless=True)
        nobody.wait(LOOK_S)
