"""The engine of a stage that runs a built network, as its parameters ask for it."""

from __future__ import annotations

from emo_models.engines import EngineError
from emo_models.engines.select import Selection, select
from emo_perception.config import LearnedConfig


def engine_of(name: str, config: LearnedConfig) -> Selection:
    """The engine ``name`` of the catalogue in the size, precision and kind of weights that a node is configured for.

    Raises :class:`EngineError` naming the node, and what to type.
    """
    try:
        return select(
            name, config.preset, precision=config.precision, threads=config.threads, random=config.weights == "random"
        )
    except EngineError as error:
        raise EngineError(f"{config.node}: {error}") from None
