"""ECPA as a task: frozen face networks whose features are cached, the losses of the paper or others to compare."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import default_collate
from transformers import PreTrainedTokenizerFast

import emo_models
from emo_models.checkpoints import NetworkCard
from emo_models.networks.ecpa import ECPA
from emo_models.networks.ecpa.captions import CaptionTokenizer
from emo_models.networks.ecpa.eca import AuWordAlignment, AuWordLoss, word_vectors
from emo_models.networks.ecpa.losses import LOSSES, TotalLoss
from emo_models.networks.ecpa.model import EcpaOutput
from emo_models.weights import cache_dir
from training.datasets import Dataset, read_dataset
from training.losses.alignment import LexiconTagger, au_word_loss, er_sentence
from training.prepare.faces import MakeFinder, StageFaces
from training.tasks.ecpa_data import (
    CaptionSet,
    ClipFeatures,
    caption_batch,
    clips,
    examples,
    face_features,
)
from training.tasks.ecpa_tokenizer import MADE, make_tokenizer, save_tokenizer
from training.tasks.ecpa_weights import load_parts_of
from training.trainer.recipe import Recipe, RecipeError, read_options
from training.trainer.task import BaseTask, require_less_than_guessing, require_positive_pairs

log = logging.getLogger(__name__)

#: Folder beside the weights.
TOKENIZER: Final = "tokenizer"


@dataclass(frozen=True)
class EcpaOptions:
    """What an ECPA recipe can say under ``options``.

    ``tokenizer``: ``words`` or ``pieces`` of the training captions, at most ``tokenizer_size`` of them, or a folder or
    name to load. ``features``: folder of the feature stores, empty for one in the cache of weights. ``faces``:
    ``stage`` finds faces as at run time, ``truth`` takes the exact points of a toy world; ``face_size``: px of a crop;
    ``prepare_workers``: processes that cut out clips and faces.
    ``visual_lr``: factor of the visual encoder's learning rate. ``random_crop``: one for all images of a clip.
    ``losses``: which of L_ER, L_AU and L_MLM are summed; ``er_loss``, ``au_loss``: the paper's, or those of :mod:`training.losses.alignment`. ``allow_collapse``: go on when
    hardly any AU-word pair is positive (for the ablation that shows it). ``evaluate_batch``, ``beams``: of generation;
    ``meteor``: false spares its seconds.
    """

    tokenizer: str = "bert-base-uncased"
    tokenizer_size: int = 0
    features: str = ""
    faces: Literal["stage", "truth"] = "stage"
    face_size: int = 224
    visual_lr: float = 0.05
    random_crop: bool = True
    losses: tuple[Literal["er", "au", "mlm"], ...] = LOSSES
    er_loss: Literal["cross_entropy", "similarity", "similarity_ce"] = "cross_entropy"
    au_loss: Literal["pairs", "cross_entropy", "contrast", "tagger"] = "pairs"
    allow_collapse: bool = False
    prepare_workers: int = 1
    evaluate_batch: int = 64
    beams: int = 1
    meteor: bool = True
    licence: str = "research only"


class ECPATask(BaseTask):
    """Trains :class:`emo_models.networks.ecpa.ECPA` on captions of clips.

    Raises :class:`RecipeError` where the recipe does not fit data or network.
    """

    network: ECPA

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.options = read_options(EcpaOptions, recipe.options)
        if "mlm" not in self.options.losses:
            raise RecipeError("options.losses: without mlm no word is learned; got " + ", ".join(self.options.losses))
        self.data: Dataset = read_dataset(recipe.data.name, Path(recipe.data.root), **recipe.data.options)
        tokenizer = self._tokenizer()
        self.network = self._network(tokenizer)
        self.captions = CaptionTokenizer(tokenizer, self.network.config)
        load_parts_of(self.network, recipe.network.weights)
        if self.network.class_branch is not None and self.network.text_tower is None:
            self.network.init_class_embeddings(self.captions)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.tagger = self._alternatives()
        present = self.network.total_loss().dwa.names
        self.total = TotalLoss(
            self.network.config.loss_mode, tuple(name for name in present if name in self.options.losses)
        )
        self.features = self._features()
        self._unreadable: dict[str, set[str]] = {}

    # -- what is trained -----------------------------------------------------------------------------------------------

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The visual encoder learns slower, as in SwinBERT; the frozen networks not at all."""
        slow = [p for p in self.network.visual.encoder.parameters() if p.requires_grad]
        known = {id(p) for p in slow}
        rest = [p for p in self.network.parameters() if p.requires_grad and id(p) not in known]
        if self.tagger is not None:
            rest += list(self.tagger.parameters())
        groups: list[dict[str, Any]] = [{"params": rest}]
        return [*groups, {"params": slow, "lr_factor": self.options.visual_lr}] if slow else groups

    def dataset(self, split: str) -> CaptionSet:
        """Clips with captions; what the frozen networks say of them is computed now, where it is not stored yet."""
        readable = self.prepare(split)
        items = [item for item in examples(self.data.split(split)) if item.record.clip_id in readable]
        if not items:
            raise RecipeError(
                f"data: no clip with a caption in the split {split!r} of {self.data.name} in {self.data.root}; "
                f"see: emo data check {self.data.name} {self.data.root}"
            )
        train = split == "train"
        rng = self.rng if train and self.options.random_crop and not self.network.config.freeze_visual else None
        return CaptionSet(items, self.features, self.captions, rng)

    def collate(self, items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Items of :class:`CaptionSet`, stacked."""
        return cast("dict[str, Tensor]", default_collate(items))

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 15, and its parts before they are weighted."""
        captions = caption_batch(batch)
        out: EcpaOutput = self.network(batch["clip"], face_features(batch), captions, batch["emotion"])
        if "er" in out.losses and out.sentence is not None and out.context.er is not None:
            p_er = out.context.er.tokens[:, 0]
            out.losses["er"] = er_sentence(self.options.er_loss, out.losses["er"], p_er, out.sentence)
        if self.tagger is not None:
            text = self.network.embed_text(captions.ids)
            t, there = word_vectors(text, captions.word, torch.ones_like(captions.ids, dtype=torch.bool))
            out.losses["au"] = self.tagger.loss(t, there, captions.word_aus)
        total = self.total(out.losses, out.sparsity, out.pairs, out.positive)
        return total, {f"L_{name}": value for name, value in out.losses.items()}

    # -- the course of a training --------------------------------------------------------------------------------------

    def check_first_loss(self, loss: float) -> None:
        """A fusion that was loaded does not guess; one that starts at random has to."""
        if {"bert", "swinbert"} & set(self.recipe.network.weights):
            others = len(self.total.dwa.names) - 1  # each of them adds something to the words' loss
            require_less_than_guessing(loss - others, self.network.config.words, "the fusion")

    def end_epoch(self) -> dict[str, float]:
        """Weights of the next epoch (Eq. 16) and the share of positive AU-word pairs.

        Raises :class:`training.trainer.task.DoomedRunError` when there are hardly any, unless the recipe allows it.
        """
        pairs, positive = _sum_over_processes(self.total.pairs, self.total.positive)
        self.total.end_epoch()
        _mean_over_processes(self.total.dwa.means[-1])
        learns_pairs = self.options.au_loss != "tagger" and self.total.weights().get("au", 0.0) > 0
        if learns_pairs and not self.options.allow_collapse:
            require_positive_pairs(positive, pairs)
        logged = {f"lambda_{name}": value for name, value in self.total.weights().items()}
        return {**logged, "positive_pairs": positive / pairs} if pairs else logged

    def evaluate(self, split: str) -> dict[str, float]:
        """Captions for every clip of the split, written to the run's folder, and what they are worth."""
        from training.tasks.ecpa_measure import measure

        readable = self.prepare(split)
        records = [record for record in clips(self.data.split(split)) if record.clip_id in readable]
        if not records:
            raise RecipeError(f"data: no clip with a caption in the split {split!r} of {self.data.name}")
        return measure(self, records, split)

    def state(self) -> dict[str, Any]:
        tagger = {} if self.tagger is None else dict(self.tagger.state_dict())
        return {"dwa": self.total.dwa.state_dict(), "pairs": self.total.pairs, "positive": self.total.positive,
                "tagger": tagger}  # fmt: skip

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.total.dwa.load_state_dict(state["dwa"])
        self.total.pairs, self.total.positive = int(state["pairs"]), int(state["positive"])
        if self.tagger is not None:
            self.tagger.load_state_dict(state["tagger"])

    def card(self) -> NetworkCard:
        """Card of the weights; the tokenizer lies beside them, in the folder ``tokenizer``."""
        config = self.network.config
        form = self.features.form
        return NetworkCard(
            network="ecpa",
            config=config.to_dict(),
            labels=config.classes,
            preprocessing={
                "clip": {"transform": "imagenet224", "frames": form.frames, "sampling": form.sampling, "px": form.image_size},
                "faces": {"transform": "imagenet224", "alignment": form.alignment, "px": form.face_size},
                "tokenizer": TOKENIZER,
            },
            licence=self.options.licence,
            data=(self.data.name,),
        )  # fmt: skip

    # -- construction --------------------------------------------------------------------------------------------------

    def prepare(self, split: str) -> set[str]:
        """Ids of the clips of a split that can be read, with all features stored."""
        records = clips(self.data.split(split))
        if split not in self._unreadable:
            self.network.to(self.device)
            self._unreadable[split] = self.features.prepare(records, self._finder(), self.options.prepare_workers)
        return {record.clip_id for record in records} - self._unreadable[split]

    def _finder(self) -> MakeFinder:
        if self.options.faces == "stage":
            return StageFaces
        from training.tasks.toy_truth import finder

        return finder(self.data.root)

    def _tokenizer(self) -> PreTrainedTokenizerFast:
        """Made of the training captions, or loaded; one that this run made before is kept."""
        kept = self.recipe.folder / TOKENIZER
        made = self.options.tokenizer in MADE
        source = str(kept) if made and kept.is_dir() else self.options.tokenizer
        captions = [text for record in self.data.split("train") for text in record.captions]
        tokenizer = make_tokenizer(source, captions, size=self.options.tokenizer_size)
        save_tokenizer(tokenizer, kept)
        return tokenizer

    def _network(self, tokenizer: PreTrainedTokenizerFast) -> ECPA:
        options = dict(self.recipe.network.options)
        if self.options.tokenizer in MADE:
            options["vocab_size"] = len(tokenizer)
            mask = 4 if options.get("text", "bert") == "bert" else len(tokenizer)
            options["special_ids"] = (2, 3, 0, mask)
        return cast("ECPA", emo_models.create(self.recipe.network.name, self.recipe.network.preset, **options))

    def _alternatives(self) -> LexiconTagger | None:
        """Put the AU - word loss of the recipe in place; the tagger stands beside the network."""
        config = self.network.config
        if self.options.au_loss == "tagger":
            self.network.au_word_loss = cast("AuWordLoss", _NoAlignment())
            return LexiconTagger(config.hidden).to(self.device)
        self.network.au_word_loss = au_word_loss(
            self.options.au_loss, config.pair_labels, config.match_threshold, config.margin
        )
        return None

    def _features(self) -> ClipFeatures:
        folder = Path(self.options.features).expanduser() if self.options.features else cache_dir() / "features"
        crop = self.network.config.freeze_visual or not self.options.random_crop
        return ClipFeatures(self.network, folder / self.data.name, face_size=self.options.face_size, crop=crop)


class _NoAlignment(AuWordLoss):
    """Stands in for the alignment where only the tagger learns from the lexicon."""

    def __call__(  # no pair is looked at
        self,
        a_BKD: Tensor,
        au_valid_BK: Tensor,  # noqa: ARG002
        t_BND: Tensor,  # noqa: ARG002
        word_valid_BN: Tensor,  # noqa: ARG002
        g_BKN: Tensor,  # noqa: ARG002
    ) -> AuWordAlignment:
        return AuWordAlignment(a_BKD.new_zeros(()), 0, 0)


def _sum_over_processes(*numbers: int) -> Sequence[int]:
    if not (dist.is_available() and dist.is_initialized()):
        return numbers
    values = torch.tensor(numbers, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(values)
    return cast("list[int]", values.tolist())


def _mean_over_processes(means: dict[str, float]) -> None:
    """All processes weigh the losses of the next epoch alike."""
    if not (dist.is_available() and dist.is_initialized()):
        return
    values = torch.tensor(list(means.values()), device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(values)
    for name, value in zip(means, (values / dist.get_world_size()).tolist(), strict=True):
        means[name] = value if math.isfinite(value) else 0.0
