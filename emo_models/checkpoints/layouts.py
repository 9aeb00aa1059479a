"""Layouts of the public checkpoints: what they call their tensors, and which ones we neither need nor give.

Everything a file has more or less than the network is listed here; anything else is an error. The names are read from
the public sources, for none of the files could be opened where this was written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

#: Buffers that the public code stores and ours computes.
_DERIVED = (r"(^|\.)relative_position_index$", r"(^|\.)attn_mask$", r"(^|\.)position_ids$")


@dataclass(frozen=True)
class Layout:
    """How one family of files maps to one network. All patterns are regular expressions."""

    #: What the file is, for the report.
    about: str
    #: Keys that may lie around the state dict.
    wrappers: tuple[str, ...] = ("state_dict",)
    #: Prefixes that every key may carry, taken off one after the other.
    strip: tuple[str, ...] = ("module.",)
    #: Alternative prefixes of the part of interest. Keys without the one that is there belong to other networks.
    take: tuple[str, ...] = ()
    #: Replacements of file names by ours.
    rename: Mapping[str, str] = field(default_factory=dict)
    #: Network keys that a file may leave to another of its tensors, because it ties the two.
    tied: Mapping[str, str] = field(default_factory=dict)
    #: File keys, after renaming, that are left unused.
    unused: tuple[str, ...] = ()
    #: Network keys that the file need not have.
    absent: tuple[str, ...] = ()

    def names(self, keys: list[str]) -> dict[str, str]:
        """File key → network key, without the keys of other networks."""
        full = {key: key for key in keys}
        for prefix in self.strip:
            if full and all(name.startswith(prefix) for name in full.values()):
                full = {key: name[len(prefix) :] for key, name in full.items()}
        if self.take:
            prefix = next((p for p in self.take if any(name.startswith(p) for name in full.values())), self.take[0])
            full = {key: name[len(prefix) :] for key, name in full.items() if name.startswith(prefix)}
        for pattern, replacement in self.rename.items():
            full = {key: re.sub(pattern, replacement, name) for key, name in full.items()}
        return full

    def is_unused(self, name: str) -> bool:
        """Whether the file's tensor ``name`` is known to have no counterpart."""
        return any(re.search(pattern, name) for pattern in self.unused)

    def may_be_absent(self, name: str) -> bool:
        """Whether the network's tensor ``name`` may keep its initial value."""
        return any(re.search(pattern, name) for pattern in self.absent)


_BERT_OLD_NORM = {r"\.gamma$": ".weight", r"\.beta$": ".bias"}

#: Name of a layout → layout. Several may read parts of one file.
LAYOUTS: Final[dict[str, Layout]] = {
    "video_swin": Layout(
        "Video Swin of the authors (k400, k600_22k), into video_swin",
        strip=("module.",),
        rename={r"^backbone\.": ""},
        unused=(*_DERIVED, r"^cls_head\."),
    ),
    "swinbert_swin": Layout(
        "SwinBERT's visual encoder, into video_swin",
        take=("swin.backbone.", "swin."),
        unused=_DERIVED,
    ),
    "swinbert_fc": Layout("SwinBERT's image projection, into a linear layer D → 512", take=("fc.",)),
    "swinbert_fusion": Layout(
        "SwinBERT's text and fusion Transformer, into bert_fusion",
        rename={r"^trans_encoder\.": "", **_BERT_OLD_NORM},
        unused=(
            *_DERIVED,
            r"^swin\.",
            r"^fc\.",
            r"^bert\.pooler\.",
            r"^cls_img_feat\.",
            r"^cls\.seq_relationship\.",
            r"^cls\.predictions\.decoder\.bias$",
        ),
        absent=(r"^learn_vid_att\.",),
    ),
    "bert": Layout(
        "BERT of transformers, into bert_fusion; the image embedding starts new",
        rename=_BERT_OLD_NORM,
        tied={"cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight"},
        unused=(*_DERIVED, r"^bert\.pooler\.", r"^cls\.seq_relationship\.", r"^cls\.predictions\.decoder\.bias$"),
        absent=(r"^bert\.img_embedding\.", r"^learn_vid_att\."),
    ),
    "opengraphau": Layout(
        "stage 1 of OpenGraphAU and of ME-GraphAU, into anfl",
        unused=(*_DERIVED, r"^backbone\.(fc|head)\."),
    ),
    "resnet": Layout("ResNet of torchvision with its classes, into er_resnet"),
    "resnet_trunk": Layout(
        "ResNet of torchvision without its classes, into er_resnet",
        unused=(r"^fc\.",),
        absent=(r"^fc\.",),
    ),
    "ddamfn": Layout(
        "DDAMFN and DDAMFN++ of the authors, into ddamfn; their file carries 110 parameters that are never used",
        wrappers=("model_state_dict", "state_dict"),
        unused=(r"\.conv_dw\.(bn|prelu)\.", r"^cat_head\d+\.CoordAtt\.Linear\.", r"^bn\."),
    ),
    "clip": Layout(
        "CLIP of transformers, into the vision tower; the last block is not needed",
        take=("vision_model.", ""),
        rename={r"^": "vision_model."},
        unused=(*_DERIVED, r"\.post_layernorm\."),
    ),
    "llava_clip": Layout(
        "the vision tower inside LLaVA, of transformers or of the authors, into the vision tower",
        take=(
            "model.vision_tower.vision_tower.vision_model.",
            "model.vision_tower.vision_model.",
            "vision_tower.vision_model.",
            "model.vision_tower.",
        ),
        rename={r"^": "vision_model."},
        unused=(*_DERIVED, r"\.post_layernorm\."),
    ),
    "video_chatgpt_projector": Layout(
        "the projector of Video-ChatGPT or of the first LLaVA, into a linear layer 1024 → 4096",
        take=("model.mm_projector.", "mm_projector."),
    ),
    "llava_projector": Layout(
        "the projector of LLaVA-1.5, of transformers or of the authors, into linear, GELU, linear",
        take=("model.multi_modal_projector.", "multi_modal_projector.", "model.mm_projector.", "mm_projector."),
        rename={r"^linear_1\.": "0.", r"^linear_2\.": "2."},
    ),
}

#: Published model → part of our network → layout of that part, for the models that fill more than one part.
RELEASES: Final[dict[str, dict[str, str]]] = {
    # into ecpa
    "swinbert": {"visual.encoder": "swinbert_swin", "visual.fc": "swinbert_fc", "trans_encoder": "swinbert_fusion"},
    # into fame; transformers loads the language model itself
    "llava": {"clip": "llava_clip", "mm_projector": "llava_projector"},
}
