"""Who writes captions: the start stage out of what was measured, or ECPA. The node and the offline run know only this."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeAlias

from emo_models.engines import EngineError
from emo_perception.config import CaptionConfig
from emo_perception.stages.caption.stage import CaptionStage
from emo_perception.types import Caption, EmotionFeatures, VisualContext

Partial: TypeAlias = Callable[[Caption], None]
Clock: TypeAlias = Callable[[], float]


class CaptionWriter(Protocol):
    """Features and clips in, captions out; a stage that may say several things at once, or nothing.

    ``config`` may be replaced while it runs; ``visual``: it reads visual contexts too.
    """

    name: str
    config: CaptionConfig
    visual: bool

    def warmup(self) -> None:
        """Run every shape once."""

    def __call__(self, item: EmotionFeatures | VisualContext, arrived_s: float | None = None, /) -> list[Caption]:
        """What there is to say now; abstentions too. ``arrived_s``: when the item came, by the writer's clock; None: now.

        Raises :class:`EngineError` for an item that does not fit the engines, naming both and the parameter.
        """

    def idle(self) -> list[Caption]:
        """Nothing came for a while: give up what was waited for too long."""

    def flush(self) -> list[Caption]:
        """At the end of a stream: what is still to be said."""

    def reset(self) -> None:
        """Forget what was seen and said."""

    def close(self) -> None:
        """Free engines; safe to call twice."""

    def facts(self) -> dict[str, object]:
        """The engine, for diagnostics; empty without one."""

    def counts(self) -> dict[str, object]:
        """Counters for diagnostics."""


class EvidenceWriter:
    """:class:`CaptionStage` as a :class:`CaptionWriter`."""

    name = CaptionStage.name
    visual = False

    def __init__(self, config: CaptionConfig) -> None:
        self._stage = CaptionStage(config)

    @property
    def config(self) -> CaptionConfig:
        """Parameters."""
        return self._stage.config

    @config.setter
    def config(self, config: CaptionConfig) -> None:
        self._stage.config = config

    def warmup(self) -> None:
        self._stage.warmup()

    def __call__(self, item: EmotionFeatures | VisualContext, _arrived_s: float | None = None, /) -> list[Caption]:
        return _said(self._stage(item)) if isinstance(item, EmotionFeatures) else []

    def idle(self) -> list[Caption]:
        return []

    def flush(self) -> list[Caption]:
        return _said(self._stage.flush())

    def reset(self) -> None:
        self._stage.reset()

    def close(self) -> None:
        self._stage.close()

    def facts(self) -> dict[str, object]:
        return {}

    def counts(self) -> dict[str, object]:
        return {}


def make_writer(config: CaptionConfig, partial: Partial | None = None, clock: Clock = time.monotonic) -> CaptionWriter:
    """The writer that ``config`` names.

    ``partial`` hears the words of ECPA's captions as they are decided; ``clock`` (seconds) is what deadlines are
    measured with. Raises :class:`EngineError` and :class:`emo_models.weights.WeightsError`, which name what is missing
    and what to type.
    """
    if config.writer == "evidence":
        return EvidenceWriter(config)
    try:
        from emo_models.engines.caption_network import CaptionNetwork
        from emo_models.engines.captions import WRITERS
    except ModuleNotFoundError as error:
        raise EngineError(
            f"caption: writer ecpa needs {error.name}, which is not installed; type: make torch, or take writer evidence"
        ) from None
    from emo_perception.stages.caption.ecpa import EcpaWriter
    from emo_perception.stages.learned import engine_of

    network = CaptionNetwork(config.preset, {name: engine_of(name, config) for name in WRITERS})
    return EcpaWriter(config, network, partial, clock)


def _said(caption: Caption | None) -> list[Caption]:
    return [] if caption is None else [caption]
