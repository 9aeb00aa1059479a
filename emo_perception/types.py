"""What flows between the stages: frozen, typed, free of ROS.

Conventions, everywhere in this package:

* ``stamp_ns`` is the acquisition time of the data in integer nanoseconds (the ROS header stamp),
  never the wall clock of the computer that processes it.
* Images are RGB, ``uint8 [H, W, 3]``; pixel coordinates have their origin top left, x to the right, y down.
* Intensities, probabilities and confidences are in [0, 1]; angles are in radians.
* Arrays handed to a stage are read only by agreement: whoever needs another value makes a new array.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

NS_PER_S = 1_000_000_000

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)


class Stage(Protocol, Generic[In, Out]):
    """One step of the perception chain. A stage knows neither ROS nor threads.

    ``warmup`` runs every shape the stage will meet, so that the first real frame is not slow; ``__call__`` maps one
    input to one output and may keep state between calls (tracks, smoothing); ``reset`` forgets that state, as when
    time jumps back; ``close`` frees engines and is safe to call twice.
    """

    name: str

    def warmup(self) -> None: ...

    def __call__(self, item: In, /) -> Out: ...

    def reset(self) -> None: ...

    def close(self) -> None: ...


class Side(IntEnum):
    """Side of the face on which an action unit acts, from the subject's own view."""

    BOTH = 0
    LEFT = 1
    RIGHT = 2


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One image. ``image``: uint8 [H, W, 3] RGB; ``frame_id``: the optical frame of the camera (REP-105)."""

    stamp_ns: int
    image: NDArray[np.uint8]
    frame_id: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class AudioChunk:
    """A run of PCM. ``samples``: int16 [n], mono; ``stamp_ns``: acquisition time of the first sample."""

    stamp_ns: int
    samples: NDArray[np.int16]
    sample_rate_hz: int = 16_000
    frame_id: str = ""

    @property
    def end_ns(self) -> int:
        """Time just after the last sample."""
        return self.stamp_ns + len(self.samples) * NS_PER_S // self.sample_rate_hz


@dataclass(frozen=True, slots=True, eq=False)
class FaceTrack:
    """One tracked face in one image.

    ``box_xywh`` float32 [4] px, may reach outside the image; ``points`` float32 [5, 2] px: subject's right eye, left
    eye, nose tip, right and left mouth corner; ``landmarks`` float32 [P, 3] px (P = 478 for the start profile's mesh)
    or None; ``pose_ypr`` float32 [3] rad: yaw > 0 to the subject's left, pitch > 0 up, roll > 0 to the subject's right.
    """

    track_id: int
    confidence: float
    first_seen_ns: int
    box_xywh: NDArray[np.float32]
    points: NDArray[np.float32]
    pose_ypr: NDArray[np.float32]
    landmarks: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """All faces of one frame; ``expired`` names the tracks that ended with it. ``size_wh`` in pixels."""

    stamp_ns: int
    frame_id: str
    size_wh: tuple[int, int]
    faces: tuple[FaceTrack, ...] = ()
    expired: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class FaceActionUnits:
    """Action units of one face: ``au`` FACS numbers, ``side`` and ``intensity`` float32 [A] alongside.

    ``kind`` says what measured them (``blendshape``, ``anfl``); ``calibrated``: the intensity is relative to the
    track's own neutral face, not to the population's. ``embeddings``: see :class:`FaceFeatures`.
    """

    track_id: int
    kind: str
    au: tuple[int, ...]
    side: tuple[Side, ...]
    intensity: NDArray[np.float32]
    calibrated: bool = False
    embeddings: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class ActionUnits:
    """Action units of every face of one frame."""

    stamp_ns: int
    frame_id: str
    faces: tuple[FaceActionUnits, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class FaceEmotion:
    """Expression of one face: ``labels`` are REP-155 names, ``probabilities`` float32 [C] sums to 1.

    ``embeddings``: see :class:`FaceFeatures`.
    """

    track_id: int
    vocabulary: str
    labels: tuple[str, ...]
    probabilities: NDArray[np.float32]
    embeddings: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Emotions:
    """Expression of every face of one frame."""

    stamp_ns: int
    frame_id: str
    faces: tuple[FaceEmotion, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class FaceFeatures:
    """Everything known of one face in one frame.

    ``embeddings``: what the learned models read of the face, float32 and not smoothed: ``au_nodes`` [27, Da], ``au_scores``
    [27] and ``au_pooled`` [Da] of ANFL, ``er`` [De] of the expression network; empty where nobody reads them.
    """

    track: FaceTrack
    action_units: FaceActionUnits
    emotion: FaceEmotion
    embeddings: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class EmotionFeatures:
    """The join of faces, action units and emotions of one frame: what leaves the perception process."""

    stamp_ns: int
    frame_id: str
    size_wh: tuple[int, int]
    faces: tuple[FaceFeatures, ...] = ()
    expired: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class VisualContext:
    """Visual tokens of the frames in ``[window_start_ns, window_end_ns]``, as ``model`` (engine/preset) encoded them.

    ``tensors`` of a clip for captions: ``visual`` float32 [M, D], ``stamps`` int64 [T], its frames. Of the dialogue so
    far, for causes, with ``utterance_id`` set: ``rows`` float32 [n, D] and ``patches`` float32 [N, D] (R_t and R_s of
    FAME-Net), ``frames`` int64 [n], their numbers on its grid; ``picture`` uint8 [k], a JPEG, where that is switched on.
    """

    stamp_ns: int
    frame_id: str
    window_start_ns: int
    window_end_ns: int
    model: str
    tensors: Mapping[str, NDArray[Any]]
    utterance_id: str = ""


@dataclass(frozen=True, slots=True)
class WordEvidence:
    """What proves ``text[start:end]`` of a caption: an action unit (``au`` > 0), an emotion (``emotion`` set),
    or, with neither, the track itself ("comes into view").

    ``intensity``: peak of the AU or mean probability of the emotion; ``frames_ns``: stamps that show it, peak first;
    ``similarity``: cosine between word and AU prompt, NaN where the model has none.
    """

    start: int
    end: int
    track_id: int
    au: int = 0
    side: Side = Side.BOTH
    emotion: str = ""
    intensity: float = 0.0
    similarity: float = float("nan")
    frames_ns: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Caption:
    """One sentence about the window ``[window_start_ns, window_end_ns]``, or an abstention with its reason."""

    stamp_ns: int
    frame_id: str
    window_start_ns: int
    window_end_ns: int
    text: str
    track_ids: tuple[int, ...]
    emotion: str
    confidence: float
    evidence: tuple[WordEvidence, ...]
    model: str
    grounded: bool = True
    abstained: bool = False
    abstain_reason: str = ""


@dataclass(frozen=True, slots=True)
class Word:
    """A word and when it was said; ``confidence`` of the recogniser."""

    text: str
    start_ns: int
    end_ns: int
    confidence: float = 1.0


@dataclass(frozen=True, slots=True)
class Utterance:
    """What somebody said from ``start_ns`` to ``end_ns``.

    ``id`` is unique within a run; ``speaker`` is a name or empty, ``track_id`` the speaker's face or 0;
    ``language``: ISO 639-1.
    """

    id: str
    start_ns: int
    end_ns: int
    text: str
    speaker: str = ""
    track_id: int = 0
    language: str = ""
    confidence: float = 1.0
    words: tuple[Word, ...] = ()
    frame_id: str = ""

    @property
    def stamp_ns(self) -> int:
        """The end: only then the utterance is known."""
        return self.end_ns


@dataclass(frozen=True, slots=True)
class CauseEvidence:
    """One item that supports an explanation. ``kind``: utterance, face, event, contagion or mismatch; ``score`` in [0, 1]."""

    kind: str
    text: str
    utterance_id: str = ""
    track_id: int = 0
    au: int = 0
    score: float = 0.0
    start_ns: int = 0
    end_ns: int = 0


@dataclass(frozen=True, slots=True)
class Cause:
    """Why somebody shows an emotion, with the evidence; or an abstention with its reason.

    ``emotion`` (REP-155) of ``speaker`` (a name, may be empty) with the face ``track_id`` (0: unknown) is explained.
    ``target_utterance`` is empty when a change of the face is explained; ``evidence_utterances``: ids, best first.
    """

    stamp_ns: int
    frame_id: str
    text: str
    emotion: str
    track_id: int
    speaker: str
    target_utterance: str
    evidence_utterances: tuple[str, ...]
    evidence: tuple[CauseEvidence, ...]
    confidence: float
    model: str
    grounded: bool = True
    abstained: bool = False
    abstain_reason: str = ""
