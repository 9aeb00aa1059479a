"""The start caption stage: evidence in, a grounded sentence or an abstention out, nothing twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from emo_perception.config import CaptionConfig, PerceptionConfig
from emo_perception.stages.caption import evidence
from emo_perception.stages.caption.content import (
    Account,
    Action,
    Feeling,
    Proof,
    Told,
    actions_of,
    confidence_of,
    feeling_of,
    remember,
    with_news,
)
from emo_perception.stages.caption.evidence import History, Person
from emo_perception.stages.caption.lexicon import is_grounded
from emo_perception.stages.caption.realiser import places, realise
from emo_perception.streaming.timeline import Admission, Timeline
from emo_perception.types import NS_PER_S, Caption, EmotionFeatures

MODEL: Final = "grounded-realiser"
#: Seen for less than this, a person is not described; unseen for GONE_NS or expired, a person has left.
LEAST_SEEN_NS: Final = NS_PER_S // 2
GONE_NS: Final = NS_PER_S
#: Who appears this long after the first frame has come into view; before, the person was simply there.
ARRIVAL_NS: Final = NS_PER_S
#: After a gap in the stream longer than this and than the window, nothing is known of what went on.
BLIND_NS: Final = 2 * NS_PER_S
#: Phrases of one person: alone in the sentence, and beside others.
PHRASES_ALONE: Final = 3
PHRASES_BESIDE: Final = 2
#: A frame period is no whole number of nanoseconds: what was seen for "0.5 s" may be a little less.
TOLERANCE_NS: Final = NS_PER_S // 1000


@dataclass
class _Memory:
    """What has been published; bounded by the people within the window."""

    told: dict[int, Told] = field(default_factory=dict)
    others: int = 0
    reason_class: str = ""
    clear_ns: int | None = None


class CaptionStage:
    """Emotion features, in order of their stamps -> a caption, an abstention, or None while there is no news.

    Every ``stride_s`` of stamp time the window of ``window_s`` is described if its content (movements, emotions,
    people) has news; the same content is not said twice, however long it lasts. A frame that is not newer than the
    newest is ignored; one that is far older (a looped bag), or comes after a gap longer than the window, makes the stage forget
    everything first.
    """

    name = "caption"

    def __init__(self, config: CaptionConfig) -> None:
        self.config = config
        self.reset()

    def warmup(self) -> None:
        """Nothing to warm: no engine runs here."""

    def close(self) -> None:
        """Nothing to free."""

    def reset(self) -> None:
        """Forget what was seen and what was said."""
        self._timeline = Timeline(PerceptionConfig().jump_back_s)
        self._forget()

    def _forget(self) -> None:
        self._history = History(round(self.config.window_s * NS_PER_S), self.config.min_intensity)
        self._memory = _Memory()
        self._due_ns: int | None = None

    def __call__(self, item: EmotionFeatures) -> Caption | None:
        admission = self._timeline.admit(item.stamp_ns)
        if admission is Admission.LATE:
            return None
        if admission is Admission.RESTART:
            self._forget()
        if self._blind_ns(item.stamp_ns) > max(self._history.window_ns, BLIND_NS):
            self._forget()
        self._history.add(item)
        stride_ns = round(self.config.stride_s * NS_PER_S)
        if self._due_ns is None:
            self._due_ns = item.stamp_ns + stride_ns
        if item.stamp_ns + TOLERANCE_NS < self._due_ns:
            return None
        in_step = self._due_ns + stride_ns
        self._due_ns = in_step if in_step > item.stamp_ns else item.stamp_ns + stride_ns
        return self._report(ending=False)

    def _blind_ns(self, stamp_ns: int) -> int:
        return 0 if self._history.first_ns is None else stamp_ns - self._history.last_ns

    def flush(self) -> Caption | None:
        """At the end of a stream: what the last window has that was not yet said; None without news."""
        return None if self._history.first_ns is None else self._report(ending=True)

    def _report(self, *, ending: bool) -> Caption | None:
        people = self._history.people
        present = [p for p in people if not self._gone(p)]
        leaving = [p for p in people if self._gone(p) and self._told(p).present]
        seen = [p for p in present if p.seen_ns + TOLERANCE_NS >= LEAST_SEEN_NS and p.samples]
        place = _places(seen)
        if leaving:  # who was there together is told apart together; a newcomer only from those who are there now
            left_ns = min(p.last_ns for p in leaving)
            place |= _places([p for p in seen if p.first_ns <= left_ns] + leaving)
        several = len(seen) > 1
        accounts = [self._account(p, place[p.track_id], several=several) for p in seen]
        sure = [a for a in accounts if a.confidence >= self.config.min_confidence and a.says_something]
        news = sorted((a for a in sure if a.news), key=lambda a: (-a.expressiveness, a.track_id))
        said = [self._leave(p, place[p.track_id]) for p in leaving] + news[: self.config.max_people]
        self._remove_gone()
        if said:
            others = len(seen) - self.config.max_people if len(news) > self.config.max_people else 0
            return self._say(said, len(seen) + len(leaving), others)
        if sure:
            self._memory.clear_ns = self._history.last_ns
            return None
        if present and not seen and not ending:
            return None  # the next report will know more of a face that has just appeared
        return self._abstain(present, accounts)

    # -- people

    def _told(self, person: Person) -> Told:
        return self._memory.told.setdefault(person.track_id, Told())

    def _gone(self, person: Person) -> bool:
        return person.ended or self._history.last_ns - person.last_ns >= GONE_NS

    def _remove_gone(self) -> None:
        self._history.people = [p for p in self._history.people if not self._gone(p)]
        present = {p.track_id for p in self._history.people}
        self._memory.told = {k: v for k, v in self._memory.told.items() if k in present}

    def _leave(self, person: Person, place: str) -> Account:
        x, _, w, _ = person.box_xywh
        at_edge = x < w / 2 or x + w > self._history.size_wh[0] - w / 2
        proof = Proof(person.track_id, person.confidence, (person.last_ns,))
        return Account(person.track_id, person.confidence, leaves=proof, at_edge=at_edge, place=place, x=x)

    def _account(self, person: Person, place: str, *, several: bool) -> Account:
        history, told = self._history, self._told(person)
        start_ns = history.window_start_ns
        actions = with_news(actions_of(person, start_ns, self.config.min_intensity), told)
        feeling = feeling_of(person, told, start_ns, actions)
        chosen = _chosen(actions, feeling, PHRASES_BESIDE if several else PHRASES_ALONE, person.last_ns)
        arrives = None
        if not told.present and history.first_ns is not None and person.first_ns >= history.first_ns + ARRIVAL_NS:
            frames = tuple(s.stamp_ns for s in person.samples)[: evidence.PROOF_FRAMES]
            arrives = Proof(person.track_id, person.confidence, frames)
        confidence = confidence_of(person, chosen, feeling)
        if arrives and confidence < self.config.min_confidence:
            chosen, feeling = (), None
            confidence = confidence_of(person, chosen, feeling)
        return Account(person.track_id, confidence, chosen, feeling, arrives=arrives, place=place, x=person.box_xywh[0])

    # -- what is published

    def _say(self, accounts: list[Account], in_view: int, others: int) -> Caption:
        memory = self._memory
        text, proofs = realise(accounts, in_view=in_view, others=0 if others == memory.others else others)
        memory.others, memory.reason_class, memory.clear_ns = others, "", self._history.last_ns
        for account in accounts:
            if account.leaves is None:
                remember(memory.told[account.track_id], account)
        feeling = accounts[0].feeling
        return Caption(
            stamp_ns=self._history.last_ns,
            frame_id=self._history.frame_id,
            window_start_ns=self._history.window_start_ns,
            window_end_ns=self._history.last_ns,
            text=text,
            track_ids=tuple(a.track_id for a in accounts),
            emotion=feeling.names[0] if feeling else "",
            confidence=min(a.confidence for a in accounts),
            evidence=proofs,
            model=MODEL,
            grounded=is_grounded(text, proofs),
        )

    def _abstain(self, present: list[Person], accounts: list[Account]) -> Caption | None:
        """Say why nothing is said, once per kind of reason; a face that was described may be unclear for a window."""
        memory, history = self._memory, self._history
        kind, reason = self._reason(present, accounts)
        waiting = memory.clear_ns is not None and history.last_ns - memory.clear_ns < history.window_ns
        if kind == memory.reason_class or (waiting and kind in ("unclear", "unsure")):
            return None
        memory.reason_class = kind
        for told in memory.told.values():
            told.feeling = ()
        return Caption(
            stamp_ns=history.last_ns,
            frame_id=history.frame_id,
            window_start_ns=history.window_start_ns,
            window_end_ns=history.last_ns,
            text="",
            track_ids=tuple(p.track_id for p in present),
            emotion="",
            confidence=max(
                (a.confidence for a in accounts if a.actions or a.feeling), default=0.0
            ),  # of what is not said
            evidence=(),
            model=MODEL,
            abstained=True,
            abstain_reason=reason,
        )

    def _reason(self, present: list[Person], accounts: list[Account]) -> tuple[str, str]:
        """The kind of the reason to abstain, and the reason for people."""
        if not present:
            return "no face", "no face in view"
        one = len(present) == 1
        if not accounts:
            longest_s = max(p.seen_ns for p in present) / NS_PER_S
            return "short", f"{'the face was' if one else 'the faces were'} seen for only {longest_s:.1f} s"
        best = max(accounts, key=lambda a: (a.confidence if a.actions or a.feeling else 0.0, -a.track_id))
        if best.actions or best.feeling:
            least = self.config.min_confidence
            return "unsure", f"too unsure of the expression: confidence {best.confidence:.2f} is below {least:.2f}"
        person = next(p for p in present if p.track_id == best.track_id)
        probabilities, _ = person.mean_probabilities(self._history.window_start_ns, person.last_ns)
        ranked = sorted(probabilities.items(), key=lambda item: (-item[1], item[0]))[:2]
        shown = ", ".join(f"{name} {p:.2f}" for name, p in ranked)
        who = "the face shows" if one else "the faces show"
        return "unclear", f"{who} no clear expression" + (f": {shown}" if one and shown else "")


def _places(people: list[Person]) -> dict[int, str]:
    boxes = [p.box_xywh for p in people]
    named = places([(x + w / 2, y + h / 2) for x, y, w, h in boxes], [w for _, _, w, _ in boxes]) if boxes else []
    return {p.track_id: place for p, place in zip(people, named, strict=True)}


def _chosen(actions: list[Action], feeling: Feeling | None, limit: int, now_ns: int) -> tuple[Action, ...]:
    """The strongest news, and what was told before as far as it leads up to the news and there is room."""
    news = sorted((a for a in actions if a.news), key=lambda a: -a.peak)[:limit]
    before = [a for a in actions if not a.news]
    if news:
        first_ns = min(a.onset_ns for a in news)
        before = [a for a in before if a.onset_ns <= first_ns][-1:]
    elif feeling is not None and feeling.mode == "keep":
        before = []
    elif feeling is not None and feeling.news:
        before = [a for a in before if a.end_ns >= now_ns - LEAST_SEEN_NS]
    kept = before[-(limit - len(news)) :] if len(news) < limit else []
    return tuple(sorted(news + kept, key=lambda a: (a.onset_ns, -a.peak)))
