"""Who words an explanation: ``ranking`` (one sentence, maybe reworded), ``fame`` (the network), ``server`` (a language server).

``chat`` speaks with servers, ``patience`` knows when to try again and when to give up; ``fame_network`` loads FAME-Net
and its language model, ``fame_prompt`` asks it.
"""

from __future__ import annotations

from emo_perception.config import CauseConfig, ConfigError
from emo_perception.stages.cause.explainers.base import Cancelled, Explainer
from emo_perception.stages.cause.explainers.chat import ChatServer
from emo_perception.stages.cause.explainers.patience import PatientServer
from emo_perception.stages.cause.explainers.ranking import RankingExplainer
from emo_perception.stages.cause.explainers.server import ServerExplainer

__all__ = ["Cancelled", "Explainer", "chat_server", "make_explainer"]


def chat_server(config: CauseConfig) -> PatientServer | None:
    """The server of the parameters, None where there is none. Raises :class:`ConfigError` for one that cannot be."""
    server = ChatServer.of(config.chat_url, config.chat_model)
    if server is None and config.explainer == "server":
        raise ConfigError(
            f"{config.node}.chat_url: expected the server that explains, as http://localhost:8080/v1, got nothing; "
            "or choose another explainer"
        )
    return PatientServer(server) if server is not None else None


def make_explainer(config: CauseConfig) -> Explainer:
    """The explainer of ``config.explainer``.

    Raises :class:`ConfigError`, or where its network is missing ``WeightsError`` with the command to type.
    """
    server = chat_server(config)
    if config.explainer == "fame":
        from emo_perception.stages.cause.explainers.fame import FameExplainer

        return FameExplainer(config)
    if server is not None and config.explainer == "server":
        return ServerExplainer(config, server)
    return RankingExplainer(config, server)
