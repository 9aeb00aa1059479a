"""A real HTTP server that speaks the streaming chat protocol, well or badly."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server:
    """``behaviour``: good (``answer`` decides the text), slow, dies, nonsense, error, endless, busy (the first
    ``busy`` requests get 429 with ``retry_after``)."""

    def __init__(self, behaviour: str, answer: Callable[[str], str]) -> None:
        self.behaviour, self.answer = behaviour, answer
        self.asked: list[dict[str, Any]] = []
        self.authorization: list[str | None] = []
        self.go_on = threading.Event()
        self.busy, self.retry_after = 0, ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    outer.reply(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def reply(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        self.asked.append({"path": handler.path, **body})
        self.authorization.append(handler.headers["Authorization"])
        if self.busy > 0:
            self.busy -= 1
            handler.send_response(429)
            handler.send_header("Retry-After", self.retry_after)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        if self.behaviour == "error":
            handler.send_error(500)
            return
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        if self.behaviour == "nonsense":
            handler.wfile.write(b"data: <html>hello</html>\n\n")
            return
        words = self.answer(body["messages"][-1]["content"]).split(" ")
        for index, word in enumerate(words):
            self.piece(handler, word if index == 0 else " " + word)
            if self.behaviour == "slow" and index == 3:
                self.go_on.wait(30)
            if self.behaviour == "dies" and index == 3:
                return
        while self.behaviour == "endless":
            self.piece(handler, " and" * 200)
        handler.wfile.write(b"data: [DONE]\n\n")

    def piece(self, handler: BaseHTTPRequestHandler, text: str) -> None:
        data = {"choices": [{"delta": {"content": text}}]}
        handler.wfile.write(f"data: {json.dumps(data)}\n\n".encode())
        handler.wfile.flush()


@contextmanager
def chat_server(behaviour: str = "good", answer: Callable[[str], str] = lambda text: text) -> Iterator[Server]:
    server = Server(behaviour, answer)
    thread = threading.Thread(target=server.http.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.go_on.set()
        server.http.shutdown()
        thread.join()
        server.http.server_close()
