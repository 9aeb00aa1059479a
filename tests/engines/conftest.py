"""One thread for the small tensors of these tests: several would only wait for each other."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

if importlib.util.find_spec("torch") is not None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of weights and engines."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("EMO_CACHE", str(folder))
    return folder
