"""The chain of the perception process: window -> face -> emotion -> action units -> features; and window -> visual, speech."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import cv2

from emo_models.engines import describe
from emo_perception.config import (
    ActionUnitConfig,
    Config,
    ConfigError,
    EmotionConfig,
    FaceConfig,
    PerceptionConfig,
    SpeechConfig,
    VisualConfig,
)
from emo_perception.stages.action_units import FacesWithEmotions, make_action_unit_stage
from emo_perception.stages.emotion import FacesInFrame, make_emotion_stage
from emo_perception.stages.face import make_face_stage
from emo_perception.stages.speech import Segment, SpeechStage, sound_s
from emo_perception.stages.visual import make_visual_stage
from emo_perception.streaming.resample import Resampler
from emo_perception.streaming.scheduler import OfflineScheduler, Step
from emo_perception.streaming.timeline import Admission
from emo_perception.streaming.window import SlidingWindow
from emo_perception.types import (
    ActionUnits,
    AudioChunk,
    EmotionFeatures,
    Emotions,
    FaceActionUnits,
    FaceEmotion,
    FaceFeatures,
    Faces,
    FaceTrack,
    Frame,
    Utterance,
    VisualContext,
)

SPARE_S = 0.5
"""The window is so much longer than a clip, which is cut when its turn comes."""
SETTLE_S = 1.5
"""An utterance is told of at most so long after the pause that ends it: the sound comes in pieces, or has ended."""


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """One frame on its way through the chain; each step adds its part."""

    frame: Frame
    faces: Faces | None = None
    emotions: Emotions | None = None
    action_units: ActionUnits | None = None

    @property
    def stamp_ns(self) -> int:
        """Acquisition time of the frame."""
        return self.frame.stamp_ns


def join(observation: Observation, *, embeddings: bool = False) -> EmotionFeatures:
    """What is known of every face of a finished observation. All parts come from the same frame.

    ``embeddings``: also what learned models read of the faces.
    """
    faces, emotions, units = observation.faces, observation.emotions, observation.action_units
    if faces is None or emotions is None or units is None:
        raise ValueError("join: expected an observation that went through face, emotion and action_unit")
    emotion_of = {e.track_id: e for e in emotions.faces}
    units_of = {u.track_id: u for u in units.faces}
    joined = tuple(_face(f, units_of[f.track_id], emotion_of[f.track_id], embeddings) for f in faces.faces)
    return EmotionFeatures(faces.stamp_ns, faces.frame_id, faces.size_wh, joined, faces.expired)


def _face(track: FaceTrack, units: FaceActionUnits, emotion: FaceEmotion, embeddings: bool) -> FaceFeatures:
    return FaceFeatures(track, units, emotion, {**units.embeddings, **emotion.embeddings} if embeddings else {})


class Chain:
    """The stages of a profile, wired. ``configs``: one configuration per node name, as a profile gives them.

    Raises :class:`emo_models.weights.MissingWeights` or :class:`emo_models.engines.EngineError` when an engine cannot
    be loaded, :class:`emo_perception.config.ConfigError` where the configurations exclude each other; the message says
    what to do.
    """

    def __init__(self, configs: Mapping[str, Config]) -> None:
        perception, face, emotion, units = (
            _config(configs, kind) for kind in (PerceptionConfig, FaceConfig, EmotionConfig, ActionUnitConfig)
        )
        assert isinstance(perception, PerceptionConfig)
        visual = _config(configs, VisualConfig)
        visual.check(perception)
        _require_mesh(face, units)
        # Crops are small: waking OpenCV's helpers for them costs more than they do.
        cv2.setNumThreads(1)
        speech = _config(configs, SpeechConfig)
        heard_s = max(perception.window_s, sound_s(speech)) if speech.enabled else perception.window_s
        window_s = perception.window_s + (SPARE_S if visual.clips else 0.0)
        self.window = SlidingWindow(window_s, perception.window_fps, perception.jump_back_s, sound_s=heard_s)
        self._resampler = Resampler()
        self.face = make_face_stage(face)
        self.emotion = make_emotion_stage(emotion)
        self.action_unit = make_action_unit_stage(units)
        self.speech = SpeechStage(speech, self.window) if speech.enabled else None
        self.visual = make_visual_stage(visual, self.window, hold_s=speech.pause_s + SETTLE_S)
        self._embeddings = perception.embeddings
        self.stages = (self.face, self.emotion, self.action_unit)
        jump = perception.jump_back_s
        self.steps = (
            Step("face", self._faces, self.face.reset, jump_back_s=jump),
            Step("emotion", self._emotions, self.emotion.reset, jump_back_s=jump),
            Step("action_unit", self._action_units, self.action_unit.reset, jump_back_s=jump),
        )

    def engines(self) -> dict[str, dict[str, object]]:
        """Stage -> what its engine is: name, backend, version, precision, device, threads."""
        facts = {stage.name: stage.selection.facts() for stage in self.stages}
        if self.visual is not None:
            facts |= {f"visual.{name}": selection.facts() for name, selection in self.visual.selections.items()}
        return facts | ({"speech": describe(self.speech.engine)} if self.speech is not None else {})

    def warmup(self) -> None:
        """Run every shape once."""
        for stage in self._all():
            stage.warmup()

    def offline(self, frames: Iterable[Frame]) -> Iterator[EmotionFeatures | VisualContext]:
        """Every frame, in order, nothing dropped: the same frames give the same features and visual tokens.

        The features of a frame come before the tokens for which it was waited. What an utterance brings about at once
        is the answer of :meth:`utterance_ended`.
        """
        scheduler = OfflineScheduler(self.steps)
        for done in scheduler.run(Observation(frame) for frame in frames):
            yield self.join(done)
            if self.visual is not None:
                yield from self.visual(done.frame)
        if self.visual is not None:
            yield from self.visual.flush()

    def join(self, done: Observation) -> EmotionFeatures:
        """The features of a finished observation, with embeddings where the configuration asks for them."""
        return join(done, embeddings=self._embeddings)

    def hear(self, chunk: AudioChunk) -> list[Segment]:
        """Take sound of any rate in; returns the utterances that ended in it, for ``speech`` to understand.

        Raises ``ValueError`` for a rate that no microphone has.
        """
        sound = self._resampler(chunk)
        if not len(sound.samples):
            return []
        admission = self.window.add_audio(sound)
        if self.speech is None:
            return []
        if admission is Admission.RESTART:
            self.speech.reset()
        return self._ended(self.speech.listen())

    def hush(self) -> list[Segment]:
        """The sound has ended or paused: the utterance under way, if any, for ``speech`` to understand."""
        return self._ended(self.speech.flush()) if self.speech is not None else []

    def utterance_ended(self, utterance: Utterance) -> VisualContext | None:
        """What was seen until the end of an utterance, whoever understood it.

        None where that is not asked for, or where frames until then are still to come: then it follows one of them.
        """
        return self.visual.utterance_ended(utterance) if self.visual is not None else None

    def reset(self) -> None:
        """Another stream begins, at whatever time. Ids of faces go on, so that no two streams have one in common."""
        self.window.reset()
        self._resampler = Resampler()
        for step in self.steps:
            step.restart()
        for stage in (self.speech, self.visual):
            if stage is not None:
                stage.reset()

    def close(self) -> None:
        """Free the engines."""
        for stage in self._all():
            stage.close()

    def _all(self) -> tuple[Any, ...]:
        return (*self.stages, *(stage for stage in (self.speech, self.visual) if stage is not None))

    def _ended(self, segments: list[Segment]) -> list[Segment]:
        """Now, not when they are understood: by then more has been seen than belongs to them."""
        if self.visual is not None:
            for segment in segments:
                self.visual.voice_ended(segment.utterance_id, segment.end_ns)
        return segments

    def _faces(self, item: Observation) -> Observation:
        self.window.add_frame(item.frame)
        faces = self.face(item.frame)
        if self.speech is not None:
            self.speech.mouths.add(faces)
        return replace(item, faces=faces)

    def _emotions(self, item: Observation) -> Observation:
        assert item.faces is not None
        return replace(item, emotions=self.emotion(FacesInFrame(item.frame, item.faces)))

    def _action_units(self, item: Observation) -> Observation:
        assert item.faces is not None
        assert item.emotions is not None
        return replace(item, action_units=self.action_unit(FacesWithEmotions(item.frame, item.faces, item.emotions)))


def _require_mesh(face: FaceConfig, units: ActionUnitConfig) -> None:
    if face.detector == "scrfd" and units.network == "blendshapes":
        raise ConfigError(
            "action_unit.network: blendshapes needs the mesh of a face, and face.detector: scrfd gives none; set "
            "action_unit.network: anfl, or face.detector: auto"
        )


def _config(configs: Mapping[str, Config], kind: type[Any]) -> Any:
    return configs.get(kind.node, kind())
