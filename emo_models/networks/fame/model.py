"""FAME-Net (Wang et al., "Generative emotion cause explanation in multimodal conversations"), Section 4."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from emo_models.networks.base import Network
from emo_models.networks.clip_vision import ClipVision, ClipVisionConfig
from emo_models.networks.fame.config import FameConfig
from emo_models.networks.fame.generate import Explanation, PrefixCache
from emo_models.networks.fame.pooling import projector, spatio_temporal_pool
from emo_models.networks.fame.prompt import VIDEO_TOKENS, EncodedPrompt, PromptTokenizer, emotion_tokens
from emo_models.networks.language import llama

#: A first loss above this share of ln V means that the language model's weights were not loaded.
UNTRAINED_SHARE: Final = 0.9
_IGNORED: Final = -100


@dataclass
class CauseExample:
    """One training item: R ``[T + N, D]`` of the clip, the prompt, and the ids of the answer with its stop token."""

    features: Tensor
    prompt: EncodedPrompt
    answer: Sequence[int]


class FAME(Network):
    """FAME-Net around a causal language model. Training: :meth:`forward`; answers: :meth:`explain`.

    ==================  =====================  =========================================
    symbol              shape (paper preset)   here
    ==================  =====================  =========================================
    X                   ``[100, 576, 1024]``   :meth:`frame_features`
    R_t, R_s (Eq. 1-2)  ``[100 | 576, 1024]``  :mod:`.pooling`
    R (Eq. 3)           ``[676, 1024]``        :meth:`pool`
    Q_v = g(R) (Eq. 4)  ``[676, 4096]``        :meth:`project`, ``mm_projector``
    Q_t                 ids ``[L]``            :class:`.prompt.PromptTokenizer`
    E_cls               words or new tokens    :func:`.prompt.mean_expression`
    ==================  =====================  =========================================

    Public weights: the language model's by ``transformers``, handed over as ``llm``; those of CLIP and g by
    ``load_release(fame, file, "llava")`` of :mod:`emo_models.checkpoints`, rows of tokens by :meth:`load_token_rows`.
    Faces are recognised by :class:`~emo_models.networks.ddamfn.DDAMFN` outside. CLIP and the language model are frozen;
    g trains, and the rows of the new tokens: those of the video and, where they are learned, of the emotions.
    """

    config_class = FameConfig

    def __init__(self, config: FameConfig | None = None, llm: PreTrainedModel | None = None) -> None:
        """``llm``: any causal language model of ``transformers``; without one a LLaMA of the config's size."""
        super().__init__()
        self.config = c = config or FameConfig()
        self.clip = ClipVision(ClipVisionConfig.from_preset(c.clip)).freeze()
        self.llm = _llama(c) if llm is None else llm
        self.llm.requires_grad_(False)
        self.llm.train(mode=False)
        embedding = self._embedding()
        self.words, self.width = embedding.num_embeddings, embedding.embedding_dim
        self.token_names = VIDEO_TOKENS + (emotion_tokens(c.vocabulary) if c.emotion_tokens == "learned" else ())
        self.new_tokens = nn.Parameter(torch.randn(len(self.token_names), self.width) * 0.02)
        self.mm_projector = projector(c.projector, self.clip.config.dim, self.width)

    def train(self, mode: bool = True) -> FAME:
        super().train(mode)
        self.llm.train(mode=False)
        return self

    def tokenizer(self, tokenizer: Any) -> PromptTokenizer:
        """The language model's tokenizer, made ready for the prompts of this network."""
        return PromptTokenizer(tokenizer, self.words, self.token_names)

    @torch.no_grad()
    def load_token_rows(self, embedding_VK: Tensor) -> None:
        """Take the new tokens from the last rows of a checkpoint's word embedding ``[words + n, K]`` (Video-ChatGPT).

        Raises ``ValueError`` when it has not a row for each word and at least each of the three video tokens.
        """
        rows, width = embedding_VK.shape
        count = rows - self.words
        if width != self.width or not len(VIDEO_TOKENS) <= count <= len(self.token_names):
            raise ValueError(
                f"expected [{self.words} + 3 to {len(self.token_names)}, {self.width}], got [{rows}, {width}]; the "
                "checkpoint belongs to another language model"
            )
        self.new_tokens[:count] = embedding_VK[self.words :].to(self.new_tokens)

    # -- vision --------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def frame_features(self, frames_T3HW: Tensor) -> Tensor:
        """X: CLIP's patches of each frame, ``[T, 3, H, W] -> [T, N, D]``."""
        return cast("Tensor", self.clip(frames_T3HW))

    def pool(self, x_TND: Tensor) -> Tensor:
        """R of one clip, ``[T, N, D] -> [T + N, D]``. Raises ``ValueError`` for more than the config's T frames."""
        if len(x_TND) > self.config.frames:
            raise ValueError(
                f"the clip has {len(x_TND)} frames, the network takes at most {self.config.frames}; choose them with "
                "dyadic_frames(), or the middles of equal segments"
            )
        return spatio_temporal_pool(x_TND, self.pad_to)

    @property
    def pad_to(self) -> int:
        """Rows of R_t that a clip is padded to, 0 for as many as it has."""
        return self.config.frames if self.config.pad_to_frames else 0

    def project(self, r_MD: Tensor) -> Tensor:
        """Q_v of Eq. 4, ``[T + N, D] -> [T + N, K]``."""
        return cast("Tensor", self.mm_projector(r_MD))

    # -- language ------------------------------------------------------------------------------------------------------

    def embed(self, ids_L: Tensor, q_MK: Tensor) -> Tensor:
        """Input of the language model ``[L, K]``: words, new tokens, and row by row Q_v for each ``<vid_patch>``."""
        patch = ids_L == self.words
        if int(patch.sum()) != len(q_MK):
            raise ValueError(f"the prompt has room for {int(patch.sum())} rows of Q_v, the clip has {len(q_MK)}")
        return self.embed_words(ids_L).masked_scatter(patch[:, None], q_MK.to(self._embedding().weight.dtype))

    def embed_words(self, ids: Tensor) -> Tensor:
        """Word vectors ``[..., K]`` of ids, of which those from ``words`` on are new tokens."""
        known = self._embedding()(ids.clamp(max=self.words - 1))
        new = F.embedding((ids - self.words).clamp(min=0), self.new_tokens).to(known.dtype)
        return torch.where((ids >= self.words)[..., None], new, known)

    def forward(self, examples: Sequence[CauseExample]) -> Tensor:
        """Mean cross-entropy over the answer tokens of a batch; prompts carry no loss."""
        device = self.new_tokens.device
        rows, labels = [], []
        for example in examples:
            prompt = torch.tensor(example.prompt.ids, device=device)
            answer = torch.tensor(tuple(example.answer), device=device)
            question = self.embed(prompt, self.project(example.features))
            rows.append(torch.cat((question, self.embed_words(answer))))
            labels.append(torch.cat((torch.full_like(prompt, _IGNORED), answer)))
        inputs = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        target = nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=_IGNORED)
        length = torch.tensor([len(row) for row in rows], device=device)
        real = torch.arange(inputs.shape[1], device=device) < length[:, None]
        scores = cast("Any", self.llm)(inputs_embeds=inputs, attention_mask=real.long(), use_cache=False).logits
        return F.cross_entropy(scores[:, :-1].flatten(0, 1).float(), target[:, 1:].flatten(), ignore_index=_IGNORED)

    def check_first_loss(self, loss: float) -> None:
        """Raise ``RuntimeError`` when the first loss of a training is that of a language model without weights."""
        limit = UNTRAINED_SHARE * math.log(self.words)
        if not loss < limit:
            raise RuntimeError(
                f"the first loss is {loss:.2f}, ln V is {math.log(self.words):.2f}: the language model guesses, its "
                "weights were not loaded. Load the checkpoint before training"
            )

    def explain(
        self, prompt: EncodedPrompt, features: Tensor, tokenizer: PromptTokenizer, *, max_new_tokens: int | None = None,
        cancelled: Callable[[], bool] | None = None, cache: PrefixCache | None = None,
    ) -> Explanation:  # fmt: skip
        """Write the cause word by word: iterate over the result. ``features``: R ``[T + N, D]``.

        Greedy. Ends at the stop token, after ``max_new_tokens`` (default: the config's), or once ``cancelled()`` is
        true, which is asked before each word. ``cache``: keeps instruction and history of this prompt for the next one.
        """
        limit = self.config.max_new_tokens if max_new_tokens is None else max_new_tokens
        ask = cancelled or (lambda: False)
        return Explanation(self, prompt, features, tokenizer, limit=limit, cancelled=ask, cache=cache)

    def _embedding(self) -> nn.Embedding:
        return cast("nn.Embedding", cast("Any", self.llm).get_input_embeddings())


def _llama(c: FameConfig) -> PreTrainedModel:
    return llama(
        width=c.width, layers=c.layers, heads=c.heads, kv_heads=c.kv_heads, feed_forward=c.feed_forward,
        words=c.words, positions=c.positions,
    )  # fmt: skip
