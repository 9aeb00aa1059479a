"""Engines and weights that a worker needs and that may not be there yet: asked for again until they are."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from emo_models.engines import EngineError
from emo_models.weights import WeightsError

T = TypeVar("T")

RETRY_S = 5.0
"""Engines or weights that are missing are looked for again this often."""


class Loading(Generic[T]):
    """What a worker loads; ``trouble``: why it is not there, with what to type, empty where nothing is wrong."""

    def __init__(self, make: Callable[[], T], tell: Callable[[str], object]) -> None:
        """``make`` may raise :class:`EngineError` and :class:`WeightsError`, which are told once and waited out."""
        self._make, self._tell = make, tell
        self.trouble = ""

    def __call__(self, closing: threading.Event) -> T | None:
        """What was made; None when it is closing before, or when no waiting can help."""
        while not closing.is_set():
            try:
                made = self._make()
            except (EngineError, WeightsError) as error:
                self._note(str(error))
                closing.wait(RETRY_S)
            except Exception as error:
                self._note(f"cannot start: {type(error).__name__}: {error}")
                return None
            else:
                self.trouble = ""
                return made
        return None

    def _note(self, trouble: str) -> None:
        if trouble != self.trouble:
            self._tell(trouble)
        self.trouble = trouble
