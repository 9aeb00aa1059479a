"""Toy networks that are exported once for all tests, and one thread for their small tensors."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("torch") is not None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of weights and engines."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("EMO_CACHE", str(folder))
    return folder / "engines"


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """``toy(name)``: the exported network behind an engine of the toy profile; each is exported once."""
    pytest.importorskip("torch")
    from emo_models.engines.source import network

    work = tmp_path_factory.mktemp("work")
    return cache(lambda name: network(name, "toy", work))
