"""A chat server that speaks OpenAI's protocol (vLLM, SGLang, llama.cpp, ...), its words as they come, within a time limit."""

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
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final

from emo_perception.config import ConfigError

KEY: Final = "EMO_CHAT_API_KEY"
#: How often the time and the asker are looked at, seconds.
LOOK_S: Final = 0.05
#: A server that answers more than this is not answering our question, bytes.
MOST_BYTES: Final = 256 << 10
UNWANTED: Final = "nobody wants the answer"
#: Answers after which the same question may well be answered: too many questions, or the server's own trouble.
BUSY: Final = frozenset({408, 429, 500, 502, 503, 504})


class ChatError(RuntimeError):
    """The server gave no usable answer; the message says what happened.

    ``again``: the same question may be answered later, not before ``after_s``. ``blameless``: nobody wanted the answer.
    """

    def __init__(self, message: str, *, again: bool = False, after_s: float = 0.0, blameless: bool = False) -> None:
        super().__init__(message)
        self.again, self.after_s, self.blameless = again, after_s, blameless


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
        answered = False
        with _Watch(connection, limit_s, stopped) as watch:
            try:
                connection.request("POST", f"{parts.path}/chat/completions", json.dumps(body), headers)
                watch.socket = connection.sock  # the connection may let go of it once it has the answer's head
                answer = connection.getresponse()
                if answer.status != 200:
                    again, after_s = answer.status in BUSY, _wait_s(answer.getheader("Retry-After", ""))
                    raise ChatError(f"HTTP {answer.status} {answer.reason}", again=again, after_s=after_s)
                answered = True
                yield from _pieces(answer)
            except ChatError as error:
                raise (watch.error() or error) from None
            except TimeoutError:
                raise ChatError("the time was up") from None
            except (OSError, ValueError, http.client.HTTPException) as error:
                again = isinstance(error, OSError) and not answered
                raise (watch.error() or ChatError(f"{type(error).__name__}: {error}", again=again)) from None
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

    def error(self) -> ChatError | None:
        """Why the connection was cut, if it was."""
        return ChatError(self.verdict, blameless=self.verdict == UNWANTED) if self.verdict else None

    def _look(self) -> None:
        while not self._done.wait(LOOK_S):
            if self._stopped():
                self.verdict = UNWANTED
            elif time.monotonic() > self._end_s:
                self.verdict = "the time was up"
            open_socket = self.socket or self._connection.sock
            if self.verdict and open_socket is not None:
                with contextlib.suppress(OSError):
                    open_socket.shutdown(socket.SHUT_RDWR)


def _wait_s(header: str) -> float:
    """Seconds of a Retry-After header, which names them or a date (RFC 9110, 10.2.3); 0 for none or nonsense."""
    try:
        return max(0.0, float(header)) if header else 0.0
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return 0.0


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
