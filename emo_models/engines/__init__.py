"""One protocol for every compiled network, several backends behind it.

``python -m pydoc emo_models.engines.select`` for loading, :mod:`.build` for making artefacts, :mod:`.backends` for what
runs them.
"""

from emo_models.engines.protocol import DeviceEngine, Engine, EngineError, TensorSpec, describe

__all__ = ["DeviceEngine", "Engine", "EngineError", "TensorSpec", "describe"]
