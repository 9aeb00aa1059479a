"""ECPA at work: the tokens of one clip and the faces of several people in, their captions word by word, with evidence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from emo_models.engines import catalogue
from emo_models.engines.captions import WRITERS, EngineStepper, begin, prompt
from emo_models.engines.protocol import Arrays, EngineError
from emo_models.engines.select import Selection
from emo_models.labels import OPENGRAPHAU_MAIN
from emo_models.networks.ecpa.captions import AuLexicon, CaptionTokenizer
from emo_models.networks.ecpa.config import EcpaConfig
from emo_models.networks.ecpa.decode import AuEvidence, DecodeLimits, Generated, explain_caption, grow
from emo_models.networks.ecpa.pretrained import load_tokenizer
from emo_models.networks.ecpa.vep import AuPrompts, frame_groups
from emo_models.weights import MissingWeights, cache_dir


@dataclass(frozen=True)
class Draft:
    """A caption after some words.

    ``ids``: of its tokens, start and stop included; ``finished``: nothing follows; ``probability``: geometric mean of
    the probabilities of its tokens.
    """

    text: str
    ids: tuple[int, ...]
    finished: bool
    probability: float

    @property
    def decided(self) -> str:
        """The words that no further token can make longer."""
        return self.text if self.finished else self.text.rpartition(" ")[0]


class CaptionNetwork:
    """ECPA without its visual encoder, which runs in the perception process.

    ``random``: one of its engines is made of random numbers; ``together``: people whose captions can be written at a
    time; ``frames``: T; ``visual_shape``: (M, visual_width);
    ``er_width``, ``au_width``: De and Da; ``er_source``: as in the network's config.
    """

    def __init__(self, preset: str, parts: Mapping[str, Selection]) -> None:
        """``parts``: of :data:`~.captions.WRITERS`. Raises :class:`EngineError` where they are not of one network,
        :class:`emo_models.weights.MissingWeights` without the tokenizer."""
        self.config = _common_config(parts)
        self.engines = {name: part.engine for name, part in parts.items()}
        self._parts = dict(parts)
        self.preset = preset
        self.random = any(part.random for part in parts.values())
        self.limits = DecodeLimits.of(self.config)
        self.together = max(catalogue.part("fusion_step").batches)
        shapes = {spec.name: spec.shape for part in parts.values() for spec in part.engine.inputs}
        _, self.frames, self.er_width = _whole(shapes["er"])
        self.au_width = _whole(shapes["au_nodes"])[-1]
        self.visual_shape = _whole(shapes["visual"])[1:]
        self.er_source = self.config.er_source
        source = _numbered(self.config) if self.random else _tokenizer(preset)
        try:
            self.words = CaptionTokenizer(source, self.config)
        except ValueError as error:
            raise EngineError(
                f"the engines of the caption network and the words in {tokenizer_folder(preset)} do not belong together: "
                f"{error}"
            ) from None

    @property
    def lexicon(self) -> AuLexicon:
        """Phrases that name action units."""
        return self.words.lexicon

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the emotions, in the network's words."""
        return self.config.classes

    def facts(self) -> dict[str, object]:
        """The engine that takes most of the time, for diagnostics."""
        return self._parts["fusion_step"].facts()

    def begin(self, visual: NDArray[np.float32], people: Sequence[Arrays]) -> Writing:
        """Captions of at most ``together`` people in one clip, for which the context is run now.

        ``visual [M, visual_width]``; ``people``: the inputs of ``prompt_head`` for each.
        """
        heads = [prompt(self.engines, features) for features in people]
        stepper = begin(self.engines, np.ascontiguousarray(visual[None], np.float32), heads, len(heads))
        return Writing(self, stepper, people, heads)

    def warmup(self) -> None:
        """Write a word for one person and for as many as are written together: every shape that will be met."""
        units = len(OPENGRAPHAU_MAIN)
        nobody = {
            "er": np.zeros((1, self.frames, self.er_width), np.float32),
            "au_nodes": np.zeros((1, self.frames, units, self.au_width), np.float32),
            "au_scores": np.zeros((1, self.frames, units), np.float32),
            "valid": np.ones((1, self.frames), np.bool_),
        }
        for people in range(1, self.together + 1):
            next(self.begin(np.zeros(self.visual_shape, np.float32), [nobody] * people).words())

    def close(self) -> None:
        """Free the engines; safe to call twice."""
        for engine in self.engines.values():
            engine.close()


