"""Small weights of our own for the tests: cards, and pulls in a process of their own."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from emo_models.weights import Card, read_cards

CONTENT = bytes(range(256)) * 2048  # 512 kB: several blocks
DEADLINE_S = 30.0
PULL_IN_A_PROCESS = """
import sys
from pathlib import Path
from emo_models import fetch, weights
from emo_perception.tools.weights import main
fetch.ANSWER_TIMEOUT_S = 30.0  # the tests' publishers wait for slow machines
weights.CARDS_FILE = Path(sys.argv[1])
sys.exit(main(sys.argv[2:]))
"""


def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no folder of weights that the user may have named."""
    monkeypatch.setenv("EMO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EMO_WEIGHTS_DIR", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


def own_folder(tmp_path: Path) -> Path:
    """A folder to bring files in."""
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


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


def start_pull(cards_file: Path, *arguments: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", PULL_IN_A_PROCESS, str(cards_file), "pull", *arguments],
        stdout=subprocess.PIPE,
        stderr=stderr,
    )
