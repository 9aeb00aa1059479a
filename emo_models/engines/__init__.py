"""One protocol for every compiled network, several backends behind it."""

from emo_models.engines.protocol import Engine, EngineError, TensorSpec

__all__ = ["Engine", "EngineError", "TensorSpec"]
