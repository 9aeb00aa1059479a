"""A realised sentence in other words, by any chat server that speaks OpenAI's protocol, within a time limit.

What comes back is used only where :mod:`grounding` has no objection; else the realised sentence stands.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from emo_perception.config import ConfigError
from emo_perception.stages.cause.grounding import foreign_words, objection
from emo_perception.types import Cause

KEY: Final = "EMO_CHAT_API_KEY"
#: How often the time and the asker are looked at, seconds.
LOOK_S: Final = 0.05
#: A server that answers more than this is not answering our question, bytes.
MOST_BYTES: Final = 256 << 10
PROMPT: Final = (
    "Rephrase the sentence as one plain English sentence. Keep every name, the emotion and the quoted words. First say who "
    "feels what, then why. Add nothing. Answer with the sentence only."
)


class ChatError(RuntimeError):
    """The server gave no usable answer; the message says what happened."""


class Cancelled(Exception):  # noqa: N818 - not an error
    """Whoever asked wants no answer any more."""


@dataclass(frozen=True)
class ChatServer:
    """Where the server is; ``key`` comes from the environment only and is never shown."""

    url: str
    model: str
    key: str = field(default="", repr=False)

    @classmethod
    def of(
        cls, url: str, model: str, names: tuple[str, str] = ("cause.chat_url", "cause.chat_model")
    ) -> ChatServer | None:
        """The server of the parameters, None without a URL. Raises :class:`ConfigError` for one that cannot be, with the
        ``names`` of the parameters."""
        if not url:
            return None
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{names[0]}: expected a base URL as http://localhost:8080/v1, got {url!r}")
        if parts.username or parts.password:
            raise ConfigError(f"{names[0]}: expected no key in the URL; set the environment variable {KEY}")
        if not model:
            raise ConfigError(f"{names[1]}: expected the model to ask the server of {names[0]} for, got nothing")
        return cls(url.rstrip("/"), model, os.environ.get(KEY, ""))

    def stream(
        self, messages: Sequence[Mapping[str, Any]], limit_s: float, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[str]:
        """The pieces of the answer as they come. Raises :class:`ChatError`, also when the time is up, ``stopped()`` is true
        or the answer has no end."""
        parts = urllib.parse.urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=limit_s)
        body = {"model": self.model, "messages": list(messages), "stream": True, "temperature": 0, "max_tokens": 200}
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        with _Watch(connection, limit_s, stopped) as watch:
            try:
                connection.request("POST", f"{parts.path}/chat/completions", json.dumps(body), headers)
                watch.socket = connection.sock  # the connection may let go of it once it has the answer's head
                answer = connection.getresponse()
                if answer.status != 200:
                    raise ChatError(f"HTTP {answer.status} {answer.reason}")
                yield from _pieces(answer)
            except ChatError as error:
                raise ChatError(watch.verdict or str(error)) from None
            except TimeoutError:
                raise ChatError("the time was up") from None
            except (OSError, ValueError, http.client.HTTPException) as error:
                raise ChatError(watch.verdict or f"{type(error).__name__}: {error}") from None
            finally:
                connection.close()


class _Watch:
    """Cuts a connection when the time is up or nobody wants the answer: a socket's own time limit starts anew with
    every byte, so a server that drips would never end."""

    def __init__(self, connection: http.client.HTTPConnection, limit_s: float, stopped: Callable[[], bool]) -> None:
        self.socket: socket.socket | None = None
        self.verdict = ""
        self._connection, self._end_s, self._stopped = connection, time.monotonic() + limit_s, stopped
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, name="emo-chat-watch", daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(LOOK_S):
            if self._stopped():
                self.verdict = "nobody wants the answer"
            elif time.monotonic() > self._end_s:
                self.verdict = "the time was up"
            open_socket = self.socket or self._connection.sock
            if self.verdict and open_socket is not None:
                with contextlib.suppress(OSError):
                    open_socket.shutdown(socket.SHUT_RDWR)


def _pieces(answer: http.client.HTTPResponse) -> Iterator[str]:
    """Server-sent events: ``data: {...}`` lines until ``data: [DONE]``."""
    left = MOST_BYTES
    while left > 0:
        line = answer.readline(left)
        left -= len(line)
        if not left:
            break  # the line is cut short
        if not line:
            raise ChatError("the answer broke off")
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            return
        try:
            choices = json.loads(data)["choices"]
            piece = choices[0]["delta"].get("content") if choices else None
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise ChatError(f"no chat completion: {data[:80]!r}") from None
        if isinstance(piece, str) and piece:
            yield piece
    raise ChatError(f"more than {MOST_BYTES} bytes")


@dataclass
class RephraseCounts:
    """What became of the sentences; ``last_problem`` of the newest that was not used."""

    rephrased: int = 0
    failed: int = 0
    rejected: int = 0
    last_problem: str = ""


class Rephraser:
    """Rewords explanations, one after the other; counts what was used, what failed and what was rejected."""

    def __init__(self, server: ChatServer) -> None:
        self.server = server
        self.counts = RephraseCounts()

    def __call__(
        self,
        cause: Cause,
        limit_s: float,
        heard: Callable[[str], None] = lambda _: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Cause:
        """The explanation with another text, or as it was. ``heard`` gets the text so far while it holds only words of
        the evidence. Raises :class:`Cancelled`."""
        question = [{"role": "system", "content": PROMPT}, {"role": "user", "content": cause.text}]
        text = ""
        try:
            for piece in self.server.stream(question, limit_s, cancelled):
                text += piece
                whole = text[: max(text.rfind(" "), 0)]  # the last word may still grow
                if whole and not foreign_words(whole, cause):
                    heard(whole)
        except ChatError as error:
            if cancelled():
                raise Cancelled from None
            self.counts.failed += 1
            self.counts.last_problem = str(error)
            return cause
        problem = objection(text, cause)
        if problem:
            self.counts.rejected += 1
            self.counts.last_problem = problem
            return cause
        self.counts.rephrased += 1
        return replace(cause, text=" ".join(text.split()), model=f"{cause.model}, {self.server.model}")
