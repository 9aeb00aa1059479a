"""BLEURT with a checkpoint from a folder (Sellam et al., 2020), through Google's own package, which runs on TensorFlow.

The package is on no registry: ``pip install git+https://github.com/google-research/bleurt``. The papers' negative values
come from one of the older checkpoints (bleurt-tiny, -base, -large), not from BLEURT-20.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from training.metrics.base import MetricError, hash_of


class BleurtScorer:
    """BLEURT by one checkpoint. Raises :class:`MetricError` when the package or the checkpoint is missing."""

    name: Final = "BLEURT"

    def __init__(self, folder: Path | str) -> None:
        folder = Path(folder)
        if not (folder / "bleurt_config.json").is_file():
            raise MetricError(f"{folder}: no BLEURT checkpoint there (bleurt_config.json is missing)")
        try:
            from bleurt.score import BleurtScorer as Scorer
        except ImportError as error:
            raise MetricError(
                f"BLEURT needs Google's package ({error}): pip install git+https://github.com/google-research/bleurt"
            ) from None
        self._scorer: Any = Scorer(str(folder))
        self.version = f"{folder.name} sha256 {hash_of(folder)}"

    def per_clip(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Sequence[float]:
        """The best value over the references of each prediction."""
        pairs = [(text, other) for text, others in zip(predictions, references, strict=True) for other in others]
        values = iter(
            self._scorer.score(references=[other for _, other in pairs], candidates=[text for text, _ in pairs])
        )
        return [max(float(next(values)) for _ in others) for others in references]
