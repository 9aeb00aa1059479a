"""What a frozen network makes of prepared clips, computed once and kept under the hash of its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from training.prepare.clips import PreparedClip
from training.prepare.store import FeatureStore

if TYPE_CHECKING:
    from torch import nn

Compute = Callable[[Sequence[PreparedClip]], Sequence[Mapping[str, NDArray[Any]]]]
"""Clips -> arrays of each, in the same order. A feature may not depend on which clips share a batch."""


def network_producer(clips: FeatureStore, **networks: nn.Module) -> dict[str, str]:
    """The producer of features: that of the clips they are made of, and the hash of every network's weights by name."""
    from emo_models.checkpoints import weights_hash

    hashes = {f"network_{name}": weights_hash(network.state_dict()) for name, network in networks.items()}
    return {**(clips.producer or {}), **hashes}


def compute_features(
    clips: FeatureStore,
    features: FeatureStore,
    compute: Compute,
    *,
    ids: Iterable[str] | None = None,
    batch: int = 8,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Fill ``features`` with what ``compute`` makes of the clips it lacks (all, or ``ids``); returns how many were made.

    Killed, it goes on where it was. Raises ``ValueError`` when ``compute`` gives another number of results than clips,
    and as :meth:`FeatureStore.get` and :meth:`FeatureStore.put`.
    """
    missing = features.missing(clips if ids is None else ids)
    with features:
        for first in range(0, len(missing), batch):
            chosen = missing[first : first + batch]
            made = compute([PreparedClip.of(clips.get(clip_id)) for clip_id in chosen])
            if len(made) != len(chosen):
                raise ValueError(f"expected features of {len(chosen)} clips, got {len(made)}")
            for clip_id, arrays in zip(chosen, made, strict=True):
                features.put(clip_id, arrays)
            if progress is not None:
                progress(first + len(chosen))
    return len(missing)
