"""A small ECPA of random weights that counts as trained, with words of its own, and clips and faces for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="ECPA needs torch")
pytest.importorskip("transformers", reason="ECPA's words are read with transformers")

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

from emo_models import create  # noqa: E402
from emo_models.checkpoints import NetworkCard, save_weights  # noqa: E402
from emo_models.labels import OPENGRAPHAU_MAIN  # noqa: E402
from emo_models.networks.ecpa.captions import CaptionTokenizer  # noqa: E402
from emo_models.networks.ecpa.vep import FaceFeatures as NetworkFaces  # noqa: E402
from emo_perception.types import (  # noqa: E402
    NS_PER_S,
    EmotionFeatures,
    FaceActionUnits,
    FaceEmotion,
    FaceFeatures,
    FaceTrack,
    Side,
    VisualContext,
)

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [
    "a", "the", "man", "woman", "with", "smiles", "frown", "deep", "sad", "happy", ",", ".", "and", "while", "looks", "open",
    "mouth", "raised", "eyebrows", "his", "her", "no", "chin", "angry",
]  # fmt: skip
FRAMES, SIZE, FRAME_NS = 4, 64, NS_PER_S // 10
START_NS = 1_700_000_000 * NS_PER_S


@dataclass(frozen=True)
class Caption:
    """The network, its words, and the folder with its weights as ``toy_engines`` takes them."""

    network: Any
    tokens: CaptionTokenizer
    folder: Path


def make(folder: Path) -> Caption:
    """Write weights and tokenizer into a folder."""
    torch.manual_seed(4)
    network = create("ecpa", "toy").eval()
    for parameter in network.trans_encoder.parameters():
        if parameter.ndim > 1:  # so that the next word depends on those before
            torch.nn.init.normal_(parameter, std=0.3)
    card = NetworkCard("ecpa", network.config.to_dict(), network.config.classes, {}, "none", ("nothing",))
    save_weights(network, folder / "ecpa.safetensors", card)
    vocabulary = [*SPECIALS, *WORDS]
    vocabulary += [f"word{number}" for number in range(len(vocabulary), network.config.words)]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pad, unknown, start, stop, mask = SPECIALS
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token=pad, unk_token=unknown, cls_token=start, sep_token=stop, mask_token=mask
    )
    tokenizer.save_pretrained(str(folder / "ecpa" / "tokenizer"))
    return Caption(network, CaptionTokenizer(tokenizer, network.config), folder)


@dataclass(frozen=True)
class Scene:
    """A clip, and people in it: features of their faces over its frames. ``begin_ns``: its first frame."""

    pixels: Any
    people: Sequence[NetworkFaces]
    begin_ns: int = START_NS

    @property
    def stamps(self) -> list[int]:
        return [self.begin_ns + index * FRAME_NS for index in range(FRAMES)]

    def later(self, seconds: float) -> Scene:
        return replace(self, begin_ns=self.begin_ns + round(seconds * NS_PER_S))

    def context(self, network: Any, **changed: Any) -> VisualContext:
        """The clip as perception sends it."""
        with torch.no_grad():
            visual = network.visual(self.pixels)[0].numpy()
        stamps = self.stamps
        made = VisualContext(stamps[-1], "camera", stamps[0], stamps[-1], "video_swin/toy",
                             {"visual": visual, "stamps": np.array(stamps)})  # fmt: skip
        return replace(made, **changed)

    def features(self, intensity: float = 0.9) -> list[EmotionFeatures]:
        """What perception says of each frame."""
        return [
            EmotionFeatures(stamp, "camera", (640, 480), tuple(self._faces(index, stamp, intensity)))
            for index, stamp in enumerate(self.stamps)
        ]

    def _faces(self, index: int, stamp: int, intensity: float) -> list[FaceFeatures]:
        faces = []
        for number, person in enumerate(self.people):
            if bool(person.valid[0, index]):
                embeddings = {
                    "au_nodes": person.au_nodes[0, index].numpy(), "au_scores": person.au_scores[0, index].numpy(),
                    "au_pooled": person.er[0, index].numpy(),
                }  # fmt: skip
                faces.append(face(number + 1, stamp, embeddings, size=200.0 - 30 * number, intensity=intensity))
        return faces


def face(
    track: int, stamp: int, embeddings: dict[str, Any], *, size: float = 100.0, intensity: float = 0.9
) -> FaceFeatures:
    """A face on which all units were measured with one intensity."""
    box = np.array([10, 10, size, size], np.float32)
    seen = FaceTrack(track, 0.9, stamp, box, np.zeros((5, 2), np.float32), np.zeros(3, np.float32))
    sides = (Side.BOTH,) * len(OPENGRAPHAU_MAIN)
    units = FaceActionUnits(track, "anfl", OPENGRAPHAU_MAIN, sides, np.full(len(sides), intensity, np.float32))
    emotion = FaceEmotion(track, "fer7", ("happy",), np.ones(1, np.float32))
    return FaceFeatures(seen, units, emotion, embeddings)


def scene(network: Any, seed: int, people: int = 1, *, absent: Sequence[int] = ()) -> Scene:
    """A random clip; ``absent``: frames without faces."""
    generator = torch.Generator().manual_seed(seed)
    width = network.au_net.config.dim

    def person() -> NetworkFaces:
        valid = torch.tensor([[index not in absent for index in range(FRAMES)]])
        there = valid[..., None]
        return NetworkFaces(
            torch.randn(1, FRAMES, width, generator=generator) * there,
            torch.randn(1, FRAMES, 27, width, generator=generator).abs() * there[..., None],
            torch.rand(1, FRAMES, 27, generator=generator) * there,
            valid,
        )

    pixels = torch.randn(1, 3, FRAMES, SIZE, SIZE, generator=generator)
    return Scene(pixels, [person() for _ in range(people)])


class SlowClock:
    """Seconds that pass only when it is looked at."""

    def __init__(self, step_s: float = 0.0) -> None:
        self.now_s, self.step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s
