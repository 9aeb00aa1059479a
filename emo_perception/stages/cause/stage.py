"""The cause stage: utterances, features and video in, explanations out; answers questions about what it remembers.

It keeps the memory, finds what is worth explaining and ranks the triggers, quickly. Who words an explanation, slowly
maybe, is an :class:`~.explainers.Explainer`: it gets a :class:`~.case.Case`, and needs nothing else of the stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from emo_models.labels import rep155_or_none
from emo_perception.config import CauseConfig, PerceptionConfig
from emo_perception.memory import DialogueMemory, EventFinder, EventKind, Item, VisibleEvent
from emo_perception.stages.cause.case import HISTORY_STEP, About, Case, Line, Question, ShownFace
from emo_perception.stages.cause.encoder import SentenceEncoder
from emo_perception.stages.cause.explainers import Explainer, make_explainer
from emo_perception.stages.cause.expressions import Expressions
from emo_perception.stages.cause.features import Target, mismatch_of
from emo_perception.stages.cause.ranker import Ranker, Ranking
from emo_perception.stages.cause.realiser import evidence_of, name_of, realise
from emo_perception.stages.cause.targets import faces_during, target_of_event, target_of_utterance
from emo_perception.stages.cause.video import Meeting
from emo_perception.stages.cause.words import WordReader
from emo_perception.stages.learned import RANDOM
from emo_perception.streaming.timeline import Admission, Timeline
from emo_perception.types import NS_PER_S, Cause, EmotionFeatures, Utterance, VisualContext

MODEL: Final = "trigger-ranking"
#: People who talk at once are heard out of order: an utterance this much older than the newest is no new start of time.
UTTERANCE_JUMP_BACK_S: Final = 30.0
#: A moment asks for what was going on then, or this short time before.
MOMENT_NS: Final = 5 * NS_PER_S

Input: TypeAlias = "Utterance | EmotionFeatures | VisualContext"


class CauseStage:
    """Utterances, features and video, in order of arrival -> explanations of emotional utterances and changed faces.

    An utterance is explained when it comes, or a moment later where its video is waited for; a face that changed
    ``settle_s`` later, when the words that were being said then are known. Features far older than the newest (a looped
    bag) make the stage forget everything first. Not thread safe; but a :class:`~.case.Case` of :meth:`take`,
    :meth:`idle`, :meth:`finish` or :meth:`case` may be explained by ``explainer`` in another thread. ``remembered``: items
    of an earlier run; ``encoder``, ``explainer``: those that exist already. Raises at start as :class:`SentenceEncoder`
    and :func:`~.explainers.make_explainer`.
    """

    name = "cause"

    def __init__(
        self,
        config: CauseConfig,
        remembered: Sequence[Item] = (),
        encoder: SentenceEncoder | None = None,
        explainer: Explainer | None = None,
    ) -> None:
        self.explainer = explainer or make_explainer(config)
        self.config = config
        self._encoder = encoder or SentenceEncoder(config.threads)
        self.selection = self._encoder.selection
        self._reader = WordReader(self._encoder)
        self._ranker = Ranker(self._reader)
        self.memory = DialogueMemory(config.memory_min, config.memory_tokens)
        self.restarts = 0
        self.video = Meeting()
        self._begin()
        self.memory.extend(remembered)
        if remembered:  # what comes next may show that these are of another time
            self._features.admit(self.memory.newest_ns)
            self._utterances.admit(self.memory.newest_ns)

    @property
    def config(self) -> CauseConfig:
        """The parameters; may be replaced at any time."""
        return self._config

    @config.setter
    def config(self, config: CauseConfig) -> None:
        self._config = self.explainer.config = config

    def warmup(self) -> None:
        """Read one sentence, so that the first real one is not slow."""
        self._reader("How are you?")
        self.explainer.warmup()

    def reset(self) -> None:
        """Forget everything."""
        self.restarts += 1
        self.memory.clear()
        self._begin()

    def close(self) -> None:
        """Free the engine."""
        self.explainer.close()
        self._encoder.close()

    def _begin(self) -> None:
        self._features = Timeline(PerceptionConfig().jump_back_s)
        self._utterances = Timeline(UTTERANCE_JUMP_BACK_S)
        self._finder = EventFinder(self.config.min_emotion)
        self._expressions = Expressions(round(self.config.window_s * (1 + HISTORY_STEP) * NS_PER_S))
        self.video.clear()
        self._pending: dict[object, VisibleEvent] = {}
        self._changed_ns: dict[int, int] = {}  # face -> start of its newest change
        self._told: dict[str, tuple[str, int]] = {}  # who -> emotion explained last, and when it began
        self._frame_id = ""

    def __call__(self, item: Input) -> list[Cause]:
        return [self.explainer(case) for case in self.take(item)]

    def flush(self) -> list[Cause]:
        """At the end of a stream: explain what still waited for words or video."""
        return [self.explainer(case) for case in self.finish()]

    def take(self, item: Input) -> list[Case]:
        """What is to be explained now. Raises ``ValueError`` for what cannot be, or is not meant for this explainer."""
        self._finder.threshold = self.config.min_emotion
        if isinstance(item, VisualContext):
            self._look(item)
        elif isinstance(item, Utterance):
            self._hear(item)
        else:
            self._see(item)
        return [*self._met(), *self._settled()]

    def idle(self) -> list[Case]:
        """Nothing has come for a while: what waited for its video is explained without."""
        return self._met(everything=True)

    def finish(self) -> list[Case]:
        """The stream has ended: everything that still waits."""
        return [*self._met(everything=True), *self._settled(everything=True)]

    def dialogue(self) -> tuple[Line, ...]:
        """What was said lately: the history of a target that is yet to come."""
        return self._history(self.memory.newest_ns + 1, self.memory.names())

    # -- what comes in

    def _look(self, context: VisualContext) -> None:
        if context.utterance_id and self.explainer.wants_video:
            self.explainer.check(context)
            self.video.put(context)

    def _hear(self, utterance: Utterance) -> None:
        if not utterance.text.strip():
            return
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
            return
        target = target_of_utterance(heard, self.memory.items, self.memory.names(), self._reader)
        if target.strength >= self.config.min_emotion and not self._is_told(target):
            self.video.wait(target, self.memory.newest_ns)

    def _see(self, features: EmotionFeatures) -> None:
        admission = self._features.admit(features.stamp_ns)
        if admission is Admission.LATE:
            return
        if admission is Admission.RESTART:
            self.reset()
            self._features.admit(features.stamp_ns)
        self._frame_id = features.frame_id
        self._expressions.add(features)
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

    def _met(self, *, everything: bool = False) -> list[Case]:
        """The utterances whose video is here, or is waited for no longer."""
        everything = everything or not self.explainer.wants_video
        return [self._case(target) for target in self.video.met(self.memory.newest_ns, everything=everything)]

    def _settled(self, *, everything: bool = False) -> list[Case]:
        """Explain the changes of faces that have waited long enough."""
        due_ns = self.memory.newest_ns - round(self.config.settle_s * NS_PER_S)
        due = [e for e in self._pending.values() if everything or e.start_ns <= due_ns]
        found = []
        for event in due:
            del self._pending[event.key]
            target = target_of_event(event, self.memory.names())
            if target is not None and target.strength >= self.config.min_emotion and not self._is_told(target):
                found.append(self._case(target))
        return found

    def _is_told(self, target: Target) -> bool:
        """Whether the same emotion of this person was explained a moment ago; if not, it is now."""
        quiet_ns = round(self.config.quiet_s * NS_PER_S)
        who = target.speaker or str(target.track_id)
        if self.explainer.statements_only and target.utterance is not None:
            who += ", in words"  # what the face alone was explained by takes nothing from who explains words
        self._told = {k: v for k, v in self._told.items() if abs(target.onset_ns - v[1]) <= quiet_ns}
        if self._told.get(who, ("", 0))[0] == target.emotion:
            return True
        self._told[who] = (target.emotion, target.onset_ns)
        return False

    # -- explanations

    def ask(self, question: Question) -> Cause:
        """Answer a question; an abstention says what is not known. Raises ``ValueError`` for an emotion that is none."""
        found = self.case(question)
        return self.explainer(found) if isinstance(found, Case) else found

    def case(self, question: Question) -> Case | Cause:
        """What a question is about, or an abstention. Raises ``ValueError`` as :meth:`ask`."""
        found = self._asked(question)
        if isinstance(found, str):
            return self._abstention(found, question)
        if question.emotion:
            found = replace(found, emotion=_known(question.emotion), strength=1.0)
        if found.strength < self.config.min_emotion:
            least = self.config.min_emotion
            return self._abstention(
                f"no clear emotion there: {found.strength:.2f} is below {least:.2f}", question, found
            )
        return self._case(found)

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
        newest = max(clear or targets, key=lambda t: t.onset_ns, default=None)
        if newest is None:
            return nothing
        if not self.explainer.statements_only:
            return newest
        spoken = [t for t in clear if t.utterance is not None and t.end_ns >= newest.onset_ns - MOMENT_NS]
        return max(spoken, key=lambda t: t.onset_ns, default=newest)  # words that go with a face, which it can explain

    def _target(self, item: Item) -> Target | None:
        if isinstance(item, Utterance):
            return target_of_utterance(item, self.memory.items, self.memory.names(), self._reader)
        return target_of_event(item, self.memory.names())

    def _case(self, target: Target) -> Case:
        """Everything that may explain the target, ranked."""
        items, names = self.memory.items, self.memory.names()
        ranking = self._ranker(target, items, names, round(self.config.window_s * NS_PER_S))
        shown = self._shown(target)
        first = ranking.items[0] if ranking.items else None
        mismatch = mismatch_of(first, items, self._reader) if isinstance(first, Utterance) else None
        if mismatch is not None and mismatch == shown:
            mismatch = None
        ranked = list(zip(ranking.items, ranking.probabilities, strict=True))
        evidence = evidence_of(target, ranked, shown=shown, mismatch=mismatch, names=names)
        confidence = ranking.probabilities[0] if ranking.items else 0.0
        cause = self._blank(target, confidence)
        if first is None or ranking.abstains or confidence < self.config.min_confidence:
            cause = replace(cause, abstained=True, abstain_reason=self._reason(ranking))
        else:
            cause = replace(
                cause, text=realise(target, first, confidence, names=names, shown=shown, mismatch=mismatch),
                evidence_utterances=tuple(e.utterance_id for e in evidence if e.kind == "utterance"), evidence=evidence,
            )  # fmt: skip
            if self.config.weights == "random":  # of the networks, too, whose emotions came here
                reason = f"{RANDOM}; it would have said: {cause.text}"
                cause = replace(
                    cause, text="", evidence=(), evidence_utterances=(), abstained=True, abstain_reason=reason
                )
        who, words = name_of(target.track_id, target.speaker, names), target.utterance
        return Case(
            target, who, cause, evidence, self._history(target.onset_ns, names),
            Line(who, words.text, words.start_ns) if words is not None else None, self._faces(target, names),
            self.video.of(words.id) if words is not None else None,
        )  # fmt: skip

    def _said(self, before_ns: int) -> list[Utterance]:
        """Utterances that began before a moment, within the window, which begins at a whole number of its steps."""
        step_ns = round(self.config.window_s * HISTORY_STEP * NS_PER_S)
        since_ns = (before_ns - round(self.config.window_s * NS_PER_S)) // step_ns * step_ns
        said = (item for item in self.memory.items if isinstance(item, Utterance))
        return [item for item in said if item.start_ns < before_ns and item.end_ns >= since_ns]

    def _history(self, before_ns: int, names: dict[int, str]) -> tuple[Line, ...]:
        return tuple(Line(name_of(u.track_id, u.speaker, names), u.text, u.start_ns) for u in self._said(before_ns))

    def _faces(self, target: Target, names: dict[int, str]) -> tuple[ShownFace, ...]:
        """What the faces showed in the last utterances, one after the other, or in all of them as one."""
        said = [(u.start_ns, u.end_ns) for u in self._said(target.onset_ns)] + [(target.onset_ns, target.end_ns)]
        last = self.explainer.utterances_shown
        periods = said[-last:] if last else [(said[0][0], target.end_ns)]
        return tuple(
            ShownFace(name_of(track_id, "", names), emotion, mean)
            for start_ns, end_ns in periods
            for track_id, (emotion, mean) in self._expressions.between(start_ns, end_ns).items()
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


def _known(emotion: str) -> str:
    """The REP-155 name of an emotion, its own word where it has none. Raises ``ValueError`` for no emotion."""
    try:
        return rep155_or_none(emotion) or emotion.lower()
    except KeyError as error:
        raise ValueError(f"emotion: {error.args[0]}") from None


def make_cause_stage(config: CauseConfig, remembered: Sequence[Item] = ()) -> CauseStage:
    """The stage with the explainer of ``config.explainer``. Raises as :class:`CauseStage`."""
    return CauseStage(config, remembered)
