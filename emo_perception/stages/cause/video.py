"""Video tokens and utterances come on two topics in any order: here they wait for each other, by the utterance's id."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from emo_perception.stages.cause.features import Target
from emo_perception.types import NS_PER_S, VisualContext

#: An emotional utterance waits so long for its video, in time of the stream; then it is explained without.
WAIT_NS: Final = NS_PER_S
#: Videos of utterances that are kept for questions; each is a few megabytes at the paper's size.
KEPT: Final = 16
#: Targets that may wait; more than people can say in the time.
MOST_WAITING: Final = 16


@dataclass(frozen=True, slots=True)
class _Waiting:
    target: Target
    since_ns: int


class Meeting:
    """Videos by utterance, the newest :data:`KEPT`, and the targets that wait for theirs.

    ``missed`` counts targets that were explained without a video.
    """

    def __init__(self) -> None:
        self.missed = 0
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._videos: OrderedDict[str, VisualContext] = OrderedDict()
        self._waiting: list[_Waiting] = []

    def put(self, context: VisualContext) -> None:
        """Keep the video of an utterance."""
        self._videos[context.utterance_id] = context
        self._videos.move_to_end(context.utterance_id)
        while len(self._videos) > KEPT:
            self._videos.popitem(last=False)

    def of(self, utterance_id: str) -> VisualContext | None:
        """The video of an utterance, if it is here."""
        return self._videos.get(utterance_id)

    def wait(self, target: Target, now_ns: int) -> None:
        """Let a target wait for its video."""
        self._waiting.append(_Waiting(target, now_ns))

    def met(self, now_ns: int, *, everything: bool = False) -> list[Target]:
        """The targets whose video is here, or that have waited long enough, in order of arrival."""
        due: list[Target] = []
        still: list[_Waiting] = []
        crowd = len(self._waiting) - MOST_WAITING
        for place, one in enumerate(self._waiting):
            here = one.target.utterance is not None and one.target.utterance.id in self._videos
            if here or everything or now_ns - one.since_ns >= WAIT_NS or place < crowd:
                due.append(one.target)
                self.missed += not here
            else:
                still.append(one)
        self._waiting = still
        return due
