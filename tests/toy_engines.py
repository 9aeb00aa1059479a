"""Engines of the toy networks for any test: each is built once in a session, in seconds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from emo_models.weights import cache_dir


class ToyEngines:
    """Builds engines of profile ``toy`` when they are first asked for, in folders that the session throws away."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._public = cache_dir()
        self._places: dict[Path | None, Path] = {}
        self._built: set[tuple[str, str, Path | None]] = set()

    def __call__(self, *names: str, backend: str = "eager", weights: Path | None = None) -> Path:
        """A weight cache with these engines of the catalogue: give it to ``EMO_CACHE``.

        The weights are random numbers of one seed (then ``random=True`` is needed to load them), or those in the folder
        ``weights`` (``NETWORK.safetensors``), which the cache then also has as ``toy``. The public files of the user's
        cache are in it too. ``eager`` is built fastest and needs torch to run; ``onnxruntime`` needs none.
        """
        pytest.importorskip("torch", reason="engines are built with torch")
        pytest.importorskip("onnxscript", reason="torch writes ONNX with onnxscript: make engines")
        place = self._place(weights)
        for name in names:
            if (name, backend, weights) not in self._built:
                self._build(name, backend, place / "built", weights)
                self._built.add((name, backend, weights))
        return place / "cache"

    def _place(self, weights: Path | None) -> Path:
        """The engines lie apart, in ``built``: a build would compare the public pictures too, which takes longer."""
        if weights in self._places:
            return self._places[weights]
        place = self._places[weights] = self._folder / str(len(self._places))
        cache, engines = place / "cache", place / "built" / "engines"
        cache.mkdir(parents=True)
        engines.mkdir(parents=True)
        (cache / "engines").symlink_to(engines)
        if weights is not None:
            (cache / "toy").symlink_to(weights.resolve())
        for file in self._public.glob("*"):
            if file.is_file():
                (cache / file.name).symlink_to(file.resolve())
        return place

    def _build(self, name: str, backend: str, cache: Path, weights: Path | None) -> None:
        from emo_models.engines.build import Options, build
        from emo_models.engines.source import network

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("EMO_CACHE", os.fspath(cache))
            source = network(name, "toy", cache.parent / "work", [] if weights is None else [weights])
            build(source, Options(backend, threads=1, timing_s=0.0), lambda _: None)
