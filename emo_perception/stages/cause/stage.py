"""The cause stage: utterances and features in, explanations out; answers questions about what it remembers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, TypeAlias

from emo_perception.config import CauseConfig, PerceptionConfig
from emo_perception.memory import DialogueMemory, EventFinder, EventKind, Item, VisibleEvent
from emo_perception.stages.cause.encoder import SentenceEncoder
from emo_perception.stages.cause.features import Target, mismatch_of
from emo_perception.stages.cause.ranker import Ranker, Ranking
from emo_perception.stages.cause.realiser import evidence_of, name_of, realise
from emo_perception.stages.cause.targets import faces_during, target_of_event, target_of_utterance
from emo_perception.stages.cause.words import WordReader
from emo_perception.streaming.timeline import Admission, Timeline
from emo_perception.types import NS_PER_S, Cause, EmotionFeatures, Utterance

MODEL: Final = "trigger-ranking"
#: People who talk at once are heard out of order: an utterance this much older than the newest is no new start of time.
UTTERANCE_JUMP_BACK_S: Final = 30.0
#: A moment asks for what was going on then, or this short time before.
MOMENT_NS: Final = 5 * NS_PER_S

Input: TypeAlias = "Utterance | EmotionFeatures"


class About(Enum):
    """What a question is about."""

    PERSON = 0
    UTTERANCE = 1
    MOMENT = 2


@dataclass(frozen=True, slots=True)
class Question:
    """Why? About a face (``track_id``), an utterance (its id) or a moment (ns)."""

    about: About
    track_id: int = 0
    utterance_id: str = ""
    moment_ns: int = 0


class CauseStage:
    """Utterances and features, in order of arrival -> explanations of emotional utterances and changed faces.

    An utterance is explained when it comes; a face that changed ``settle_s`` later, when the words that were being said
    then are known. Features far older than the newest (a looped bag) make the stage forget everything first. Not thread
    safe. ``remembered``: items of an earlier run; ``encoder``: one that exists already. Raises at start as
    :class:`SentenceEncoder`.
    """

    name = "cause"

    def __init__(
        self, config: CauseConfig, remembered: Sequence[Item] = (), encoder: SentenceEncoder | None = None
    ) -> None:
        self.config = config
        self._encoder = encoder or SentenceEncoder(config.threads)
        self.selection = self._encoder.selection
        self._reader = WordReader(self._encoder)
        self._ranker = Ranker(self._reader)
        self.memory = DialogueMemory(config.memory_min, config.memory_tokens)
        self.restarts = 0
        self._begin()
        self.memory.extend(remembered)
        if remembered:  # what comes next may show that these are of another time
            self._features.admit(self.memory.newest_ns)
            self._utterances.admit(self.memory.newest_ns)

    def warmup(self) -> None:
        """Read one sentence, so that the first real one is not slow."""
        self._reader("How are you?")

    def reset(self) -> None:
        """Forget everything."""
        self.restarts += 1
        self.memory.clear()
        self._begin()

    def close(self) -> None:
        """Free the engine."""
        self._encoder.close()

    def _begin(self) -> None:
        self._features = Timeline(PerceptionConfig().jump_back_s)
        self._utterances = Timeline(UTTERANCE_JUMP_BACK_S)
        self._finder = EventFinder(self.config.min_emotion)
        self._pending: dict[object, VisibleEvent] = {}
        self._changed_ns: dict[int, int] = {}  # face -> start of its newest change
        self._told: dict[str, tuple[str, int]] = {}  # who -> emotion explained last, and when it began
        self._frame_id = ""

    def __call__(self, item: Input) -> list[Cause]:
        self._finder.threshold = self.config.min_emotion
        if isinstance(item, Utterance):
            return [*self._hear(item), *self._settled()]
        self._see(item)
        return self._settled()

    def flush(self) -> list[Cause]:
        """At the end of a stream: explain the changes that still waited for words."""
        return self._settled(everything=True)

    # -- what comes in

    def _hear(self, utterance: Utterance) -> list[Cause]:
        if not utterance.text.strip():
            return []
        if utterance.end_ns < utterance.start_ns:
            raise ValueError(f"utterance {utterance.id!r}: expected an end after its start, got one before it")
        if self._utterances.admit(utterance.end_ns) is Admission.RESTART:
            self.reset()
            self._utterances.admit(utterance.end_ns)
        known = self.memory.utterance(utterance.id)
        self.memory.add(utterance)
        heard = self.memory.utterance(utterance.id)
        told_again = known is not None and known.start_ns == utterance.start_ns
        if told_again or heard is None or heard.start_ns != utterance.start_ns:  # or already too old to be remembered
            return []
        target = target_of_utterance(heard, self.memory.items, self.memory.names(), self._reader)
        if target.strength < self.config.min_emotion or self._is_told(target):
            return []
        return [self._explain(target)]

    def _see(self, features: EmotionFeatures) -> None:
        admission = self._features.admit(features.stamp_ns)
        if admission is Admission.LATE:
            return
        if admission is Admission.RESTART:
            self.reset()
            self._features.admit(features.stamp_ns)
        self._frame_id = features.frame_id
        for event in self._finder(features):
            self.memory.add(event)
            if event.kind is EventKind.LEAVES:
                self._changed_ns.pop(event.track_id, None)
            elif event.kind is EventKind.EXPRESSION:
                new = event.start_ns > self._changed_ns.get(event.track_id, 0)
                if new or event.key in self._pending:
                    self._pending[event.key] = event  # told again while it waits: the newest telling knows its peak
                    self._changed_ns[event.track_id] = event.start_ns
        self.memory.expire(features.stamp_ns)

    def _settled(self, *, everything: bool = False) -> list[Cause]:
        """Explain the changes of faces that have waited long enough."""
        due_ns = self.memory.newest_ns - round(self.config.settle_s * NS_PER_S)
        due = [e for e in self._pending.values() if everything or e.start_ns <= due_ns]
        found = []
        for event in due:
            del self._pending[event.key]
            target = target_of_event(event, self.memory.names())
            if target is not None and target.strength >= self.config.min_emotion and not self._is_told(target):
                found.append(self._explain(target))
        return found

    def _is_told(self, target: Target) -> bool:
        """Whether the same emotion of this person was explained a moment ago; if not, it is now."""
        quiet_ns = round(self.config.quiet_s * NS_PER_S)
        who = target.speaker or str(target.track_id)
        self._told = {k: v for k, v in self._told.items() if abs(target.onset_ns - v[1]) <= quiet_ns}
        if self._told.get(who, ("", 0))[0] == target.emotion:
            return True
        self._told[who] = (target.emotion, target.onset_ns)
        return False

    # -- explanations

    def ask(self, question: Question) -> Cause:
        """Answer a question; an abstention says what is not known."""
        found = self._asked(question)
        if isinstance(found, str):
            return self._abstention(found, question)
        if found.strength < self.config.min_emotion:
            least = self.config.min_emotion
            return self._abstention(
                f"no clear emotion there: {found.strength:.2f} is below {least:.2f}", question, found
            )
        return self._explain(found)

    def _asked(self, question: Question) -> Target | str:
        names = self.memory.names()
        if question.about is About.UTTERANCE:
            utterance = self.memory.utterance(question.utterance_id)
            if utterance is None:
                return (
                    f"no utterance {question.utterance_id!r} is remembered (of the last {self.config.memory_min:g} min)"
                )
            return target_of_utterance(utterance, self.memory.items, names, self._reader)
        targets = [t for t in map(self._target, self.memory.items) if t is not None]
        if question.about is About.PERSON:
            who = name_of(question.track_id, "", names)
            targets = [t for t in targets if t.track_id == question.track_id]
            nothing = f"no emotion of {who} is remembered (of the last {self.config.memory_min:g} min)"
        else:
            at_ns = question.moment_ns
            targets = [t for t in targets if t.onset_ns <= at_ns and t.end_ns >= at_ns - MOMENT_NS]
            nothing = "no emotion is remembered at that moment"
        clear = [t for t in targets if t.strength >= self.config.min_emotion]
        return max(clear or targets, key=lambda t: t.onset_ns, default=nothing)

    def _target(self, item: Item) -> Target | None:
        if isinstance(item, Utterance):
            return target_of_utterance(item, self.memory.items, self.memory.names(), self._reader)
        return target_of_event(item, self.memory.names())

    def _explain(self, target: Target) -> Cause:
        items, names = self.memory.items, self.memory.names()
        ranking = self._ranker(target, items, names, round(self.config.window_s * NS_PER_S))
        confidence = ranking.probabilities[0] if ranking.items else 0.0
        blank = self._blank(target, confidence)
        if ranking.abstains or confidence < self.config.min_confidence:
            return replace(blank, abstained=True, abstain_reason=self._reason(ranking))
        shown = self._shown(target)
        first = ranking.items[0]
        mismatch = mismatch_of(first, items, self._reader) if isinstance(first, Utterance) else None
        if mismatch is not None and mismatch == shown:
            mismatch = None
        ranked = list(zip(ranking.items, ranking.probabilities, strict=True))
        evidence = evidence_of(target, ranked, shown=shown, mismatch=mismatch, names=names)
        return replace(
            blank,
            text=realise(target, first, confidence, names=names, shown=shown, mismatch=mismatch),
            evidence_utterances=tuple(e.utterance_id for e in evidence if e.kind == "utterance"),
            evidence=evidence,
        )

    def _shown(self, target: Target) -> VisibleEvent | None:
        """What the face of the target shows of the emotion."""
        if target.utterance is None:
            return target.event
        faces = faces_during(target.utterance, self.memory.items, target.track_id) if target.track_id else []
        return next((face for face in faces if face.emotion == target.emotion), None)

    def _reason(self, ranking: Ranking) -> str:
        if not ranking.items:
            return f"nothing was said or seen in the {self.config.window_s:g} s before"
        if ranking.abstains:
            return f"nothing that was said or seen before fits: no cause {ranking.none:.2f}, the likeliest {ranking.probabilities[0]:.2f}"
        least = self.config.min_confidence
        return f"too unsure which it was: confidence {ranking.probabilities[0]:.2f} is below {least:.2f}"

    def _blank(self, target: Target, confidence: float) -> Cause:
        utterance = target.utterance.id if target.utterance else ""
        return Cause(
            target.end_ns, self._frame_id, "", target.emotion, target.track_id, target.speaker, utterance,
            (), (), confidence, MODEL,
        )  # fmt: skip

    def _abstention(self, reason: str, question: Question, target: Target | None = None) -> Cause:
        if target is not None:
            return replace(self._blank(target, 0.0), abstained=True, abstain_reason=reason)
        return Cause(
            self.memory.newest_ns, self._frame_id, "", "", question.track_id, "", question.utterance_id,
            (), (), 0.0, MODEL, abstained=True, abstain_reason=reason,
        )  # fmt: skip
