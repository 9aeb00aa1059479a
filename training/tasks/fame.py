"""FAME-Net as a task: g and the rows of the new tokens learn, CLIP, the language model and the face network do not.

The loss is on the words of the answer alone. What a question is asked with is an option, for the ablation of the
paper's Table 4 (:mod:`training.tasks.questions`). Evaluation is by generation, as the network is used.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from emo_models.checkpoints import NetworkCard
from emo_models.networks.clip_vision import ClipVisionConfig
from emo_models.networks.fame import FAME
from emo_models.networks.fame.model import CauseExample
from emo_models.networks.fame.prompt import EncodedPrompt, PromptTokenizer
from emo_models.weights import cache_dir
from training.datasets import Record, read_dataset
from training.evaluation.predictions import Prediction, write_predictions
from training.metrics.captions import score_captions
from training.metrics.causes import cause_mentioned
from training.prepare.cumulative import CumulativeVideos, pieces
from training.prepare.splits import KINDS
from training.prepare.video import Video
from training.tasks.clip import clip_transform
from training.tasks.fame_align import align
from training.tasks.fame_build import build, face_network
from training.tasks.fame_data import ClipEvidence, FaceReader
from training.tasks.fame_truth import Causes, FacesOf, causes_of, faces_of
from training.tasks.questions import Inputs, dialogue_of, emotion_of, question
from training.trainer.recipe import Recipe, RecipeError, read_options
from training.trainer.task import BaseTask, DoomedRunError

log = logging.getLogger(__name__)

#: Of the caption scorers, what the paper's tables have, the primary one first.
CAPTION_METRICS: Final = ("CIDEr", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L")


@dataclass(frozen=True)
class FameOptions:
    """What a recipe of this task can say under ``options``.

    ``inputs``: ``V+T+E``, a part of it, or ``none``. ``instruction``: ``ecem``, the wording of ECEM's items, or ``static``,
    which does not name the target, so that a robot can run all of it and the history before the target is spoken. ``split``: the data's own parts, or how to divide all its records;
    ``paper_like`` puts one dialogue on both sides and is refused unless ``allow_leakage`` says that this is known.
    ``meld``: folder of MELD, out of which the cumulative clips are made; empty where the data has its clips.
    ``rate_hz``: base rate of the grid of frames. ``faces``: ``stage`` finds people as at run time and calls them ``person
    1`` and so on, ``truth`` takes the exact points and names of a toy world, never their emotions, ``points`` its points
    alone: a robot seldom knows whose face it sees. ``face_frames``: so
    many frames of each person are looked at; ``face_utterances``: in each of the last so many utterances, a person's face
    in an utterance being a track of its own, as a film's cut ends a track; 0: in the clip as a whole. ``features``: folder of the stores, empty for one in the cache of weights.
    ``align``: folder, seen from the data's, of pictures with captions that g starts from
    (:mod:`training.tasks.fame_align`), empty for random or ``network.weights.projector``. ``meteor``: False spares its seconds. ``baseline``: for other models, :mod:`training.tables.baselines`.
    """

    inputs: str = "V+T+E"
    instruction: Literal["ecem", "static"] = "ecem"
    split: Literal["own", "dialogue_disjoint", "paper_like"] = "own"
    allow_leakage: bool = False
    meld: str = ""
    rate_hz: float = 10.0
    faces: FacesOf = "stage"
    face_frames: int = 16
    face_utterances: int = 0
    features: str = ""
    align: str = ""
    meteor: bool = True
    baseline: Mapping[str, Any] = field(default_factory=dict)
    licence: str = "research only"


class Questions(Dataset[CauseExample]):
    """Questions with their evidence and the answers; while training one of several answers is drawn."""

    def __init__(self, task: FAMETask, records: list[Record], *, train: bool) -> None:
        self.task, self.records, self.train = task, records, train
        self._prompts: dict[int, EncodedPrompt] = {}

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> CauseExample:
        record = self.records[index]
        features = self.task.features(record)
        if index not in self._prompts:
            self._prompts[index] = self.task.prompt(record, len(features))
        number = int(self.task.rng(index).integers(len(record.captions))) if self.train else 0
        return CauseExample(features, self._prompts[index], self.task.prompts.answer(record.captions[number]))


class FAMETask(BaseTask):
    """Trains :class:`emo_models.networks.fame.FAME`. Raises :class:`RecipeError` where recipe, data and network differ."""

    network: FAME

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.options = read_options(FameOptions, recipe.options)
        try:
            self.inputs = Inputs.parse(self.options.inputs)
        except ValueError as error:
            raise RecipeError(f"options.{error}") from None
        self.data = read_dataset(recipe.data.name, Path(recipe.data.root), **recipe.data.options)
        self.records = self._divided()
        self.network, tokenizer = build(recipe.network)
        if self.options.align and self.inputs.video:
            folder = Path(recipe.data.root).expanduser() / Path(self.options.align).expanduser()
            align(self.network, tokenizer, self._transform(), folder)
        self.prompts: PromptTokenizer = self.network.tokenizer(tokenizer)
        self.truth: Causes | None = causes_of(Path(recipe.data.root).expanduser())
        self.evidence = self._evidence() if self.inputs.video or self.inputs.faces else None
        self._prepared: set[str] = set()

    # -- what is trained -----------------------------------------------------------------------------------------------

    def dataset(self, split: str) -> Questions:
        """Records with an answer; what the frozen networks see of their clips is computed now, where it is not stored."""
        records = [record for record in self.records[split] if record.captions and emotion_of(record)]
        if self.evidence is not None:
            records = [record for record in records if self._has_video(record)]
            bad = self.evidence.prepare(record for record in records if record.clip_id not in self._prepared)
            records = [record for record in records if record.clip_id not in bad]
            self._prepared |= {record.clip_id for record in records}
        if not records:
            raise RecipeError(
                f"data: no utterance with an explanation and a clip in the split {split!r} of {self.data.name} in "
                f"{self.data.root}; see: emo data check {self.data.name} {self.data.root}"
            )
        return Questions(self, records, train=split == "train")

    def collate(self, items: list[CauseExample]) -> list[CauseExample]:
        """As they are: the network pads."""
        return items

    def loss(self, batch: list[CauseExample]) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of the answers' words."""
        device = self.network.new_tokens.device
        return self.network([dataclasses.replace(one, features=one.features.to(device)) for one in batch]), {}

    def check_first_loss(self, loss: float) -> None:
        try:
            self.network.check_first_loss(loss)
        except RuntimeError as error:
            raise DoomedRunError(str(error)) from None

    # -- what it is worth ----------------------------------------------------------------------------------------------

    def evaluate(self, split: str) -> dict[str, float]:
        """Scores of the written explanations, CIDEr first; ``predictions-DATA-SPLIT.jsonl`` in the run's folder."""
        data = self.dataset(split)
        texts = {record.clip_id: self.explain(record) for record in data.records}
        self._write(data.records, texts, split)
        scores = score_captions(texts, {r.clip_id: self._right(r) for r in data.records}, meteor=self.options.meteor)
        metrics: dict[str, float] = {name: scores.values[name] for name in CAPTION_METRICS if name in scores.values}
        return {**metrics, **self._causes(texts)}

    def explain(self, record: Record) -> str:
        """The explanation of a prepared record."""
        features = self.features(record).to(self.network.new_tokens.device)
        return "".join(self.network.explain(self.prompt(record, len(features)), features, self.prompts)).strip()

    def features(self, record: Record) -> Tensor:
        """R, or no rows where the video is left out."""
        if not self.inputs.video or self.evidence is None:
            return torch.zeros(0, self.network.clip.config.dim)
        return self.evidence[record.clip_id].features

    def prompt(self, record: Record, rows: int) -> EncodedPrompt:
        """The question, with what the inputs allow."""
        faces = self.evidence[record.clip_id].faces if self.inputs.faces and self.evidence is not None else ()
        return self.prompts(
            question(record, faces, self.inputs, self.options.instruction), rows, self.network.config.max_length
        )

    def card(self) -> NetworkCard:
        return NetworkCard(
            "fame", self.network.config.to_dict(), (), {"frames": dataclasses.asdict(self._transform())},
            self.options.licence, (self.data.name,), notes=self._asked(),
        )  # fmt: skip

    def _asked(self) -> dict[str, Any]:
        """How the network was asked, which is how it must be asked later."""
        o = self.options
        return {
            "inputs": str(self.inputs), "instruction": o.instruction, "face_utterances": o.face_utterances,
            "rate_hz": o.rate_hz,
        }  # fmt: skip

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _divided(self) -> dict[str, Sequence[Record]]:
        if self.options.split == "own":
            return {split: self.data.split(split) for split in ("train", "val", "test")}
        split = KINDS[self.options.split](self.data.records, self.recipe.seed, (0.8, 0.1, 0.1))
        divided = split.apply(self.data.records, allow_leakage=self.options.allow_leakage)
        return {part: [record for record in divided if record.split == part] for part in ("train", "val", "test")}

    def _evidence(self) -> ClipEvidence:
        root = Path(self.recipe.data.root).expanduser().resolve()
        self._cumulative: CumulativeVideos | None = None
        if self.options.meld:
            meld = read_dataset("meld", Path(self.options.meld))
            self._cumulative = CumulativeVideos(pieces(meld.records))
        faces = None
        if self.inputs.faces:
            finder, names = faces_of(self.options.faces, root)
            faces = FaceReader(
                *face_network(self.recipe.network.weights),
                finder,
                names,
                self.options.face_frames,
                self.options.face_utterances,
            )
        folder = Path(self.options.features) if self.options.features else cache_dir() / "features"
        return ClipEvidence(
            self.network, self._transform(), folder, video=self._video, rate_hz=self.options.rate_hz, faces=faces,
            data=f"{self.data.name} {root}",
        )  # fmt: skip

    def _transform(self) -> Any:
        return clip_transform(ClipVisionConfig.from_preset(self.network.config.clip).image)

    def _has_video(self, record: Record) -> bool:
        return record.source is not None if self._cumulative is None else self._cumulative.has(record)

    def _video(self, record: Record) -> Video:
        return Video.of(record) if self._cumulative is None else self._cumulative(record)

    def _right(self, record: Record) -> tuple[str, ...]:
        """All right explanations that are known."""
        known = self.truth.references.get(record.clip_id, ()) if self.truth is not None else ()
        return known or record.captions

    def _causes(self, texts: Mapping[str, str]) -> dict[str, float]:
        """Does the explanation name the true cause? Known exactly in a toy world, unknown elsewhere."""
        if self.truth is None:
            return {}
        known = {clip: text for clip, text in texts.items() if clip in self.truth.evidence}
        found = cause_mentioned(known, self.truth.evidence, self.truth.kinds, others=self.truth.others)
        kinds = {f"cause named, {kind}": share for kind, share in found.per_kind.items()}
        return {"cause named": found.accuracy, **kinds}

    def _write(self, records: Sequence[Record], texts: Mapping[str, str], split: str) -> None:
        rows = []
        for record in records:
            dialogue = dialogue_of(record)
            said = [f"{line.speaker}: {line.text}" for line in (*dialogue.history, dialogue.target)]
            clip, truth = record.clip_id, self.truth
            rows.append(Prediction(
                clip, texts[clip], references=record.captions, context=" / ".join(said),
                cause_phrases=tuple(truth.evidence.get(clip, ())) if truth is not None else (),
                other_phrases=tuple(truth.others.get(clip, ())) if truth is not None else (),
                kind=truth.kinds.get(clip, "") if truth is not None else "",
            ))  # fmt: skip
        write_predictions(self.recipe.folder / f"predictions-{self.data.name}-{split}.jsonl", rows)
