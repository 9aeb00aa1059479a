"""BERTScore with a model from a folder (Zhang et al., 2020): greedy cosine matching of contextual token vectors.

Written against transformers, whose fifth version the package bert-score does not run with. Kept from it: the vectors are
those of one hidden layer, precision is the mean over the caption's tokens of their best match among the reference's,
recall the other way round; start and end tokens carry no weight but may be matched; of several references the best of
each figure counts; no rescaling by a baseline. A figure says nothing without its model, so the folder's hash is logged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from training.metrics.base import MetricError, hash_of

if TYPE_CHECKING:
    from torch import Tensor

#: Kind of model and its layers -> the layer that agrees best with people, as the authors of BERTScore measured.
BEST_LAYER: Final[dict[tuple[str, int], int]] = {
    ("bert", 12): 9, ("bert", 24): 18, ("roberta", 12): 10, ("roberta", 24): 17, ("distilbert", 6): 5,
    ("deberta", 12): 9, ("deberta", 24): 16, ("deberta", 48): 40, ("xlm-roberta", 12): 9, ("xlm-roberta", 24): 17,
}  # fmt: skip


@dataclass(frozen=True)
class BertScores:
    """Per caption, in the order they came."""

    precision: tuple[float, ...]
    recall: tuple[float, ...]
    f1: tuple[float, ...]

    @property
    def mean_f1(self) -> float:
        """Mean over the captions."""
        return sum(self.f1) / len(self.f1)


class BertScorer:
    """BERTScore by one model.

    Args:
        folder: configuration, tokenizer and weights as ``save_pretrained`` writes them; nothing is downloaded.
        layer: hidden layer to compare, 1 is the first; None: the authors' choice for that kind of model.
        batch: texts per run of the model.
        device: where it runs.

    Raises:
        MetricError: no model in the folder, a layer that it does not have, or torch and transformers missing.

    """

    name: Final = "BERTScore"

    def __init__(self, folder: Path | str, layer: int | None = None, *, batch: int = 64, device: str = "cpu") -> None:
        self.folder, self.batch, self.device = Path(folder), batch, device
        self.tokenizer, self.model = _load(self.folder)
        self.model.to(device).eval()
        config = self.model.config
        layers = int(config.num_hidden_layers)
        chosen = layer if layer is not None else BEST_LAYER.get((config.model_type, layers))
        if chosen is None or not 1 <= chosen <= layers:
            raise MetricError(
                f"{self.folder} is a {config.model_type} of {layers} layers: say which one to compare, 1 to {layers} "
                f"(layer={chosen})"
            )
        self.layer: int = chosen
        self.version = (
            f"{self.folder.name} sha256 {hash_of(self.folder)}, {config.model_type}, layer {self.layer} of {layers}"
        )

    def score(self, candidates: Sequence[str], references: Sequence[str | Sequence[str]]) -> BertScores:
        """Precision, recall and F1 of each candidate against its reference or the best of its references.

        A text without words scores 0. Raises :class:`MetricError` when the two are not equally many or there are none.
        """
        if len(candidates) != len(references) or not candidates:
            raise MetricError(f"expected as many candidates as references; got {len(candidates)} and {len(references)}")
        lists = [[texts] if isinstance(texts, str) else list(texts) for texts in references]
        if not all(lists):
            raise MetricError(f"candidate {lists.index([])} has no reference")
        vectors = self._vectors({*candidates, *(text for texts in lists for text in texts)})
        rows = []
        for candidate, texts in zip(candidates, lists, strict=True):
            each = [_match(vectors[candidate], vectors[text]) for text in texts]
            rows.append(tuple(max(figures) for figures in zip(*each, strict=True)))
        precision, recall, f1 = zip(*rows, strict=True)
        return BertScores(precision, recall, f1)

    def per_clip(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Sequence[float]:
        """F1 of each prediction, as :class:`training.metrics.captions.ExtraScorer`."""
        return self.score(predictions, references).f1

    def _vectors(self, texts: set[str]) -> dict[str, tuple[Tensor, Tensor]]:
        """Unit vectors ``[n, d]`` of a text's tokens and bool ``[n]``, which of them carry weight."""
        import torch

        # Words that the tokenizer does not know count, as they do in bert-score.
        special = {self.tokenizer.cls_token_id, self.tokenizer.sep_token_id}
        ordered = sorted(texts, key=lambda text: (len(text), text))
        limit = min(int(self.tokenizer.model_max_length), int(self.model.config.max_position_embeddings) - 2)
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for start in range(0, len(ordered), self.batch):
            some = ordered[start : start + self.batch]
            encoded = self.tokenizer(
                [text.strip() for text in some], padding=True, truncation=True, max_length=limit, return_tensors="pt"
            ).to(self.device)
            with torch.inference_mode():
                states = self.model(**encoded, output_hidden_states=True).hidden_states[self.layer]
            states = torch.nn.functional.normalize(states.float(), dim=-1)
            for row, text in enumerate(some):
                kept = encoded["attention_mask"][row].bool()
                ids = encoded["input_ids"][row][kept].tolist()
                found[text] = (states[row][kept], torch.tensor([token not in special for token in ids]))
        return found


def _match(candidate: tuple[Tensor, Tensor], reference: tuple[Tensor, Tensor]) -> tuple[float, float, float]:
    (ours, our_weight), (theirs, their_weight) = candidate, reference
    if not our_weight.any() or not their_weight.any():
        return 0.0, 0.0, 0.0
    similarity = (ours @ theirs.T).cpu()
    precision = float(similarity.max(1).values[our_weight].mean())
    recall = float(similarity.max(0).values[their_weight].mean())
    both = precision + recall
    return precision, recall, 2 * precision * recall / both if both else 0.0


def _load(folder: Path) -> tuple[Any, Any]:
    if not (folder / "config.json").is_file():
        raise MetricError(
            f"{folder}: no model there (config.json is missing); BERTScore reads a folder with configuration, tokenizer "
            "and weights, as 'save_pretrained' of transformers writes them"
        )
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise MetricError(f"BERTScore needs torch and transformers ({error}); type: make torch") from None
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        model = AutoModel.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise MetricError(f"{folder}: the model cannot be read: {error}") from None
    return tokenizer, model