class Writing:
    """The captions of some people in one clip, being written together.

    ``emotions``: class -> probability, for each person.
    """

    def __init__(
        self, network: CaptionNetwork, stepper: EngineStepper, people: Sequence[Arrays], heads: Sequence[Arrays]
    ) -> None:
        self._config, self._tokens, self._limits = network.config, network.words, network.limits
        self._stepper, self._people, self._heads = stepper, people, heads
        self.emotions = [dict(zip(network.classes, head["emotion"][0].tolist(), strict=True)) for head in heads]

    def words(self) -> Iterator[list[Draft]]:
        """What each person's caption is after each further word; the caller may stop in between."""
        found: list[Generated] = []
        for found in grow(self._stepper, len(self._heads), self._limits):
            yield [self._draft(one) for one in found]
        if not all(one.stopped for one in found):  # the last word has no vector yet
            longest = max(len(one.ids) for one in found)
            rows = [(*one.ids, *[self._limits.stop] * (longest - len(one.ids))) for one in found]
            self._stepper(torch.tensor(rows))

    def evidence(self, row: int, draft: Draft, text: str) -> tuple[AuEvidence, ...]:
        """For each content word of ``text``, the draft or its beginning, the action unit nearest to it.

        As :func:`emo_models.networks.ecpa.decode.explain`; indices of frames are those of the clip.
        """
        head, features = self._heads[row], self._people[row]
        vectors = self._stepper.vectors(row)[: len(draft.ids)]
        _, spans = self._tokens.decode(draft.ids[: len(vectors)])
        c, valid = self._config, torch.from_numpy(features["valid"])
        groups = frame_groups(valid, c.au_frames if c.au_pool == "per_frame" else 0)
        prompts = AuPrompts(
            torch.from_numpy(head["au_tokens"]),
            torch.from_numpy(head["prompts_valid"][:, -c.au_tokens :]),
            torch.from_numpy(head["au_index"]),
            torch.cat([group[:, None].expand(-1, c.top_k, -1) for group in groups], 1),
        )
        scores = torch.from_numpy(features["au_scores"][0])
        return explain_caption(text, spans, vectors, prompts, scores, lexicon=self._tokens.lexicon, row=0)

    def _draft(self, found: Generated) -> Draft:
        finished = found.stopped or len(found.ids) == self._limits.max_length
        probability = math.exp(found.log_prob / max(1, len(found.ids) - 1))
        return Draft(self._tokens.text(found.ids), found.ids, finished, probability)


def tokenizer_folder(preset: str) -> Path:
    """Where the words of the trained ECPA of a preset lie, beside its weights."""
    return cache_dir() / preset / "ecpa" / "tokenizer"


def _tokenizer(preset: str) -> PreTrainedTokenizerFast:
    folder = tokenizer_folder(preset)
    if not (folder / "tokenizer.json").is_file():
        remedy = (
            "type: make toy"
            if preset == "toy"
            else f"type: emo train RECIPE --deploy {preset}, or copy the folder 'tokenizer' there that lies beside the weights"
        )
        raise MissingWeights(
            f"the words of the caption network are missing: expected {folder}/tokenizer.json; {remedy}"
        )
    return load_tokenizer(folder)


def _numbered(config: EcpaConfig) -> PreTrainedTokenizerFast:
    """Words for a network of random weights, whose ids mean nothing: ``w17`` for 17."""
    words = {f"w{number}": number for number in range(config.words)}
    made: Any = PreTrainedTokenizerFast
    tokenizer: PreTrainedTokenizerFast = made(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0")))
    return tokenizer


def _common_config(parts: Mapping[str, Selection]) -> EcpaConfig:
    """The config of the one network that all engines were made of. Raises :class:`EngineError`."""
    first, manifest = WRITERS[0], parts[WRITERS[0]].manifest
    assert manifest is not None
    for name in WRITERS[1:]:
        other = parts[name].manifest
        assert other is not None
        if other.config != manifest.config or other.weights.origin != manifest.weights.origin:
            raise EngineError(
                f"the engines {first} (weights: {manifest.weights.origin}) and {name} (weights: {other.weights.origin}) "
                f"are of different caption networks; {_rebuild(manifest.preset)}"
            )
    if "vector" not in {spec.name for spec in parts["fusion_step"].engine.outputs}:
        raise EngineError(f"fusion_step was built by an older version, without 'vector'; {_rebuild(manifest.preset)}")
    return EcpaConfig.from_dict(manifest.config)


def _rebuild(preset: str) -> str:
    return f"type: emo engines build --profile {preset} " + " ".join(f"--network {name}" for name in WRITERS)


def _whole(shape: Sequence[int | None]) -> tuple[int, ...]:
    return tuple(size or 1 for size in shape)
