"""The two workers of explaining: one takes in what is said and seen, the other words explanations.

Neither waits for the other: while a language model writes, utterances and faces go on being remembered, and no lock of
the memory is held. What the graph asks for by itself and what people ask take turns.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from emo_perception.config import CauseConfig
from emo_perception.loading import Loading
from emo_perception.memory import Item
from emo_perception.memory.keeper import MemoryKeeper
from emo_perception.stages.cause import Case, CauseStage, Question
from emo_perception.stages.cause.explainers.base import Cancelled, CancelledBy, Heard, never, nobody
from emo_perception.stages.cause.explainers.chat import LOOK_S
from emo_perception.stages.cause.stage import Input
from emo_perception.streaming.fair import FairQueue
from emo_perception.streaming.mailbox import DropPolicy, Mailbox, MailboxCounts
from emo_perception.streaming.stats import StageStats
from emo_perception.types import Cause, Utterance

log = logging.getLogger(__name__)

Raw = TypeVar("Raw")

WAITING = 1024
"""Inputs that may wait: half a minute of features at 30 Hz. Should the stage ever fall that far behind, the oldest go, counted."""
OWN_WAITING = 4
"""Explanations of the graph's own that may wait for a slow explainer; further ones go out as the ranking's sentence, counted."""
IDLE_S = 0.5
"""Nothing came for so long: what was under way has arrived."""
STOP_S = 1.5
OWN, ASKED = "own", "asked"


@dataclass(eq=False)
class _Job:
    """A case on its way to its explanation; ``answer`` gets it, or what went wrong, once. ``own``: nobody waits for it."""

    case: Case
    own: bool
    heard: Heard = nobody
    cancelled: CancelledBy = never
    done: threading.Event = field(default_factory=threading.Event)
    answer: Cause | Exception | None = None


class Explaining(Generic[Raw]):
    """Messages in, explanations out; answers questions.

    ``load`` makes the stage, in the first worker; ``read`` turns a raw item (a message, say) into an input, ``stamp_ns``
    knows its stamp; ``say`` is called with each explanation of the graph's own; ``config``: the parameters at this moment.
    """

    def __init__(
        self,
        *,
        load: Callable[[Sequence[Item]], CauseStage],
        read: Callable[[Raw], Input],
        stamp_ns: Callable[[Raw], int],
        say: Callable[[Cause], None],
        config: Callable[[], CauseConfig],
        keeper: MemoryKeeper,
    ) -> None:
        self._make, self._read, self._stamp_ns, self._say, self._config = load, read, stamp_ns, say, config
        self.keeper = keeper
        self.stage: CauseStage | None = None
        self._loading = Loading(self._load, log.error)
        self.stats = StageStats()
        self._using = threading.Lock()  # the stage, which serves the first worker and the questions
        self._closing = threading.Event()
        self._ended = threading.Event()
        self._all_out = True
        self._box: Mailbox[Raw] = Mailbox("inputs", DropPolicy.KEEP_LATEST, WAITING)
        self._queue: FairQueue[_Job] = FairQueue({OWN: OWN_WAITING, ASKED: max(1, config().max_questions)})
        self._ahead = False  # something was said: the next question can be made ready for
        self._threads = [
            threading.Thread(target=self._take_in, name="emo-cause", daemon=True),
            threading.Thread(target=self._explain, name="emo-explain", daemon=True),
        ]

    @property
    def trouble(self) -> str:
        """Why there is no stage yet, empty where nothing is wrong."""
        return self._loading.trouble

    def start(self) -> None:
        """Start the workers."""
        for thread in self._threads:
            thread.start()

    def offer(self, item: Raw) -> bool:
        """Hand in a message; never waits."""
        return self._box.offer(item)

    def ended(self, over: bool) -> None:
        """Whether the source has ended: then what still waits for words or video is explained."""
        (self._ended.set if over else self._ended.clear)()

    def close(self) -> None:
        """End the workers; what waits is still explained, by the ranking, and the memory saved. Safe to call twice."""
        self._closing.set()
        self._box.close()
        self._threads[0].join(STOP_S)
        self._queue.close()
        self._threads[1].join(STOP_S)

    def ask(self, question: Question, heard: Heard = nobody, cancelled: CancelledBy = never) -> Cause:
        """Answer a question, when its turn has come; ``heard`` gets the words so far.

        Raises ``RuntimeError`` while the engine is not loaded, ``ValueError`` for a question that cannot be, and
        :class:`Cancelled`.
        """
        with self._using:
            if self.stage is None:
                raise RuntimeError(self.trouble or "the engine is still loading; ask again in a moment")
            found = self.stage.case(question)
        if not isinstance(found, Case):
            return found
        job = _Job(found, False, heard, lambda: cancelled() or self._closing.is_set())
        if not self._queue.offer(ASKED, job):
            raise RuntimeError("too many questions wait already (max_questions), or the node is ending")
        while not job.done.wait(LOOK_S):
            if job.cancelled():
                raise Cancelled
        if isinstance(job.answer, Exception):
            raise job.answer
        assert job.answer is not None
        return job.answer

    def counts(self) -> MailboxCounts:
        """Of the inputs."""
        return self._box.counts()

    def queues(self) -> dict[str, MailboxCounts]:
        """Of the explanations: those of the graph's own, and those that were asked for."""
        return self._queue.counts()

    # -- the first worker

    def _take_in(self) -> None:
        self.stage = self._loading(self._closing)
        if self.stage is None:
            return
        while True:
            message = self._box.take(IDLE_S)
            if message is None and self._box.closed:
                break
            try:
                self._one(self.stage, message)
                self.keeper.save(self.stage.memory)
            except Exception as error:
                # One message must not end the node: it is counted as failed, shown in the diagnostics.
                log.error("an input could not be used: %s: %s", type(error).__name__, error)
        self.keeper.save(self.stage.memory, now=True)

    def _load(self) -> CauseStage:
        """The stage, with what was remembered."""
        stage = self._make(self.keeper.load())
        stage.warmup()
        return stage

    def _one(self, stage: CauseStage, message: Raw | None) -> None:
        if message is None:
            over = self._ended.is_set() and not self._all_out
            with self._using:
                cases = stage.finish() if over else stage.idle()
            self._all_out = self._all_out or over
            self._hand_over(stage, cases)
            return
        self._all_out = False
        with self.stats.measured(self._stamp_ns(message)), self._using:
            stage.config = self._config()
            item = self._read(message)
            cases = stage.take(item)
        self._ahead = self._ahead or isinstance(item, Utterance)
        self._hand_over(stage, cases)

    def _hand_over(self, stage: CauseStage, cases: Sequence[Case]) -> None:
        for case in cases:
            if stage.explainer.immediate:
                self._say(stage.explainer(case))
            elif not self._queue.offer(OWN, _Job(case, True, cancelled=self._closing.is_set)):
                self._say(case.ranked)

    # -- the second worker

    def _explain(self) -> None:
        while True:
            job = self._queue.take(0.0 if self._ahead else IDLE_S)
            stage = self.stage
            if job is not None and stage is not None:
                self._answer(stage, job)
            elif self._queue.closed:
                break
            elif stage is not None and self._ahead:
                self._prepare(stage)
        if self.stage is not None:
            self.stage.close()

    def _answer(self, stage: CauseStage, job: _Job) -> None:
        try:
            job.answer = stage.explainer(job.case, job.heard, job.cancelled)
        except Cancelled as error:
            job.answer = error
        except Exception as error:
            log.error("an explanation failed: %s: %s", type(error).__name__, error)
            job.answer = RuntimeError(f"the explanation failed: {error}")
        job.done.set()
        if job.own:
            self._say(job.case.ranked if isinstance(job.answer, Exception) else job.answer)

    def _prepare(self, stage: CauseStage) -> None:
        self._ahead = False
        with self._using:
            dialogue = stage.dialogue()
        try:
            stage.explainer.prepare(dialogue)
        except Exception as error:
            log.error("the next explanation could not be made ready for: %s: %s", type(error).__name__, error)
