"""ECPA on a stream: clips and faces in, a caption of each person out, checked, and in time.

A clip and the faces of its frames come on two topics without an order between them. A clip waits until the features have
reached its end; then one visual encoding serves everybody who was seen in it, and their captions are written together.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from emo_models.engines import EngineError
from emo_models.labels import OPENGRAPHAU_MAIN, rep155_or_none
from emo_perception.config import CaptionConfig, PerceptionConfig
from emo_perception.stages.caption.ring import FaceRing, Seen, network_inputs
from emo_perception.stages.caption.wording import emotion_evidence, standing_prefix, unproven
from emo_perception.stages.learned import RANDOM
from emo_perception.streaming.timeline import Admission, Timeline
from emo_perception.types import NS_PER_S, Caption, EmotionFeatures, VisualContext, WordEvidence

if TYPE_CHECKING:
    from emo_models.engines.caption_network import CaptionNetwork, Draft, Writing

#: Faces are kept so much longer than a clip: encoding it takes time, and so may its way.
SLACK_NS: Final = 10 * NS_PER_S
#: Clips that wait for features; a further one takes the place of the oldest, counted.
WAITING: Final = 4
#: Delays that percentiles are taken over.
RECENT: Final = 128


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """A visual context and when it has to be captioned at the latest, by the writer's clock (infinity: no limit)."""

    context: VisualContext
    arrived_s: float
    due_s: float
    stamps: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """Somebody seen in a clip: what was measured in each of its T frames, None where the face was not."""

    track_id: int
    row: tuple[Seen | None, ...]

    @property
    def size(self) -> float:
        """Large and long in view: the area of the face, summed over the frames."""
        return sum(seen.size for seen in self.row if seen is not None)


@dataclass(frozen=True, slots=True, eq=False)
class Sentence:
    """The caption of one person as far as it got; ``row``: whose it is among those written together."""

    clip: Clip
    person: Person
    writing: Writing
    row: int
    draft: Draft


