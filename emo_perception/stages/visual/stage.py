"""Stage ``visual``: frames in, visual tokens out: of clips at a stride, and of the dialogue at an utterance's end."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from emo_models.engines.select import Selection
from emo_models.preprocess import Image, limit_width
from emo_perception.config import VisualConfig
from emo_perception.stages.visual.dialogue import Dialogue
from emo_perception.stages.visual.encoders import ClipEncoder, FrameEncoder
from emo_perception.streaming.timeline import Admission, Timeline
from emo_perception.streaming.window import SlidingWindow
from emo_perception.types import NS_PER_S, Frame, Utterance, VisualContext

HOLD_S = 2.0
"""An utterance that is told of so long after its end, in the time of the frames, is still cut where it ended."""
TOLERANCE_NS = NS_PER_S // 1000
"""Stamps that are rounded to a millisecond are due all the same."""
WAITING = 16
"""Utterances that may wait for the frames until their end; beyond that the oldest go, counted."""
FAR_NS = 2**62
PICTURE_WIDTH, PICTURE_QUALITY = 512, 80


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done with a frame: encode it as ``number`` of the dialogue, encode the ``clip`` that it ends."""

    number: int | None = None
    clip: bool = False


class VisualStage:
    """Frames in, in order; contexts out, each when all frames that belong to it have been seen.

    ``window`` must hold a frame before the stage sees it. One worker may call it; :meth:`voice_ended` and
    :meth:`utterance_ended` may come from any thread. ``hold_s``: see :data:`HOLD_S`.

    Raises :class:`emo_models.engines.EngineError` where an engine cannot be loaded.
    """

    name = "visual"

    def __init__(self, config: VisualConfig, window: SlidingWindow, hold_s: float = HOLD_S) -> None:
        self._config, self._window = config, window
        self._lock = threading.Lock()
        self._clips = ClipEncoder(config) if config.clips else None
        self._frames = FrameEncoder(config) if config.frames else None
        self._dialogue = Dialogue(self._frames.limit, config.rate_hz, hold_s) if self._frames is not None else None
        self._lost = self._skipped = 0
        self._since_ns = self._clip_ns = self._talk_ns = 0
        self.reset()

    # -- what it is

    @property
    def selections(self) -> dict[str, Selection]:
        """Engine -> how it was chosen."""
        return {e.manifest.network: e.selection for e in (self._clips, self._frames) if e is not None}

    def clip_counts(self) -> dict[str, object]:
        """For diagnostics: strides without a clip, since the network was slower or no frame came."""
        return {"clips_skipped": self._skipped}

    def dialogue_counts(self) -> dict[str, object]:
        """For diagnostics: the grid of the dialogue, and what was lost on the way."""
        counts: dict[str, object] = {"utterances_lost": self._lost}
        if self._dialogue is not None:
            video = self._dialogue.video
            counts |= {
                "grid_level": video.level, "frames_in_use": self._dialogue.frames,
                "snapshots_dropped": video.dropped_snapshots, "utterances_late": self._dialogue.late,
            }  # fmt: skip
        return counts

    # -- a frame

    def __call__(self, frame: Frame) -> list[VisualContext]:
        """All that is due at a frame."""
        due = self.due(frame)
        if due.number is not None:
            self.encode_frame(frame, due.number)
        clip = self.encode_clip(frame.stamp_ns) if due.clip else None
        return [*self.settle(), *([clip] if clip is not None else [])]

    def due(self, frame: Frame) -> Due:
        """First of the steps of a call: take note of a frame. A late one has nothing due."""
        with self._lock:
            admission = self._timeline.admit(frame.stamp_ns)
            if admission is Admission.LATE:
                return Due()
            if admission is Admission.RESTART:
                self._forget()
            if self._since_ns < 0:
                self._since_ns = frame.stamp_ns
            self._frame_id = frame.frame_id
            return Due(self._number(frame.stamp_ns), self._clips is not None and self._clip_due(frame.stamp_ns))

    def encode_frame(self, frame: Frame, number: int) -> None:
        """Second step, where the frame counts for the dialogue."""
        assert self._frames is not None
        assert self._dialogue is not None
        patches = self._frames(frame.image)
        with self._lock:
            self._dialogue.add(frame.stamp_ns, number, patches)

    def encode_clip(self, end_ns: int) -> VisualContext | None:
        """Third step, where a clip is due; None where it would be the last one again."""
        assert self._clips is not None
        start_ns = max(end_ns - round(self._config.window_s * NS_PER_S), self._since_ns)
        clip = self._window.sample(start_ns, end_ns, self._clips.frames)
        if not len(clip.stamps_ns) or clip.stamps_ns[-1] == self._clip_ns:
            return None
        first_ns, self._clip_ns = int(clip.stamps_ns[0]), int(clip.stamps_ns[-1])
        tensors: dict[str, NDArray[Any]] = {"visual": self._clips(list(clip.images)), "stamps": clip.stamps_ns}
        return VisualContext(self._clip_ns, self._frame_id, first_ns, self._clip_ns, self._clips.model, tensors)

    def settle(self) -> list[VisualContext]:
        """Last step: the contexts of utterances whose last frame has now been seen."""
        with self._lock:
            return self._settle(-1 if self._timeline.newest_ns is None else self._timeline.newest_ns)

    def flush(self) -> list[VisualContext]:
        """At the end of a stream: utterances that wait for frames which will not come, and the last clip.

        Until another frame comes, utterances need not wait any longer.
        """
        newest_ns = self._timeline.newest_ns
        clip = self.encode_clip(newest_ns) if self._clips is not None and newest_ns is not None else None
        with self._lock:
            return [*self._settle(FAR_NS), *([clip] if clip is not None else [])]

    # -- an utterance

    def voice_ended(self, utterance: str, end_ns: int) -> None:
        """A voice has paused: what was seen until ``end_ns`` is kept for the utterance of that id, if it becomes one."""
        with self._lock:
            if self._dialogue is not None:
                self._talk_ns = max(self._talk_ns, end_ns)
                self._ends.append((utterance, end_ns))
                self._keep()

    def utterance_ended(self, utterance: Utterance) -> VisualContext | None:
        """What was seen until the end of an utterance; None where frames until then are still to come.

        Then it is among the contexts of one of the next frames, or of :meth:`flush`.
        """
        with self._lock:
            if self._dialogue is None and not self._config.pictures:
                return None
            self._talk_ns = max(self._talk_ns, utterance.end_ns)
            if utterance.end_ns > self._seen_ns:
                self._utterances.append(utterance)
                if len(self._utterances) > WAITING:
                    self._utterances.popleft()
                    self._lost += 1
                return None
            return self._context(utterance)

    # -- life

    def warmup(self) -> None:
        """Run every shape of the engines once."""
        for encoder in (self._clips, self._frames):
            if encoder is not None:
                encoder.warmup()

    def reset(self) -> None:
        """Forget the stream: another one begins."""
        with self._lock:
            self._timeline = Timeline(self._window.jump_back_s)
            self._forget()

    def close(self) -> None:
        """Free the engines. Safe to call twice."""
        for encoder in (self._clips, self._frames):
            if encoder is not None:
                encoder.close()

    def _forget(self) -> None:
        if self._dialogue is not None:
            self._dialogue.reset()
        self._frame_id = ""
        self._seen_ns = -1  # until when everything has been encoded
        self._since_ns = self._clip_ns = -1  # of the first frame, and of the last one of the last clip
        self._talk_ns = -1  # when somebody last stopped talking, or the dialogue began
        self._due_ns: int | None = None
        self._ends: deque[tuple[str, int]] = deque(maxlen=WAITING)
        self._utterances: deque[Utterance] = deque()

    def _number(self, stamp_ns: int) -> int | None:
        """The frame's number in the dialogue, a new one after a long silence: else its grid would coarsen for ever."""
        if self._dialogue is None:
            return None
        if self._talk_ns < 0:
            self._talk_ns = stamp_ns
        if stamp_ns - self._talk_ns > self._config.quiet_s * NS_PER_S:
            self._dialogue.reset()
            self._talk_ns = stamp_ns
        return self._dialogue.number(stamp_ns)

    def _clip_due(self, stamp_ns: int) -> bool:
        """Every stride, in step; one that is overdue is made up for once."""
        stride_ns = round(self._config.stride_s * NS_PER_S)
        if self._due_ns is None:
            self._due_ns = stamp_ns + stride_ns
        if stamp_ns + TOLERANCE_NS < self._due_ns:
            return False
        self._skipped += (stamp_ns - self._due_ns) // stride_ns
        in_step = self._due_ns + stride_ns
        self._due_ns = in_step if in_step > stamp_ns else stamp_ns + stride_ns
        return True

    def _settle(self, seen_ns: int) -> list[VisualContext]:
        self._seen_ns = seen_ns
        self._keep()
        ready = [u for u in self._utterances if u.end_ns <= seen_ns]
        self._utterances = deque(u for u in self._utterances if u.end_ns > seen_ns)
        return [context for context in map(self._context, ready) if context is not None]

    def _keep(self) -> None:
        """Snapshots for the voices that have ended in what has been seen."""
        for utterance, end_ns in self._ends:
            if end_ns <= self._seen_ns and self._dialogue is not None:
                self._dialogue.end(utterance, end_ns)
        self._ends = deque((e for e in self._ends if e[1] > self._seen_ns), WAITING)

    def _context(self, utterance: Utterance) -> VisualContext | None:
        tensors: dict[str, NDArray[Any]] = {}
        start_ns = end_ns = utterance.end_ns
        seen = self._dialogue.end(utterance.id, end_ns) if self._dialogue is not None else None
        if seen is not None:
            start_ns, end_ns = seen.start_ns, seen.end_ns
            tensors |= {"rows": seen.rows, "patches": seen.patches, "frames": seen.frames}
        if self._config.pictures:
            newest = self._window.before(utterance.end_ns)
            if len(newest.images):
                tensors["picture"] = jpeg(newest.images[0])
        if not tensors:
            return None
        model = self._frames.model if self._frames is not None else "jpeg"
        return VisualContext(utterance.end_ns, self._frame_id, start_ns, end_ns, model, tensors, utterance.id)


def make_visual_stage(config: VisualConfig, window: SlidingWindow, hold_s: float = HOLD_S) -> VisualStage | None:
    """The stage, None where nobody asks for anything. Raises as :class:`VisualStage`."""
    return VisualStage(config, window, hold_s) if config.wanted else None


def jpeg(image: Image) -> NDArray[np.uint8]:
    """A small picture of an RGB image: uint8 [k], the bytes of a JPEG."""
    small, _ = limit_width(image, PICTURE_WIDTH)
    bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, PICTURE_QUALITY])
    return np.asarray(encoded, np.uint8).reshape(-1)
