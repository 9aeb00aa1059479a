"""Public checkpoints into our networks, and our own weights to and from files.

``load_checkpoint(network, path, layout)`` reads a public file whose layout is in :data:`LAYOUTS`, ``load_release(network,
path, release)`` one that fills several parts; ``save_weights`` and ``load_weights`` are for weights made here, which
carry their card.
"""

from emo_models.checkpoints.layouts import LAYOUTS, RELEASES, Layout
from emo_models.checkpoints.load import LoadReport, load_checkpoint, load_parts, load_release, load_state
from emo_models.checkpoints.own import NetworkCard, load_weights, read_card, save_weights, weights_hash
from emo_models.checkpoints.read import CheckpointError, read_checkpoint

__all__ = [
    "LAYOUTS",
    "RELEASES",
    "CheckpointError",
    "Layout",
    "LoadReport",
    "NetworkCard",
    "load_checkpoint",
    "load_parts",
    "load_release",
    "load_state",
    "load_weights",
    "read_card",
    "read_checkpoint",
    "save_weights",
    "weights_hash",
]