class EcpaWriter:
    """A :class:`~.writer.CaptionWriter` over ECPA's engines.

    Each clip gives one caption for each of the ``max_people`` largest faces, or abstentions. Several are
    written together, word by word, at about the cost of one. ``deadline_s`` after its clip came the best finished
    beginning of a caption goes out, marked so in ``model``, or an abstention.

    A caption's ``confidence`` is the geometric mean of the probabilities of its words; its ``emotion`` the likeliest
    class of the prompts. It is grounded if each phrase that claims action units was measured on that person in the
    clip's window with at least ``min_intensity``.
    """

    name = "caption"
    visual = True

    def __init__(
        self, config: CaptionConfig, network: CaptionNetwork, partial: Callable[[Caption], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.config = config
        self._network, self._partial, self._clock = network, partial, clock
        self._model = f"ecpa/{network.preset}"
        self._counts = dict.fromkeys(
            ("clips", "clips_dropped", "cut", "too_late", "left_out", "frames_without_features", "restarts"), 0
        )
        self._delays_s: deque[float] = deque(maxlen=RECENT)
        self.reset()

    # The stage

    def warmup(self) -> None:
        self._network.warmup()

    def close(self) -> None:
        self._network.close()

    def reset(self) -> None:
        self._timeline = Timeline(PerceptionConfig().jump_back_s)
        self._forget()

    def facts(self) -> dict[str, object]:
        return {"model": self._model, **self._network.facts()}

    def counts(self) -> dict[str, object]:
        delays_ms = np.array(self._delays_s or [np.nan]) * 1e3
        p50, p95 = np.percentile(delays_ms, (50, 95)).tolist()
        return {**self._counts, "clips_waiting": len(self._clips), "delay_p50_ms": p50, "delay_p95_ms": p95}

    def __call__(self, item: EmotionFeatures | VisualContext, arrived_s: float | None = None, /) -> list[Caption]:
        if isinstance(item, EmotionFeatures):
            self._see(item)
        elif not item.utterance_id:  # else tokens of a dialogue
            self._wait_for(item, self._clock() if arrived_s is None else arrived_s)
        return self._serve()

    def idle(self) -> list[Caption]:
        return self._serve()

    def flush(self) -> list[Caption]:
        return self._serve(ended=True)

    def _forget(self) -> None:
        self._ring = FaceRing(round(self.config.window_s * NS_PER_S) + SLACK_NS)
        self._clips: list[Clip] = []
        self._reason = ""

    def _see(self, features: EmotionFeatures) -> None:
        admission = self._timeline.admit(features.stamp_ns)
        if admission is Admission.LATE:
            return
        if admission is Admission.RESTART:
            self._counts["restarts"] += 1
            self._forget()
        self._ring.add(features)

    # Clips

    def _wait_for(self, context: VisualContext, arrived_s: float) -> None:
        """Put a clip in its place. Raises :class:`EngineError` for one that the engines cannot read."""
        self._check(context)
        self._counts["clips"] += 1
        window_ns = context.window_end_ns - context.window_start_ns
        self._ring.keep_ns = max(self._ring.keep_ns, window_ns + SLACK_NS)
        due_s = arrived_s + self.config.deadline_s if self.config.deadline_s else float("inf")
        stamps = tuple(int(stamp) for stamp in context.tensors["stamps"])
        self._clips.append(Clip(context, arrived_s, due_s, stamps))
        self._clips.sort(key=lambda clip: clip.context.window_end_ns)
        if len(self._clips) > WAITING:
            self._counts["clips_dropped"] += 1
            del self._clips[0]

    def _check(self, context: VisualContext) -> None:
        network, tensors = self._network, context.tensors
        wanted = {"visual": tuple(network.visual_shape), "stamps": (network.frames,)}
        found = {name: tuple(tensors[name].shape) for name in wanted if name in tensors}
        if found != wanted:
            raise EngineError(
                f"the clips of {context.model or 'perception'} are not those that the caption network ({self._model}) reads: "
                f"expected {_shapes(wanted)}, got {_shapes(found)}; give the nodes visual and caption the same preset "
                "and engines of the same weights"
            )

    def _serve(self, *, ended: bool = False) -> list[Caption]:
        """Captions of the clips whose features have come, and abstentions for those that waited too long."""
        said: list[Caption] = []
        newest_ns = self._ring.newest_ns
        for clip in list(self._clips):
            complete = ended or (newest_ns is not None and newest_ns >= clip.context.window_end_ns)
            if complete or self._clock() >= clip.due_s:
                self._clips.remove(clip)
                said += self._caption(clip, complete=complete)
        return said

    def _caption(self, clip: Clip, *, complete: bool) -> list[Caption]:
        """The captions of one clip. Raises :class:`EngineError` for faces that the engines cannot read."""
        rows = self._ring.at(clip.stamps)
        people = _people(rows)
        self._counts["frames_without_features"] += rows.count(None)
        if not any(row is not None for row in rows):
            why = "yet" if not complete else "at all: are perception.features_every 1 and its frames not dropped?"
            return self._abstain_once(clip, "features", f"no features of the clip's frames came {why}")
        if not people:
            return self._abstain_once(clip, "face", "no face in view")
        self._reason = ""
        self._counts["left_out"] += max(0, len(people) - self.config.max_people)
        chosen = people[: self.config.max_people]
        inputs = [self._inputs(person) for person in chosen]
        said: list[Caption] = []
        for start in range(0, len(chosen), self._network.together):
            if self._clock() >= clip.due_s:
                said += [self._too_late(clip, person, "no word was decided") for person in chosen[start:]]
                break
            group = slice(start, start + self._network.together)
            said += self._write(clip, chosen[group], inputs[group])
        self._delays_s.append(self._clock() - clip.arrived_s)
        return said

    def _inputs(self, person: Person) -> dict[str, NDArray[Any]]:
        network = self._network
        er = "au_pooled" if network.er_source == "au_trunk" else "er"
        wanted = {"au_nodes": (len(OPENGRAPHAU_MAIN), network.au_width), "au_scores": (len(OPENGRAPHAU_MAIN),),
                  er: (network.er_width,)}  # fmt: skip
        for seen in person.row:
            if seen is None:
                continue
            found = {name: tuple(seen.embeddings[name].shape) for name in wanted if name in seen.embeddings}
            if found != wanted:
                raise EngineError(
                    f"the features of a face are not those that the caption network ({self._model}) reads: "
                    f"expected {_shapes(wanted)}, got {_shapes(found)}; {self._remedy(er)}"
                )
        return network_inputs(
            person.row, er=er, widths=(network.er_width, network.au_width), units=len(OPENGRAPHAU_MAIN)
        )

    def _remedy(self, er: str) -> str:
        expression = "" if er == "au_pooled" else f", emotion.network: {self._network.er_source}"
        return (
            f"set perception.embeddings: true, action_unit.network: anfl{expression}, and the same preset "
            f"({self._network.preset}) for all of them"
        )

    # Words

    def _write(
        self, clip: Clip, people: Sequence[Person], inputs: Sequence[Mapping[str, NDArray[Any]]]
    ) -> list[Caption]:
        writing = self._network.begin(np.array(clip.context.tensors["visual"], np.float32), inputs)
        drafts: list[Draft] = []
        told = [""] * len(people)
        for drafts in writing.words():
            for index, draft in enumerate(drafts):
                if draft.decided != told[index]:
                    told[index] = draft.decided
                    self._tell(clip, people[index], draft)
            if self._clock() >= clip.due_s:
                break
        return [self._finish(Sentence(clip, people[row], writing, row, draft)) for row, draft in enumerate(drafts)]

    def _tell(self, clip: Clip, person: Person, draft: Draft) -> None:
        """Let the listener hear the words so far, which nobody has checked."""
        if self._partial is None:
            return
        words = self._made(clip, (person.track_id,), text=draft.decided, confidence=draft.probability, grounded=False)
        self._partial(self._marked(clip, words))

    def _finish(self, sentence: Sentence) -> Caption:
        clip, person, draft = sentence.clip, sentence.person, sentence.draft
        text, model = draft.text, self._model
        if not draft.finished:
            text, model = standing_prefix(draft.decided, self._network.lexicon.stop), f"{model}, cut at the deadline"
            if not text:
                return self._too_late(clip, person, f"only begun: {draft.decided!r}")
            self._counts["cut"] += 1
        if not text.strip():
            return self._abstention(clip, (person.track_id,), "the network wrote no word", draft.probability)
        emotions, context = sentence.writing.emotions[sentence.row], clip.context
        peaks = self._ring.peaks(person.track_id, context.window_start_ns, context.window_end_ns)
        caption = self._made(
            clip, (person.track_id,), text=text, model=model, confidence=draft.probability,
            emotion=rep155_or_none(max(emotions, key=lambda name: emotions[name])) or "",
            grounded=not unproven(text, self._network.lexicon, peaks, self.config.min_intensity),
            evidence=self._evidence(sentence, text),
        )  # fmt: skip
        caption = self._marked(clip, caption)
        if not caption.abstained and caption.confidence < self.config.min_confidence:
            least = self.config.min_confidence
            reason = f"too unsure of its words: confidence {caption.confidence:.2f} is below {least:.2f}"
            return self._abstention(clip, caption.track_ids, reason, caption.confidence)
        return caption

    def _evidence(self, sentence: Sentence, text: str) -> tuple[WordEvidence, ...]:
        clip, person, row = sentence.clip, sentence.person, sentence.row
        found = [
            WordEvidence(
                one.start, one.end, person.track_id, au=one.au, intensity=one.intensity, similarity=one.similarity,
                frames_ns=tuple(dict.fromkeys(clip.stamps[index] for index in one.peak_frames)),
            )
            for one in sentence.writing.evidence(row, sentence.draft, text)
        ]  # fmt: skip
        seen_ns = dict.fromkeys(ns for ns, seen in zip(clip.stamps, person.row, strict=True) if seen is not None)
        found += emotion_evidence(text, person.track_id, sentence.writing.emotions[row], seen_ns)
        return tuple(sorted(found, key=lambda one: (one.start, one.end, one.au)))

    # What goes out

    def _made(self, clip: Clip, track_ids: tuple[int, ...], *, text: str = "", emotion: str = "", confidence: float = 0.0,
              evidence: tuple[WordEvidence, ...] = (), model: str = "", grounded: bool = True, reason: str = "") -> Caption:  # fmt: skip
        context = clip.context
        return Caption(
            stamp_ns=context.window_end_ns, frame_id=context.frame_id, window_start_ns=context.window_start_ns,
            window_end_ns=context.window_end_ns, text=text, track_ids=track_ids, emotion=emotion, confidence=confidence,
            evidence=evidence, model=model or self._model, grounded=grounded, abstained=bool(reason), abstain_reason=reason,
        )  # fmt: skip

    def _abstention(self, clip: Clip, track_ids: tuple[int, ...], reason: str, confidence: float = 0.0) -> Caption:
        invalid = f"{RANDOM}; " if self._invalid(clip) else ""
        return self._made(clip, track_ids, confidence=confidence, reason=invalid + reason)

    def _abstain_once(self, clip: Clip, kind: str, reason: str) -> list[Caption]:
        """Say why nothing is said, once for each kind of reason until somebody is captioned."""
        if kind == self._reason:
            return []
        self._reason = kind
        return [self._abstention(clip, (), reason)]

    def _too_late(self, clip: Clip, person: Person, how_far: str) -> Caption:
        self._counts["too_late"] += 1
        reason = f"not finished within the deadline of {self.config.deadline_s:g} s: {how_far}"
        return self._abstention(clip, (person.track_id,), reason)

    def _invalid(self, clip: Clip) -> bool:
        return self._network.random or "random" in clip.context.model

    def _marked(self, clip: Clip, caption: Caption) -> Caption:
        """What random weights say is never a caption."""
        if not self._invalid(clip):
            return caption
        reason = f"{RANDOM}; would have said: {caption.text}"
        return replace(caption, text="", emotion="", evidence=(), abstained=True, abstain_reason=reason)


def _people(rows: Sequence[Mapping[int, Seen] | None]) -> list[Person]:
    """Everybody in these frames, the largest and longest in view first."""
    tracks = sorted({track for row in rows if row is not None for track in row})
    people = [Person(track, tuple(None if row is None else row.get(track) for row in rows)) for track in tracks]
    return sorted(people, key=lambda person: (-person.size, person.track_id))


def _shapes(tensors: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in tensors.items()) or "none of them"
