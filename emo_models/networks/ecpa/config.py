"""Options of ECPA: one field per decision that the paper leaves open, contradicts or ablates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from emo_models.labels import OPENGRAPHAU_EXCLUDED, VOCABULARIES
from emo_models.networks.config import NetworkConfig

#: Text encoder -> vocabulary size, then the ids of start, stop, padding and [MASK] in the published tokenizers. Only
#: BERT has a [MASK]; the others get one behind their last word, which is a learned vector and never generated.
TEXT_VOCABULARIES: Final[dict[str, tuple[int, tuple[int, int, int, int]]]] = {
    "bert": (30522, (101, 102, 0, 103)),
    "clip": (49408, (49406, 49407, 49407, 49408)),
    "t5": (32128, (0, 1, 0, 32128)),
    "gpt2": (50257, (50256, 50256, 50256, 50257)),
}

_TOY: Final = {
    "visual_preset": "toy", "frames": 4, "image_size": 64, "visual_width": 48,
    "text_preset": "toy", "text_length": 24, "vocab_size": 256, "special_ids": (2, 3, 0, 4),
    "hidden": 64, "layers": 2, "heads": 4, "feed_forward": 128, "positions": 64,
    "er_source": "au_trunk", "er_preset": "toy", "au_preset": "toy",
}  # fmt: skip


@dataclass(frozen=True)
class EcpaConfig(NetworkConfig):
    """Everything that :class:`~emo_models.networks.ecpa.model.ECPA` can be told.

    Visual encoder (F_V): ``visual`` and its ``visual_preset``, empty for Video Swin Base or CLIP ViT-L/14; ``frames``
    T; ``image_size`` px; ``visual_width``: width between ``fc`` and the image embedding. ``visual_tokens``: false writes
    captions from the prompts alone (Table V without its baseline). ``freeze_visual``, ``freeze_text``: the lower half of
    Table VII.

    Text encoder (F_T): ``text`` and, except for BERT, whose embedding layer the fusion holds, its ``text_preset``;
    ``text_length`` L. ``vocab_size`` 0 and empty ``special_ids`` mean those of the published tokenizer.

    Fusion (Eq. 13): ``fusion`` is ``bert``, or ``encoder_decoder`` for the plain Transformer of Tables VIII and IX;
    ``learned_sparse``: SwinBERT's learned mask.

    Prompts: ``er_prompt``, ``au_prompt`` (VEP, Eq. 4 and 5), ``class_prompt`` (TEP, Eq. 6). ``er_source``: which frozen
    network yields the ER features (``au_trunk``: at no further cost, by the shared features of the AU network);
    ``top_k``: K; ``au_pool``: K units of the clip, or of each of ``au_frames`` frames; ``au_exclude``: FACS numbers
    that are never selected (11, for the published weights confuse it with 12); ``au_identity``: adds a learned
    embedding of the unit. ``class_token_grad``: lets the captioning loss reach the classifier through the class token.
    ``text_dropout``: share of training captions hidden from the classifier; ``sentence_feature``: h_t is the [CLS] row
    of a second run of the fusion, or the mean of F_T.

    Alignment: ``pair_labels`` of Eq. 11 (``self`` is the paper's letter), ``match_threshold`` T_C, ``margin`` m.
    ``loss_mode``: ``dwa`` is Eq. 15-16, ``fixed`` (ER 0, AU 0.6, MLM 1) and ``mlm_only`` what the released script does.
    ``mask_rate``: share of masked words (Eq. 7). ``vocabulary``: names of the emotion classes, C of them.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "fast": {"visual_preset": "tiny", "er_source": "au_trunk"},
        "toy": _TOY,
        "swinbert": {"er_prompt": False, "au_prompt": False, "class_prompt": False, "loss_mode": "mlm_only"},
        "transformer": {
            "er_prompt": False, "au_prompt": False, "class_prompt": False, "loss_mode": "mlm_only",
            "fusion": "encoder_decoder", "hidden": 512, "layers": 6, "heads": 8, "feed_forward": 2048,
        },
    }  # fmt: skip

    visual: str = "video_swin"
    visual_preset: str = ""
    frames: int = 8
    image_size: int = 224
    visual_width: int = 512
    visual_tokens: bool = True
    freeze_visual: bool = False

    text: str = "bert"
    text_preset: str = "paper"
    text_length: int = 50
    vocab_size: int = 0
    special_ids: tuple[int, ...] = ()
    freeze_text: bool = False

    fusion: str = "bert"
    hidden: int = 768
    layers: int = 12
    heads: int = 12
    feed_forward: int = 3072
    positions: int = 512
    dropout: float = 0.1
    learned_sparse: bool = False

    er_prompt: bool = True
    au_prompt: bool = True
    class_prompt: bool = True
    er_source: str = "er_resnet"
    er_preset: str = "paper"
    au_preset: str = "resnet50"
    top_k: int = 3
    au_pool: str = "clip"
    au_frames: int = 3
    au_exclude: tuple[int, ...] = OPENGRAPHAU_EXCLUDED
    au_identity: bool = False
    vocabulary: str = "mafw11"
    text_dropout: float = 0.5
    sentence_feature: str = "cls"
    class_token_grad: bool = False

    pair_labels: str = "lexicon+self"
    match_threshold: float = 0.3
    margin: float = 0.5
    loss_mode: str = "dwa"
    mask_rate: float = 0.5

    def __post_init__(self) -> None:
        self._require("visual", ("video_swin", "clip"))
        self._require("text", tuple(TEXT_VOCABULARIES))
        self._require("text_preset", ("paper", "toy"))
        self._require("fusion", ("bert", "encoder_decoder"))
        self._require("er_source", ("er_resnet", "au_trunk", "ddamfn"))
        # All 27 main units: the prompts name units by their place among these.
        self._require("au_preset", ("resnet50", "paper", "swin_tiny", "fast", "toy"))
        self._require("au_pool", ("clip", "per_frame"))
        self._require("sentence_feature", ("cls", "mean"))
        self._require("pair_labels", ("self", "lexicon", "lexicon+self"))
        self._require("loss_mode", ("dwa", "fixed", "mlm_only"))
        self._require("vocabulary", tuple(VOCABULARIES))
        if len(self.special_ids) not in {0, 4}:
            raise ValueError(f"EcpaConfig.special_ids needs start, stop, padding, [MASK]; got {self.special_ids}")
        if self.class_prompt and not self.er_prompt:
            raise ValueError(
                "EcpaConfig.class_prompt needs er_prompt: the class is recognised from P_ER; set er_prompt"
            )
        if not (self.visual_tokens or self.er_prompt or self.au_prompt):
            raise ValueError("EcpaConfig.visual_tokens is false and there are no prompts: nothing to write from")
        if not self.visual_tokens and self.learned_sparse:
            raise ValueError("EcpaConfig.learned_sparse is a mask among visual tokens; set visual_tokens")
        if self.fusion == "encoder_decoder" and (self.er_prompt or self.au_prompt or self.text != "bert"):
            raise ValueError(
                "EcpaConfig.fusion 'encoder_decoder' is the baseline without prompts and with its own words"
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the C emotion classes."""
        return VOCABULARIES[self.vocabulary]

    @property
    def words(self) -> int:
        """V, the words that can be generated."""
        return self.vocab_size or TEXT_VOCABULARIES[self.text][0]

    @property
    def specials(self) -> tuple[int, int, int, int]:
        """Ids of start, stop, padding and [MASK]."""
        start, stop, pad, mask = self.special_ids or TEXT_VOCABULARIES[self.text][1]
        return start, stop, pad, mask

    @property
    def au_tokens(self) -> int:
        """AU-level prompt tokens: K, or K of each sampled frame."""
        return self.top_k * (self.au_frames if self.au_pool == "per_frame" else 1)
