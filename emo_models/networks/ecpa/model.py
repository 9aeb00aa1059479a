"""ECPA: emotion-oriented cross-modal prompting and alignment for captions of human emotion (Wang et al.)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emo_models.labels import OPENGRAPHAU_MAIN
from emo_models.networks.anfl import ANFL, ANFLConfig
from emo_models.networks.base import Network
from emo_models.networks.bert_fusion import BertFusion, BertFusionConfig, FusionCache
from emo_models.networks.ddamfn import DDAMFN, DDAMFNConfig
from emo_models.networks.ecpa.captions import CaptionBatch, CaptionTokenizer
from emo_models.networks.ecpa.config import EcpaConfig
from emo_models.networks.ecpa.decode import (
    CaptionResult,
    DecodeLimits,
    Generated,
    Stepper,
    beam_search,
    explain_caption,
    greedy,
)
from emo_models.networks.ecpa.eca import AuWordLoss, er_sentence_loss, word_vectors
from emo_models.networks.ecpa.encoder_decoder import EncoderDecoder
from emo_models.networks.ecpa.losses import TotalLoss, mlm_loss
from emo_models.networks.ecpa.tep import ClassBranch, ClassOutput, WordMasking
from emo_models.networks.ecpa.text import TowerText
from emo_models.networks.ecpa.vep import AuLevelPrompting, AuPrompts, ErLevelPrompting, ErPrompt, FaceFeatures
from emo_models.networks.ecpa.visual import VisualEncoder
from emo_models.networks.er_resnet import ERResNet, ERResNetConfig

_DDAMFN_PX = 112


@dataclass
class Context:
    """All that a caption is written from. ``tokens``: ``[B, C_x, hidden]``, visual then prompts ``[ER | class | AU]``.

    ``valid``: bool ``[B, P]``, which prompts hold; ``er``, ``cls``, ``au``: the prompts, None where switched off.
    """

    tokens: Tensor
    valid: Tensor
    er: ErPrompt | None
    cls: ClassOutput | None
    au: AuPrompts | None


@dataclass
class EcpaOutput:
    """One training step: ``losses`` L_x by name (``er``, ``au``, ``mlm``), ``sparsity`` of the learned mask or None.

    ``pairs`` and ``positive``: AU-word pairs of Eq. 10 and 11; ``scores``: ``[n, V]`` of the ``words [n]`` to predict.
    ``sentence``: h_t ``[B, hidden]``, None without the class branch.
    """

    losses: dict[str, Tensor]
    sparsity: Tensor | None
    pairs: int
    positive: int
    scores: Tensor
    words: Tensor
    context: Context
    sentence: Tensor | None = None


class ECPA(Network):
    """The whole of ECPA, Fig. 2. Training: :meth:`forward`; captions: :meth:`generate`.

    ==============  ================================================  =======================================
    symbol          shape (paper preset)                              here
    ==============  ================================================  =======================================
    V               ``[B, 3, 8, 224, 224]``                           ``clip``
    F_V (Eq. 1)     ``[B, 196, 768]``                                 ``visual``, ``trans_encoder.embed_visual``
    F_T, t_j        ``[B, 50, 768]``                                  :meth:`embed_text`
    P_ER (Eq. 4)    ``[B, 1, 768]``                                   ``er_prompting``
    P_AU (Eq. 5)    ``[B, 3, 768]``, a_k                              ``au_prompting``
    P_S  (Eq. 6)    ``[B, 1, 768]``, q = mean of [CLASS-k]            ``class_branch``
    P_W  (Eq. 7)    ids ``[B, 50]``                                   ``masking``
    F_ER^G          tokens ``[P_ER ; q]``                             :meth:`context`
    F_AU^L          tokens ``a_1..a_K``                               :meth:`context`
    F_E  (Eq. 13)   ``[B, 50, 768]``, text rows                       ``trans_encoder.encode``
    L_ER (Eq. 8)    scalar                                            :func:`.eca.er_sentence_loss`
    L_AUCL (9-12)   scalar                                            :class:`.eca.AuWordLoss`
    L_MLM (14)      scalar                                            :func:`.losses.mlm_loss`
    L (15, 16)      scalar                                            :class:`.losses.TotalLoss`
    ==============  ================================================  =======================================

    SwinBERT's weights: ``load_release(ecpa, file, "swinbert")`` of :mod:`emo_models.checkpoints`; OpenGraphAU's:
    ``load_checkpoint(ecpa.au_net, file, "opengraphau")``; those of the text encoders: :mod:`.pretrained`.
    ``er_net`` and ``au_net`` are frozen. All else trains, except what ``freeze_visual`` and ``freeze_text`` exclude.
    """

    config_class = EcpaConfig

    def __init__(self, config: EcpaConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or EcpaConfig()
        self.visual = VisualEncoder(c)
        self.text_tower = None if c.text == "bert" else TowerText(c)
        self.trans_encoder = self._fusion()
        self.er_net, self.au_net, er_width = self._face_networks()
        self.er_prompting = ErLevelPrompting(er_width, c.hidden) if c.er_prompt else None
        self.au_prompting = None
        if c.au_prompt and self.au_net is not None:
            frames = c.au_frames if c.au_pool == "per_frame" else 0
            self.au_prompting = AuLevelPrompting(
                c.hidden, c.top_k, frames, c.au_exclude, identity=c.au_identity, width=self.au_net.config.dim
            )
        self.class_branch = None
        if c.class_prompt:
            self.class_branch = ClassBranch(
                len(c.classes), c.hidden, text_dropout=c.text_dropout, class_token_grad=c.class_token_grad
            )
        kinds = c.er_prompt + c.class_prompt + c.au_prompt
        self.kind = nn.Parameter(torch.zeros(kinds, c.hidden)) if kinds else None
        self.masking = WordMasking(c.specials[3], c.words, c.mask_rate)
        self.au_word_loss = AuWordLoss(c.pair_labels, c.match_threshold, c.margin)
        if c.freeze_text and self.text_tower is None:
            self.trans_encoder.embeddings.requires_grad_(False)

    # -- training ------------------------------------------------------------------------------------------------------

    def forward(
        self, clip: Tensor, features: FaceFeatures | None, captions: CaptionBatch, emotion: Tensor,
        *, generator: torch.Generator | None = None,
    ) -> EcpaOutput:  # fmt: skip
        """All losses of one batch. ``emotion``: int64 ``[B]``, y of Eq. 8, :data:`.eca.NO_EMOTION` for none."""
        sentence = self._sentence(captions) if self.class_branch is not None else None
        context = self.context(clip, features, sentence)
        ids, selected = captions.ids, None
        if self.trans_encoder.fills_mask:
            masked = self.masking(captions.ids, captions.length, generator)
            ids, selected = masked.ids, masked.selected
        text = self.embed_text(ids, captions.ids)
        rows = self.trans_encoder.encode(text, context.tokens, context.valid)
        if selected is None:
            behind = torch.arange(1, ids.shape[1], device=ids.device) < captions.length[:, None]
            rows, words = rows[:, :-1][behind], captions.ids[:, 1:][behind]
        else:
            rows, words = rows[selected], captions.ids[selected]
        scores = self.trans_encoder.head(rows)
        losses = {"mlm": mlm_loss(scores, words)}
        pairs = positive = 0
        if context.cls is not None:
            losses["er"] = er_sentence_loss(context.cls.z, emotion)
        if context.au is not None:
            usable = torch.ones_like(ids, dtype=torch.bool) if selected is None else ~selected
            t, there = word_vectors(text, captions.word, usable)
            hits = self._lexicon_hits(context.au, captions.word_aus)
            aligned = self.au_word_loss(context.au.tokens, context.au.valid, t, there, hits)
            losses["au"], pairs, positive = aligned.loss, aligned.pairs, aligned.positive
        return EcpaOutput(losses, self.trans_encoder.sparsity(), pairs, positive, scores, words, context, sentence)

    def total_loss(self) -> TotalLoss:
        """Eq. 15 over the losses that this network has; one object for a whole training."""
        present = {"er": self.class_branch is not None, "au": self.au_prompting is not None, "mlm": True}
        return TotalLoss(self.config.loss_mode, tuple(name for name, there in present.items() if there))

    # -- captions ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def generate(
        self, clip: Tensor, features: FaceFeatures | None, tokenizer: CaptionTokenizer, *, beams: int = 1,
        max_length: int | None = None, length_penalty: float = 1.0,
    ) -> list[CaptionResult]:  # fmt: skip
        """A caption for each clip, with the evidence of its words. ``max_length`` (default L) counts all tokens."""
        if self.training:
            raise RuntimeError("dropout would change the captions; call eval() before generate()")
        context = self.context(clip, features)
        limits = self.limits(max_length)
        stepper, batch = self.stepper(context), len(clip)
        if beams == 1:
            captions = greedy(stepper, batch, limits, clip.device)
        else:
            captions = beam_search(
                stepper, batch, limits, beams=beams, length_penalty=length_penalty, device=clip.device
            )
        return [self._result(row, caption, context, features, tokenizer) for row, caption in enumerate(captions)]

    def limits(self, max_length: int | None = None) -> DecodeLimits:
        """Stop token and limit; raises ``ValueError`` for a limit beyond L."""
        return DecodeLimits.of(self.config, max_length)

    def stepper(self, context: Context) -> Stepper:
        """Exact cached generation: the context is run now, each further word costs two tokens."""
        cache = self.trans_encoder.prefill(context.tokens, context.valid, self.config.text_length)
        return FusionStepper(self, cache)

    # -- parts ---------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def face_features(self, faces: Tensor, valid: Tensor) -> FaceFeatures:
        """Run the frozen networks on faces ``[B, T, 3, h, w]``; ``valid``: bool ``[B, T]``. Invalid frames are skipped.

        DDAMFN reads the faces resized to 112 px.
        """
        if self.au_net is None:
            raise RuntimeError("this network has no prompts, so no face networks; pass features=None")
        crops = faces[valid]
        au = self.au_net(crops)
        if self.er_net is None:
            er = au.pooled
        elif isinstance(self.er_net, DDAMFN):
            er = self.er_net(F.interpolate(crops, (_DDAMFN_PX,) * 2, mode="bilinear", antialias=True)).features
        else:
            er = self.er_net(crops).features

        def scatter(values: Tensor) -> Tensor:
            out = values.new_zeros(*valid.shape, *values.shape[1:])
            out[valid] = values
            return out

        return FaceFeatures(scatter(er), scatter(au.nodes), scatter(au.scores[:, : len(OPENGRAPHAU_MAIN)]), valid)

    def context(self, clip: Tensor, features: FaceFeatures | None, sentence: Tensor | None = None) -> Context:
        """Visual and prompt tokens of each clip. ``sentence``: h_t ``[B, hidden]``, in training only.

        ``clip``: pixels ``[B, 3, T, h, w]``, or features of the frozen encoder (``visual.features``).
        """
        tokens = []
        if self.config.visual_tokens:
            tokens.append(self.trans_encoder.embed_visual(self.visual(clip)))
        er = cls = au = None
        if self.er_prompting is not None:
            er = self.er_prompting(_need(features).er, _need(features).valid)
        if self.class_branch is not None and er is not None:
            cls = self.class_branch(er.tokens, sentence)
        if self.au_prompting is not None:
            au = self.au_prompting(_need(features).au_nodes, _need(features).au_scores, _need(features).valid)
        prompts, valid = [], [torch.zeros(len(clip), 0, dtype=torch.bool, device=clip.device)]
        if er is not None:
            prompts.append(er.tokens)
            valid.append(er.valid)
        if cls is not None and er is not None:
            prompts.append(cls.q)
            valid.append(er.valid)
        if au is not None:
            prompts.append(au.tokens)
            valid.append(au.valid)
        if self.kind is not None:
            tokens += [prompt + kind for prompt, kind in zip(prompts, self.kind, strict=True)]
        return Context(torch.cat(tokens, 1), torch.cat(valid, 1), er, cls, au)

    def embed_text(self, ids_BL: Tensor, original_BL: Tensor | None = None) -> Tensor:
        """F_T ``[B, L, hidden]``. ``original``: the ids before masking, which a text tower reads (see :mod:`.text`)."""
        if self.text_tower is None:
            embedded: Tensor = self.trans_encoder.embeddings(ids_BL)
            return embedded
        return self.trans_encoder.embeddings.finish(self.text_tower(ids_BL, original_BL))

    def embed_pair(self, prefix_Bt: Tensor) -> Tensor:
        """Embeddings ``[B, 2, hidden]`` of the last of t words and of a [MASK] behind it."""
        start = prefix_Bt.shape[1] - 1
        if self.text_tower is not None:
            return self.trans_encoder.embeddings.finish(self.text_tower.pair(prefix_Bt), start)
        last = prefix_Bt[:, -1]
        pair = torch.stack((last, torch.full_like(last, self.config.specials[3])), 1)
        embedded: Tensor = self.trans_encoder.embeddings(pair, start)
        return embedded

    def init_class_embeddings(self, tokenizer: CaptionTokenizer) -> None:
        """Start the tokens [CLASS-k] at the word embeddings of the class names, once those are loaded."""
        embedding = self.trans_encoder.embeddings.word_embeddings
        if self.class_branch is None or embedding is None:
            raise ValueError("class embeddings start at BERT's words: needs class_prompt=True and text='bert'")
        self.class_branch.init_class_embeddings(embedding.weight, [tokenizer.pieces(n) for n in self.config.classes])

    # -- construction --------------------------------------------------------------------------------------------------

    def _fusion(self) -> BertFusion | EncoderDecoder:
        fusion = fusion_config(self.config, self.visual.tokens)
        return BertFusion(fusion) if self.config.fusion == "bert" else EncoderDecoder(fusion)

    def _face_networks(self) -> tuple[ERResNet | DDAMFN | None, ANFL | None, int]:
        """Networks of the ER and AU level, both frozen, and the width of the ER features; none without prompts."""
        c = self.config
        if not (c.er_prompt or c.au_prompt):
            return None, None, 0
        au = ANFL(ANFLConfig.from_preset(c.au_preset)).freeze()
        if not c.er_prompt or c.er_source == "au_trunk":
            return None, au, au.config.dim
        if c.er_source == "ddamfn":
            expression = DDAMFN(DDAMFNConfig.from_preset(c.er_preset)).freeze()
            return expression, au, 8 * expression.config.width
        resnet = ERResNet(ERResNetConfig.from_preset(c.er_preset)).freeze()
        return resnet, au, resnet.dim

    def _sentence(self, captions: CaptionBatch) -> Tensor:
        text = self.embed_text(captions.ids)
        if self.config.sentence_feature == "cls":
            return cast("BertFusion", self.trans_encoder).encode_caption(text, captions.length)
        real = torch.arange(text.shape[1], device=text.device) < captions.length[:, None]
        return (text * real[..., None]).sum(1) / real.sum(1, keepdim=True)

    @staticmethod
    def _lexicon_hits(au: AuPrompts, word_aus_BNA: Tensor) -> Tensor:
        """G ``[B, K, N]``: word j belongs to a phrase of the unit of a_k."""
        by_unit = word_aus_BNA.transpose(1, 2)
        return by_unit.gather(1, au.index[..., None].expand(-1, -1, by_unit.shape[2]))

    def _result(
        self, row: int, caption: Generated, context: Context, features: FaceFeatures | None, tokenizer: CaptionTokenizer
    ) -> CaptionResult:
        text, spans = tokenizer.decode(caption.ids)
        emotion: dict[str, float] = {}
        if context.cls is not None:
            emotion = dict(zip(self.config.classes, context.cls.p_vis[row].tolist(), strict=True))
        if context.au is None or features is None:
            return CaptionResult(text, caption, emotion)
        vectors = self.embed_text(torch.tensor([caption.ids], device=context.tokens.device))[0]
        scores = features.au_scores[row]
        evidence = explain_caption(text, spans, vectors, context.au, scores, lexicon=tokenizer.lexicon, row=row)
        return CaptionResult(text, caption, emotion, evidence)


def fusion_config(c: EcpaConfig, visual_tokens: int) -> BertFusionConfig:
    """The fusion that this ECPA has over M visual tokens."""
    return BertFusionConfig(
        vocab_size=c.words, hidden=c.hidden, layers=c.layers, heads=c.heads, feed_forward=c.feed_forward,
        positions=c.positions, visual_width=c.visual_width, dropout=c.dropout,
        sparse_tokens=visual_tokens if c.learned_sparse else 0, word_embedding=c.text == "bert",
    )  # fmt: skip


class FusionStepper:
    """:class:`.decode.Stepper` over the cache of the fusion."""

    def __init__(self, model: ECPA, cache: FusionCache) -> None:
        self.model, self.cache = model, cache

    def __call__(self, prefix_Bt: Tensor) -> Tensor:
        return self.model.trans_encoder.step(self.model.embed_pair(prefix_Bt), self.cache)

    def select(self, rows: Tensor) -> FusionStepper:
        """The same for other rows, with a cache of their own."""
        return FusionStepper(self.model, self.cache.select(rows))


def _need(features: FaceFeatures | None) -> FaceFeatures:
    if features is None:
        raise ValueError(
            "this network has face prompts: pass face_features(faces, valid), with valid false where no face was found"
        )
    return features
