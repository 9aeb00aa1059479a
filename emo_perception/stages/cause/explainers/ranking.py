"""The likeliest trigger in one sentence, as it is, or reworded by a chat server."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from emo_perception.config import CauseConfig
from emo_perception.stages.cause.case import Case, Line
from emo_perception.stages.cause.explainers.base import Cancelled, CancelledBy, Heard, never, nobody
from emo_perception.stages.cause.explainers.chat import ChatError
from emo_perception.stages.cause.explainers.patience import PatientServer
from emo_perception.stages.cause.grounding import foreign_words, objection
from emo_perception.types import Cause, VisualContext

PROMPT: Final = (
    "Rephrase the sentence as one plain English sentence. Keep every name, the emotion and the quoted words. First say who "
    "feels what, then why. Add nothing. Answer with the sentence only."
)


@dataclass
class RephraseCounts:
    """What became of the sentences; ``last_problem`` of the newest that was not used."""

    rephrased: int = 0
    failed: int = 0
    rejected: int = 0
    last_problem: str = ""


class Rephraser:
    """Rewords explanations, one after the other; counts what was used, what failed and what was rejected.

    What comes back is used only where :mod:`..grounding` has no objection; else the realised sentence stands.
    """

    def __init__(self, server: PatientServer) -> None:
        self.server = server
        self.counts = RephraseCounts()

    def __call__(self, cause: Cause, limit_s: float, heard: Heard = nobody, cancelled: CancelledBy = never) -> Cause:
        """The explanation with another text, or as it was. ``heard`` gets the text so far while it holds only words of
        the evidence. Raises :class:`Cancelled`."""
        question = [{"role": "system", "content": PROMPT}, {"role": "user", "content": cause.text}]
        text = ""
        try:
            for piece in self.server.stream(question, limit_s, cancelled):
                text += piece
                whole = text[: max(text.rfind(" "), 0)]  # the last word may still grow
                if whole and not foreign_words(whole, cause):
                    heard(whole)
        except ChatError as error:
            if cancelled():
                raise Cancelled from None
            self.counts.failed += 1
            self.counts.last_problem = str(error)
            return cause
        problem = objection(text, cause)
        if problem:
            self.counts.rejected += 1
            self.counts.last_problem = problem
            return cause
        self.counts.rephrased += 1
        return replace(cause, text=" ".join(text.split()), model=f"{cause.model}, {self.server.model}")


class RankingExplainer:
    """What the ranking says. With a ``server`` its sentences are reworded; abstentions are left alone."""

    name = "ranking"
    wants_video = False
    statements_only = False
    utterances_shown = 1

    def __init__(self, config: CauseConfig, server: PatientServer | None = None) -> None:
        self.config = config
        self._rephraser = Rephraser(server) if server else None

    @property
    def immediate(self) -> bool:
        return self._rephraser is None

    def __call__(self, case: Case, heard: Heard = nobody, cancelled: CancelledBy = never) -> Cause:
        if self._rephraser is None or case.ranked.abstained:
            return case.ranked
        return self._rephraser(case.ranked, self.config.chat_timeout_s, heard, cancelled)

    def check(self, context: VisualContext) -> None:
        """Video is of no use here."""

    def prepare(self, dialogue: tuple[Line, ...]) -> None:
        """Nothing can be done in advance."""

    def warmup(self) -> None:
        """Nothing to warm up."""

    def close(self) -> None:
        """Nothing to free."""

    def facts(self) -> dict[str, object]:
        if self._rephraser is None:
            return {}
        counts = self._rephraser.counts
        return {"rephrased": counts.rephrased, "rephrasing_failed": counts.failed,
                "rephrasing_rejected": counts.rejected, "rephrasing_problem": counts.last_problem,
                **self._rephraser.server.facts()}  # fmt: skip
