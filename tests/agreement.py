"""One caption, two ways: by the stages of the graph, and by ECPA itself on a clip that is prepared as for its training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="ECPA needs torch")
for package in ("transformers", "accelerate", "openpyxl", "av"):
    pytest.importorskip(package, reason="clips are prepared with what training needs")

from emo_models.checkpoints import load_weights  # noqa: E402
from emo_models.networks.ecpa.captions import CaptionTokenizer  # noqa: E402
from emo_models.networks.ecpa.pretrained import load_tokenizer  # noqa: E402
from emo_models.preprocess import normalise  # noqa: E402
from emo_models.weights import cache_dir  # noqa: E402
from emo_perception.config import CaptionConfig, Config  # noqa: E402
from emo_perception.perception import Chain  # noqa: E402
from emo_perception.stages.caption import make_writer  # noqa: E402
from emo_perception.types import Caption, EmotionFeatures, Frame  # noqa: E402
from training.datasets.record import Record, Span  # noqa: E402
from training.prepare.clips import prepare_clip  # noqa: E402
from training.prepare.faces import FaceTrack  # noqa: E402
from training.prepare.video import Video  # noqa: E402
from training.tasks.ecpa_data import NORM, clip_tensor  # noqa: E402

#: Nothing is withheld: what is compared are the words.
EVERYTHING = {"deadline_s": 0.0, "min_confidence": 0.0}

Points = dict[int, dict[int, NDArray[np.float32]]]
"""Track -> stamp -> the five points of the face."""


class Shown(Video):
    """Images that are in memory already."""

    def __init__(self, frames: Iterable[Frame]) -> None:
        super().__init__([])
        self._kept = list(frames)
        self._stamps = np.array([frame.stamp_ns for frame in self._kept], np.int64)


@dataclass
class Seen:
    """What the graph said of a stream: captions, and where its face stage saw whom."""

    captions: list[Caption] = field(default_factory=list)
    points: Points = field(default_factory=dict)

    def see(self, features: EmotionFeatures) -> None:
        """Note where the faces are."""
        for face in features.faces:
            self.points.setdefault(face.track.track_id, {})[features.stamp_ns] = face.track.points


class Stages:
    """The stages of the graph, nothing dropped and no deadline. Loaded once for any number of streams."""

    def __init__(self, configs: Mapping[str, Config]) -> None:
        caption = configs["caption"]
        assert isinstance(caption, CaptionConfig)
        self._chain = Chain(configs)
        self._writer = make_writer(caption.with_values(EVERYTHING))

    def __call__(self, frames: Iterable[Frame]) -> Seen:
        """A stream, with later stamps than the one before; nobody in it is known from there."""
        seen = Seen()
        self._writer.reset()
        for stage in (*self._chain.stages, self._chain.visual):
            if stage is not None:
                stage.reset()
        for item in self._chain.offline(frames):
            if isinstance(item, EmotionFeatures):
                seen.see(item)
            seen.captions += self._writer(item)
        seen.captions += self._writer.flush()
        return seen

    def close(self) -> None:
        """Free the engines."""
        self._chain.close()
        self._writer.close()


@dataclass(frozen=True)
class Model:
    """ECPA in eager fp32, with its words; ``face``: side of an aligned face in pixels."""

    network: Any
    tokens: CaptionTokenizer
    face: int

    @classmethod
    def of(cls, preset: str, face: int) -> Model:
        """From the weights in the cache."""
        folder = cache_dir() / preset
        network, _ = load_weights(folder / "ecpa.safetensors")
        tokenizer = load_tokenizer(str(folder / "ecpa" / "tokenizer"))
        return cls(network, CaptionTokenizer(tokenizer, network.config), face)

    def caption(self, frames: Sequence[Frame], points: Mapping[int, NDArray[np.float32]]) -> str:
        """``frames``: of one clip; ``points``: stamp -> the points of the person's face."""
        track = FaceTrack({n: points[f.stamp_ns] for n, f in enumerate(frames) if f.stamp_ns in points})
        config = self.network.config
        prepared = prepare_clip(
            Record("clip", "none", "test", None, flags=frozenset({"no-video"})), frames=config.frames, image_size=config.image_size, face_size=self.face,
            faces=_Known([track]), video=Shown(frames),
        )  # fmt: skip
        faces = torch.stack([torch.from_numpy(_normalised(face)) for face in prepared.faces])
        features = self.network.face_features(faces[None], torch.from_numpy(prepared.face_valid)[None])
        clip = clip_tensor(prepared.clip, config.image_size)
        return str(self.network.generate(clip[None], features, self.tokens)[0].text)


class _Known:
    producer: Mapping[str, str] = {}

    def __init__(self, people: list[FaceTrack]) -> None:
        self._people = people

    def __call__(self, record: Record, video: Video) -> list[FaceTrack]:
        return self._people

    def close(self) -> None:
        pass


def _normalised(face: NDArray[np.uint8]) -> NDArray[np.float32]:
    return normalise(face, NORM.mean, NORM.std)


def compare(seen: Seen, frames: Sequence[Frame], model: Model) -> list[tuple[str, str]]:
    """Each caption as the graph gave it, and as the model writes it of the same frames and the same face."""
    pairs = []
    for caption in seen.captions:
        if not caption.track_ids:
            continue  # nobody was in view
        shown = [f for f in frames if caption.window_start_ns <= f.stamp_ns <= caption.window_end_ns]
        (track,) = caption.track_ids
        pairs.append((said(caption), model.caption(shown, seen.points[track])))
    return pairs


def said(caption: Caption) -> str:
    """The words, also of an abstention that only tells that the weights are random."""
    return caption.text or caption.abstain_reason.partition("would have said: ")[2]


def frames_of(span: Span, begin_ns: int) -> list[Frame]:
    """The images of a video, as perception takes them; ``begin_ns``: stamp of the first."""
    return [replace(frame, stamp_ns=begin_ns + frame.stamp_ns) for frame in Video([span]).frames()]
