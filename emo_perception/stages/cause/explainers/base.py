"""Who words an explanation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from emo_perception.config import CauseConfig
from emo_perception.stages.cause.case import Case, Line
from emo_perception.types import Cause, VisualContext

Heard: TypeAlias = Callable[[str], None]
CancelledBy: TypeAlias = Callable[[], bool]


class Cancelled(Exception):  # noqa: N818 - not an error
    """Whoever asked wants no answer any more."""


def nobody(_: str) -> None:
    """Listens to no words."""


def never() -> bool:
    """Nobody cancels."""
    return False


class Explainer(Protocol):
    """From a case to its explanation. One case at a time, in one thread; no lock of anybody is held meanwhile.

    ``wants_video``: it is worth waiting for the video of a statement; ``statements_only``: changed faces without words
    are left to the ranking; ``utterances_shown``: of so many last utterances it wants each face, 0: of all of them as one;
    ``immediate``: it takes no time worth a thread. ``config`` may be replaced between cases.
    """

    name: str
    config: CauseConfig
    wants_video: bool
    statements_only: bool
    utterances_shown: int

    @property
    def immediate(self) -> bool: ...

    def __call__(self, case: Case, heard: Heard = nobody, cancelled: CancelledBy = never) -> Cause:
        """The explanation or an abstention; ``heard`` gets the text so far. Raises :class:`Cancelled`."""

    def check(self, context: VisualContext) -> None:
        """Raises ``ValueError`` for video tokens of another network, with what to do."""

    def prepare(self, dialogue: tuple[Line, ...]) -> None:
        """Idle time: make ready for a question about what is said next."""

    def warmup(self) -> None: ...

    def close(self) -> None: ...

    def facts(self) -> dict[str, object]:
        """For diagnostics."""
